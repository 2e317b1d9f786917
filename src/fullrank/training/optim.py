"""Optimisers: PyTorch's own, and LARS as the reference codes have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fullrank.errors import UnknownNameError
from fullrank.methods import ParamGroup
from fullrank.networks.sharded import local_part, local_parts, norms
from fullrank.training.config import TrainConfig
from fullrank.training.schedules import epoch_cosine, warmup_cosine


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 1708.03888), in two variants.

    Per tensor p with gradient g and weight decay w, the gradient becomes r * (g + w p), where

    - `solo` (solo-learn and its forks; with `exclude_1d` off also apex's LARC):
      r = eta |p| / (|g| + w |p| + 1e-8); a tensor with a zero norm gets neither r nor w;
    - `moco` (MoCo v3): r = eta |p| / |g + w p|, 1 where a norm is zero; one-dimensional tensors and scalars
      excluded.

    Then heavy-ball momentum: buffer <- momentum * buffer + gradient; p <- p - lr * buffer. No variant of
    timm's LARS equals these where a norm is zero, which is why this one stands here.

    Args:
        params: parameters or groups.
        lr, momentum, weight_decay: learning rate, momentum in [0, 1), and w.
        eta: trust coefficient.
        clip: use min(r / lr, 1) instead of r, so that the effective rate is min(r, lr).
        exclude_1d: biases and normalisation parameters (one-dimensional, which a scalar is not) get neither
            r nor w.
        nesterov: step along gradient + momentum * buffer.
        dampening: share by which a new gradient is reduced as it enters the buffer (not the first one).
        variant: `solo` or `moco`.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2, 2))
        >>> weight.grad = torch.ones(2, 2)
        >>> LARS([weight], lr=1.0, eta=0.1).step()
        >>> round(weight[0, 0].item(), 4)
        0.9
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
        clip: bool = False,
        exclude_1d: bool = False,
        nesterov: bool = False,
        dampening: float = 0.0,
        variant: Literal["solo", "moco"] = "solo",
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "clip": clip,
            "exclude_1d": exclude_1d or variant == "moco", "nesterov": nesterov, "dampening": dampening,
            "variant": variant,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; `closure`, if given, recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            gradients = _scaled_gradients(params, group)
            if group["momentum"]:
                gradients = self._with_momentum(params, gradients, group)
            torch._foreach_add_(local_parts(params), gradients, alpha=-group["lr"])
        return loss

    def _with_momentum(
        self, params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        fresh = [i for i, p in enumerate(params) if "momentum_buffer" not in self.state[p]]
        for i in fresh:
            self.state[params[i]]["momentum_buffer"] = buffer = torch.empty_like(params[i])
            local_part(buffer).copy_(gradients[i])
        buffers = [local_part(self.state[p]["momentum_buffer"]) for p in params]
        old = sorted(set(range(len(params))) - set(fresh))
        if old:
            torch._foreach_mul_([buffers[i] for i in old], group["momentum"])
            torch._foreach_add_(
                [buffers[i] for i in old], [gradients[i] for i in old], alpha=1.0 - group["dampening"]
            )
        if group["nesterov"]:
            return list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))
        return buffers


def _scaled_gradients(params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Apply weight decay and trust ratio, without waiting for the device."""
    gradients = local_parts(p.grad for p in params if p.grad is not None)
    excluded = {"solo": (1,), "moco": (0, 1)}[group["variant"]] if group["exclude_1d"] else ()
    adapted = [i for i, p in enumerate(params) if p.ndim not in excluded]
    if not adapted:
        return gradients
    whole = [params[i] for i in adapted]
    p, g = local_parts(whole), [gradients[i] for i in adapted]
    decayed = list(torch._foreach_add(g, p, alpha=group["weight_decay"]))
    p_norm = norms(p, whole)
    if group["variant"] == "moco":
        update_norm = norms(decayed, whole)
        both = (p_norm > 0) & (update_norm > 0)
        ratio = group["eta"] * p_norm / update_norm
    else:
        g_norm = norms(g, whole)
        both = (p_norm > 0) & (g_norm > 0)
        ratio = group["eta"] * p_norm / (g_norm + group["weight_decay"] * p_norm + 1e-8)
        if group["clip"]:
            ratio = (ratio / group["lr"]).clamp(max=1.0) if group["lr"] > 0 else torch.ones_like(ratio)
        # a zero norm switches the decay off as well; g is zero or p is, so g + 0 says it
        decayed = [torch.where(both[k], decayed[k], g[k]) for k in range(len(g))]
    ratio = torch.where(both, ratio, torch.ones_like(ratio))
    scaled = list(torch._foreach_mul(decayed, list(ratio.unbind())))
    result = list(gradients)
    for k, i in enumerate(adapted):
        result[i] = scaled[k]
    return result


