"""Meta-training: Adam on meta-gradients, as a state and a pure step from one state to the next.

The state holds everything that the next step depends on; episodes are pure functions of their
index, so a saved state continues bit for bit. There is no random generator to save.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spikeshot.errors import DivergenceError
from spikeshot.learn.meta_gradient import MetaGradientKind, RatePenalty, Strategy, meta_gradient
from spikeshot.learn.parallel import ALONE, Team, numbers
from spikeshot.learn.rules.rule import Forward, Loss, Params, Posed, Rule
from spikeshot.learn.stopwatch import OFF, Watch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Learner:
    """What learns: a forward function and a loss, and the rule by which a task is learned.

    The first `first_order_iterations` are of first order (derivative-order annealing); over the
    first `multi_step` ones the query loss after every inner step counts (MAML++, Antoniou et al.
    2019, "How to train your MAML", sections 4.1 and 4.2). `test`: what learns tasks at validation
    and evaluation, where that is another. `penalty`: what the outer loop adds to the query loss for
    activity.
    """

    forward: Forward
    loss: Loss
    rule: Rule
    inner_steps: int
    meta_gradient: MetaGradientKind = "exact"
    strategy: Strategy = "split"
    micro_batch: int = 0
    multi_step: int = 0
    first_order_iterations: int = 0
    test: "Learner | None" = None
    penalty: RatePenalty | None = None

    def kind(self, iteration: int) -> MetaGradientKind:
        """Return the kind of meta-gradient of an iteration (from 0)."""
        return "first_order" if iteration < self.first_order_iterations else self.meta_gradient

    def weights(self, iteration: int) -> tuple[float, ...]:
        """Return the weights of the query loss after each inner step; () for the last step alone.

        They begin equal; all but the last fall linearly to 0 at iteration `multi_step`, and the
        last takes what they lose. The sum is 1.
        """
        if iteration >= self.multi_step:
            return ()
        others = (1 - iteration / self.multi_step) / self.inner_steps
        return (*[others] * (self.inner_steps - 1), 1 - others * (self.inner_steps - 1))


@dataclass(frozen=True)
class OuterLoop:
    """The outer loop's constants.

    `meta_lr` for the initial parameters and `rates_lr` for the rule's learned values, both warmed
    up over `warmup` iterations, then decayed by a cosine to zero at `iterations`; gradients are
    clipped to the norm `clip_norm` (0: not); `average` is the decay of the running mean of the
    meta-parameters that is evaluated (0: the parameters themselves).
    """

    iterations: int
    meta_lr: float = 2e-3
    rates_lr: float = 1e-2
    warmup: int = 100
    clip_norm: float = 10.0
    average: float = 0.0

    def schedule(self, iteration: int, place: int | None = None) -> float:
        """Return the factor on the learning rates at `iteration` (from 0).

        `place`: how far the decay is, where iterations do not say it (`clock.py`).
        """
        warm = min(1.0, (iteration + 1) / max(self.warmup, 1))
        place = iteration if place is None else place
        return warm * 0.5 * (1 + math.cos(math.pi * place / self.iterations))


@dataclass
class TrainState:
    """Everything the next step depends on; tensors are named as in the parameter tree."""

    iteration: int
    init: Params
    learned: Params
    first: Params = field(default_factory=dict)  # Adam's first moments, keys "init.*", "learned.*"
    second: Params = field(default_factory=dict)
    average: Params = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, for a checkpoint."""
        groups = {
            "init": self.init,
            "learned": self.learned,
            "first": self.first,
            "second": self.second,
            "average": self.average,
        }
        return {f"{g}/{name}": value for g, tree in groups.items() for name, value in tree.items()}

    @staticmethod
    def from_tensors(iteration: int, tensors: Mapping[str, Tensor]) -> "TrainState":
        """Return the state written by `tensors`."""
        trees: dict[str, Params] = {}
        for key, value in tensors.items():
            group, name = key.split("/", 1)
            trees.setdefault(group, {})[name] = value
        names = ("init", "learned", "first", "second", "average")
        return TrainState(iteration, *(trees.get(name, {}) for name in names))

    def evaluated(self) -> tuple[Params, Params]:
        """Return the meta-parameters to evaluate: the running mean where there is one."""
        if not self.average:
            return self.init, self.learned
        return _ungroup(self.average)


@dataclass(frozen=True)
class StepReport:
    """What one meta-iteration saw: mean query loss and accuracy after adaptation, and norms.

    `stopping`: a process of the run was asked to stop; all processes hear it in the same iteration.
    """

    iteration: int
    loss: float
    accuracy: float
    grad_norm: float
    stopping: bool = False


