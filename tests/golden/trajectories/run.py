"""Follow a recorded trajectory step by step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from fullrank.methods import METHODS, Method, StepInfo, make_config
from fullrank.methods._two_branch import MomentumMethod
from fullrank.methods.dino import DINO
from fullrank.methods.wmse import WMSE
from fullrank.networks.momentum import cosine_tau
from fullrank.training.config import TrainConfig
from fullrank.training.optim import build_optimizer, clip_each, set_learning_rates
from golden.case import Case, comparer
from golden.settings import Refused
from golden.trajectories.architectures import check_heads, feature_width, listed_backbone
from golden.trajectories.optimization import check_groups, fixed_rate, training_config
from golden.trajectories.references import method_options, reference_of

OPTIMIZER_STATES = {"mu": "momentum_buffer"}  # a reference's name for it: ours
NOT_OURS = {"C"}  # what a reference tracks for its logs only, where our method has none
CONVERTED = {"code_matrix"}  # what a method keeps in another form and also takes in the reference's
NOISE = "not ours, or moved by rounding alone in single precision"
BY_STEP = ("param_norms", "delta_norms", "grad_norms", "buffer_norms")


def method_of(case: Case) -> Method:
    """Our method with the trajectory's options, architecture and initial state."""
    cls = METHODS[reference_of(case)[0]]
    architecture = case.settings["architecture"]
    backbone = listed_backbone(architecture)
    config = make_config(cls, method_options(case) | fixed_rate(case))
    method = cls(backbone, feature_width(backbone, case.tensor("in.views")), config).to(case.dtype)
    check_heads(architecture, method)
    load(case, method)
    return method.train()


def load(case: Case, method: Method) -> None:
    """The recorded state; a missing target is the online network's; batch counters and zeros stay."""
    given = {name: case.tensor(f"in.state/{name}") for name in case.names("in.state/")}
    state, parameters = method.state_dict(), dict(method.named_parameters())
    for key in state:
        source = key if key in given else key.removeprefix("target.")
        if source in given:
            if given[source].shape != state[key].shape and key not in NOT_OURS:
                shapes = list(given[source].shape), list(state[key].shape)
                raise Refused(f"in.state/{source} has shape {shapes[0]}, ours {shapes[1]}")
            state[key] = given[source]
        elif key in parameters:
            raise Refused(f"in.state/{key} is missing, a parameter of ours")
    unknown = {key: value for key, value in given.items() if key not in state}
    if surplus := sorted(unknown.keys() - CONVERTED - NOT_OURS):
        raise Refused(f"in.state/{surplus[0]}: ours has no such parameter or buffer")
    method.load_state_dict(
        state | {key: value for key, value in unknown.items() if key in CONVERTED}, strict=False
    )


def values_of(method: Method) -> dict[str, Tensor]:
    return dict(method.named_parameters()) | dict(method.named_buffers())