def build_optimizer(
    groups: list[ParamGroup], config: TrainConfig, factors: Mapping[nn.Parameter, float] | None = None
) -> Optimizer:
    """Build the optimiser of a run over a method's parameter groups.

    Every torch group carries `base_lr` (the scaled rate its schedule starts from), `fixed_lr`, and
    `lr_scale`, by which its rate is multiplied: the one in `factors` of its parameters, else 1.
    """
    base = base_lr(config)
    torch_groups: list[dict[str, Any]] = []
    for group in groups:
        split: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for p in group.params:
            free = config.exclude_1d_decay and p.ndim <= 1
            split.setdefault(((factors or {}).get(p, 1.0), free), []).append(p)
        common = {"name": group.name, "base_lr": base, "fixed_lr": group.fixed_lr}
        for (scale, free), params in sorted(split.items(), key=lambda part: part[0]):
            decay = 0.0 if free else config.weight_decay
            torch_groups.append({**common, "params": params, "weight_decay": decay, "lr_scale": scale})
    match config.optimizer:
        case "sgd":
            return torch.optim.SGD(torch_groups, lr=base, momentum=config.momentum, nesterov=config.nesterov)
        case "adam":
            return torch.optim.Adam(torch_groups, lr=base, betas=config.betas)
        case "adamw":
            return torch.optim.AdamW(torch_groups, lr=base, betas=config.betas)
        case "lars":
            own = {key: getattr(config, f"lars_{key}") for key in ("eta", "clip", "exclude_1d", "variant")}
            return LARS(torch_groups, lr=base, momentum=config.momentum, nesterov=config.nesterov, **own)
    raise UnknownNameError("optimizer", config.optimizer, ["sgd", "adam", "adamw", "lars"])