def meta_step(
    learner: Learner,
    outer: OuterLoop,
    state: TrainState,
    tasks: Sequence[Posed],
    *,
    team: Team = ALONE,
    watch: Watch = OFF,
    stop: Callable[[], bool] = lambda: False,
    place: int | None = None,
) -> tuple[TrainState, StepReport]:
    """Return the state after one meta-iteration over `tasks`.

    `tasks` are this process's share; every process of the team has as many, and all return the same
    state. `stop` is asked once, and the answer told to all (`StepReport.stopping`). `place`: how
    far the schedules are, where iterations do not say it.

    Raises `DivergenceError`, naming iteration, task and parameter, when a loss or gradient is not
    finite, in all processes alike; `state` is left as it was.
    """
    count = team.world * len(tasks)
    at = state.iteration if place is None else place
    found: Params = {}
    told: dict[str, list[float]] = {name: [0.0] * count for name in ("loss", "accuracy", "broken")}
    for number, (support, query, key) in zip(numbers(team, count), tasks, strict=True):
        g = meta_gradient(
            learner.forward,
            learner.loss,
            state.init,
            state.learned,
            learner.rule,
            support,
            query,
            learner.inner_steps,
            learner.kind(at),
            strategy=learner.strategy,
            micro_batch=learner.micro_batch,
            watch=watch,
            key=key,
            weights=learner.weights(at),
            penalty=learner.penalty,
        )
        grads = _group(g.init, g.learned)
        told["loss"][number], told["accuracy"][number] = float(g.loss), float(g.accuracy)
        told["broken"][number] = _first_broken(grads)
        for name, value in grads.items():
            found[name] = found[name] + value.double() if name in found else value.double()
    like = next(iter(found.values()))
    notes = {name: like.new_tensor(values) for name, values in told.items()}
    notes["stop"] = like.new_tensor([stop()])
    with watch.phase("reduce" if team.world > 1 else "optimiser"):
        total = team.sum(found | notes)  # the only word between processes in an iteration
    with watch.phase("optimiser"):
        notes = {name: total.pop(name) for name in notes}
        _require_finite(state.iteration, notes["loss"], notes["broken"], list(total))
        values = _group(state.init, state.learned)
        mean = {name: (value / count).to(values[name].dtype) for name, value in total.items()}
        after, norm = _outer_step(outer, state, mean, at)
    loss, accuracy = (float(notes[name].mean()) for name in ("loss", "accuracy"))
    return after, StepReport(state.iteration, loss, accuracy, norm, bool(notes["stop"].any()))


def _outer_step(
    outer: OuterLoop, state: TrainState, grads: Params, place: int
) -> tuple[TrainState, float]:
    """Return the state after one step along `grads`, clipped, and their norm before that."""
    squares = (grads[name].double().square().sum() for name in sorted(grads))
    norm = float(torch.sqrt(sum(squares, _ZERO)))  # sorted: a resumed state has another order
    if outer.clip_norm and norm > outer.clip_norm:
        grads = {name: value * (outer.clip_norm / norm) for name, value in grads.items()}
    after = _adam(outer, state, grads, place)
    _require_finite_state(after)
    return after, norm


_ZERO = torch.zeros((), dtype=torch.float64)


def _adam(outer: OuterLoop, state: TrainState, grads: Params, place: int) -> TrainState:
    """Return the state after one Adam step (Kingma & Ba 2015), the running mean included."""
    t = state.iteration + 1
    factor = outer.schedule(state.iteration, place)
    values = _group(state.init, state.learned)
    after: dict[str, Params] = {"value": {}, "first": {}, "second": {}, "average": {}}
    decay = min(outer.average, t / (t + 10))  # a short memory at the start
    for name, grad in grads.items():
        zero = torch.zeros_like(grad)
        first = BETA1 * state.first.get(name, zero) + (1 - BETA1) * grad
        second = BETA2 * state.second.get(name, zero) + (1 - BETA2) * grad.square()
        rate = factor * (outer.meta_lr if name.startswith("init.") else outer.rates_lr)
        scale = (second / (1 - BETA2**t)).sqrt() + EPSILON
        value = values[name] - rate * (first / (1 - BETA1**t)) / scale
        after["value"][name], after["first"][name], after["second"][name] = value, first, second
        if outer.average:
            mean = state.average.get(name, value)
            after["average"][name] = decay * mean + (1 - decay) * value
    init, learned = _ungroup(after["value"])
    return TrainState(t, init, learned, after["first"], after["second"], after["average"])


def _group(init: Params, learned: Params) -> Params:
    return {f"init.{n}": v for n, v in init.items()} | {
        f"learned.{n}": v for n, v in learned.items()
    }


def _ungroup(values: Params) -> tuple[Params, Params]:
    init = {n.removeprefix("init."): v for n, v in values.items() if n.startswith("init.")}
    learned = {n.removeprefix("learned."): v for n, v in values.items() if n.startswith("learned.")}
    return init, learned


def _first_broken(grads: Mapping[str, Tensor]) -> int:
    """Return the place, from 1, of the first gradient that is not finite; 0 when all are."""
    broken = (i for i, grad in enumerate(grads.values(), 1) if not torch.isfinite(grad).all())
    return next(broken, 0)


def _require_finite(iteration: int, loss: Tensor, broken: Tensor, names: Sequence[str]) -> None:
    """Raise for the first task whose loss or gradients are not finite."""
    for task, (value, place) in enumerate(zip(loss.tolist(), broken.tolist(), strict=True)):
        if not math.isfinite(value) or place:
            bad = names[int(place) - 1]
            what = f"the gradient of {bad} is not" if place else "every gradient is"
            raise DivergenceError(
                f"iteration {iteration}, task {task}: the query loss is {value} ({what} finite). "
                f"{_REMEDY}"
            )


def _require_finite_state(state: TrainState) -> None:
    for name, value in _group(state.init, state.learned).items():
        if not torch.isfinite(value).all():
            raise DivergenceError(
                f"iteration {state.iteration - 1}: its step makes {name} infinite or no number. "
                f"{_REMEDY}"
            )


_REMEDY = (
    "Lower train.meta_lr or learn.rate, or set train.clip_norm; the last good checkpoint is kept."
)
