"""Recordings of single losses, metrics, schedules and steps in odd sizes, for the runner's own tests."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from golden.written import Array, Recipe, named, recipe

Draw = np.random.Generator


def normal(draw: Draw, *names: str, shape: tuple[int, ...]) -> dict[str, Array]:
    return {name: draw.standard_normal(shape) for name in names}


@recipe("01_simsiam_byol__odd")
def regressions(draw: Draw) -> Recipe:
    outputs = ["simsiam_symmetric", "byol_sum_of_views", "byol_l2_one_way", "z_std_simsiam"]
    outputs += [
        f"{kind}_one_way_simplified_{form}" for kind in ("simsiam", "byol") for form in ("True", "False")
    ]
    gradients = [f"grad.{name}/p1" for name in outputs if name != "z_std_simsiam"]
    variants = ["alt.byol_ncs_one_way", "alt.byol_ncs_grad_x", "alt.byol_ncs_grad_y"]
    inputs = normal(draw, "p1", "p2", "z1", "z2", shape=(7, 5))
    return Recipe({"n": 7, "d": 5}, inputs, named(*(f"out.{n}" for n in outputs), *gradients, *variants))


@recipe("01_simsiam_byol__single")
def regressions_in_single(draw: Draw) -> Recipe:
    inputs = normal(draw, "p1", "p2", "z2", shape=(9, 3))  # without z1
    outputs = named("out.byol_l2_one_way", "grad.byol_l2_one_way/p1", "out.simsiam_one_way_simplified_True")
    return Recipe({"n": 9, "d": 3, "dtype": "torch.float32"}, inputs, outputs, dtype="float32")


@recipe("02_directpred__odd")
def directpred(draw: Draw) -> Recipe:
    root = draw.standard_normal((6, 6))
    inputs = normal(draw, "z1", "z2", "zt1", "zt2", shape=(9, 6)) | {"C_prev": root @ root.T}
    configs = ["a0.7_norm1_eps0.03", "a1.0_norm0_eps0.2", "a1.0_norm1_eps0.2"]
    kinds = ["pred_cos", "pred_l2", "iso_cos", "iso_l2"]
    losses = [f"{config}/train_loss_{kind}" for config in configs for kind in kinds]
    rest = ("C_after_view1", "C_after_both_views", "Wp_view1", "p1", "eigenvalues_sorted", "z_std")
    outputs = named(
        *(f"out.{loss}" for loss in losses), *(f"grad.{loss}/{z}" for loss in losses for z in ("z1", "z2"))
    )
    outputs |= named(*(f"out.{config}/{name}" for config in configs for name in rest))
    return Recipe({"n": 9, "d": 6, "tau": 0.35, "C_prev": "spd", "configs": configs}, inputs, outputs)


@recipe("03_isoloss__odd")
def isoloss(draw: Draw) -> Recipe:
    inputs = normal(draw, "p", "psqrt", "z", "zt", shape=(5, 3))
    outputs = named("out.cos", "out.l2", *(f"grad.{k}/{x}" for k in ("cos", "l2") for x in inputs))
    return Recipe({"n": 5, "d": 3}, inputs, outputs)


@recipe("04_rdm__odd")
def rdm(draw: Draw) -> Recipe:
    settings = ["online_poly_sigma0.3", "target_poly_sigma-0.25", "online_log_2"]
    names = ("transformed", "simsiam_one_way", "simsiam_total", "byol_one_way")
    outputs = named(*(f"out.{s}/{n}" for s in settings for n in names))
    outputs |= named(*(f"grad.{s}/simsiam_total/{z}" for s in settings for z in ("z1", "z2")))
    return Recipe({"n": 11, "d": 4}, normal(draw, "z1", "z2", shape=(11, 4)), outputs)  # without imagenet_*


@recipe("05_cplearn__odd")
def cplearn(draw: Draw) -> Recipe:
    inputs = normal(draw, "feats1", "feats2", shape=(6, 5))
    inputs |= {
        "W": np.sign(draw.standard_normal((7, 9))).astype(np.int8),
        "linear_weight": draw.standard_normal((7, 5)),
    }
    inputs |= normal(draw, "linear_bias", "bn_weight", "bn_bias", shape=(7,))
    outputs = named(
        "out.temperature", "out.bn_out1", "out.tanh2", "out.scores1", "out.probs2", "out.beta0.3/loss"
    )
    outputs |= named("grad.beta0.3/scores1", "grad.beta0.3/feats2", "grad.beta0.3/bn_weight")
    return Recipe({"n": 6, "features": 5, "hidden": 7, "codes": 9}, inputs, outputs)


@recipe("06a_barlow_twins__odd")
def barlow_twins(draw: Draw) -> Recipe:
    outputs = named("out.lamb0.02_scale0.5", "grad.lamb0.02_scale0.5/z2")
    outputs |= named(
        "alt.lightly_lambda0.03",
        "alt.stable_pretraining_lambda0.03/grad_z1",
        "alt.stable_pretraining_lambda0.03",
    )
    return Recipe({"n": 13, "d": 5}, normal(draw, "z1", "z2", shape=(13, 5)), outputs)


@recipe("06b_vicreg__odd")
def vicreg(draw: Draw) -> Recipe:
    outputs = named(
        "out.invariance", "out.variance", "out.covariance", "out.total_3_0.5_1e-1", "grad.total_3_0.5_1e-1/z1"
    )
    return Recipe({"n": 6, "d": 9}, normal(draw, "z1", "z2", shape=(6, 9)), outputs)


@recipe("06c_swav__odd")
def swav(draw: Draw) -> Recipe:
    inputs = normal(draw, "z1", "z2", shape=(9, 4)) | {"prototypes": draw.standard_normal((7, 4))}
    outputs = named("out.scores2", "out.assign2_it4_eps0.3", "out.loss_it2_eps0.3_temp0.25")
    outputs |= named("grad.loss_it2_eps0.3_temp0.25/prototypes", "alt.stable_pretraining_loss_joint_sinkhorn")
    given = {"n": 9, "d": 4, "prototypes": 7, "temperature": 0.3, "sk_iters": 2, "epsilon": 0.2}
    return Recipe(given, inputs, outputs)


@recipe("06d_dino__odd")
def dino(draw: Draw) -> Recipe:
    inputs = {"student": draw.standard_normal((10, 6)), "teacher_step1": draw.standard_normal((10, 6))}
    outputs = named(
        *(f"out.{name}" for name in ("loss_step1_epoch3", "center_after_step1", "loss_step2_epoch9"))
    )
    outputs |= {"grad.loss_step1_epoch3/student": (), "out.teacher_temp_schedule": (11,)}
    given = {"n": 5, "prototypes": 6, "warmup_teacher_temp": 0.02, "teacher_temp": 0.09, "num_epochs": 11}
    given |= {"warmup_teacher_temp_epochs": 4, "student_temp": 0.3, "center_momentum": 0.6}
    return Recipe(given, inputs, outputs)


@recipe("06e_simclr__odd")
def simclr(draw: Draw) -> Recipe:
    inputs = normal(draw, "z", shape=(15, 4)) | {"index": np.arange(15) % 5, "labels": np.arange(15) % 2}
    outputs = named(
        "out.loss_temp0.35", "grad.loss_temp0.35/z", "out.loss_labels_temp0.7", "alt.lightly_temp1.5"
    )
    return Recipe({"n": 5, "d": 4}, inputs, outputs)  # of three views


@recipe("06f_wmse__odd")
def wmse(draw: Draw) -> Recipe:
    outputs = named(
        "out.white1",
        "out.loss_simplified_True",
        "grad.loss_simplified_True/v1",
        "grad.loss_simplified_True/v2",
    )
    outputs |= named("out.loss_simplified_False", "grad.loss_simplified_False/v2")
    return Recipe({"n": 11, "d": 3, "whitening_eps": 0.2}, normal(draw, "v1", "v2", shape=(11, 3)), outputs)


@recipe("06g_lejepa_sigreg__odd")
def lejepa(draw: Draw) -> Recipe:
    directions = draw.standard_normal((5, 7))
    inputs = {
        "x": draw.standard_normal((3, 8, 5)),
        "directions": directions / np.linalg.norm(directions, axis=0),
    }
    outputs = named(
        "out.stat_view1_tmax2.5_k9", "out.sigreg_tmax2.5_k9", "grad.sigreg_tmax2.5_k9/x", "out.invariance"
    )
    outputs |= named(
        "out.lejepa_lambda0.3", "alt.lightly_global2_local1_lambda0.3", "alt.lightly_global2_local1_grad_x"
    )
    return Recipe({"n": 8, "d": 5, "views": 3, "slices": 7}, inputs, outputs)


@recipe("07a_spectrum_metrics__odd")
def spectra(draw: Draw) -> Recipe:
    names: tuple[str, ...] = (
        "svd",
        "svd_cumulative",
        "svd_auc",
        "normalized_svd_relative",
        "std",
        "normalized_std",
        "rankme",
        "lidar",
    )
    names += ("rankme_entropy", "rankme_top_singular_value", "lidar_top_eigenvalue", "std_of_l2_normalized")
    inputs = normal(draw, "x", shape=(17, 5))  # two rows more than whole classes; without reptrix_*
    return Recipe(
        {"n": 17, "d": 5, "samples_per_class": 3}, inputs, named(*(f"out.{name}" for name in names))
    )


@recipe("07b_log_spectrum__odd")
def log_spectrum(draw: Draw) -> Recipe:
    outputs = {"out.log_singular_values_leading": (5,), "out.scaled_checksums": (5,)}
    inputs = normal(draw, "embeddings", shape=(9, 5))
    return Recipe({"n": 9, "d": 5, "DIM": 8}, inputs, outputs | {"out.scaled_first_rows": (2, 5)})


@recipe("07c_gmm_entropy__odd")
def mixture(draw: Draw) -> Recipe:
    inputs = {"embeddings": draw.standard_normal((21, 3)), "weights": np.array([0.3, 0.7])}
    inputs |= {"means": draw.standard_normal((2, 5)), "covariances": draw.random((2, 5)) + 0.5}
    inputs["points"] = draw.standard_normal((4, 5))
    outputs = named("out.entropies", "out.entropies_mean", "out.log_density", "out.minus_mean_log_density")
    return Recipe(
        {"n": 21, "d": 3, "DIM": 5, "components": 2}, inputs, outputs | {"out.scaled_checksums": (3,)}
    )


@recipe("08_lars__odd")
def lars(draw: Draw) -> Recipe:
    shapes: dict[str, tuple[int, ...]] = {"kernel": (2, 3, 3), "offset": (5,)}
    inputs = {f"init/{k}": draw.standard_normal(s) for k, s in shapes.items()}
    inputs |= {f"grads/{k}": draw.standard_normal((3, *s)) for k, s in shapes.items()}
    configs = {"solo_mine": {"wd": 3e-3, "eta": 0.05, "clip_lr": True, "nesterov": True, "momentum": 0.7}}
    settings = ("solo_mine", "moco_wd0.02_mom0.5", "larc_clip_wd0.004_eta0.01")
    outputs = named(*(f"out.{setting}/{key}" for setting in settings for key in shapes))
    return Recipe({"lr": 0.17, "steps": 3, "configs": configs}, inputs, outputs)


@recipe("09_knn__odd")
def knn(draw: Draw) -> Recipe:
    labels, asked = draw.integers(0, 3, 23), np.arange(11) % 3
    inputs = {"train_x": draw.standard_normal((23, 5)) + 3 * np.eye(5)[labels], "train_y": labels}
    inputs |= {"test_x": draw.standard_normal((11, 5)) + 3 * np.eye(5)[asked], "test_y": asked}
    outputs: dict[str, tuple[int, ...]] = {"out.vote_cos_distances": (11, 4), "out.vote_l2_indices": (11, 3)}
    outputs |= named("out.vote_l2_pred_k3", "out.vote_cos_pred_k200", "out.vote_l2_accuracy_k1_to_255")
    outputs |= named("out.vote_l2_best_k", "out.vote_l2_same_set_pred_k4", "out.vote_cos_same_set_best_k")
    outputs |= named(
        "out.weighted_cosine_k6_T0.3/scores",
        "out.weighted_euclidean_k2/pred",
        "out.weighted_euclidean_k2/top1_top5",
    )
    return Recipe({"train": 23, "test": 11, "d": 5, "classes": 3}, inputs, outputs)


@recipe("10_data_order__odd")
def data_order(draw: Draw) -> Recipe:
    configs: dict[str, dict[str, Any]] = {
        "a": {"strategy": "accumulate", "epochs": 5, "chunk_size": 1, "batch_size": 3, "seed": 4},
        "b": {
            "strategy": "current",
            "epochs": 6,
            "chunk_size": 1,
            "batch_size": 2,
            "n_rounds": 2,
            "repeat_batch": 3,
        },
        "c": {"strategy": "last", "epochs": 4, "chunk_size": 2, "batch_size": 4, "steps_per_epoch": 7},
    }
    outputs = named(
        *(f"out.{key}/epoch_{e}" for key, config in configs.items() for e in range(config["epochs"]))
    )
    return Recipe({"N": 29, "configs": configs}, {"incremental_order": draw.permutation(29)}, outputs)


TOYS = [
    f"{d}_{arm}"
    for d, arm in product(("euc", "cos"), ("simsiam", "simsiam_nosg", "simsiam_nopred", "isoloss"))
]


@recipe("11a_toy_step__odd")
def toy_step(draw: Draw) -> Recipe:
    inputs = {"W": draw.standard_normal((3, 4)) / 4} | normal(draw, "X1", "noise", shape=(4, 33))
    given = {"in_dim": 4, "out_dim": 3, "n": 33, "sigma": 0.3, "eta": 0.2, "alpha": 0.5, "weight_decay": 0.07}
    outputs = named(
        "out.Wp_closed_form", "out.wwt_eigenvalues", *(f"out.identity/{toy}/deltaW" for toy in TOYS)
    )
    return Recipe(
        given, inputs, outputs | named("out.relu/euc_simsiam/deltaW", "alt.relu/euc_simsiam/autograd_step")
    )


@recipe("11b_toy_predictor_from_samples__odd")
def toy_predictor(draw: Draw) -> Recipe:
    inputs = {"W": draw.standard_normal((2, 5))} | normal(
        draw, "X", "noise_for_X1", "noise_for_X2", shape=(5, 500)
    )
    given = {"in_dim": 5, "out_dim": 2, "n": 500, "sigma": 0.05, "alpha": 0.5}
    return Recipe(given, inputs, named("out.identity/Wp"))


@recipe("11c_toy_trajectory__odd")
def toy_trajectory(draw: Draw) -> Recipe:
    inputs = {"W0": (draw.standard_normal((2, 3)) / 4).astype(np.float32), "steps": np.array([0, 3, 9])}
    given = {
        "in_dim": 3,
        "out_dim": 2,
        "steps": 9,
        "sigma": 0.2,
        "alpha": 0.5,
        "lr": 0.03,
        "n": 40,
        "weight_decay": 0.1,
    }
    return Recipe(
        given,
        inputs,
        named("out.identity/euc_isoloss/mean"),
        {"tolerance": {"default": {"rtol": 0.3, "atol": 0.02}}},
    )


@recipe("12_schedules__odd")
def schedules(draw: Draw) -> Recipe:
    given: dict[str, Any] = {
        "warmup_cosine": {"w": [0.7, 3, 11, 0.1, 0.02]},
        "tau": {"t": [0.8, 0.95, 7]},
        "moco_m": 0.9,
    }
    given["epoch_cosine"] = {"e": [0.3, 9, 2, 0.01]}
    inputs = {"fractional_epochs/e": np.linspace(0, 8.9, 13), "ema_online/t": draw.standard_normal((4, 3))}
    names = (
        "warmup_cosine/w",
        "simsiam/e",
        "noncontrastive/e",
        "linear_probe/e",
        "moco_lr/e",
        "moco_momentum/e",
    )
    outputs = named(*(f"out.{name}" for name in (*names, "tau/t", "ema_target_after_3_updates/t")))
    return Recipe(given, inputs, outputs)
