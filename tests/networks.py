"""Small networks, frames and parameters that the numerical tests share."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from spikeshot.snn.init import init_params
from spikeshot.snn.layer import Layer, LayerStyle, PoolKind, PoolWhere
from spikeshot.snn.network import Network, Readout
from spikeshot.snn.neuron import Neuron, Reset

WAYS = 3
RESETS: tuple[Reset, ...] = ("refractory", "subtract", "zero")


def small_network(
    reset: Reset = "refractory",
    *,
    pool_kind: PoolKind = "average",
    pool_where: PoolWhere = "before",
    readout: Readout = "last",
    delay: int = 1,
    burn_in: int = 0,
    surrogate: str = "fast_sigmoid",
) -> Network:
    """Return conv 4 (pooled), conv 5, dense 6 on 8x7 frames; every reset takes its threshold."""
    neuron = Neuron(
        alpha=0.8,
        beta=0.6,
        reset_decay=0.5,
        threshold=0.3,
        reset=reset,
        delay=delay,
        surrogate=surrogate,
        sharpness=4.0,
    )
    layers = (Layer(4, 3, 2), Layer(5, 3), Layer(6))
    style = LayerStyle(neuron, pool_kind, pool_where)
    return Network((2, 8, 7), layers, style, readout, burn_in, input_gain=1.5)


def random_frames(seed: int, steps: int = 7, batch: int = 4) -> Tensor:
    """Return sparse event counts `[T, B, 2, 8, 7]` in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((steps, batch, 2, 8, 7), 0.3).double(), generator=generator)


def random_labels(seed: int, batch: int = 4) -> Tensor:
    return torch.randint(WAYS, (batch,), generator=torch.Generator().manual_seed(seed))


def start(network: Network, seed: int = 0) -> dict[str, Tensor]:
    """Return initialised parameters in float64."""
    return init_params(
        network,
        WAYS,
        random_frames(seed + 100, batch=8),
        generator=torch.Generator().manual_seed(seed),
    )


def relative_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the largest |found - expected| over the largest |expected|, over all tensors."""
    assert found.keys() == expected.keys()
    largest = max(float(v.detach().abs().max()) for v in expected.values())
    gap = max(float((found[n] - v).detach().abs().max()) for n, v in expected.items())
    return gap / largest


def slopes(
    task: Mapping[str, Any], found: Any, value: Callable[[Any, Any], float]
) -> tuple[float, float]:
    """Return the slope that `found`, a meta-gradient, has along one random direction, and the true.

    The direction is of all weights and all learned values at once; the true slope is that of
    central differences of `value(init, learned)`, eps 1e-6.
    """
    g = torch.Generator().manual_seed(4)
    ways = {
        part: {n: torch.randn(v.shape, generator=g).double() for n, v in task[part].items()}
        for part in ("init", "learned")
    }
    slope = sum(
        float((getattr(found, p)[n] * w).sum()) for p, way in ways.items() for n, w in way.items()
    )
    ends = [
        value(*({n: v + eps * ways[p][n] for n, v in task[p].items()} for p in ways))
        for eps in (1e-6, -1e-6)
    ]
    return slope, (ends[0] - ends[1]) / 2e-6
