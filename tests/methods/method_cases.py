"""Every method, with each option at its default and at another value: two steps in double precision."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.errors import FullrankError
from fullrank.methods import METHODS, Method, StepInfo, explain_loss
from fullrank.methods._base import ParamGroup, make_config
from fullrank.methods._config import head_width
from methods.shrunk import SIDE, method, shrunk, training_step
from methods.test_every_method import WITH, alternatives
from recorded import Case

IN_PIXELS = (32, 64, 65, 96, 97, 224)
ROLES = (
    (), ("both", "both", "source"), ("source", "target", "both"), ("target", "source", "source"),
    ("source", "source", "source"), ("target", "target", "target"), ("source", "target"),
)  # fmt: skip
FLAGS = (
    "name", "paper", "year", "mechanism", "views_needed", "needs_tokens", "caveat", "compares_batch",
    "per_process", "two_branches", "dip", "least_loss", "fixed_lr_parts", "eval_parts",
    "small_batch_defaults",
)  # fmt: skip


def exact(name: str, **options: Any) -> Method:
    """A small method whose weights are the same on every machine."""
    m = method(name, **options).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in m.parameters():
            moved = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(moved / max(parameter.shape[-1], 4) ** 0.5)
    return m


def made(count: int, n: int = 24, seed: int = 1, side: int = SIDE) -> list[Tensor]:
    """Views that share something."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 3, side, side, generator=generator, dtype=torch.float64)
    other = [torch.randn(image.shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [image + 0.5 * noise for noise in other]


def followed(name: str, more: int = 0, **options: Any) -> list[Any]:
    """Two steps: losses, terms, taps, gradients, and what is left."""
    m, found = exact(name, **options), list[Any]()
    for step in range(2):
        torch.manual_seed(step)
        batch = made(m.views_needed + more, seed=step)
        done = training_step(m, batch, StepInfo(3 * step, 8, 2), lr=0.02)
        found += [done.loss, done.terms, {tap: z.square().mean() for tap, z in done.taps.items()}]
        found += [_norms(p.grad for p in m.parameters() if p.grad is not None)]
    found += [_norms(m.state_dict().values()), dict(m.eval().embed(made(1)[0]))]
    return found


def _norms(tensors: Any) -> Any:
    """Sums of squares, and plain ones, of all tensors together."""
    numbers = torch.cat([tensor.double().flatten() for tensor in tensors])
    return [numbers.square().sum(), numbers]


def other_options(name: str) -> dict[str, dict[str, Any]]:
    config = METHODS[name].Config
    hints, small = typing.get_type_hints(config), shrunk(name)
    found = {}
    for option in fields(config):
        beside = {k: v for k, v in WITH.get(option.name, {}).items() if k in hints}
        for other in alternatives(option.name, hints[option.name], small.get(option.name, option.default)):
            other = 16 if (option.name, other) == ("proj_hidden_dim", 1) else other  # one unit tells nothing
            found[f"{option.name} {other}"] = beside | {option.name: other}
    return found


def declared(name: str) -> dict[str, Any]:
    cls, m = METHODS[name], exact(name)
    groups: Sequence[ParamGroup] = m.param_groups()
    return {
        "flags": {flag: getattr(cls, flag) for flag in FLAGS},
        "defaults": [dict(cls.defaults(pixels)) for pixels in IN_PIXELS],
        "by batch": [dict(cls.option_defaults(batch, named)) for batch, named in product(
            (16, 255, 256, 4096), ((), ("teacher",), ("teacher_temperature", "symmetric")))],
        "groups": [[g.name, len(g.params), g.fixed_lr] for g in groups],
        "capacities": m.capacities(),
        "follows": [m.target_follows, m.copy_backbone_to_target()],
        "trained": {key: p.requires_grad for key, p in m.named_parameters()},
        "state": {key: list(tensor.shape) for key, tensor in m.state_dict().items()},
        "prototypes": None if (rows := m.prototype_rows()) is None else list(rows.shape),
        "temperature of codes": m.code_temperature,
        "modes": [part.training for part in m.train().modules()],
    }  # fmt: skip


def of_roles(name: str) -> list[Any]:
    """Losses where views have roles, some are small, or too few come."""
    found: list[Any] = []
    for given in ROLES:
        m = exact(name)
        m.roles = given
        found.append(_loss(m, made(3)))
    found += [_loss(exact(name), made(count)) for count in (0, 1, 2)]
    found += [_loss(exact(name), made(2, n)) for n in (1, 2, 3)]
    m = exact(name)
    m.info = StepInfo(9, 10, 1)
    return [*found, m.info.progress, m.info.epoch, _loss(m, made(3)), _loss(m.eval(), made(3))]


def _loss(m: Method, views: list[Tensor]) -> Any:
    torch.manual_seed(0)
    try:
        return m.loss(views).loss
    except FullrankError as error:
        return str(error)
    except (RuntimeError, ValueError) as error:  # of torch itself
        return type(error).__name__


def explained(name: str) -> list[Any]:
    """What a loss's value means, at every fixed point and beside it."""
    found: list[Any] = []
    for batch, views, width in ((256, 2, 512), (8, 4, 64)):
        try:
            points = explain_loss(1e9, name, batch_size=batch, views=views, feature_dim=width).fixed_points
        except FullrankError as error:
            found.append(str(error))
            continue
        values = [point["value"] for point in points]
        tried = sorted(
            {v + step * max(1.0, abs(v)) for v in values for step in (-0.0101, -0.0099, 0.0, 0.011)}
        )
        for value in (-9.0, *tried):
            says = explain_loss(value, name, batch_size=batch, views=views, feature_dim=width)
            found.append([value, says.lines, [point["state"] for point in says.at]])
        found.append(says.as_dict())
    wrong = ({"views": 0}, {"tolerance": 0.0}, {"batch_size": 0}, {"value": float("nan")})
    return [*found, *(_refusal(name, {"value": 1.0, **options}) for options in wrong)]


def _refusal(name: str, options: dict[str, Any]) -> Any:
    try:
        return explain_loss(method=name, **options).lines
    except FullrankError as error:
        return str(error)


def refused(name: str) -> dict[str, Any]:
    """Which values of an option are refused, and how."""
    config = METHODS[name].Config
    found: dict[str, Any] = {}
    for option in fields(config):
        if isinstance(option.default, bool | str):
            values: tuple[Any, ...] = ("no such",)
        elif isinstance(option.default, int):
            values = (-1, 0, 1, 2)
        else:
            values = (-0.1, 0.0, 1e-9, 0.5, 1.0, 1.1, float("inf"))
        found[option.name] = [_config(name, {option.name: value}) for value in values]
    return found


def _config(name: str, options: dict[str, Any]) -> str:
    try:
        made_config = make_config(METHODS[name], options)
        fitted = made_config.fit(64)
        METHODS[name](nn.Flatten(), 64, fitted) if "num_codes" not in options else None
    except FullrankError as error:
        return str(error)
    return "taken"


CASES: dict[str, Case] = {f"{name}: two steps": partial(followed, name) for name in METHODS}
CASES |= {f"{name}: two steps of more views": partial(followed, name, 2) for name in METHODS}
CASES |= {
    f"{name}: {words}": partial(followed, name, 1, **options)
    for name in METHODS
    for words, options in other_options(name).items()
}
CASES |= {
    f"{name}: {part.__name__.replace('_', ' ')}": partial(part, name)
    for part in (declared, of_roles, explained, refused)
    for name in METHODS
}
CASES["widths of heads"] = lambda: [
    head_width(paper, width) for paper, width in product((128, 2048), (8, 64, 511, 512, 2048))
]
