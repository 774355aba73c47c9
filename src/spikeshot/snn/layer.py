"""One spiking layer over all its time steps at once: filter, weights, pooling, bias, spikes.

Between layers, activity is `[T, B, H, W, C]` (or `[T, B, F]` after a fully connected layer):
contiguous with channels last, so that time is a matrix row and a convolution sees channels_last.
The leaky filter is linear in time and the weights are linear in space, so they commute: the filter
runs on whichever side has fewer numbers (max-pooling before the spike forces its side).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn.neuron import Neuron, bias_response, filter_matrix
from spikeshot.snn.sparse_conv import convolve
from spikeshot.snn.spike import run_spikes, spikes

PoolKind = Literal["average", "max"]
PoolWhere = Literal["before", "after"]


@dataclass(frozen=True)
class Layer:
    """Shape of one spiking layer.

    A convolution to `units` channels (odd square `kernel`, zero padding that keeps the size, then
    `pool` x `pool` pooling), or with `kernel` 0 a fully connected layer of `units` neurons.
    """

    units: int
    kernel: int = 0
    pool: int = 1


@dataclass(frozen=True)
class LayerStyle:
    """What all layers of a network share: the neuron, and how and where activity is pooled."""

    neuron: Neuron
    pool_kind: PoolKind = "average"
    pool_where: PoolWhere = "before"


class LayerState(NamedTuple):
    """What a layer carries into the next window.

    `trace` `[2, B, ...]`: Q and P of its input; `reset` `[N]`: R of its neurons, flattened;
    `elapsed`: time steps since rest.
    """

    trace: Tensor
    reset: Tensor
    elapsed: int


def over_time(matrix: Tensor, x: Tensor) -> Tensor:
    """Mix time steps: `[S, T]` times `[T, ...]` gives `[S, ...]`."""
    return (matrix @ x.reshape(len(x), -1)).view(-1, *x.shape[1:])


def with_state(x: Tensor, state: LayerState | None) -> Tensor:
    """Append the rows Q and P from before the window to `x` `[T, ...]`, if there is a state."""
    return x if state is None else torch.cat([x, state.trace])


def trace_rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Return the columns of a filter matrix that stand for the rows `x` has (state or none)."""
    return matrix[:, : len(x)]


def layer_drive(
    layer: Layer,
    style: LayerStyle,
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    state: LayerState | None = None,
) -> Tensor:
    """Return the membrane drive V = W P + b of a layer, `[T, B, ...]`, pooled if pooling is before.

    `x` `[T, B, H, W, C]` or `[T, B, F]`; `weight` `[units, C, k, k]` or `[units, F]`.
    """
    kernel = filter_matrix(style.neuron, len(x), x)
    rows = with_state(x, state)
    trace = trace_rows(kernel.trace, rows)
    pools = layer.kernel > 0 and layer.pool > 1 and style.pool_where == "before"
    linear_pool = pools and style.pool_kind == "average"
    inputs = rows[0].numel()
    outputs = layer.units * inputs // rows.shape[-1] if layer.kernel else layer.units * x.shape[1]
    if linear_pool:
        outputs //= layer.pool**2
    filter_first = inputs <= outputs
    pool = layer.pool if linear_pool else 1
    if filter_first:
        y = _weigh(weight, over_time(trace, rows), pool)
    else:
        y = _weigh(weight, x, pool)
        if state is not None:  # by itself: it is not sparse, as spikes are
            y = torch.cat([y, _weigh(weight, state.trace, pool)])
        y = over_time(trace, y)
    if pools and not linear_pool:
        y = _pool(y, layer.pool, "max")
    response = bias_response(style.neuron, len(y), state.elapsed if state else 0, x)
    return y + response.view(-1, *[1] * (y.dim() - 1)) * bias


def layer_forward(
    layer: Layer,
    style: LayerStyle,
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    state: LayerState | None = None,
) -> Tensor:
    """Return the spikes of a layer, `[T, B, H', W', units]` or `[T, B, units]` (after pooling)."""
    drive = layer_drive(layer, style, weight, bias, x, state)
    reset = None if state is None else state.reset
    s = spikes(drive.reshape(len(drive), -1), style.neuron, reset).view(drive.shape)
    return _pool_after(layer, style, s)


def layer_burn_in(
    layer: Layer,
    style: LayerStyle,
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    state: LayerState | None = None,
) -> tuple[Tensor, LayerState]:
    """Run a layer without a graph; return its spikes and the state after the last step."""
    drive = layer_drive(layer, style, weight, bias, x, state)
    s, _, reset = run_spikes(
        drive.reshape(len(drive), -1), style.neuron, None if state is None else state.reset
    )
    s = s.view(drive.shape)
    return _pool_after(layer, style, s), trace_state(style.neuron, x, state, reset)


def trace_state(neuron: Neuron, x: Tensor, state: LayerState | None, reset: Tensor) -> LayerState:
    """Return the state after the rows `x` `[T, B, ...]`, given R after them."""
    rows = with_state(x, state)
    trace = over_time(trace_rows(filter_matrix(neuron, len(x), x).state, rows), rows)
    return LayerState(trace, reset, len(x) + (state.elapsed if state else 0))


def _weigh(weight: Tensor, x: Tensor, pool: int) -> Tensor:
    """Apply weights to `x` `[T, B, ...]`, a convolution followed by average pooling over `pool`.

    Averaging p x p outputs of a k x k convolution is one convolution of stride p with the kernel
    averaged over p x p shifts, of size k + p - 1: for k = 5, p = 2 it has 0.36 of the products.
    """
    if weight.dim() == 2:
        return F.linear(x.reshape(*x.shape[:2], -1), weight)
    size = weight.shape[-1]
    padding = size // 2
    if pool > 1:
        shifts = _box(size, pool, weight.dtype, str(weight.device))
        weight = (weight.flatten(2) @ shifts).view(*weight.shape[:2], *[size + pool - 1] * 2)
    y = convolve(x.flatten(0, 1), weight, pool, padding)
    return y.reshape(*x.shape[:2], *y.shape[1:])


@lru_cache(maxsize=16)
def _box(size: int, pool: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return `[k k, K K]`: a kernel of size k, flat, times this is its average over all shifts.

    As one matrix, for `avg_pool2d` of so small images took longer than some of the convolutions.
    """
    images = torch.eye(size**2, dtype=torch.float64).view(-1, size, size)
    averaged = F.avg_pool2d(F.pad(images, [pool - 1] * 4), pool, stride=1)
    return averaged.flatten(1).to(device, dtype)


def _pool(x: Tensor, size: int, kind: PoolKind) -> Tensor:
    """Pool `[T, B, H, W, C]` over `size` x `size` windows."""
    images = x.flatten(0, 1).permute(0, 3, 1, 2)
    y = F.avg_pool2d(images, size) if kind == "average" else F.max_pool2d(images, size)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:2], *y.shape[2:], y.shape[1])


def _pool_after(layer: Layer, style: LayerStyle, s: Tensor) -> Tensor:
    if layer.kernel and layer.pool > 1 and style.pool_where == "after":
        return _pool(s, layer.pool, style.pool_kind)
    return s
