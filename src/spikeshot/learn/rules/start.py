"""Where a task starts: the readout as the support's prototypes instead of a learned one.

Triantafillou et al., "Meta-Dataset" (ICLR 2020), Proto-MAML: prototypical networks (Snell et al.
2017) classify by the squared distance to each class's mean feature c_k,

    -g |f - c_k|^2 = 2 g c_k f - g |c_k|^2 - g |f|^2,    g = gain / number of features,

which is a linear readout of f but for the last term, the same for all classes. Inner steps start
from that readout, for any number of ways, and the meta-gradient runs through it. With no inner step
it is the prototypical network itself.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import one_hot

from spikeshot.learn.rules.rule import Batch, Forward, Moment, Params


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Return the prototypes `[ways, F]`: each class's mean of features `[B, F]`.

    `labels` `[B]`, from 0. A class without a sample has the prototype 0.
    """
    member = one_hot(labels, ways).to(features)
    return (member / member.sum(0).clamp(min=1)).T @ features


@dataclass(frozen=True)
class Prototypes:
    """The readout starts as the support's prototypes; the features are its presynaptic traces.

    `gain`: start value of the learned gain (learned as its logarithm), of the mean squared distance
    per feature, so that it means the same for any width (`learn.prototype_gain`). The mean of all
    prototypes is taken off each weight row: logits change by the same number for all classes, and
    the weights stay small. The readout must be linear (`last` or `mean`).
    """

    gain: float

    def learned(self, params: Params) -> Params:
        """Return the logarithm of the gain, `[]`."""
        some = params["readout.weight"]
        return {"log_gain": some.new_tensor(math.log(self.gain))}

    def __call__(
        self, forward: Forward, params: Params, learned: Params, support: Batch, moment: Moment
    ) -> Params:
        """Return the parameters with the readout of this support; its labels are 0..ways-1."""
        trace = forward.recorded(params, support.frames).trace
        prototypes = class_means(trace, support.labels, len(params["readout.bias"]))
        middle, gain = prototypes.mean(0), learned["log_gain"].exp() / trace.shape[1]
        norms = prototypes.square().sum(1) - middle.square().sum()
        readout = {
            "readout.weight": 2 * gain * (prototypes - middle),
            "readout.bias": -gain * norms,
        }
        return params | readout
