"""Adaptation: inner steps of a rule on the support set of one task."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from spikeshot.learn.rules.rule import Batch, Begun, Forward, Loss, Moment, Params, Rule


def adapt(
    forward: Forward,
    loss: Loss,
    params: Params,
    learned: Params,
    rule: Rule,
    support: Batch,
    steps: int,
    *,
    create_graph: bool = False,
    key: int = 0,
) -> Params:
    """Return the parameters after `steps` inner steps; `params` stay as they are.

    `learned`: present values of the rule's meta-parameters; `key`: the task's, for what is random
    in the rule. With `create_graph` the result can be differentiated through the inner gradients
    (second order); without, each step starts from leaves and leaves nothing behind.
    """
    begun = begin(forward, params, learned, rule, support, create_graph=create_graph, key=key)
    after = adaptation(
        forward, loss, begun, learned, support, steps, create_graph=create_graph, key=key
    )
    return last(after)


def last(after: Iterator[Params]) -> Params:
    """Return the parameters after the last inner step of `adaptation`; holds no others."""
    return deque(after, maxlen=1).pop()


def begin(
    forward: Forward,
    params: Params,
    learned: Params,
    rule: Rule,
    support: Batch,
    *,
    create_graph: bool = False,
    key: int = 0,
) -> Begun:
    """Return the rule and the parameters before the first inner step; else as `adapt`."""
    if not create_graph:
        params = {name: value.detach() for name, value in params.items()}
        learned = {name: value.detach() for name, value in learned.items()}
    with torch.set_grad_enabled(create_graph):
        return rule.begun(forward, params, learned, support, Moment(key, 0))


def adaptation(
    forward: Forward,
    loss: Loss,
    begun: Begun,
    learned: Params,
    support: Batch,
    steps: int,
    *,
    create_graph: bool = False,
    key: int = 0,
) -> Iterator[Params]:
    """Yield the parameters before the first inner step, then after each; else as `adapt`."""
    rule, params = begun
    if not create_graph:
        learned = {name: value.detach() for name, value in learned.items()}
    yield params
    state = rule.state(params)
    for step in range(steps):
        if not create_graph:
            params = {name: value.detach().requires_grad_() for name, value in params.items()}
        params, state = inner_step(
            *(forward, loss, params, state, learned, rule, support, Moment(key, step)),
            create_graph=create_graph,
        )
        yield params if create_graph else {name: value.detach() for name, value in params.items()}


def inner_step(
    forward: Forward,
    loss: Loss,
    params: Params,
    state: Any,
    learned: Params,
    rule: Rule,
    support: Batch,
    moment: Moment,
    *,
    create_graph: bool,
) -> tuple[Params, Any]:
    """Return parameters and the transform's state after one step of the rule."""
    grads = rule.gradients(forward, loss, params, learned, support, create_graph, moment)
    updates, state = rule.transform.update(grads, state, learned, moment)
    changed = rule.changed(params)
    after = rule.apply(changed, updates, moment)
    return after if changed is params else params | after, state
