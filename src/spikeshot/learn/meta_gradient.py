"""The meta-gradient: how the loss after adaptation changes with the meta-parameters.

`exact` is split in two: the query gradient at the adapted parameters is first-order (no graph
behind it), then one vector-Jacobian product carries it back through the inner steps, whose
gradients kept their graph. `first_order` treats the inner gradients as constants (FOMAML, Finn et
al. 2017). `double_backward` is the oracle of `exact`: one graph over everything.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikeshot.learn.adapt import adapt
from spikeshot.learn.rules.rule import Batch, Credit, Forward, Loss, Params, Rule

MetaGradientKind = Literal["exact", "first_order"]


@dataclass(frozen=True)
class MetaGradient:
    """Gradients for `init` and for the rule's `learned` values, with the query's loss and hits."""

    init: Params
    learned: Params
    loss: Tensor
    accuracy: Tensor


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
) -> MetaGradient:
    """Return the meta-gradient of one task, summed over nothing: the query loss is a mean."""
    leaves, rates = _leaves(init), _leaves(learned)
    if kind == "first_order":
        rule = Rule(_constant(rule.credit), rule.transform, rule.apply)
    adapted = adapt(forward, loss, leaves, rates, rule, support, steps, create_graph=True)
    endpoint = _leaves(adapted)
    logits = forward(endpoint, query.frames)
    value = loss(logits, query.labels)
    query_grads = torch.autograd.grad(value, list(endpoint.values()))
    grads = _pull_back(adapted, dict(zip(adapted, query_grads, strict=True)), leaves, rates)
    return _package(leaves, rates, grads, value, logits, query)


def meta_gradient_double_backward(
    forward: Forward,
    loss: Loss,
    init: Params,
    learned: Params,
    rule: Rule,
    support: Batch,
    query: Batch,
    steps: int,
) -> MetaGradient:
    """Return the exact meta-gradient through one graph over adaptation and query: the oracle."""
    leaves, rates = _leaves(init), _leaves(learned)
    adapted = adapt(forward, loss, leaves, rates, rule, support, steps, create_graph=True)
    logits = forward(adapted, query.frames)
    value = loss(logits, query.labels)
    wanted = [*leaves.values(), *rates.values()]
    grads = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    return _package(leaves, rates, grads, value, logits, query)


def _leaves(values: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in values.items()}


def _constant(credit: Credit) -> Credit:
    """Return `credit` with its gradients cut off from the graph."""

    def cut(
        forward: Forward, loss: Loss, params: Params, batch: Batch, create_graph: bool
    ) -> Params:
        leaves = _leaves(params)
        return {n: g.detach() for n, g in credit(forward, loss, leaves, batch, False).items()}

    return cut


def _pull_back(
    adapted: Params, cotangents: Params, leaves: Params, rates: Params
) -> tuple[Tensor, ...]:
    """Return the vector-Jacobian product of adaptation for every leaf and rate."""
    wanted = [*leaves.values(), *rates.values()]
    moved = [name for name, value in adapted.items() if value.requires_grad]
    return torch.autograd.grad(
        [adapted[name] for name in moved],
        wanted,
        [cotangents[name] for name in moved],
        allow_unused=True,
        materialize_grads=True,
    )


def _package(
    leaves: Params,
    rates: Params,
    grads: tuple[Tensor, ...],
    value: Tensor,
    logits: Tensor,
    query: Batch,
) -> MetaGradient:
    return MetaGradient(
        init=dict(zip(leaves, grads[: len(leaves)], strict=True)),
        learned=dict(zip(rates, grads[len(leaves) :], strict=True)),
        loss=value.detach(),
        accuracy=(logits.detach().argmax(-1) == query.labels).double().mean(),
    )
