"""Compares our spectrum metrics with the recorded outputs of the reference implementations (item 07a)."""

import json
from pathlib import Path

import numpy as np
import torch

from fullrank.collapse import Moments, auc, cumulative_curve, level, rankme


def our_arrays(x: torch.Tensor) -> dict[str, np.ndarray]:
    """Every array of item 07a that this package can compute, under its name there."""
    normalised = x / (1e-6 + x.norm(dim=1, keepdim=True))  # the reference's normalisation, eps and all
    arrays = {}
    for prefix, rows in (("out.", x), ("out.normalized_", normalised)):
        moments = Moments.of(rows)
        sigma = moments.singular_values()
        arrays[prefix + "svd"] = sigma
        arrays[prefix + "svd_relative"] = sigma / sigma[0]
        arrays[prefix + "svd_cumulative"] = cumulative_curve(sigma)
        arrays[prefix + "svd_auc"] = np.array(auc(sigma))
        arrays[prefix + "std"] = moments.variances.sqrt().numpy()
    arrays["out.rankme"] = np.array(rankme(x, eps=1e-5))
    arrays["out.rankme_entropy"] = np.log(arrays["out.rankme"])
    arrays["out.rankme_top_singular_value"] = Moments.of(x).singular_values(centred=False)[0]
    arrays["out.std_of_l2_normalized"] = np.array(level(x) / x.shape[1] ** 0.5)
    return arrays


def compare_spectra(directory: Path) -> dict[str, int]:
    """Asserts `max|a - e| <= rtol max|e| + atol` for every `07a*` file; returns arrays compared per file."""
    compared = {}
    for path in sorted(directory.glob("07a*.npz")):
        tolerance = json.loads(path.with_suffix(".json").read_text())["tolerance"]
        with np.load(path) as expected:
            ours = our_arrays(torch.from_numpy(expected["in.x"]))
            for name, obtained in ours.items():
                rule = tolerance["per_array"].get(name, tolerance["default"])
                error = np.abs(obtained - expected[name]).max()
                bound = rule["rtol"] * np.abs(expected[name]).max() + rule["atol"]
                assert obtained.shape == expected[name].shape, (path.stem, name, obtained.shape)
                assert error <= bound, (path.stem, name, error, bound)
        compared[path.stem] = len(ours)
    return compared
