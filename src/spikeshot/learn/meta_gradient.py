"""The meta-gradient: how the loss after adaptation changes with the meta-parameters.

`exact` is taken in two parts: the query gradient at the adapted parameters is first-order (no graph
behind it, so it can be taken in micro-batches), then one vector-Jacobian product carries it back
through the inner steps. Three strategies give the same numbers:

    split            the inner gradients keep their graph (fastest; memory grows with the steps)
    remat            only the parameters between steps are kept, and each step is run again when
                     the product passes through it (memory flat in the number of steps)
    double_backward  one graph over everything: the oracle

`first_order` treats the inner gradients as constants (FOMAML, Finn et al. 2017).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spikeshot.learn.adapt import adapt, inner_step
from spikeshot.learn.rules.rule import Batch, Credit, Forward, Loss, Moment, Params, Rule
from spikeshot.learn.stopwatch import OFF, Watch

MetaGradientKind = Literal["exact", "first_order"]
Strategy = Literal["split", "remat", "double_backward"]


@dataclass(frozen=True)
class MetaGradient:
    """Gradients for `init` and for the rule's `learned` values, with the query's loss and hits."""

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
    watch: Watch
    key: int
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
    watch: Watch = OFF,
    key: int = 0,
    penalty: RatePenalty | None = None,
) -> MetaGradient:
    """Return the meta-gradient of one task; the query loss is a mean over the query.

    `micro_batch`: query samples per pass (0: all at once); `double_backward` ignores it. `watch`
    hears of the phases `forward`, `inner`, `query` and `backward` (`stopwatch.py`). `key`: the
    task's, for what is random in the rule. `penalty`: what is added to the query loss for activity.
    """
    if kind == "first_order":
        rule = replace(rule, credit=_constant(rule.credit))
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
        watch,
        key,
        penalty,
    )
    return _STRATEGIES[strategy](problem)


def _split(p: Problem) -> MetaGradient:
    adapted = _adapted(p)
    with p.watch.phase("query"):
        grads, loss, accuracy = _query_gradient(p, adapted)
    wanted = [*p.init.values(), *p.learned.values()]
    with p.watch.phase("backward"):
        found = _pull_back(list(adapted.values()), list(grads.values()), wanted)
    return _package(p, found, loss, accuracy)


def _remat(p: Problem) -> MetaGradient:
    forward = p.watch.timed("forward", p.forward)
    with p.watch.phase("inner"):
        placed = p.rule.place(p.init, Moment(p.key, 0))
        start = pytree.tree_map(_detached, placed)
        carries = [(start, p.rule.transform.init(start))]
        for step in range(p.steps):
            params, state = carries[-1]
            after = inner_step(
                *(forward, p.loss, _leaves(params), state, p.learned, p.rule, p.support),
                Moment(p.key, step),
                create_graph=False,
            )
            carries.append(pytree.tree_map(_detached, after))
    with p.watch.phase("query"):
        grads, loss, accuracy = _query_gradient(p, carries[-1][0])
    with p.watch.phase("backward"):
        found = _pull_back_again(p, placed, carries, grads)
    return _package(p, found, loss, accuracy)


def _pull_back_again(
    p: Problem, placed: Params, carries: list[tuple[Params, Any]], grads: Params
) -> tuple[Tensor, ...]:
    """Return the product back through the inner steps, each run again from its carry."""
    rates = list(p.learned.values())
    for_rates = [torch.zeros_like(rate) for rate in rates]
    cotangents = [*grads.values(), *map(torch.zeros_like, _tensors(carries[-1][1]))]
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
        for_rates = [a + b for a, b in zip(for_rates, found[len(before) :], strict=True)]
    for_placed = cotangents[: len(p.init)]
    return (*_pull_back(list(placed.values()), for_placed, list(p.init.values())), *for_rates)


def _double_backward(p: Problem) -> MetaGradient:
    adapted = _adapted(p)
    with p.watch.phase("query"):
        logits, extra = _at_the_end(p)(adapted, p.query.frames)
        value = p.loss(logits, p.query.labels) + extra
    wanted = [*p.init.values(), *p.learned.values()]
    with p.watch.phase("backward"):
        found = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    return _package(p, found, value.detach(), _hits(logits, p.query.labels) / len(logits))


_STRATEGIES: dict[str, Callable[[Problem], MetaGradient]] = {
    "split": _split,
    "remat": _remat,
    "double_backward": _double_backward,
}


def _adapted(p: Problem) -> Params:
    """Return the adapted parameters with their graph."""
    forward = p.watch.timed("forward", p.forward)
    with p.watch.phase("inner"):
        return adapt(
            *(forward, p.loss, p.init, p.learned, p.rule, p.support, p.steps),
            create_graph=True,
            key=p.key,
        )


def _at_the_end(p: Problem) -> Callable[[Params, Tensor], tuple[Tensor, Tensor | float]]:
    """Return the function of adapted parameters and frames that gives logits and the penalty."""
    moment = Moment(p.key, p.steps)

    def run(params: Params, frames: Tensor) -> tuple[Tensor, Tensor | float]:
        if p.penalty is None:
            return p.rule.seen(p.forward, moment)(params, frames), 0.0
        logits, rates = p.penalty.forward(p.rule.read(params, moment), frames)
        return logits, p.penalty.of(rates)

    return run


def _query_gradient(p: Problem, adapted: Params) -> tuple[Params, Tensor, Tensor]:
    """Return the gradient of the mean query loss at `adapted`, the loss and the accuracy."""
    endpoint, forward = _leaves(adapted), _at_the_end(p)
    samples = len(p.query.labels)
    total = {name: torch.zeros_like(value) for name, value in endpoint.items()}
    loss = hits = torch.zeros((), dtype=torch.float64, device=p.query.labels.device)
    for first in range(0, samples, p.micro_batch or samples):
        part = slice(first, first + (p.micro_batch or samples))
        logits, extra = forward(endpoint, p.query.frames[:, part])
        share = len(logits) / samples
        value = (p.loss(logits, p.query.labels[part]) + extra) * share
        wanted = list(endpoint.values())  # a baseline's forward may leave some out
        grads = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
        total = {n: total[n] + g for n, g in zip(total, grads, strict=True)}
        loss = loss + value.detach()
        hits = hits + _hits(logits, p.query.labels[part])
    return total, loss, hits / samples


def _pull_back(
    outputs: list[Tensor], cotangents: list[Tensor], wanted: list[Tensor]
) -> tuple[Tensor, ...]:
    """Return the vector-Jacobian product; outputs that depend on nothing wanted are left out."""
    live = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    if not live:
        return tuple(map(torch.zeros_like, wanted))
    return torch.autograd.grad(
        [o for o, _ in live],
        wanted,
        [c for _, c in live],
        allow_unused=True,
        materialize_grads=True,
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


def _leaves(values: Params) -> Params:
    return {name: _leaf(value) for name, value in values.items()}


def _leaf(value: Any) -> Any:
    return value.detach().requires_grad_() if isinstance(value, Tensor) else value


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _tensors(tree: Any) -> list[Tensor]:
    return [value for value in pytree.tree_leaves(tree) if isinstance(value, Tensor)]


def _constant(credit: Credit) -> Credit:
    """Return `credit` with its gradients cut off from the graph."""

    def cut(
        forward: Forward,
        loss: Loss,
        params: Params,
        batch: Batch,
        create_graph: bool,
        moment: Moment,
    ) -> Params:
        grads = credit(forward, loss, _leaves(params), batch, False, moment)
        return {name: grad.detach() for name, grad in grads.items()}

    return cut
