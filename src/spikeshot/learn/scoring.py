"""Scoring: accuracy on the query of one episode, before and after adaptation, without a graph."""

from dataclasses import replace
from typing import NamedTuple

import torch

from spikeshot.learn.adapt import adaptation, begin, last
from spikeshot.learn.rules.rule import Batch, Forward, Loss, Moment, Params, Rule
from spikeshot.learn.rules.writes import counted

NOT_COUNTED = -1.0  # a number that equals itself, unlike NaN


class Score(NamedTuple):
    """Query accuracy (0..1) before and after adaptation, and the query loss after it.

    Where it was asked for: `writes` per weight, and the share of weights `touched`; else both are
    `NOT_COUNTED`.
    """

    before: float
    after: float
    loss: float
    writes: float = NOT_COUNTED
    touched: float = NOT_COUNTED


def score_episode(
    forward: Forward,
    loss: Loss,
    init: Params,
    learned: Params,
    rule: Rule,
    support: Batch,
    query: Batch,
    steps: int,
    key: int = 0,
    *,
    count_writes: bool = False,
) -> Score:
    """Adapt on the support and score the query; raises nothing, leaves nothing behind.

    Before adaptation nothing is known of the support: a readout that starts from it has not yet.
    `count_writes` takes a comparison of all weights at every inner step.
    """
    begun = begin(forward, init, learned, rule, support, key=key)
    early = begun
    if rule.start:
        early = begin(forward, init, learned, replace(rule, start=None), support, key=key)
    tally = None
    if count_writes:
        counting, tally = counted(begun.rule, begun.params)
        begun = begun._replace(rule=counting)
    adapted = last(adaptation(forward, loss, begun, learned, support, steps, key=key))
    with torch.no_grad():
        before = early.rule.seen(forward, Moment(key, 0))(early.params, query.frames)
        after = begun.rule.seen(forward, Moment(key, steps))(adapted, query.frames)
        paid = (tally.writes_per_weight, tally.touched) if tally else ()
        return Score(
            _accuracy(before, query),
            _accuracy(after, query),
            float(loss(after, query.labels)),
            *paid,
        )


def _accuracy(logits: torch.Tensor, query: Batch) -> float:
    return float((logits.argmax(-1) == query.labels).double().mean())
