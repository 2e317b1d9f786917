"""Recipes for ImageNet-100 and ImageNet against the tables of their references, number by number."""

from __future__ import annotations

from typing import Any

import pytest

from fullrank.methods import METHODS
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.recipe_commands import ON_CLUSTERS, recipe_commands
from fullrank.training.recipes import load_recipe, recipe_names
from fullrank.views import VIEWS

ON_A_CLUSTER = [name for name in recipe_names() if name.split("/")[0] in ON_CLUSTERS]

# the rate is the one in effect, after its scaling by the images of a step; decay; epochs; images a step
SGD, LARS = {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "lars", "momentum": 0.9}
SOLO = {**LARS, "lars_eta": 0.02, "lars_clip": True, "lars_exclude_1d": True, "lars_variant": "solo"}
VARIANCE = {**LARS, "lars_eta": 1e-3, "lars_clip": False, "lars_exclude_1d": True, "lars_variant": "solo"}
MOCO = {**LARS, "lars_eta": 1e-3, "lars_clip": False, "lars_exclude_1d": True, "lars_variant": "moco"}
WARM = {"schedule": "cosine", "warmup_epochs": 10}
BY_EPOCH = {**SGD, "schedule": "epoch-cosine", "warmup_epochs": 0, "precision": "fp32"}
R18, R50 = {"backbone": "resnet18"}, {"backbone": "resnet50"}
ZERO = {"zero_init_residual": True}
TAU = {"tau_base": 0.99, "tau_final": 1.0}
CLOSED = {"alpha": 0.5, "eps": 0.0, "correlation_momentum": 0.998, "proj_hidden_dim": 4096, **TAU}
LI = {**R18, **ZERO, **BY_EPOCH, "views": "simsiam"}
DINO_CODE = {"optimizer": "adamw", "backbone": "vit_small_patch16_224", "final_weight_decay": 0.4, **WARM}

RDM: dict[str, dict[str, Any]] = {
    "online-poly": {"pred_type": "poly", "pred_location": "online", "sigma": 2.0},
    "online-log": {"pred_type": "log", "pred_location": "online"},
    "online-log_1": {"pred_type": "log_1", "pred_location": "online"},
    **{
        f"target-{size}": {"pred_type": "poly", "pred_location": "target", "sigma": -size, "stats": "other"}
        for size in (0.3, 0.5, 0.7, 1.0)
    },
}

