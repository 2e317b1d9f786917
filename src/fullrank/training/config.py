"""Configuration of a run: one flat, frozen, validated record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fullrank.coercion import coerce
from fullrank.errors import UnknownNameError, UsageError
from fullrank.images.data_order import OrderKind
from fullrank.methods import METHODS, make_config
from fullrank.networks.backbones import Stem
from fullrank.options import MAX_PIXELS
from fullrank.ranges import check_numbers


@dataclass(frozen=True)
class TrainConfig:
    """Every knob of a training run except the method's own (those are `options`).

    Attributes:
        data: what to train on: a name (`fullrank list data`), a folder of images or of Hub parquet, or a
            stream: shards:part-{000..127}.tar, hub:OWNER/NAME, litdata:FOLDER (docs/data.md).
        out: the run directory; empty: runs/METHOD-DATA, with a number where that exists.
        epochs: passes over the training images.
        batch_size: images per batch, over all devices.
        accumulate: batches per optimiser step; gradients are averaged.
        limit: train on a fixed random subset of that many images; 0: on all.
        order: which images when: iid, or, at the same number of steps, chunk after chunk (single-pass), all
            chunks so far (cumulative), the last chunk only (last-fraction), or single-pass and then iid
            (hybrid), as Li et al. 2209.15007.
        chunk_size: epochs that a chunk lasts.
        rounds: sweeps over the chunks, which are as many times larger.
        repeat_batch: times that each batch is taken in a row.
        steps_per_epoch: optimiser steps in an epoch; 0: as many as the images fill.
        switch_epoch: first iid epoch of hybrid.
        shuffle_window: images that an epoch is shuffled among, of shards or row groups that come in random
            order; 0: all, or of parquet that is read in place and of the Hub what 256 MB hold.
        ordering: .npy file of image numbers, each once, that is cut into chunks; empty: from the seed.
        ordering_sha256: what the ordering must hash to (as int64); written by the run itself where empty.
        predictor_warmup_steps: steps at the start of every epoch but the first in which only the predictor
            learns.
        image_size: side of the views in pixels; 0: the data's own, or 224 for large images.
        views: preset of random views (`fullrank list views`); auto: the data's, else the method's.
        backbone: any name of `fullrank list backbones`; auto: by image size.
        stem: imagenet (7x7), cifar (3x3), cifar-pad2 (solo-learn's CIFAR stem, padding 2), or auto, by image
            size.
        zero_init_residual: last BN gain of each residual block starts at 0.
        init: weights that the backbone starts from: a name of timm, torchvision or the Hub, a run or encoder,
            a checkpoint of any library, a state dict. Backbone, stem, image size, mean and std follow it
            where they are left open. Empty: random.
        freeze: stages of the backbone that do not learn, with commas between: stem, layer1, blocks.0-5, all.
        thaw_epochs: epochs that each stage of a staged release lasts: the heads learn alone, then with the
            backbone's last layers, then with those below, too; 0: all learn from the start.
        thaw_parts: parts that the layers of the backbone are released in.
        lora: rank of low-rank updates that the backbone learns in place of its weights; 0: none.
        mean: three numbers per channel, subtracted from pixels in [0, 1]; empty: the images' own.
        std: three numbers that divide them; empty: the images' own.
        optimizer: sgd, lars, adam (decay added to the gradient) or adamw.
        lr: base learning rate, for 256 images a step where lr_scaling is linear.
        lr_backbone: factor of the backbone's learning rate.
        layer_decay: factor of the learning rate from each layer of the backbone to the one below, as BEiT has
            it; 1: all alike.
        lr_scaling: linear (lr x images a step / 256) or none.
        weight_decay: L2 coefficient.
        final_weight_decay: the same at the end, reached along a cosine by step, as DINO's; -1: as at first.
        exclude_1d_decay: biases and normalisation parameters get no weight decay.
        momentum: of sgd and lars, in [0, 1).
        nesterov: sgd and lars step along gradient + momentum x buffer; needs momentum.
        betas: of adam and adamw.
        lars_variant: solo (solo-learn and its forks) or moco (MoCo v3, Li et al.).
        lars_eta: trust coefficient of lars.
        lars_clip: effective lars rate at most the group's.
        lars_exclude_1d: no lars scaling and no decay for one-dimensional tensors.
        schedule: cosine (per step), epoch-cosine (once per epoch, as SimSiam's reference),
            epoch-warmup-cosine (cosine once per epoch, as solo-learn's scheduler_interval epoch),
            fractional-cosine (per step, warming up from 0, as MoCo v3), step (a tenth at each milestone) or
            constant.
        milestones: epochs after which the step schedule falls to a tenth; empty: 60 % and 80 % of the run.
        warmup_epochs: linear warm-up, in epochs; -1: a tenth of the run, at most 10. A fraction is rounded to
            whole steps by cosine, to whole epochs by epoch-cosine and epoch-warmup-cosine.
        warmup_lr: rate at step 0 of the warm-up, not scaled, of cosine and epoch-warmup-cosine.
        final_lr: base rate at the end of the cosine, scaled like lr.
        clip_grad: largest gradient norm; 0: no clipping.
        clip_grad_of: whose norm that is: that of all gradients together (all), of each tensor by itself
            (tensor, as DINO's own code), or of each tensor of the backbone, the heads being left as they are
            (backbone-tensor, as solo-learn's DINO).
        precision: fp32, bf16 or fp16 (mixed; fp16 needs a GPU).
        channels_last: memory format of convolutions: yes, no, or auto: unless a self-check finds that PyTorch
            crashes or errs in one of the network's on this CPU.
        checkpoint_activations: keep only the inputs of the backbone's blocks and run them again in the
            backward pass: the same numbers with less memory, in about a third more time.
        compile: networks, and on a GPU the views, run through torch.compile in one of its modes: minutes at
            the start for faster steps. default fuses; reduce-overhead also replays CUDA graphs, which pays
            where batches or networks are small; max-autotune also tries out kernels.
        sync_bn: whose BatchNorm statistics are those of all devices: both branches', the source's, the
            target's (AsymBN of 2204.00613) or none's.
        accelerator: auto, cpu or gpu.
        devices: how many; 0: all of them.
        num_nodes: machines (torchrun and SLURM are recognised).
        strategy: how several processes share the work: ddp (each has the whole network) or fsdp (each keeps a
            part of the backbone's weights, gradients and optimiser state; for large ViTs).
        reduce_precision: what processes exchange gradients in: fp32 or bf16 (half the bytes, rounded).
        timeout_minutes: that processes wait for one another at most.
        workers: processes that decode images which do not fit in memory; -1: one a core, at most 4.
        seed: of everything random.
        watch_every: epochs between panels of collapse measures; 0: every epoch of short runs, and else so
            seldom that panels and k-NN take at most 5 % of the time (every epoch with early_stop, and with
            on_collapse stop or rollback).
        panels: worked out between epochs, or beside the next one (in a thread of every process, with
            on_collapse warn and whole networks); auto: beside on a GPU where that is possible.
        diagnostics_every: panels between diagnostics: local dimension, LiDAR, the predictor's spectrum; 0:
            never.
        level_every: steps between cheap checks of the level.
        watch_images: held-out images measured per panel, at most.
        knn_every: epochs between k-NN evaluations where labels exist, at least; 0: never.
        knn_k: neighbours.
        knn_bank: un-augmented training images in the k-NN bank, at most.
        probe: a linear classifier trained beside the method on its detached features, where labels exist: own
            (its own optimiser), shared (a group of the method's, as the references do) or off.
        probe_lr: its base learning rate, scheduled like lr; 0: 0.01 for own (Adam), and 0.1 for shared (then
            scaled like lr).
        keep_every: epochs between encoders that are kept in encoders/, for `fullrank pick` and `fullrank
            evaluate all`; 0: none.
        on_collapse: warn, stop (keeps the last healthy encoder, exit code 3), or rollback (once, to the last
            healthy checkpoint, and on from there at a tenth of the rate; then as stop).
        on_nan: what is done about a loss, layer output or gradient that is not finite: stop (with one line,
            the last checkpoint being from before), skip (leave the step out, at most 10 in a row) or rollback
            (to the last checkpoint, and on from there at a tenth of the rate, at most three times).
        patience: panels in a row that must say collapsed, and not in passing, before on_collapse acts.
        patience_steps: steps that these panels must span; 0: none.
        early_stop: end the run after so many panels with a lower label-free score than the best, none higher,
            and leave the encoder that had the best one (docs/pick.md); 0: never.
        checkpoint_every: steps between checkpoints besides those at each epoch's end; 0: none.
        checkpoint_minutes: minutes between checkpoints within a long epoch; 0: none.
        keep_checkpoints: last checkpoints that are kept, for the newest that is sound to go on from.
        log: further logs: tensorboard, wandb, trackio, mlflow.
        download: fetch a named data set that is not there.
        max_corrupt: share of undecodable images that is skipped before it is an error, in [0, 1).
        max_pixels: of one image; larger ones count as undecodable.
    """

    data: str = "shapes"
    out: str = ""
    epochs: int = 100
    batch_size: int = 256
    accumulate: int = 1
    limit: int = 0
    order: OrderKind = "iid"
    chunk_size: int = 1
    rounds: int = 1
    repeat_batch: int = 1
    steps_per_epoch: int = 0
    switch_epoch: int = 40
    shuffle_window: int = 0
    ordering: str = ""
    ordering_sha256: str = ""
    predictor_warmup_steps: int = 0
    image_size: int = 0
    views: str = "auto"
    backbone: str = "auto"
    stem: Stem = "auto"
    zero_init_residual: bool = False
    init: str = ""
    freeze: str = ""
    thaw_epochs: int = 0
    thaw_parts: int = 3
    lora: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    optimizer: Literal["sgd", "lars", "adam", "adamw"] = "sgd"
    lr: float = 0.05
    lr_backbone: float = 1.0
    layer_decay: float = 1.0
    lr_scaling: Literal["linear", "none"] = "linear"
    weight_decay: float = 1e-4
    final_weight_decay: float = -1.0
    exclude_1d_decay: bool = False
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    lars_variant: Literal["solo", "moco"] = "solo"
    lars_eta: float = 1e-3
    lars_clip: bool = False
    lars_exclude_1d: bool = False
    schedule: Literal[
        "cosine", "epoch-cosine", "epoch-warmup-cosine", "fractional-cosine", "step", "constant"
    ] = "cosine"
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 0.0
    warmup_lr: float = 3e-5
    final_lr: float = 0.0
    clip_grad: float = 0.0
    clip_grad_of: Literal["all", "tensor", "backbone-tensor"] = "all"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: Literal["auto", "yes", "no"] = "auto"
    checkpoint_activations: bool = False
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"
    sync_bn: Literal["both", "source", "target", "none"] = "both"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 0
    num_nodes: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    reduce_precision: Literal["fp32", "bf16"] = "fp32"
    timeout_minutes: float = 30.0
    workers: int = -1
    seed: int = 0
    watch_every: int = 0
    panels: Literal["auto", "between", "beside"] = "auto"
    diagnostics_every: int = 10
    level_every: int = 10
    watch_images: int = 1280
    knn_every: int = 1
    knn_k: int = 20
    knn_bank: int = 10000
    probe: Literal["own", "shared", "off"] = "own"
    probe_lr: float = 0.0
    keep_every: int = 0
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    patience: int = 2
    patience_steps: int = 0
    early_stop: int = 0
    checkpoint_every: int = 0
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 3
    log: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()
    download: bool = False
    max_corrupt: float = 0.01
    max_pixels: int = MAX_PIXELS
    method: str = field(default="simsiam", kw_only=True)
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        check_numbers(self, signed=True)  # what may not be negative is said below
        for name, (holds, rule) in _RULES.items():
            value = getattr(self, name)
            if not holds(value):
                shown = " and ".join(map(str, value)) if isinstance(value, tuple) else value
                raise UsageError(f"--{name.replace('_', '-')} {rule}, not {shown}")
        if self.warmup_epochs > self.epochs:
            raise UsageError(
                f"--warmup-epochs {self.warmup_epochs:g} is longer than the run's {self.epochs} epochs"
            )
        if self.nesterov and (self.optimizer not in ("sgd", "lars") or not self.momentum):
            raise UsageError("--nesterov needs --optimizer sgd or lars, and a momentum above 0")
        if self.final_weight_decay > 0 and not self.weight_decay:
            raise UsageError("--final-weight-decay needs a --weight-decay above 0 to start from")
        if self.milestones and self.schedule != "step":
            raise UsageError(f"--milestones belong to --schedule step, not {self.schedule}")
        if self.panels == "beside" and self.on_collapse != "warn":
            raise UsageError(
                f"--on-collapse {self.on_collapse} decides between epochs: take --panels between or auto"
            )
        if self.order == "iid" and (self.chunk_size, self.rounds, self.ordering) != (1, 1, ""):
            raise UsageError("--chunk-size, --rounds and --ordering need another --order than iid")
        make_config(METHODS[self.method], self.options)

    def as_dict(self) -> dict[str, Any]:
        """Plain mapping, as `config.yaml` holds it."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["options"] = dataclasses.asdict(make_config(METHODS[self.method], self.options))
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Read what `as_dict` gave; raises UnknownNameError for a key that does not exist."""
        renamed = {"study_every": "diagnostics_every"}  # in runs from before
        values = {renamed.get(key, key): value for key, value in values.items()}
        if isinstance(
            layout := values.get("channels_last"), bool
        ):  # likewise; true was what nobody had typed
            values["channels_last"] = "auto" if layout else "no"
        fields, method = cls.__dataclass_fields__, str(values.get("method", cls.method))
        if method in METHODS and (unknown := next((key for key in values if key not in fields), None)):
            own = [f"options.{name}" for name in METHODS[method].Config.__dataclass_fields__]
            raise UnknownNameError("key", str(unknown), [*fields, *own])
        return cls(**coerce(cls, values, "key"))


def _not_negative(value: float) -> bool:
    return 0 <= value < math.inf


_RULES: dict[str, tuple[Callable[[Any], Any], str]] = {
    **dict.fromkeys(
        ("epochs", "batch_size", "accumulate", "num_nodes", "level_every", "watch_images",
         "knn_k", "knn_bank", "patience", "chunk_size", "rounds", "repeat_batch", "keep_checkpoints",
         "thaw_parts"),
        (lambda value: value >= 1, "must be at least 1"),
    ),
    **dict.fromkeys(
        ("limit", "lr", "weight_decay", "lars_eta", "warmup_lr", "final_lr", "clip_grad",
         "devices", "diagnostics_every", "watch_every", "knn_every", "probe_lr", "keep_every",
         "checkpoint_every", "checkpoint_minutes", "patience_steps", "early_stop", "seed", "steps_per_epoch",
         "switch_epoch", "shuffle_window", "predictor_warmup_steps", "lora", "lr_backbone", "thaw_epochs"),
        (_not_negative, "must not be negative or infinite"),
    ),
    "data": (str.strip, "is a folder or a name"),
    "image_size": (lambda value: 0 <= value <= 4096, "lies between 0 (the data's own) and 4,096 pixels"),
    "workers": (lambda v: v == -1 or _not_negative(v), "is 0 or more, or -1 for one a core"),
    "final_weight_decay": (lambda v: v == -1 or _not_negative(v), "is 0 or more, or -1 for no change"),
    "warmup_epochs": (lambda v: v == -1 or _not_negative(v), "is 0 or more, or -1 for a tenth of the run"),
    "momentum": (lambda value: 0 <= value < 1, "lies in [0, 1)"),
    "betas": (lambda betas: all(0 <= beta < 1 for beta in betas), "lie in [0, 1)"),
    "milestones": (lambda epochs: all(epoch >= 1 for epoch in epochs), "are epochs from 1"),
    "timeout_minutes": (lambda value: 0 < value <= 10080, "lies above 0, and is a week (10,080) at most"),
    "layer_decay": (lambda value: 0 < value <= 1, "lies in (0, 1]"),
    **dict.fromkeys(("mean", "std"), (lambda values: len(values) in (0, 3), "takes three numbers")),
    "max_corrupt": (lambda value: 0 <= value < 1, "lies in [0, 1)"),
    "max_pixels": (lambda value: value >= 1, "must be at least 1"),
}  # fmt: skip
"""What a setting must fulfil, and how that is said."""


def make_train_config(method: str, *layers: Mapping[str, Any]) -> TrainConfig:
    """Merge layers of settings, later ones winning, `options` key by key.

    Example:
        >>> make_train_config("byol", {"epochs": 3}, {"epochs": 2, "options": {"tau_base": 0.9}}).epochs
        2
    """
    METHODS[method]
    merged: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for layer in layers:
        merged |= {key: value for key, value in layer.items() if key not in ("options", "method")}
        options |= dict(layer.get("options", {}))
    return TrainConfig.from_dict({**merged, "method": method, "options": options})
