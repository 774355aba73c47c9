"""One spiking layer over all its time steps at once: filter, weights, pooling, bias, spikes.

Between layers, activity is `[T, B, H, W, C]` (or `[T, B, F]` after a fully connected layer):
contiguous with channels last, so that time is a matrix row and a convolution sees channels_last.
The leaky filter is linear in time and the weights are linear in space, so they commute: the weights
come first, and all that follows them is one sweep over memory (`fused.py`). Only the first layer's
input is filtered beforehand: it is the same for all parameters (`network.prepare`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn.neuron import Neuron, bias_response, filter_matrix
from spikeshot.snn.spike import spikes

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

    `trace` `[2, B, ...]`: Q and P of its input (None where the input is a trace already);
    `reset` `[N]`: R of its neurons, flattened; `elapsed`: time steps since rest.
    """

    trace: Tensor | None
    reset: Tensor
    elapsed: int


def over_time(matrix: Tensor, x: Tensor) -> Tensor:
    """Mix time steps: `[S, T]` times `[T, ...]` gives `[S, ...]`."""
    return (matrix @ x.reshape(len(x), -1)).view(-1, *x.shape[1:])


def with_state(x: Tensor, state: LayerState | None) -> Tensor:
    """Append the rows Q and P from before the window to `x` `[T, ...]`, if there is a state."""
    return x if state is None or state.trace is None else torch.cat([x, state.trace])


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
    *,
    traced: bool = False,
) -> Tensor:
    """Return the membrane drive V = W P + b of a layer, `[T, B, ...]`, pooled if pooling is before.

    `x` `[T, B, H, W, C]` or `[T, B, F]`: the layer's input, or with `traced` its trace P already;
    `weight` `[units, C, k, k]` or `[units, F]`.
    """
    rows = x if traced else with_state(x, state)
    y = _weigh(weight, rows, _linear_pool(layer, style))
    if not traced:
        y = over_time(trace_rows(filter_matrix(style.neuron, len(x), x).trace, rows), y)
    if layer.pool > 1 and style.pool_where == "before" and style.pool_kind == "max":
        y = _pool(y, layer.pool, "max")
    response = bias_response(style.neuron, len(y), state.elapsed if state else 0, x)
    return y + response.view(-1, *[1] * (y.dim() - 1)) * bias


