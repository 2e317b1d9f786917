"""The way of all lines to the terminal: control characters are shown, not sent.

Names of files and texts within them may hold escape codes that recolour, overwrite or hide what stands on a
terminal, or that turn the direction of reading.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO

from fullrank.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


RANKS = (
    ("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"), ("LOCAL_RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"),
)  # fmt: skip
"""Variables of torchrun, SLURM, Fabric and MPI: which process this is, and of how many."""


def speaks() -> bool:
    """Whether this process is the first of those that share a run, and prints.

    Known before they have met, by the environment that their launcher gives them; afterwards also of those
    of several machines without a launcher.

    Example:
        >>> speaks()
        True
    """
    if any(os.environ.get(rank, "0").strip("0") and world in os.environ for rank, world in RANKS):
        return False
    met = sys.modules.get("torch.distributed")
    return not (met and met.is_available() and met.is_initialized() and met.get_rank())


def say(line: str, file: TextIO | None = None) -> None:
    r"""Print one line with its control characters escaped, newlines among them.

    Example:
        >>> say("written a\x1b[31m\n.npy")
        written a\x1b[31m\n.npy
    """
    print(printable(line), file=file or sys.stdout, flush=True)


def say_prose(text: str) -> None:
    """Print sentences, broken between words on a terminal, else in one line.

    Example:
        >>> say_prose("The loss does not see collapse.")
        The loss does not see collapse.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) if width else [text]
    for line in lines:
        say(line)


def terminal(**options: Any) -> Console:
    r"""Make a console of rich that escapes control characters in all it renders.

    Args:
        options: of `rich.console.Console`.

    Example:
        >>> terminal(width=40).print("a\x1b[31m.npy", markup=False)
        a\x1b[31m.npy
    """
    if "file" in options:  # in a notebook rich would show it there, and write nothing
        options = {"force_jupyter": False} | options
    return _console_class()(**options)  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _console_class() -> Any:
    from rich.console import Console
    from rich.segment import Segment

    class EscapingConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable() or segment.text == "\n":
                    yield segment
                else:
                    yield Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)

    return EscapingConsole
