"""Which part of a gradient counts: clipping, and sparse gradients of which a share is kept."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikeshot.learn.rules.rounding import Use, uniform
from spikeshot.learn.rules.rule import Moment, Params
from spikeshot.learn.rules.transform import Fixed

_TINY = 1e-12


@dataclass(frozen=True)
class ClipNorm(Fixed):
    """Gradients are scaled down together until their norm over all tensors is at most `norm`.

    Differentiable, the norm included; at the corner the derivative is that of no clipping.
    """

    norm: float

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return gradients of norm at most `norm`."""
        squares = torch.stack([grads[name].square().sum() for name in sorted(grads)])
        whole = (squares.sum() + _TINY**2).sqrt()  # never 0: the root has no derivative there
        share = (self.norm / whole).clamp(max=1.0)
        return {name: grad * share for name, grad in grads.items()}, None


@dataclass(frozen=True)
class Clip(Fixed):
    """Every number of a gradient is held in -limit..limit; no derivative from beyond."""

    limit: float

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return gradients within the limit."""
        return {n: grad.clamp(-self.limit, self.limit) for n, grad in grads.items()}, None


@dataclass(frozen=True)
class Sparsify(Fixed):
    """A `share` of each tensor's gradients is kept, the others become 0.

    `which`: each with probability `share`, drawn anew at every step (`random`), or those of
    `largest` |g|, at least one. `rescale` divides what is kept by the share: random gradients keep
    their mean then (Wangni et al. 2018). The choice is a constant to every gradient.
    """

    share: float
    which: Literal["random", "largest"] = "random"
    rescale: bool = False

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return sparse gradients."""
        factor = 1 / self.share if self.rescale else 1.0
        kept = {n: self._kept(n, grad.detach(), moment) for n, grad in grads.items()}
        return {n: grad * (kept[n].to(grad.dtype) * factor) for n, grad in grads.items()}, None

    def _kept(self, name: str, grad: Tensor, moment: Moment) -> Tensor:
        if self.which == "random":
            return uniform(moment, Use.SPARSE, name, grad) < self.share
        count = max(1, round(self.share * grad.numel()))
        kept = torch.zeros(grad.numel(), dtype=torch.bool, device=grad.device)
        kept[grad.abs().flatten().topk(count).indices] = True
        return kept.view_as(grad)