def layer_spikes(
    layer: Layer,
    style: LayerStyle,
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    state: LayerState | None = None,
    *,
    traced: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return spikes `[T, B, H', W', units]` or `[T, B, units]`, and R after the last step.

    The one place that chooses between the fused kernels and the same in torch operations.
    """
    from spikeshot.snn import fused  # brings numba: only when a network runs

    reset = None if state is None else state.reset
    if not fused.applies(x, style.neuron):
        drive = layer_drive(layer, style, weight, bias, x, state, traced=traced)
        s, after = spikes(drive.reshape(len(drive), -1), style.neuron, reset)
        return _pool_after(layer, style, s.view(drive.shape)), after
    rows = x if traced else with_state(x, state)
    y = _weigh(weight, rows, _linear_pool(layer, style))
    pools = layer.pool > 1 and not (style.pool_where == "before" and style.pool_kind == "average")
    batch, *space, units = y.shape[1:]
    height, across = space or (1, 1)
    plan = fused.Plan(
        style.neuron,
        len(x),
        (batch, height, across, units),
        fused.pool_mode(style.pool_kind, style.pool_where) if pools else 0,
        layer.pool if pools else 1,
        not traced,
        state.elapsed if state else 0,
    )
    s, after = fused.fire(y, bias, plan, reset)
    return s if layer.kernel else s.flatten(2), after


def run_drive(drive: Tensor, neuron: Neuron) -> Tensor:
    """Return the hard spikes `[T, N]` of a membrane drive V `[T, N]`, without a graph."""
    from spikeshot.snn import fused

    if not fused.applies(drive, neuron):
        return spikes(drive.detach(), neuron)[0]
    plan = fused.Plan(neuron, len(drive), (drive.shape[1], 1, 1, 1), filtered=False)
    return fused.fire(drive.detach(), drive.new_zeros(1), plan)[0].view(drive.shape)


def layer_burn_in(
    layer: Layer,
    style: LayerStyle,
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    *,
    traced: bool = False,
) -> tuple[Tensor, LayerState]:
    """Run a layer from rest; return its spikes and the state after the last step."""
    s, reset = layer_spikes(layer, style, weight, bias, x, traced=traced)
    if traced:
        return s, LayerState(None, reset, len(x))
    return s, trace_state(style.neuron, x, reset)


def trace_state(neuron: Neuron, x: Tensor, reset: Tensor) -> LayerState:
    """Return the state after the inputs `x` `[T, B, ...]` from rest, given R after them."""
    matrix = trace_rows(filter_matrix(neuron, len(x), x).state, x)
    return LayerState(over_time(matrix, x), reset, len(x))


def _linear_pool(layer: Layer, style: LayerStyle) -> int:
    """Return the pooling that is linear and comes before the spike: it is part of the weights."""
    before = style.pool_where == "before" and style.pool_kind == "average"
    return layer.pool if layer.kernel and before else 1


def _weigh(weight: Tensor, x: Tensor, pool: int) -> Tensor:
    """Apply weights to `x` `[T, B, ...]`, a convolution followed by average pooling over `pool`.

    Averaging p x p outputs of a k x k convolution is one convolution of stride p with the kernel
    averaged over p x p shifts, of size k + p - 1: for k = 5, p = 2 it has 0.36 of the products.
    """
    if weight.dim() == 2:
        return F.linear(x.reshape(*x.shape[:2], -1), weight)
    kernel = weight.shape[-1]
    padding, images = kernel // 2, x.flatten(0, 1)
    _, height, width, _ = images.shape
    cells = height % pool == width % pool == padding % pool == 0
    if pool > 1:
        weight = weight.flatten(2) @ _spread(kernel, pool, cells, weight.dtype, str(weight.device))
        side = kernel + pool - 1
        weight = _on_cells(weight, pool) if cells else weight.view(*weight.shape[:2], side, side)
    if cells and pool > 1:
        images, padding, pool = _cells(images, pool), padding // pool, 1
    y = F.conv2d(images.permute(0, 3, 1, 2), weight, stride=pool, padding=padding)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:2], *y.shape[2:], y.shape[1])


@lru_cache(maxsize=64)
def _spread(kernel: int, pool: int, cells: bool, dtype: torch.dtype, device: str) -> Tensor:
    """Return the matrix `[k k, K K]` that averages a k x k kernel over pool x pool shifts.

    K = k + pool - 1. With `cells` its columns are ordered (row and column of the cell, row and
    column in the cell).
    """
    unit = torch.eye(kernel**2, dtype=torch.float64).view(-1, 1, kernel, kernel)
    wide = F.avg_pool2d(F.pad(unit, [pool - 1] * 4), pool, stride=1)[:, 0]
    if cells:
        n = wide.shape[-1] // pool
        wide = wide.view(-1, n, pool, n, pool).transpose(2, 3)
    return wide.reshape(kernel**2, -1).to(dtype=dtype, device=device)


def _on_cells(weight: Tensor, p: int) -> Tensor:
    """Turn weights `[units, C, n n p p]`, by cells, into `[units, p p C, n, n]`."""
    units, c, size = weight.shape
    n = math.isqrt(size) // p
    rows = weight.transpose(1, 2).reshape(units, n, n, p * p * c)  # (c, n n p p) -> (n n, p p c)
    return rows.permute(0, 3, 1, 2)


def _cells(images: Tensor, p: int) -> Tensor:
    """Turn `[n, H, W, C]` into cells of p x p pixels: `[n, H / p, W / p, p * p * C]`.

    A convolution of stride p on pixels is one of stride 1 on cells with the same products, whose
    gradient for the input is much faster: 0.6 of the time here, a tenth with few channels.
    """
    n, h, w, c = images.shape
    split = images.view(n, h // p, p, w // p, p, c)
    return split.permute(0, 1, 3, 2, 4, 5).reshape(n, h // p, w // p, p * p * c)


def _pool(x: Tensor, size: int, kind: PoolKind) -> Tensor:
    """Pool `[T, B, H, W, C]` over `size` x `size` windows."""
    images = x.flatten(0, 1).permute(0, 3, 1, 2)
    y = F.avg_pool2d(images, size) if kind == "average" else F.max_pool2d(images, size)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:2], *y.shape[2:], y.shape[1])


def _pool_after(layer: Layer, style: LayerStyle, s: Tensor) -> Tensor:
    if layer.kernel and layer.pool > 1 and style.pool_where == "after":
        return _pool(s, layer.pool, style.pool_kind)
    return s
