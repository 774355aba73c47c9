"""Updates of few levels: sign, ternary and k bits, with one number per tensor for their size.

    u = size * level(g / size),   level in {-1, 1}, {-1, 0, 1} or the whole numbers of k bits

A level has no derivative of its own: `straight_through` takes that of g in place of u's, so that
the exact meta-gradient passes through the inner gradients (second order); `zero` takes 0, as
Sign-MAML does (Fan et al. 2021), and then nothing of second order is left. The size is a constant
to every gradient.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikeshot.learn.rules.rounding import Rounding, Use, straight_through, to_whole, uniform
from spikeshot.learn.rules.rule import Moment, Params
from spikeshot.learn.rules.transform import Fixed

Size = Literal["mean", "one"]
Derivative = Literal["straight_through", "zero"]


@dataclass(frozen=True)
class Sign(Fixed):
    """Only the sign of a gradient counts (Sign-MAML, Fan et al. 2021).

    `size`: `one`, updates are -1 or 1 (before the rate); `mean`, times the tensor's mean |g|
    (signSGD with a scale, Bernstein et al. 2018), so that rates mean what they mean without it. A
    gradient of 0 stays 0. `threshold`: gradients at or below so many times the tensor's root mean
    square become 0 (ternary; 0: none), and `mean` is over those that stay (TernGrad's idea, Wen et
    al. 2017).
    """

    size: Size = "mean"
    threshold: float = 0.0
    derivative: Derivative = "straight_through"

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return -size, 0 or size for every parameter, with the sign of its gradient."""
        return {name: self._level(grad) for name, grad in grads.items()}, None

    def _level(self, grad: Tensor) -> Tensor:
        value = grad.detach()
        kept = value.abs() > self.threshold * value.square().mean().sqrt()
        level = value.sign() * kept
        mean = (value.abs() * kept).sum() / kept.sum().clamp(min=1)
        if self.derivative == "zero":
            return level * (mean if self.size == "mean" else 1)
        if self.size == "mean":
            return straight_through(grad, level * mean)
        return straight_through(grad / torch.where(mean > 0, mean, torch.ones_like(mean)), level)


@dataclass(frozen=True)
class Levels(Fixed):
    """Gradients of `bits` bits: whole numbers up to 2^(bits - 1) - 1 times a step per tensor.

    The step takes the tensor's largest |g| to the largest number (QSGD, Alistarh et al. 2017, with
    the maximum as norm); 2 bits have the levels -1, 0 and 1. Stochastic rounding keeps the mean.
    """

    bits: int
    rounding: Rounding = "nearest"
    derivative: Derivative = "straight_through"

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return every gradient on the levels of its tensor."""
        return {name: self._level(name, grad, moment) for name, grad in grads.items()}, None

    def _level(self, name: str, grad: Tensor, moment: Moment) -> Tensor:
        largest = grad.detach().abs().max()
        step = torch.where(largest > 0, largest, 1.0) / (2 ** (self.bits - 1) - 1)
        draw = None
        if self.rounding == "stochastic":
            draw = uniform(moment, Use.UPDATE, name, grad)
        level = to_whole(grad / step, draw) * step
        return level if self.derivative == "zero" else straight_through(grad, level)
