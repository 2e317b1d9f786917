"""The papers' experiments: short scripts over other packages, run by one command.

A new lab is a folder here with a `lab.py` in it, and nothing else: `fullrank lab NAME`, `fullrank list labs`,
the docs and the contract tests find it. It names its jobs and analyses their results; the process pool, the
page, `lab.json` and the figures are the same for all. A whole `lab.py`:

>>> from fullrank.labs._common.findings import Chapter, Findings
>>> from fullrank.labs._common.lab import LABS, Job, Lab
>>> def plug_in_variance(n, seed):  # of a module, so that another process finds it; returns what JSON holds
...     import numpy as np
...     return {"variance": float(np.random.default_rng(seed).standard_normal(n).var())}
>>> class Bias(Lab):  # under @LABS.register("bias")
...     title = "How far the spread of a sample is off"
...     paper = "Bessel (1818)"
...     says = "The plug-in variance of n values is too small by the factor (n - 1) / n."
...     presets = {"laptop": {"sizes": (5, 50)}, "paper": {"sizes": (5, 50, 500)}}
...
...     def jobs(self, preset, part, seed):  # all jobs of one seed; a training run has `train={...}`
...         for n in preset["sizes"]:
...             yield Job(f"n = {n}", seed, measure=plug_in_variance, arguments={"n": n, "seed": seed})
...
...     def analyse(self, results, preset):
...         small, large = results.arms[0], results.arms[-1]
...         dots = results.dots("Plug-in variance", "One dot a seed.", "variance", "variance", {"true": 1.0})
...         claim = results.above("It grows with n.", "variance", large, small, "with most values", "fewest")
...         return Findings([Chapter("Spread", [dots])], [claim], seen=claim.evidence)
>>> from fullrank.labs._common.results import Result, Results
>>> jobs = [job for seed in (0, 1, 2) for job in Bias().jobs(Bias.presets["laptop"], "", seed)]
>>> [job.name for job in jobs[:2]]
['n = 5, seed 0', 'n = 50, seed 0']
>>> done = [Result("", job.arm, job.seed, None, job.measure(**job.arguments)) for job in jobs]
>>> Bias().analyse(Results(done), Bias.presets["laptop"]).claims[0].verdict
'not decidable'
"""

from importlib import import_module
from pathlib import Path

from fullrank.jobs.job import Job
from fullrank.labs._common.lab import LABS, Lab

__all__ = ["LABS", "Job", "Lab"]

for _lab in sorted(Path(__file__).parent.glob("[!_]*/lab.py")):
    import_module(f"fullrank.labs.{_lab.parent.name}.lab")
