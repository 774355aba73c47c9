"""Transfer: a classifier of the training classes lends its features to a new linear readout.

The classifier is trained in the ordinary way, on batches of all training classes. A task's readout
is then the L2-regularised logistic regression on the support's features of unit length: the strong
form of this baseline (Tian et al. 2020, "Rethinking few-shot image classification").
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.learn.rules.rule import Batch, Forward, Loss, Moment, Params
from spikeshot.study.baselines.prototypes import Features

ITERATIONS = 100  # of L-BFGS; some ten are used


def batch_size(ways: int, shots: int, queries: int, classes: int) -> tuple[int, int, int]:
    """Return ways, shots and queries of a task with as many samples, from as many classes as fit.

    Supervised learning wants batches of many classes. Each class gives one support sample and the
    same number of queries, at least one; what does not divide is left out.
    """
    samples = ways * (shots + queries)
    many = min(classes, samples // 2)
    return many, 1, samples // many - 1


@dataclass(frozen=True)
class LogisticRegression:
    """Credit: minus the readout that minimises loss + penalty / 2 |weights|^2 / samples.

    The loss is the mean cross-entropy of the support, its features taken without a graph. The
    minimum is the only one, so where the search starts (zero) and how it goes do not matter.
    """

    features: Features
    penalty: float = 1.0

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
        with torch.no_grad():
            f = self.features(params, batch.frames)
        weight, bias = fit(f, batch.labels, len(params["readout.bias"]), self.penalty)
        return {"readout.weight": -weight, "readout.bias": -bias}


def fit(f: Tensor, labels: Tensor, ways: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Return weights `[ways, F]` and biases `[ways]` of the regression on features `f` `[B, F]`."""
    x = f.double()
    weight = x.new_zeros(ways, x.shape[1], requires_grad=True)
    bias = x.new_zeros(ways, requires_grad=True)
    search = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        tolerance_grad=1e-8,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def value() -> Tensor:
        search.zero_grad()
        cost = F.cross_entropy(F.linear(x, weight, bias), labels)
        cost = cost + penalty / 2 * weight.square().sum() / len(x)
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    with torch.enable_grad():
        search.step(value)  # type: ignore[no-untyped-call]
    return weight.detach().to(f), bias.detach().to(f)
