"""Prototypes as a rule: one inner step writes the means of the support's features into the readout.

For the mean c_k of class k's features f, the squared distance is |f - c_k|^2 = |f|^2 - 2 (c_k f -
|c_k|^2 / 2), and a softmax over classes does not see |f|^2: the readout with weights c_k and biases
-|c_k|^2 / 2 is the nearest-mean classifier (Snell et al. 2017, section 2.4), at temperature 2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.errors import ConfigError
from spikeshot.learn.rules.rule import Batch, Forward, Loss, Moment, Params
from spikeshot.learn.rules.start import class_means
from spikeshot.snn.network import Activity

Features = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""(params, prepared frames) -> features [B, F]."""

READOUT = ("readout.weight", "readout.bias")


def unit_length(features: Features) -> Features:
    """Return the features divided by their Euclidean norm, without a graph."""

    @torch.no_grad()
    def of(params: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        return F.normalize(features(params, frames), dim=1)

    return of


@dataclass(frozen=True)
class Reading:
    """The forward function of a linear readout on `features`, of which no time steps are known."""

    features: Features

    def __call__(self, params: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        """Return logits `[B, ways]`."""
        return self.recorded(params, frames).logits

    def recorded(self, params: Mapping[str, Tensor], frames: Tensor) -> Activity:
        """Return logits and features; of the layers below it tells nothing."""
        f = self.features(params, frames)
        logits = F.linear(f, params["readout.weight"], params["readout.bias"])
        return Activity(logits, (), f, f.new_ones(()))

    def last_steps(self, steps: int) -> "Reading":
        """Raise `ConfigError`: there are none."""
        raise ConfigError(
            "a readout on features has no time steps to cut off; choose learn.rule=sgd."
        )


class Prototypes:
    """Credit: a fresh readout's gradient of -(w_k c_k - b_k |c_k|^2 / 2), summed over classes.

    It is minus the prototypes: descended along, at any rate, it gives the nearest-mean classifier
    at that rate's temperature. The graph goes back through the features of the support.
    """

    def __init__(self, features: Features) -> None:
        self.features = features

    def __call__(
        self,
        forward: Forward,
        loss: Loss,
        params: Params,
        batch: Batch,
        create_graph: bool,
        moment: Moment,
    ) -> Params:
        """Return the gradient for the readout alone."""
        with torch.set_grad_enabled(create_graph):
            f = self.features(params, batch.frames)
            means = class_means(f, batch.labels, len(params["readout.bias"]))
            return {"readout.weight": -means, "readout.bias": means.square().sum(1) / 2}


def write_readout(params: Params, updates: Params, moment: Moment) -> Params:
    """Return the parameters with the updates as their readout: it is learned afresh, from zero."""
    return params | {name: updates[name] for name in READOUT}
