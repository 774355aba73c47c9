"""Credit by backpropagation: the gradient of the support loss, in all of time or its last steps."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikeshot.learn.rules.rule import Batch, Credit, Forward, LearnedCredit, Loss, Moment, Params


def backprop(
    forward: Forward,
    loss: Loss,
    params: Params,
    batch: Batch,
    create_graph: bool,
    moment: Moment,
) -> Params:
    """Return the gradient of the loss on `batch` for every parameter, by backpropagation."""
    return gradient(loss(forward(params, batch.frames), batch.labels), params, create_graph)


def gradient(value: Tensor, params: Params, create_graph: bool) -> Params:
    """Return the gradient of `value` `[]` for every parameter, with a graph where it is asked."""
    grads = torch.autograd.grad(value, list(params.values()), create_graph=create_graph)
    return dict(zip(params, grads, strict=True))


@dataclass(frozen=True)
class Truncated:
    """A credit that looks back `steps` time steps from the end, and no further.

    The state of the neurons before them is that of the same parameters, but a constant: for the
    credit and, as the network's burn-in, for the meta-gradient too. Where the readout takes its
    `mean` or `count` over time, the logits are those of these last steps.
    """

    steps: int
    credit: Credit = backprop

    def __call__(
        self,
        forward: Forward,
        loss: Loss,
        params: Params,
        batch: Batch,
        create_graph: bool,
        moment: Moment,
    ) -> Params:
        """Return the credit through the last steps."""
        recent = forward.last_steps(self.steps)
        return self.credit(recent, loss, params, batch, create_graph, moment)

    def learned(self, params: Params) -> Params:
        """Return the meta-parameters of the credit within."""
        return self.credit.learned(params) if isinstance(self.credit, LearnedCredit) else {}

    def using(self, learned: Params) -> "Truncated":
        """Return the same with these values of the meta-parameters."""
        if not isinstance(self.credit, LearnedCredit):
            return self
        return replace(self, credit=self.credit.using(learned))
