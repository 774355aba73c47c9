"""Small networks, frames and parameters that the numerical tests share."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spikeshot.snn.init import init_params
from spikeshot.snn.layer import Layer, LayerStyle, PoolKind, PoolWhere
from spikeshot.snn.network import Network, Readout, forward
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


def through_two_inner_steps(network: Network, frames: Tensor) -> dict[str, Tensor]:
    """Return logits, an inner gradient and a meta-gradient through two gradient steps."""
    params = {k: v.requires_grad_() for k, v in start(network).items()}
    stepped = dict(params)
    for _ in range(2):
        loss = cross_entropy(forward(network, stepped, frames), random_labels(5))
        grads = torch.autograd.grad(loss, list(stepped.values()), create_graph=True)
        stepped = {k: v - 0.05 * g for (k, v), g in zip(stepped.items(), grads, strict=True)}
    logits = forward(network, stepped, frames)
    meta = torch.autograd.grad((logits + 1).pow(3).sum(), list(params.values()))
    out = {"logits": logits + 1}
    out |= {f"inner/{k}": g for k, g in zip(params, grads, strict=True)}
    out |= {f"meta/{k}": g for k, g in zip(params, meta, strict=True)}
    return out


def require_oracle(network: Network) -> None:
    """Hold logits, inner gradient and meta-gradient against the oracle's."""
    frames = random_frames(5)
    found = through_two_inner_steps(network, frames)
    expected = through_two_inner_steps(replace(network, engine="oracle"), frames)
    for part in ("logits", "inner/", "meta/"):
        mine = {k: v for k, v in found.items() if k.startswith(part)}
        theirs = {k: v for k, v in expected.items() if k.startswith(part)}
        assert any(v.abs().max() > 1e-6 for v in theirs.values())
        assert relative_error(mine, theirs) < 1e-12


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
