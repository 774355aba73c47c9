"""Surrogates: a hard spike forward, and a smooth derivative that can itself be differentiated.

Each surrogate is given by its smooth primitive `p(u)` with `p' = derivative` and
`p'' = second`. The spike is `H(u)`, u being the membrane minus the threshold; the "soft twin" of a
network puts `p` in the place of `H`, and then the surrogate gradient is the true gradient.
All derivatives are 1 at u = 0; `sharpness` k sets the width 1/k.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeshot.errors import ConfigError, nearest_hint


@dataclass(frozen=True)
class Surrogate:
    """A (spike, derivative) pair: three elementwise functions of (u, sharpness)."""

    name: str
    primitive: Callable[[Tensor, float], Tensor]
    derivative: Callable[[Tensor, float], Tensor]
    second: Callable[[Tensor, float], Tensor]
    twice_differentiable: bool = True


def _fast_sigmoid() -> Surrogate:
    """p = u / (1 + k|u|), p' = 1 / (1 + k|u|)^2 (SuperSpike, Zenke & Ganguli 2018)."""
    return Surrogate(
        "fast_sigmoid",
        lambda u, k: u / (1 + k * u.abs()),
        lambda u, k: (1 + k * u.abs()).pow(-2),
        lambda u, k: -2 * k * u.sign() * (1 + k * u.abs()).pow(-3),
    )


def _arctan() -> Surrogate:
    """p = atan(k u) / k, p' = 1 / (1 + (k u)^2) (Fang et al. 2021)."""
    return Surrogate(
        "arctan",
        lambda u, k: torch.atan(k * u) / k,
        lambda u, k: 1 / (1 + (k * u).square()),
        lambda u, k: -2 * k * k * u / (1 + (k * u).square()).square(),
    )


def _sigmoid() -> Surrogate:
    """p = 4 sigmoid(k u) / k, p' = 4 s (1 - s) with s = sigmoid(k u)."""

    def second(u: Tensor, k: float) -> Tensor:
        s = torch.sigmoid(k * u)
        return 4 * k * s * (1 - s) * (1 - 2 * s)

    return Surrogate(
        "sigmoid",
        lambda u, k: 4 * torch.sigmoid(k * u) / k,
        lambda u, k: 4 * torch.sigmoid(k * u) * torch.sigmoid(-k * u),
        second,
    )


def _gaussian() -> Surrogate:
    """p' = exp(-(k u)^2 / 2), p its integral (Yin et al. 2021, without the negative lobes)."""
    return Surrogate(
        "gaussian",
        lambda u, k: math.sqrt(math.pi / 2) / k * torch.erf(k * u / math.sqrt(2)),
        lambda u, k: torch.exp(-(k * u).square() / 2),
        lambda u, k: -k * k * u * torch.exp(-(k * u).square() / 2),
    )


def _piecewise_linear() -> Surrogate:
    """p' = max(0, 1 - k|u|) (Bellec et al. 2018): p'' jumps, so not twice differentiable."""

    def primitive(u: Tensor, k: float) -> Tensor:
        v = u.clamp(-1 / k, 1 / k)
        return v - k * v * v.abs() / 2

    return Surrogate(
        "piecewise_linear",
        primitive,
        lambda u, k: (1 - k * u.abs()).clamp(min=0),
        lambda u, k: -k * u.sign() * (k * u.abs() < 1),
        twice_differentiable=False,
    )


SURROGATES = {
    s.name: s for s in (_fast_sigmoid(), _arctan(), _sigmoid(), _gaussian(), _piecewise_linear())
}


def get_surrogate(name: str) -> Surrogate:
    """Return the surrogate `name`; raises `ConfigError` naming the nearest known one."""
    if name not in SURROGATES:
        raise ConfigError(
            f"surrogate {name!r} is unknown{nearest_hint(name, SURROGATES)}; "
            f"expected one of {', '.join(SURROGATES)}."
        )
    return SURROGATES[name]
