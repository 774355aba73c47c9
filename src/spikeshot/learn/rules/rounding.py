"""Rounding: to whole numbers, nearest or stochastic, with a straight-through derivative."""

from enum import Enum
from typing import Literal
from zlib import crc32

import torch
from torch import Tensor

from spikeshot.learn.rules.rule import Moment

Rounding = Literal["nearest", "stochastic"]


class Use(Enum):
    """What random numbers are for: each use has its own, for each parameter."""

    WRITE = "write"
    PLACE = "place"
    UPDATE = "update"
    SPARSE = "sparse"
    PULSE = "pulse"
    PULSE_NOISE = "pulse noise"
    WRITE_NOISE = "write noise"
    PLACE_NOISE = "place noise"
    READ_NOISE = "read noise"
    VARIATION = "variation"


def generator(moment: Moment, use: Use, name: str, like: Tensor) -> torch.Generator:
    """Return the generator of one use and parameter at a moment.

    It hangs on the parameter's name, not on its place in the tree, which a resumed run changes.
    """
    return moment.generator((1 << 32) + crc32(f"{use.value}/{name}".encode()), like.device)


def uniform(moment: Moment, use: Use, name: str, like: Tensor) -> Tensor:
    """Return numbers from [0, 1) of the shape and kind of `like`."""
    source = generator(moment, use, name, like)
    return torch.rand(like.shape, generator=source, dtype=like.dtype, device=like.device)


def normal(moment: Moment, use: Use, name: str, like: Tensor) -> Tensor:
    """Return standard normal numbers of the shape and kind of `like`."""
    source = generator(moment, use, name, like)
    return torch.randn(like.shape, generator=source, dtype=like.dtype, device=like.device)


def to_whole(x: Tensor, draw: Tensor | None = None) -> Tensor:
    """Return `x` rounded to whole numbers, without derivative; an exact half goes to the even one.

    With `draw`, uniform numbers from [0, 1), rounded stochastically: up with the fraction as
    probability, so that the mean is `x` (Gupta et al. 2015).
    """
    x = x.detach()
    if draw is None:
        return x.round()
    low = x.floor()
    return low + (draw < x - low).to(x.dtype)


def straight_through(value: Tensor, replaced: Tensor, passes: Tensor | None = None) -> Tensor:
    """Return `replaced`, bit for bit, with the derivative of `value` (Bengio et al. 2013).

    `passes`: where the derivative is 1; it is 0 elsewhere (default: 1 everywhere). It can be
    differentiated twice.
    """
    if not value.requires_grad:
        return replaced.detach()
    carried = value if passes is None else value * passes
    return replaced.detach() + (carried - carried.detach())
