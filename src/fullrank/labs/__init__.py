"""The papers' experiments: short scripts over other packages, run by one command.

A new lab is a folder here with a `lab.py` in it, and nothing else: `fullrank lab NAME`, `fullrank list labs`,
the docs and the contract tests find it. It names its jobs and analyses their results; the process pool, the
page, `lab.json` and the figures are the same for all. `docs/add_a_lab.md` shows a whole one.
"""

from fullrank.jobs.job import Job, Settings
from fullrank.labs._common.findings import Chapter, Claim, Findings, above, holds, spread
from fullrank.labs._common.lab import LABS, Lab, read_presets
from fullrank.labs._common.results import Result, Results, joined
from fullrank.registry import discover

__all__ = [
    "LABS", "Chapter", "Claim", "Findings", "Job", "Lab", "Result", "Results", "Settings", "above", "holds",
    "joined", "read_presets", "spread",
]  # fmt: skip

discover(__name__, __file__, "[!_]*/lab.py", LABS, how='put @LABS.register("name") above the class')
