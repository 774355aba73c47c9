"""Adaptation: inner steps of a rule on the support set of one task."""

from typing import Any

from spikeshot.learn.rules.rule import Batch, Forward, Loss, Moment, Params, Rule


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
    if not create_graph:
        params = {name: value.detach() for name, value in params.items()}
        learned = {name: value.detach() for name, value in learned.items()}
    rule = rule.settled(params)
    params = rule.place(params, Moment(key, 0))
    state = rule.transform.init(params)
    for step in range(steps):
        if not create_graph:
            params = {name: value.detach().requires_grad_() for name, value in params.items()}
        params, state = inner_step(
            *(forward, loss, params, state, learned, rule, support, Moment(key, step)),
            create_graph=create_graph,
        )
    return params if create_graph else {name: value.detach() for name, value in params.items()}


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
    seen = rule.seen(forward, moment)
    grads = rule.credit(seen, loss, params, support, create_graph, moment)
    updates, state = rule.transform.update(grads, state, learned, moment)
    return rule.apply(params, updates, moment), state
