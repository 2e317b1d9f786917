"""How long one waits for the first answer: `fullrank --help`, and what an import costs beyond torch's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from measuring import Row, in_turns

COMMAND = Path(sys.executable).with_name("fullrank")
LEAST = 7  # turns: a fresh process varies more than a long computation
# timed inside one process: `import torch` alone varies by more from process to process than what is asked for
BEYOND = """
import time, torch
start = time.perf_counter()
import fullrank.collapse
print(time.perf_counter() - start)
"""


def rows(repeats: int) -> list[Row]:
    """Fresh processes in turns, after one of each that fills the file cache."""
    ways = {
        "help": lambda: _run(str(COMMAND), "--help"),
        "collapse": lambda: _run(sys.executable, "-c", BEYOND),
    }
    in_turns(1, ways)
    seconds, said = in_turns(max(repeats, LEAST), ways)
    beyond = tuple(float(text) for text in said["collapse"])
    return [
        Row("fullrank --help", "", tuple(seconds["help"]), 0.5, at_most=True, unit="s"),
        Row("import fullrank.collapse", "beyond import torch", beyond, 0.15, at_most=True, unit="s"),
    ]


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