class Run:
    """One trajectory: what happens at every step, and what is recorded of it."""

    def __init__(self, case: Case) -> None:
        self.case, self.method = case, method_of(case)
        self.config: TrainConfig = training_config(case, reference_of(case)[0])
        self.optimizer: Optimizer = build_optimizer(self.method.param_groups(), self.config)
        self.values, self.columns = values_of(self.method), case.settings["columns"]
        check_groups(case, self.optimizer, self.values)
        self.held = self._held_columns()
        self.start = {name: self.values[name].detach().clone() for name in self.held["param_norms"]}
        self.seen: dict[str, list[Any]] = {}
        # a column for each parameter group of the reference; where ours is finer or coarser it reads by name
        self.group_of = {id(p): g for g in self.optimizer.param_groups for p in g["params"]}
        self.leads = [self._lead(group["params"]) for group in case.settings["groups"]]
        self.steps, self.per_epoch = (
            len(case.arrays["in.views"]),
            case.settings["schedule"]["steps_per_epoch"],
        )
        self.total = self.config.epochs * self.per_epoch

    def _lead(self, names: list[str]) -> Tensor:
        return next(
            (self.values[n] for n in names if id(self.values[n]) in self.group_of), self.values[names[0]]
        )

    def _held_columns(self) -> dict[str, list[str]]:
        """Columns that are compared, by array; the others are cut from it and noted."""
        noise = set(self.columns.get("zero_gradient", []))
        adaptive = self.config.optimizer.startswith("adam") and self.case.dtype != torch.float64
        held = {}
        sources = ("params", "params", "trainable", "buffers")
        for array, source in zip(BY_STEP, sources, strict=True):
            names = self.columns[source]
            lacking = [n for n in names if n not in self.values and n not in CONVERTED | NOT_OURS]
            if lacking:
                raise Refused(f"settings.columns.{source}: ours has no {lacking[0]}")
            held[array] = [n for n in names if n in self.values and not (adaptive and n in noise)]
            if left := [n for n in names if n not in held[array]]:
                self.case.left[f"out.{array} of {', '.join(left)}"] = NOISE
                recorded = self.case.arrays.get(f"out.{array}")
                if recorded is not None:
                    kept = [i for i, n in enumerate(names) if n in held[array]]
                    self.case.arrays[f"out.{array}"] = recorded[:, kept]
        return held

    def step(self, step: int) -> None:
        rate = set_learning_rates(self.optimizer, self.config, step, self.per_epoch)
        info = StepInfo(step, self.total, self.per_epoch)
        self._take_permutations(step)
        self.method.before_step(info)
        views = list(self.case.tensor("in.views")[step])
        self._record_outputs(step, views)
        result = self.method.loss(views)
        self.optimizer.zero_grad()
        result.loss.backward()
        self.method.after_backward()
        if self.config.clip_grad:
            part = self.method if self.config.clip_grad_of == "tensor" else self.method.backbone
            clip_each(part.parameters(), self.config.clip_grad)
        self._record("loss", result.loss.item())
        self._record(
            "lr", [self.group_of[id(p)]["lr"] if id(p) in self.group_of else rate for p in self.leads]
        )
        gradients = {name: self.values[name].grad for name in self.held["grad_norms"]}
        self._record("grad_norms", [0.0 if g is None else g.norm().item() for g in gradients.values()])
        if isinstance(self.method, DINO):
            self._record("teacher_temperature", self.method.temperature)
        self.optimizer.step()
        self.method.after_step(info)
        if isinstance(self.method, MomentumMethod):
            own = self.method.config
            self._record("tau", cosine_tau(own.tau_base, own.tau_final, info.progress))
        self.values = values_of(self.method)  # a buffer may be bound anew
        self._record_state()

    def _record(self, key: str, value: Any) -> None:
        self.seen.setdefault(key, []).append(value)

    def _take_permutations(self, step: int) -> None:
        """W-MSE takes the permutations that its reference drew at this step, one for each repetition."""
        if isinstance(self.method, WMSE):
            drawn = iter(self.case.tensor("in.perm")[step])
            self.method.permutation = lambda n: next(drawn)  # type: ignore[method-assign]

    @torch.no_grad()
    def _record_outputs(self, step: int, views: list[Tensor]) -> None:
        """Outputs of the views, on a copy: BN statistics move with every forward pass."""
        tap, wanted = reference_of(self.case)[1].tap, "out.singular_values" in self.case.arrays
        if step and not wanted:
            return
        free = copy.deepcopy(self.method)
        outputs = [free.encode_source(view)[tap] for view in views]
        if wanted:
            self._record("singular_values", [torch.linalg.svdvals(z).numpy() for z in outputs])
        for number, z in enumerate(outputs if step == 0 else [], 1):
            self.case.check(f"out.first_z{number}", z)

    def _record_state(self) -> None:
        def norms(key: str, of: Mapping[str, Tensor]) -> None:
            self._record(key, [of[name].double().norm().item() for name in self.held[key]])

        norms("param_norms", self.values)
        norms("delta_norms", {n: self.values[n].detach() - self.start[n] for n in self.start})
        norms("buffer_norms", self.values)
        if "C" in self.values:
            self._record("eigenvalues", torch.linalg.eigvalsh(self.values["C"]).numpy())

    def compare_end(self) -> None:
        """Compare what was recorded at every step, and tensors and optimiser states at the end."""
        for key, rows in self.seen.items():
            self.case.check(f"out.{key}", np.asarray(rows, dtype=np.float64))
        noise = set(self.columns["trainable"]) - set(self.held["grad_norms"])
        for key in self.case.names("out.final/"):
            if key in noise:
                self.case.skip(f"out.final/{key}", NOISE)
            elif key in self.values:
                self.case.check(f"out.final/{key}", self.values[key])
        kept = [i for i, n in enumerate(self.columns["trainable"]) if n not in noise]
        for key in self.case.names("out.optimizer_state_norms/"):
            name = f"out.optimizer_state_norms/{key}"
            self.case.arrays[name] = self.case.arrays[name][kept]
            slot = OPTIMIZER_STATES.get(key, key)
            states = [self.optimizer.state[self.values[n]] for n in self.held["grad_norms"]]
            if any(state and slot not in state for state in states):
                raise Refused(f"{name}: our optimiser has no state {slot}")
            self.case.check(name, [state[slot].norm().item() if state else 0.0 for state in states])


@comparer("13_trajectory")
def trajectory(case: Case) -> None:
    steps, views, n = case.arrays["in.views"].shape[:3]
    for key, size in (("steps", steps), ("views", views), ("n", n)):
        case.settings.expect(key, size)
    if "reference_names" in case.settings:
        case.settings["reference_names"].plain()  # another language for the same tensors
    run = Run(case)
    for step in range(run.steps):
        run.step(step)
    run.compare_end()
