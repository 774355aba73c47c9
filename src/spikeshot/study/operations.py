"""Operations and memory of one inference: what a network costs wherever it runs.

A conventional network multiplies and accumulates at every connection. A spiking one accumulates a
weight where a spike meets a connection, a synaptic operation as NeuroBench counts them (Yik et al.
2025): none for a silent neuron, one for each event of an input pixel. Connections are those of the
layers as they are defined; what the engine saves by folding them is not counted, nor are taps on
the padding. Biases, filters, resets, pooling and normalisation are left out of both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn.layer import Layer
from spikeshot.snn.network import Network, forward_recorded, window
from spikeshot.study.baselines.networks import AnyNetwork, parameter_shapes

Shape = tuple[int, int, int]  # (H, W, C); a fully connected layer gives (1, 1, F)


@dataclass(frozen=True)
class Memory:
    """Numbers to keep: `weights` (all parameters), and `state`.

    The state of a network of leaky units is what each carries from step to step (Q, P and, with the
    refractory reset, R): Q and P of averages where these come before the spike, as they are linear
    too, but of all that a maximum before the spike is taken of. That of a network of frames is its
    largest layer's input and output.
    """

    weights: int
    state: int


@dataclass(frozen=True)
class SynapticOperations:
    """Synaptic operations of one sample: by layer, the readout last.

    `dense`: as many as if every input of every layer were active at every step.
    """

    layers: tuple[float, ...]
    dense: int

    @property
    def total(self) -> float:
        """All operations of one sample."""
        return sum(self.layers)


def multiply_accumulates(network: AnyNetwork, ways: int, steps: int) -> int:
    """Return the multiply-accumulates of one sample of `steps` time steps.

    A network of leaky units does its products at every step, a network of frames once. For a
    spiking network it is what its twin without spikes needs.
    """
    layers, inputs = _layers(network, ways)
    once = sum(
        round(float(fan_out(layer, shape).sum())) * shape[2]
        for layer, shape in zip(layers, inputs, strict=True)
    )
    return once * (steps if isinstance(network, Network) else 1)


def synaptic_operations(
    network: Network, params: Mapping[str, Tensor], frames: Tensor
) -> SynapticOperations:
    """Return the synaptic operations of one sample, the mean of `frames` `[T, B, 2, H, W]`.

    Measured, at the sparsity of these frames; all time steps count, those of the burn-in too.
    """
    ways = len(params["readout.bias"])
    with torch.no_grad():
        record = forward_recorded(replace(network, burn_in=0), params, frames)[1]
    sent = [frames.permute(0, 1, 3, 4, 2)]
    sent += [s * window(network, i) for i, s in enumerate(record)]
    found = []
    for layer, shape, active in zip(*_layers(network, ways), sent, strict=True):
        by_pixel = active.double().sum(0).reshape(-1, *shape).mean(0).sum(-1)  # (H, W)
        found.append(float((by_pixel * fan_out(layer, shape)).sum()))
    steps = len(frames) + network.hold
    return SynapticOperations(tuple(found), multiply_accumulates(network, ways, steps))


def memory(network: AnyNetwork, ways: int) -> Memory:
    """Return how many numbers weights and state are, for one sample."""
    weights = sum(prod(shape) for shape in parameter_shapes(network, ways).values())
    layers, inputs = _layers(network, ways)
    outputs = [
        (h, w, layer.units) if layer.kernel else (1, 1, layer.units)
        for layer, (h, w, _) in zip(layers, inputs, strict=True)
    ]
    if not isinstance(network, Network):
        both = zip(inputs, outputs, strict=True)
        return Memory(weights, max(prod(i) + prod(o) for i, o in both))
    refractory = network.style.neuron.reset == "refractory"
    pooled = network.style.pool_where == "before"
    averaged = pooled and network.style.pool_kind == "average"
    state = 0
    for layer, (h, w, units) in zip(layers[:-1], outputs[:-1], strict=True):
        every, windows = h * w * units, (h // layer.pool) * (w // layer.pool) * units
        state += 2 * (windows if averaged else every) + refractory * (windows if pooled else every)
    return Memory(weights, state + ways * (2 + (refractory and network.readout == "count")))


def fan_out(layer: Layer, shape: Shape) -> Tensor:
    """Return how many connections each pixel of an input `(H, W, C)` has, `[H, W]`, per channel.

    A convolution's pixel reaches `units` times as many outputs as the kernel covers, fewer at the
    border.
    """
    height, width, _ = shape
    if not layer.kernel:
        return torch.full((height, width), float(layer.units), dtype=torch.float64)
    taps = torch.ones(1, 1, layer.kernel, layer.kernel, dtype=torch.float64)
    reached = F.conv2d(
        torch.ones(1, 1, height, width, dtype=torch.float64), taps, padding=layer.kernel // 2
    )
    return reached[0, 0] * layer.units


def _layers(network: AnyNetwork, ways: int) -> tuple[list[Layer], list[Shape]]:
    """Return the layers, the readout last, and the shape of each one's input."""
    channels, height, width = network.input_shape
    layers = list(network.layers)
    if not isinstance(network, Network):
        channels *= network.bins if network.kind == "relu" else 1
        layers = [] if network.kind == "pixels" else layers
    shape, inputs = (height, width, channels), []
    for layer in layers:
        inputs.append(shape)
        h, w, _ = shape
        h, w = (h // layer.pool, w // layer.pool) if layer.kernel else (1, 1)
        shape = (h, w, layer.units)
    return [*layers, Layer(ways)], [*inputs, shape]
