"""The meta-gradient: how the loss after adaptation changes with the meta-parameters.

`exact` is taken in two parts: the query gradient at the adapted parameters is first-order (no graph
behind it, so it can be taken in micro-batches), then one vector-Jacobian product carries it back
through the inner steps. Three strategies give the same numbers:

    split            the inner gradients keep their graph (fastest; memory grows with the steps)
    remat            only the parameters between steps are kept, and each step is run again when
                     the product passes through it (memory flat in the number of steps)
    double_backward  one graph over everything: the oracle

`first_order` treats the inner gradients as constants (FOMAML, Finn et al. 2017). `reptile` takes
(start - adapted) / inner steps for the gradient (Nichol et al. 2018), by no query and no strategy.
With `weights` the query loss after every inner step counts (MAML++, Antoniou et al. 2019).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spikeshot.learn.adapt import adaptation, begin, inner_step, last
from spikeshot.learn.rules.forward import Clocked
from spikeshot.learn.rules.rule import Batch, Forward, Loss, Moment, Params, Rule
from spikeshot.learn.stopwatch import OFF, Watch

MetaGradientKind = Literal["exact", "first_order", "reptile"]
Strategy = Literal["split", "remat", "double_backward"]


@dataclass(frozen=True)
class MetaGradient:
    """Gradients for `init` and for the rule's `learned` values.

    `loss` and `accuracy` are those of the query after the last inner step.
    """

    init: Params
    learned: Params
    loss: Tensor
    accuracy: Tensor


@dataclass(frozen=True)
class RatePenalty:
    """What the outer loop adds to the query's loss where neurons fire more often than `target`.

    It is `weight` times the squared excess of the firing rate, a mean over samples and layers.
    `forward` gives logits `[B, ways]` and the mean activity of each layer, `[B, layers]`. Each
    sample has its own penalty, so micro-batches change nothing.
    """

    forward: Callable[[Mapping[str, Tensor], Tensor], tuple[Tensor, Tensor]]
    weight: float
    target: float

    def of(self, rates: Tensor) -> Tensor:
        """Return the penalty of rates `[B, layers]`."""
        return self.weight * (rates - self.target).clamp(min=0).square().mean()


@dataclass(frozen=True)
class Problem:
    """One task as the strategies see it: what is adapted, how, and on which samples."""

    forward: Forward
    loss: Loss
    init: Params
    learned: Params
    rule: Rule
    support: Batch
    query: Batch
    steps: int
    micro_batch: int
    prepare: Callable[[Tensor], Tensor]
    watch: Watch
    key: int
    weights: Mapping[int, float]  # of the query loss after so many inner steps, zeros left out
    penalty: RatePenalty | None


def meta_gradient(
    forward: Forward,
    loss: Loss,
    init: Params,
    learned: Params,
    rule: Rule,
    support: Batch,
    query: Batch,
    steps: int,
    kind: MetaGradientKind = "exact",
    *,
    strategy: Strategy = "split",
    micro_batch: int = 0,
    prepare: Callable[[Tensor], Tensor] | None = None,
    watch: Watch = OFF,
    key: int = 0,
    weights: Sequence[float] = (),
    penalty: RatePenalty | None = None,
) -> MetaGradient:
    """Return the meta-gradient of one task; the query loss is a mean over the query.

    `micro_batch`: query samples per pass (0: all at once); `double_backward` ignores it. `prepare`
    makes of a query's frames what `forward` takes, each pass its own, so that what is made never
    lies in memory for all of them (None: the frames are prepared). `watch` hears of the phases
    `forward`, `inner`, `query` and `backward` (`stopwatch.py`). `key`: the task's, for what is
    random in the rule. `weights`: of the query loss after each inner step, the last not 0 (none
    given: the last alone). `penalty`: what is added to the query loss for activity. `reptile` knows
    no `learned`, no `weights` and no `penalty`.
    """
    if kind == "first_order":
        rule = replace(rule, constant=True)
    problem = Problem(
        forward,
        loss,
        _leaves(init),
        _leaves(learned),
        rule,
        support,
        query,
        steps,
        micro_batch,
        prepare or _as_it_is,
        watch,
        key,
        {i: w for i, w in enumerate(weights, 1) if w} or {steps: 1.0},
        penalty,
    )
    return _reptile(problem) if kind == "reptile" else _STRATEGIES[strategy](problem)


def _split(p: Problem) -> MetaGradient:
    outputs, cotangents = list[Tensor](), list[Tensor]()
    p, path = _path(p)
    with p.watch.phase("query"):
        for step in p.weights:
            grads, loss, accuracy = _query_gradient(p, path[step], step)
            outputs += path[step].values()
            cotangents += grads.values()
    wanted = [*p.init.values(), *p.learned.values()]
    with p.watch.phase("backward"):
        found = _pull_back(outputs, cotangents, wanted)
    return _package(p, found, loss, accuracy)


def _remat(p: Problem) -> MetaGradient:
    forward = Clocked(p.forward, p.watch)
    with p.watch.phase("inner"):
        begun = begin(forward, p.init, p.learned, p.rule, p.support, create_graph=True, key=p.key)
        p, placed = replace(p, rule=begun.rule), begun.params
        start = pytree.tree_map(_detached, placed)
        carries = [(start, p.rule.state(start))]
        for step in range(p.steps):
            params, state = carries[-1]
            after = inner_step(
                *(forward, p.loss, _leaves(params), state, p.learned, p.rule, p.support),
                Moment(p.key, step),
                create_graph=False,
            )
            carries.append(pytree.tree_map(_detached, after))
    grads: dict[int, Params] = {}
    with p.watch.phase("query"):
        for step in p.weights:
            grads[step], loss, accuracy = _query_gradient(p, carries[step][0], step)
    with p.watch.phase("backward"):
        found = _pull_back_again(p, placed, carries, grads)
    return _package(p, found, loss, accuracy)


def _pull_back_again(
    p: Problem, placed: Params, carries: list[tuple[Params, Any]], grads: Mapping[int, Params]
) -> tuple[Tensor, ...]:
    """Return the product back through the inner steps, each run again from its carry."""
    rates = list(p.learned.values())
    for_rates = [torch.zeros_like(rate) for rate in rates]
    cotangents = [*grads[p.steps].values(), *map(torch.zeros_like, _tensors(carries[-1][1]))]
    for step, carry in reversed(list(enumerate(carries[:-1]))):
        params, state = pytree.tree_map(_leaf, carry)
        after = inner_step(
            *(p.forward, p.loss, params, state, p.learned, p.rule, p.support),
            Moment(p.key, step),
            create_graph=True,
        )
        before = _tensors((params, state))
        found = _pull_back(_tensors(after), cotangents, [*before, *rates])
        cotangents = list(found[: len(before)])
        if step in grads:
            for i, grad in enumerate(grads[step].values()):
                cotangents[i] = cotangents[i] + grad
        for_rates = [a + b for a, b in zip(for_rates, found[len(before) :], strict=True)]
    for_placed, wanted = cotangents[: len(p.init)], [*p.init.values(), *rates]
    found = _pull_back(list(placed.values()), for_placed, wanted)
    started = zip(for_rates, found[len(p.init) :], strict=True)
    return (*found[: len(p.init)], *(a + b for a, b in started))


def _double_backward(p: Problem) -> MetaGradient:
    p, path = _path(p)
    total = torch.zeros((), dtype=torch.float64)
    with p.watch.phase("query"):
        frames = p.prepare(p.query.frames)
        for step, weight in p.weights.items():
            logits, extra = _seen_after(p, step)(path[step], frames)
            value = p.loss(logits, p.query.labels) + extra
            total = value * weight + total.to(value)
    wanted = [*p.init.values(), *p.learned.values()]
    with p.watch.phase("backward"):
        found = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
    return _package(p, found, value.detach(), _hits(logits, p.query.labels) / len(logits))


def _reptile(p: Problem) -> MetaGradient:
    """Return (placed - adapted) / inner steps: the mean inner update, the inner rate in it.

    Nichol et al. divide by the rate too; Adam takes a constant factor out of its step, the clipping
    of the norm does not. Inner steps see the support alone: give it more shots than one, and take
    more than one step, for with one step this is training on all tasks at once.
    """
    forward = Clocked(p.forward, p.watch)
    with p.watch.phase("inner"):
        begun = begin(forward, p.init, p.learned, p.rule, p.support, key=p.key)
        p = replace(p, rule=begun.rule)
        adapted = last(
            adaptation(*(forward, p.loss, begun, p.learned, p.support, p.steps), key=p.key)
        )
    with p.watch.phase("query"), torch.no_grad():
        logits, _ = _seen_after(p, p.steps)(adapted, p.prepare(p.query.frames))
        loss = p.loss(logits, p.query.labels)
    found = [
        (a - b) / max(p.steps, 1)
        for a, b in zip(begun.params.values(), adapted.values(), strict=True)
    ]
    nothing = [torch.zeros_like(value) for value in p.learned.values()]
    return _package(p, (*found, *nothing), loss, _hits(logits, p.query.labels) / len(logits))


_STRATEGIES: dict[str, Callable[[Problem], MetaGradient]] = {
    "split": _split,
    "remat": _remat,
    "double_backward": _double_backward,
}


def _path(p: Problem) -> tuple[Problem, list[Params]]:
    """Return the task with its rule settled, and its parameters with their graph.

    These are the parameters before the first inner step and after each.
    """
    forward = Clocked(p.forward, p.watch)
    with p.watch.phase("inner"):
        begun = begin(forward, p.init, p.learned, p.rule, p.support, create_graph=True, key=p.key)
        steps = adaptation(
            *(forward, p.loss, begun, p.learned, p.support, p.steps),
            create_graph=True,
            key=p.key,
        )
        return replace(p, rule=begun.rule), list(steps)


def _seen_after(p: Problem, step: int) -> Callable[[Params, Tensor], tuple[Tensor, Tensor | float]]:
    """Return the function of the parameters after `step` inner steps: logits and the penalty."""
    moment = Moment(p.key, step)
    forward = p.rule.seen(p.forward, moment)

    def run(params: Params, frames: Tensor) -> tuple[Tensor, Tensor | float]:
        if p.penalty is None:
            return forward(params, frames), 0.0
        logits, rates = p.penalty.forward(p.rule.read(params, moment), frames)
        return logits, p.penalty.of(rates)

    return run


def _query_gradient(p: Problem, adapted: Params, step: int) -> tuple[Params, Tensor, Tensor]:
    """Return the weighted gradient of the mean query loss at `adapted`, the loss and accuracy."""
    endpoint, forward = _leaves(adapted), _seen_after(p, step)
    samples = len(p.query.labels)
    total = {name: torch.zeros_like(value) for name, value in endpoint.items()}
    loss = hits = torch.zeros((), dtype=torch.float64, device=p.query.labels.device)
    for first in range(0, samples, p.micro_batch or samples):
        part = slice(first, first + (p.micro_batch or samples))
        logits, extra = forward(endpoint, p.prepare(p.query.frames[:, part]))
        share = len(logits) / samples
        value = (p.loss(logits, p.query.labels[part]) + extra) * share
        wanted = list(endpoint.values())  # a baseline's forward may leave some out
        grads = torch.autograd.grad(
            value * p.weights[step], wanted, allow_unused=True, materialize_grads=True
        )
        total = {n: total[n] + g for n, g in zip(total, grads, strict=True)}
        loss = loss + value.detach()
        hits = hits + _hits(logits, p.query.labels[part])
    return total, loss, hits / samples


def _pull_back(
    outputs: list[Tensor], cotangents: list[Tensor], wanted: list[Tensor]
) -> tuple[Tensor, ...]:
    """Return the vector-Jacobian product; outputs that depend on nothing wanted are left out.

    It is taken as the gradient of a number: for cotangents torch would import all of sympy, which
    takes 35 MB and half a second.
    """
    products = [
        (o * c.detach()).sum() for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad
    ]
    if not products:
        return tuple(map(torch.zeros_like, wanted))
    return torch.autograd.grad(
        torch.stack(products).sum(), wanted, allow_unused=True, materialize_grads=True
    )


def _package(p: Problem, grads: tuple[Tensor, ...], loss: Tensor, accuracy: Tensor) -> MetaGradient:
    return MetaGradient(
        init=dict(zip(p.init, grads[: len(p.init)], strict=True)),
        learned=dict(zip(p.learned, grads[len(p.init) :], strict=True)),
        loss=loss,
        accuracy=accuracy,
    )


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.detach().argmax(-1) == labels).double().sum()


def _as_it_is(frames: Tensor) -> Tensor:
    return frames


def _leaves(values: Params) -> Params:
    return {name: _leaf(value) for name, value in values.items()}


def _leaf(value: Any) -> Any:
    return value.detach().requires_grad_() if isinstance(value, Tensor) else value


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _tensors(tree: Any) -> list[Tensor]:
    return [value for value in pytree.tree_leaves(tree) if isinstance(value, Tensor)]
