"""One spiking layer over all its time steps at once: filter, weights, pooling, bias, spikes.

Between layers, activity is `[T, B, H, W, C]` (or `[T, B, F]` after a fully connected layer):
contiguous with channels last, so that time is a matrix row and a convolution sees channels_last.
The leaky filter is linear in time and the weights are linear in space, so they commute: the weights
come first, and all that follows them is one sweep over memory (`fused.py`); under gain control they
do not, and the weights come first by definition. Only the first layer's input is filtered
beforehand: it is the same for all parameters (`network.prepare`).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn.gain_control import control_gain
from spikeshot.snn.neuron import Neuron, bias_response, filter_matrix
from spikeshot.snn.spike import spikes
from spikeshot.snn.weights import weigh

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
    """What all layers of a network share: the neuron, and how and where activity is pooled.

    `gain_control`: the weighted input of a step is divided by its root mean square over the layer
    (`gain_control.py`), before it is filtered: W S_t, in the first layer W P_t; as pooled, where
    averages come before the spike. The weights then do not commute with the filter any more.
    """

    neuron: Neuron
    pool_kind: PoolKind = "average"
    pool_where: PoolWhere = "before"
    gain_control: bool = False


class LayerState(NamedTuple):
    """What a layer carries into the next window.

    `trace` `[2, B, ...]`: Q and P of its input, of its weighted input under gain control (None
    where the input is a trace already);
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
    y = _weigh(layer, style, weight, x, None if traced else state)
    if not traced:
        y = over_time(trace_rows(filter_matrix(style.neuron, len(x), x).trace, y), y)
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
    y = _weigh(layer, style, weight, x, None if traced else state)
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
    s, after = fused.fire(y, bias, plan, reset, owned=True)  # the weights keep no output
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
    carried = _weigh(layer, style, weight, x, None) if style.gain_control else x
    return s, trace_state(style.neuron, carried, reset)


def trace_state(neuron: Neuron, x: Tensor, reset: Tensor) -> LayerState:
    """Return the state after the inputs `x` `[T, B, ...]` from rest, given R after them."""
    matrix = trace_rows(filter_matrix(neuron, len(x), x).state, x)
    return LayerState(over_time(matrix, x), reset, len(x))


def _weigh(
    layer: Layer, style: LayerStyle, weight: Tensor, x: Tensor, state: LayerState | None
) -> Tensor:
    """Apply the weights to the rows of `x` and, after them, of the state, which is not sparse."""
    pool = _linear_pool(layer, style)
    y = weigh(weight, x, pool)
    if style.gain_control:
        y = control_gain(y, 2)
    if state is None or state.trace is None:
        return y
    carried = state.trace if style.gain_control else weigh(weight, state.trace, pool)
    return torch.cat([y, carried])


def _linear_pool(layer: Layer, style: LayerStyle) -> int:
    """Return the pooling that is linear and comes before the spike: it is part of the weights."""
    before = style.pool_where == "before" and style.pool_kind == "average"
    return layer.pool if layer.kernel and before else 1


def _pool(x: Tensor, size: int, kind: PoolKind) -> Tensor:
    """Pool `[T, B, H, W, C]` over `size` x `size` windows."""
    images = x.flatten(0, 1).permute(0, 3, 1, 2)
    y = F.avg_pool2d(images, size) if kind == "average" else F.max_pool2d(images, size)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:2], *y.shape[2:], y.shape[1])


def _pool_after(layer: Layer, style: LayerStyle, s: Tensor) -> Tensor:
    if layer.kernel and layer.pool > 1 and style.pool_where == "after":
        return _pool(s, layer.pool, style.pool_kind)
    return s
