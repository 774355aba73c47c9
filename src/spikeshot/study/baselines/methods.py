"""Ways to learn a task other than gradient steps on all weights, as learners for the same loop."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from spikeshot.learn.meta_train import Learner
from spikeshot.learn.rules.credit import backprop
from spikeshot.learn.rules.rule import Credit, Rule
from spikeshot.learn.rules.transform import DescendAtRate, RateKind
from spikeshot.study.baselines.networks import AnyNetwork, features_prepared
from spikeshot.study.baselines.prototypes import (
    Features,
    Prototypes,
    Reading,
    unit_length,
    write_readout,
)
from spikeshot.study.baselines.transfer import LogisticRegression

Method = Literal["maml", "none", "protonet", "centroid", "transfer"]


def learn_by(
    method: Method,
    learner: Learner,
    network: AnyNetwork,
    *,
    rate: float = 2.0,
    rates: RateKind = "fixed",
    penalty: float = 1.0,
) -> Learner:
    """Return how `method` learns: `learner` itself for `maml`, else one in its place.

    `none`: no adaptation. `protonet`: prototypes of the features, which are trained for it, at the
    temperature `rate`, learned unless `rates` is fixed. `centroid`: prototypes of features of unit
    length, which nothing trains. `transfer`: in training a plain classifier, whose tasks are
    batches of all classes; at validation and evaluation, logistic regression with `penalty` on its
    features of unit length.
    """
    features = partial(features_prepared, network)
    if method == "none":
        return replace(learner, inner_steps=0)
    if method == "protonet":
        descend = DescendAtRate(rate, "fixed" if rates == "fixed" else "scalar")
        return replace(
            learner, rule=Rule(Prototypes(features), descend, write_readout), inner_steps=1
        )
    if method == "centroid":
        return _on_unit_length(learner, features, Prototypes)
    if method == "transfer":
        test = _on_unit_length(learner, features, partial(LogisticRegression, penalty=penalty))
        plain = Rule(backprop, DescendAtRate(1.0), test.rule.apply)
        return replace(learner, rule=plain, inner_steps=0, test=test)
    return learner


def _on_unit_length(
    learner: Learner, features: Features, credit: Callable[[Features], Credit]
) -> Learner:
    """Return the learner that writes the readout `credit` gives, on features of unit length."""
    of = unit_length(features)
    rule = Rule(credit(of), DescendAtRate(1.0), write_readout)
    return replace(learner, forward=Reading(of), rule=rule, inner_steps=1, penalty=None)