PUBLISHED: dict[str, tuple[tuple[float, float, int, int], dict[str, Any]]] = {
    # the official SimSiam, and the control of RDM's code for ImageNet
    "imagenet/simsiam": ((0.1, 1e-4, 100, 512), {**R50, **ZERO, **BY_EPOCH, "pred_hidden_dim": 512}),
    "imagenet/simsiam-256": ((0.05, 1e-4, 100, 256), {**R50, **ZERO, **BY_EPOCH, "proj_output_dim": 2048}),
    **{
        f"imagenet/rdm_simsiam-{name}": ((0.1, 1e-4, 100, 512), {**R50, **ZERO, **BY_EPOCH, **options})
        for name, options in RDM.items()
    },
    "imagenet100/rdm_simsiam": (
        (0.5, 1e-5, 400, 256), {**R18, **ZERO, **SGD, **WARM, "sigma": 1.0, "proj_output_dim": 2048},
    ),
    "imagenet100/rdm_simsiam-target": ((0.5, 1e-5, 400, 256), {**R18, **ZERO, **SGD, **WARM, "sigma": -1.0}),
    "imagenet100/rdm_byol": (
        (0.5, 1e-5, 400, 256), {**R18, **SOLO, **WARM, **TAU, "sigma": 1.0, "proj_hidden_dim": 4096},
    ),
    "imagenet100/simsiam": ((0.5, 1e-5, 400, 256), {**R18, **ZERO, **SGD, **WARM, "pred_hidden_dim": 512}),
    "imagenet100/byol-rdm": ((0.5, 1e-5, 400, 256), {**R18, **SOLO, **WARM, **TAU, "pred_hidden_dim": 8192}),
    # implicit-var-reg: 4 devices x 64 images x 16 batches a step, rate 0.45 x 16
    "imagenet/byol": ((7.2, 1e-6, 100, 4096), {**R50, **VARIANCE, **WARM, **TAU, "pred_hidden_dim": 4096}),
    "imagenet/directpred": ((7.2, 1e-5, 100, 4096), {**R50, **VARIANCE, **WARM, **CLOSED}),
    "imagenet/isoloss": ((7.2, 1e-5, 100, 4096), {**R50, **VARIANCE, **WARM, **CLOSED}),
    # solo-learn
    "imagenet/barlow_twins": ((0.8, 1.5e-6, 100, 256), {**R50, **VARIANCE, **WARM, "scale": 0.048}),
    "imagenet100/barlow_twins": ((0.3, 1e-4, 400, 256), {**R18, **SOLO, **WARM, "scale": 0.1}),
    "imagenet100/byol": ((0.5, 1e-6, 400, 256), {**R18, **SOLO, **WARM, **TAU, "pred_hidden_dim": 8192}),
    "imagenet100/dino": ((0.3, 1e-6, 400, 256), {**R18, **SOLO, **WARM, "tau_base": 0.9995}),
    "imagenet100/mocov3": ((0.3, 1e-6, 400, 256), {**R18, **SOLO, **WARM, **TAU, "temperature": 0.2}),
    "imagenet100/simclr": ((0.3, 1e-4, 400, 256), {**R18, **SOLO, **WARM, "temperature": 0.2}),
    "imagenet100/swav": ((0.6, 1e-6, 400, 256), {**R18, **SOLO, **WARM, "num_prototypes": 3000}),
    "imagenet100/vicreg": ((0.3, 1e-4, 400, 256), {**R18, **SOLO, **WARM, "views": "vicreg"}),
    "imagenet100/wmse": ((0.002, 1e-6, 400, 256), {**R18, **WARM, "optimizer": "adam", "warmup_lr": 0.0}),
    # Li, Efros and Pathak
    "imagenet/simsiam-resnet18": ((0.05, 1e-4, 100, 256), {**LI, "order": "iid", "pred_hidden_dim": 512}),
    **{
        f"imagenet/simsiam-resnet18-{share}-percent": (
            (0.05, 1e-4, 100, 256), {**LI, "order": "last-fraction", "chunk_size": share},
        )
        for share in (1, 5, 10, 20, 50)
    },
    "imagenet/simsiam-resnet18-single-pass": (
        (0.05, 1e-4, 100, 256), {**LI, "order": "single-pass", "chunk_size": 1, "rounds": 1},
    ),
    "imagenet/simsiam-resnet18-cumulative": (
        (0.05, 1e-4, 100, 256), {**LI, "order": "cumulative", "chunk_size": 1, "rounds": 1},
    ),
    "imagenet/simsiam-resnet18-hybrid": (
        (0.05, 1e-4, 100, 256), {**LI, "order": "hybrid", "chunk_size": 1, "switch_epoch": 40},
    ),
    "imagenet/nnsiam": ((0.05, 1e-4, 100, 256), {**LI, "queue_size": 25600}),
    "imagenet/distill": ((0.05, 1e-4, 100, 256), {**LI, "target_momentum": 0.95, "standardise": True}),
    **{
        f"imagenet/{method}-li": (
            (9.6, 1e-6, 100, 4096), {**R50, **MOCO, "warmup_epochs": 10, "tau_base": 0.99, "tau_final": 0.99},
        )
        for method in ("byol", "mocov3")
    },
    # MoCo v3 itself, and the asymmetric designs on it
    "imagenet/mocov3": ((9.6, 1e-6, 100, 4096), {**R50, **MOCO, **TAU, "temperature": 1.0}),
    **{
        f"imagenet/asym-{design}": ((9.6, 1e-6, 100, 4096), {**R50, **MOCO, **TAU, "views": f"asym-{views}"})
        for design, views in (
            *((name, name) for name in ("baseline", "one-sided", "multicrop", "scalemix", "aug", "meanenc")),
            ("bn", "one-sided"),
        )
    },
    # DirectCLR, LeJEPA, CPLearn
    "imagenet/directclr": ((4.8, 1e-6, 100, 4096), {**R50, **LARS, "num_channels": 360, "temperature": 0.1}),
    "imagenet100/lejepa": ((0.002, 0.05, 800, 256), {"optimizer": "adamw", "lamb": 0.02}),
    "imagenet100/cplearn": ((0.001, 0.04, 100, 512), {**DINO_CODE, "num_codes": 10_000, "beta": 1.0}),
    "imagenet100/dino-vit_small": ((0.001, 0.04, 100, 512), {**DINO_CODE, "num_prototypes": 10_000}),
}  # fmt: skip


