"""The papers' experiments: each a short script over the storeys below, run by one command.

A lab says what its cells are and what their results come to; everything else is the same for all of them:
`cells` runs them side by side and takes up what was killed, `page` writes `lab.json`, the page and the
figures. A whole lab, as it would stand in a file of its own (its name goes into the list below):

>>> from fullrank.figures import Dots
>>> from fullrank.labs._common.findings import Chapter, Findings
>>> from fullrank.labs._common.claims import above
>>> from fullrank.labs._common.lab import LABS, Job, Lab
>>> class Bias(Lab):
...     title = "How far the spread of a sample is off"
...     paper = "Bessel (1818)"
...     says = "The plug-in variance of n values is too small by the factor (n - 1) / n."
...     presets = {"laptop": {"sizes": (5, 50)}, "paper": {"sizes": (5, 50, 500)}}
...
...     def cells(self, preset, part, seed):  # all cells of one seed; a training run has `train={...}`
...         for n in preset["sizes"]:
...             yield Job(f"n = {n}", seed, measure=plug_in_variance, arguments={"n": n, "seed": seed})
...
...     def analyse(self, results, preset):
...         found = {arm: results.values(arm, "variance") for arm in results.arms}
...         small, large = list(found.values())[0], list(found.values())[-1]
...         dots = Dots("Plug-in variance", "One dot a seed.", "variance", found, references={"true": 1.0})
...         claims = [above("It grows with n.", large, small, "variance with most values", "with fewest")]
...         return Findings([Chapter("Spread", [dots])], claims, seen=claims[0].told)
>>> def plug_in_variance(n, seed):  # of a module, so that another process finds it; returns what JSON holds
...     import numpy as np
...     return {"variance": float(np.random.default_rng(seed).standard_normal(n).var())}
>>> cells = [cell for seed in (0, 1, 2) for cell in Bias().cells(Bias.presets["laptop"], "", seed)]
>>> [cell.name for cell in cells[:2]]
['n = 5, seed 0', 'n = 50, seed 0']

`@LABS.register("bias")` above the class is all that `fullrank lab bias` needs.
"""

import pkgutil
from importlib import import_module

from fullrank.labs._common.lab import LABS, Job, Lab

__all__ = ["LABS", "Job", "Lab"]

for _found in pkgutil.iter_modules(__path__):  # a folder with a lab.py is enough
    if not _found.name.startswith("_"):
        import_module(f"fullrank.labs.{_found.name}.lab")
