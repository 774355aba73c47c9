"""Transforms with a memory over the inner steps of a task: momentum, and what is kept for later.

Every state is a parameter tree that starts at zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from spikeshot.learn.rules.quantise import Grid
from spikeshot.learn.rules.rounding import straight_through, to_whole
from spikeshot.learn.rules.rule import Moment, Params


class _Remembers:
    def learned(self, params: Params) -> Params:
        """Return nothing."""
        return {}

    def init(self, params: Params) -> Params:
        """Return zeros."""
        return {name: torch.zeros_like(value) for name, value in params.items()}


@dataclass(frozen=True)
class Momentum(_Remembers):
    """velocity = decay * velocity + gradient, which takes the gradient's place (Polyak 1964)."""

    decay: float

    def update(
        self, grads: Params, state: Params, learned: Params, moment: Moment
    ) -> tuple[Params, Params]:
        """Return the velocity, which is the state too."""
        velocity = {name: self.decay * state[name] + grad for name, grad in grads.items()}
        return velocity, velocity


@dataclass(frozen=True)
class KeepBack(_Remembers):
    """Large updates only: small ones are added up until they matter, then passed on whole.

    A number is passed on when its sum is above `threshold` times the root mean square of the
    tensor's present gradients; else 0 is, and the sum is kept. Which ones pass is a constant to
    every gradient: its derivative is 0 almost everywhere.
    """

    threshold: float

    def update(
        self, grads: Params, state: Params, learned: Params, moment: Moment
    ) -> tuple[Params, Params]:
        """Return what is passed on, and what is kept."""
        passed, kept = {}, {}
        for name, grad in grads.items():
            total = state[name] + grad
            level = self.threshold * grad.detach().square().mean().sqrt()
            large = (total.detach().abs() > level).to(grad.dtype)
            passed[name], kept[name] = total * large, total * (1 - large)
        return passed, kept


@dataclass(frozen=True)
class WholeSteps(_Remembers):
    """Updates of whole steps of the weights' grid; the rest is kept for later inner steps.

    As where a wide accumulator stands beside low-precision weights (Nandakumar et al. 2020): no
    update is lost to rounding. Tensors without a grid pass. Straight through: an update has the
    derivative of the sum, and the rest has none.
    """

    grids: Mapping[str, Grid]

    def update(
        self, grads: Params, state: Params, learned: Params, moment: Moment
    ) -> tuple[Params, Params]:
        """Return updates of whole steps, and the rests."""
        passed, kept = {}, {}
        for name, update in grads.items():
            if name not in self.grids:
                passed[name], kept[name] = update, state[name]
                continue
            total, step = state[name] + update, self.grids[name].step
            passed[name] = straight_through(total, to_whole(total / step) * step)
            kept[name] = total - passed[name]
        return passed, kept