def config_of(name: str) -> TrainConfig:
    settings = load_recipe(name).settings
    return make_train_config(settings["method"], settings)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_recipe_has_the_published_numbers(name: str) -> None:
    (rate, decay, epochs, images), others = PUBLISHED[name]
    config = config_of(name)
    step = config.batch_size * config.accumulate
    scale = step / 256 if config.lr_scaling == "linear" else 1.0
    assert (config.lr * scale, config.weight_decay) == pytest.approx((rate, decay))
    assert (config.epochs, step) == (epochs, images)
    options = vars(METHODS[config.method].Config(**config.options))
    found = {key: options.get(key, getattr(config, key, None)) for key in others}
    assert found == others


def test_every_recipe_for_a_cluster_is_held_against_its_reference() -> None:
    assert set(ON_A_CLUSTER) == set(PUBLISHED)


@pytest.mark.parametrize(
    ("preset", "crop", "blur", "solarize", "saturation"),
    [
        ("asymmetric-imagenet", (0.08, 1.0), (1.0, 0.1), (0.0, 0.2), 0.2),
        ("mocov3", (0.2, 1.0), (1.0, 0.1), (0.0, 0.2), 0.2),
        ("vicreg", (0.2, 1.0), (0.5, 0.5), (0.1, 0.1), 0.2),
        ("simsiam-imagenet100", (0.08, 1.0), (0.5, 0.5), (0.0, 0.0), 0.4),
        ("simsiam", (0.2, 1.0), (0.5, 0.5), (0.0, 0.0), 0.4),
        ("symmetric", (0.08, 1.0), (0.5, 0.5), (0.0, 0.0), 0.8),
    ],
)
def test_views_of_imagenet_are_the_published_ones(
    preset: str, crop: tuple[float, float], blur: Any, solarize: Any, saturation: float
) -> None:
    views = VIEWS[preset].views
    assert [view.crop for view in views] == [crop, crop]
    assert (tuple(v.blur_p for v in views), tuple(v.solarize_p for v in views)) == (blur, solarize)
    assert {(v.saturation, v.jitter_p, v.gray_p, v.flip_p) for v in views} == {(saturation, 0.8, 0.2, 0.5)}


@pytest.mark.parametrize("name", ON_A_CLUSTER)
def test_a_recipe_has_a_command_for_one_node_four_nodes_and_slurm(name: str) -> None:
    config = config_of(name)
    commands = recipe_commands(name, load_recipe(name).settings)
    assert list(commands) == ["one node", "four nodes", "SLURM"]
    for where, command in commands.items():
        words = command.replace("=", " ").split()
        flag = "--slurm-gpus-per-node" if where == "SLURM" else "--nproc-per-node"
        processes = int(words[words.index(flag) + 1]) * (1 if where == "one node" else 4)
        assert config.batch_size % processes == 0 and config.batch_size // processes >= 32
        assert f"fullrank train {name} --out runs/" in command