@torch.no_grad()
def clip_each(params: Iterable[Tensor], largest: float) -> None:
    """Scale each gradient by itself to a norm of at most `largest`, in place; DINO.

    g <- g min(1, largest / (|g| + 1e-6)), as DINO's reference (2104.14294) has it. Nothing waits for the
    device.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> clip_each([weight], 1.0)
        >>> [round(value, 3) for value in weight.grad.tolist()]
        [0.6, 0.8]
    """
    gradients = [p.grad for p in params if p.grad is not None]
    if gradients:
        parts = local_parts(gradients)
        factors = (largest / (norms(parts, gradients) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(parts, list(factors.unbind()))


@torch.no_grad()
def clip_together(params: Iterable[Tensor], largest: float) -> None:
    """Scale all gradients, sharded or not, to a norm of at most `largest`.

    As `torch.nn.utils.clip_grad_norm_`, which takes either sharded or whole ones.

    Example:
        >>> weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        >>> weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
        >>> clip_together(weights, 1.0)
        >>> [round(weight.grad.item(), 3) for weight in weights]
        [0.6, 0.8]
    """
    gradients = [p.grad for p in params if p.grad is not None]
    if gradients:
        parts = local_parts(gradients)
        total = norms(parts, gradients).norm()
        torch._foreach_mul_(parts, (largest / (total + 1e-6)).clamp(max=1.0))


def base_lr(config: TrainConfig) -> float:
    """Learning rate after scaling by the images of one optimiser step.

    Example:
        >>> base_lr(TrainConfig(lr=0.1, batch_size=512))
        0.2
    """
    return config.lr * _lr_scale(config)


def _lr_scale(config: TrainConfig) -> float:
    if config.lr_scaling == "none":
        return 1.0
    return config.batch_size * config.accumulate / 256


def probe_lr(config: TrainConfig) -> float:
    """Learning rate of the online probe: of `shared` scaled as the run's is."""
    if config.probe == "shared":
        return (config.probe_lr or 0.1) * _lr_scale(config)
    return config.probe_lr or 0.01


def scheduled_lr(config: TrainConfig, step: int, steps_per_epoch: int, base: float) -> float:
    """Learning rate of a step (from 0) on the run's schedule, for a scaled base.

    Example:
        >>> scheduled_lr(TrainConfig(epochs=2, schedule="step"), 3, 2, base=1.0)
        0.1
    """
    final, warm = config.final_lr * _lr_scale(config), config.warmup_epochs
    match config.schedule:
        case "cosine":
            total, warmup = config.epochs * steps_per_epoch, round(warm * steps_per_epoch)
            return warmup_cosine(step, total, base, warmup=warmup, start=config.warmup_lr, final=final)
        case "epoch-warmup-cosine":
            epoch, start = step // steps_per_epoch, config.warmup_lr
            return warmup_cosine(epoch, config.epochs, base, warmup=round(warm), start=start, final=final)
        case "epoch-cosine":
            epoch = step // steps_per_epoch
            return epoch_cosine(epoch, config.epochs, base, warmup=round(warm), final=final)
        case "fractional-cosine":
            time = step / steps_per_epoch
            return epoch_cosine(time, config.epochs, base, warmup=warm, final=final, from_zero=True)
        case "step":
            milestones = config.milestones or (0.6 * config.epochs, 0.8 * config.epochs)
            return base * 0.1 ** sum(step >= epoch * steps_per_epoch for epoch in milestones)
        case _:
            return base


def scheduled_weight_decay(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Weight decay of a step (from 0), on a cosine from the first to the last.

    Example:
        >>> config = TrainConfig(epochs=1, weight_decay=0.04, final_weight_decay=0.4)
        >>> [round(scheduled_weight_decay(config, step, 4), 2) for step in (0, 2, 4)]
        [0.04, 0.22, 0.4]
    """
    if config.final_weight_decay < 0:
        return config.weight_decay
    return warmup_cosine(
        step, config.epochs * steps_per_epoch, config.weight_decay, final=config.final_weight_decay
    )


def warms_up_fixed_rates(config: TrainConfig, step: int, steps_per_epoch: int) -> bool:
    """Whether a step's warm-up holds for the groups with a fixed rate, too.

    solo-learn takes every group at the warm-up's start, for its first step or epoch; Li et al. (2209.15007)
    warm every group up to the end of the warm-up, by epochs.

    Example:
        >>> config = TrainConfig(schedule="epoch-cosine", warmup_epochs=2)
        >>> [warms_up_fixed_rates(config, step, steps_per_epoch=10) for step in (0, 19, 20)]
        [True, True, False]
    """
    epoch = step // steps_per_epoch
    match config.schedule:
        case "cosine":
            return step == 0 and round(config.warmup_epochs * steps_per_epoch) > 0
        case "epoch-warmup-cosine":
            return epoch == 0 and round(config.warmup_epochs) > 0
        case "epoch-cosine":
            return epoch < round(config.warmup_epochs)
        case _:
            return False


def load_buffers(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Load an optimiser's saved buffers; its settings stay the configuration's."""
    own = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def set_learning_rates(
    optimizer: Optimizer, config: TrainConfig, step: int, steps_per_epoch: int, factor: float = 1.0
) -> float:
    """Set every group's rate for optimiser step `step` (from 0); return the method's.

    A group with `fixed_lr` keeps the base rate, but where `warms_up_fixed_rates`. In the first
    `predictor_warmup_steps` of every epoch but the first, backbone and projector rest at rate 0. All rates
    are multiplied by `factor`, and each group's by its `lr_scale`. Weight decay follows its schedule.
    """
    warms_up = warms_up_fixed_rates(config, step, steps_per_epoch)
    rests = step >= steps_per_epoch and step % steps_per_epoch < config.predictor_warmup_steps
    for group in optimizer.param_groups:
        if config.final_weight_decay >= 0 and group["weight_decay"]:
            group["weight_decay"] = scheduled_weight_decay(config, step, steps_per_epoch)
        if rests and group["name"] in ("backbone", "projector"):
            group["lr"] = 0.0
        elif group["fixed_lr"] and not warms_up:
            group["lr"] = factor * group["base_lr"]
        else:
            group["lr"] = factor * scheduled_lr(config, step, steps_per_epoch, group["base_lr"])
        group["lr"] *= group.get("lr_scale", 1.0)  # runs from before have none
    return factor * scheduled_lr(config, step, steps_per_epoch, base_lr(config))
