"""A spiking network as pure functions of a parameter tree: `forward(params, frames) -> logits`.

Layers are convolutional or fully connected (`Layer`), closed by a linear readout of leaky units.
Parameters are `layer<i>.weight`, `layer<i>.bias`, `readout.weight`, `readout.bias`. No state hides
anywhere: after a burn-in it is a list that goes in and comes out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from spikeshot.errors import ConfigError
from spikeshot.snn.layer import (
    Layer,
    LayerState,
    LayerStyle,
    layer_burn_in,
    layer_spikes,
    over_time,
    trace_rows,
    trace_state,
    with_state,
)
from spikeshot.snn.neuron import bias_response, filter_matrix
from spikeshot.snn.room import room

Readout = Literal["last", "mean", "count"]
Engine = Literal["auto", "oracle"]
RateOver = Literal["layers", "neurons"]
Params = Mapping[str, Tensor]
State = list[LayerState]
BURN_IN_SAMPLES = 5  # samples whose burn-in runs at once


@dataclass(frozen=True)
class Network:
    """The shape of a network; the numbers live in the parameter tree.

    `input_shape` (2, H, W); `readout`: logits are the readout membrane at the `last` step, its
    `mean` over the steps, or the spike `count` of spiking readout units. `burn_in`: first steps of
    every input that run without gradient, with the parameters given. `input_gain` multiplies the
    event counts. `input_alpha`: the first layer's input trace is P_t = a P_{t-1} + (1 - a) S_in,t
    with this decay a, whatever the neurons' own: an integrator in front of the network, for what is
    written little by little; None: as every other layer's. `hold`: so many steps without events
    follow the last frame. `engine`: `auto` runs layer by layer, `oracle` step by step.
    """

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    style: LayerStyle
    readout: Readout = "last"
    burn_in: int = 0
    input_gain: float = 1.0
    input_alpha: float | None = None
    hold: int = 0
    engine: Engine = "auto"

    def soft_twin(self) -> "Network":
        """Return the network with every spike replaced by its surrogate's smooth primitive."""
        neuron = replace(self.style.neuron, soft=True)
        return replace(self, style=replace(self.style, neuron=neuron))


class Activity(NamedTuple):
    """What a forward pass did after the burn-in.

    `logits` `[B, ways]`; `spikes` of every layer, `[T, B, H, W, C]` or `[T, B, F]`; `trace`, what
    the readout's weights multiply, `[B, features]`: the last step's or its mean, or its sum over
    time where the readout counts spikes; `unit` `[]`: the same for the readout's bias.
    """

    logits: Tensor
    spikes: Sequence[Tensor]
    trace: Tensor
    unit: Tensor


def parameter_shapes(network: Network, ways: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, in order; raises `ConfigError` if layers do not fit."""
    return layer_shapes(network.input_shape, network.layers, ways)


def layer_shapes(
    input_shape: tuple[int, int, int], layers: Sequence[Layer], ways: int
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of weights and biases of `layers` on `(C, H, W)`, and of the readout."""
    channels, height, width = input_shape
    features = channels * height * width
    shapes: dict[str, tuple[int, ...]] = {}
    flat = False
    for i, layer in enumerate(layers):
        if layer.kernel:
            if flat:
                raise ConfigError(
                    f"layer {i} is convolutional after a fully connected one; put it before."
                )
            shapes[f"layer{i}.weight"] = (layer.units, channels, layer.kernel, layer.kernel)
            channels, height, width = layer.units, height // layer.pool, width // layer.pool
            if min(height, width) < 1:
                raise ConfigError(
                    f"layer {i} pools the image away (input {input_shape}); use fewer or "
                    "smaller pools."
                )
            features = channels * height * width
        else:
            shapes[f"layer{i}.weight"] = (layer.units, features)
            features, flat = layer.units, True
        shapes[f"layer{i}.bias"] = (layer.units,)
    shapes["readout.weight"] = (ways, features)
    shapes["readout.bias"] = (ways,)
    return shapes


def resize_readout(params: Params, ways: int) -> dict[str, Tensor]:
    """Return the parameters with a readout for another number of ways.

    Every new row is the mean of the meta-trained rows: no way is preferred before adaptation.
    """
    resized = dict(params)
    if len(params["readout.bias"]) != ways:
        for name in ("readout.weight", "readout.bias"):
            mean = params[name].mean(0, keepdim=True)
            resized[name] = mean.expand(ways, *mean.shape[1:]).clone()
    return resized


def prepare(network: Network, frames: Tensor) -> Tensor:
    """Return what `forward_prepared` takes for frames `[T, B, C, H, W]`: made once per task.

    It is the first layer's input trace P `[T + hold, B, H, W, C]`, the same for all parameters; the
    oracle takes the frames themselves, and those without events that follow.
    """
    if network.hold:
        frames = torch.cat([frames, frames.new_zeros(network.hold, *frames.shape[1:])])
    if network.engine == "oracle":
        return frames
    neuron = network.style.neuron
    if network.input_alpha is not None:
        neuron = replace(neuron, alpha=network.input_alpha, beta=0.0, delay=0)
    x = to_input(network, frames)  # a copy, which becomes the trace step by step
    q, p = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    for row in x:
        if neuron.delay:
            p.mul_(neuron.alpha).add_(q, alpha=1 - neuron.alpha)
        q.mul_(neuron.beta).add_(row, alpha=1 - neuron.beta)
        if not neuron.delay:
            p.mul_(neuron.alpha).add_(q, alpha=1 - neuron.alpha)
        row.copy_(p)
    return x


def forward(network: Network, params: Params, frames: Tensor) -> Tensor:
    """Return logits `[B, ways]` for frames `[T, B, C, H, W]`.

    The first `burn_in` steps run without gradient but with these same parameters.
    """
    return forward_prepared(network, params, prepare(network, frames))


def forward_prepared(network: Network, params: Params, prepared: Tensor) -> Tensor:
    """Return logits `[B, ways]` for what `prepare` made of the frames."""
    return _activity(network, params, prepared, None).logits


def record_prepared(network: Network, params: Params, prepared: Tensor) -> Activity:
    """Return the activity of all layers for what `prepare` made of the frames."""
    return _activity(network, params, prepared, [])


def _activity(
    network: Network, params: Params, prepared: Tensor, record: list[Tensor] | None
) -> Activity:
    """Return the activity; its spikes are there only where a `record` is given to hold them."""
    if network.engine == "oracle":
        from spikeshot.snn.oracle import record_stepwise  # it needs this module's types

        return record_stepwise(network, params, prepared)
    return _forward(network, params, prepared, record)


def forward_recorded(
    network: Network, params: Params, frames: Tensor
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return logits and the spikes of every layer after the burn-in, each `[T, B, ...]`."""
    activity = record_prepared(network, params, prepare(network, frames))
    return activity.logits, activity.spikes


def features_prepared(network: Network, params: Params, prepared: Tensor) -> Tensor:
    """Return what the readout's weights multiply, `[B, F]`, for what `prepare` made of the frames.

    Logits are linear in it; where the readout counts spikes it is the sum over time of its input.
    """
    return _activity(network, params, prepared, None).trace


def forward_with_rates(
    network: Network, params: Params, prepared: Tensor, *, over: RateOver = "layers"
) -> tuple[Tensor, Tensor]:
    """Return logits `[B, ways]` and the mean activity after the burn-in.

    It is that of every layer, `[B, L]`, or `over` all neurons, `[B, 1]`. `prepared`: what `prepare`
    made of the frames. The activity, spikes per neuron and step (of windows, where maximum pooling
    comes after the spike), has its graph, by the surrogate.
    """
    activity = record_prepared(network, params, prepared)
    rates = torch.stack([s.transpose(0, 1).flatten(1).mean(1) for s in activity.spikes], 1)
    if over == "neurons":
        counts = rates.new_tensor(neuron_counts(network, activity.spikes))
        rates = rates @ (counts / counts.sum())[:, None]
    return activity.logits, rates


def neuron_counts(network: Network, spikes: Sequence[Tensor]) -> list[int]:
    """Return the neurons of every layer, by its spikes `[T, B, ...]` as they are sent on."""
    return [s[0, 0].numel() * window(network, i) for i, s in enumerate(spikes)]


def window(network: Network, i: int) -> int:
    """Return how many neurons of layer `i` stand behind one value that it sends on.

    Averages after the spike stand for all neurons of their window; anything else for one.
    """
    style, layer = network.style, network.layers[i]
    averaged = layer.kernel > 0 and style.pool_where == "after" and style.pool_kind == "average"
    return layer.pool**2 if averaged else 1


def _forward(network: Network, params: Params, x: Tensor, record: list[Tensor] | None) -> Activity:
    """Return the activity for the first layer's input trace `[T, B, ...]`."""
    state = None
    if network.burn_in:
        with torch.no_grad():
            state = run_burn_in(network, params, x[: network.burn_in])
        x = x[network.burn_in :]
    for i, layer in enumerate(network.layers):
        before = state[i] if state else None
        weight, bias = params[f"layer{i}.weight"], params[f"layer{i}.bias"]
        x, _ = layer_spikes(layer, network.style, weight, bias, x, before, traced=i == 0)
        if record is not None:  # else nothing holds them but what still needs them
            record.append(x)
    return read_out(network, params, x, state[-1] if state else None, record or ())


def to_input(network: Network, frames: Tensor) -> Tensor:
    """Return frames `[T, B, C, H, W]` as scaled activity `[T, B, H, W, C]`."""
    channels_last = frames.permute(0, 1, 3, 4, 2)
    x = room(frames, *channels_last.shape).copy_(channels_last)
    return x if network.input_gain == 1 else x.mul_(network.input_gain)


def run_burn_in(network: Network, params: Params, x: Tensor) -> State:
    """Return the state of every layer, then of the readout, after the input traces `x` from rest.

    A few samples at a time, so that the activity of all steps never lies in memory at once.
    """
    parts = [
        _run_burn_in(network, params, x[:, i : i + BURN_IN_SAMPLES])
        for i in range(0, x.shape[1], BURN_IN_SAMPLES)
    ]
    return [_join(states) for states in zip(*parts, strict=True)]


def _join(states: Sequence[LayerState]) -> LayerState:
    """Put the states of one layer for several groups of samples together."""
    traces = [s.trace for s in states if s.trace is not None]
    trace = torch.cat(traces, 1) if traces else None
    return LayerState(trace, torch.cat([s.reset for s in states]), states[0].elapsed)


def _run_burn_in(network: Network, params: Params, x: Tensor) -> State:
    state: State = []
    for i, layer in enumerate(network.layers):
        weight, bias = params[f"layer{i}.weight"], params[f"layer{i}.bias"]
        x, after = layer_burn_in(layer, network.style, weight, bias, x, traced=i == 0)
        state.append(after)
    if network.readout == "count":
        weight, bias = params["readout.weight"], params["readout.bias"]
        style = readout_style(network.style)
        _, after = layer_burn_in(_readout_layer(weight), style, weight, bias, x)
        state.append(after)
    else:
        state.append(trace_state(network.style.neuron, x, x.new_zeros(0)))
    return state


def read_out(
    network: Network,
    params: Params,
    x: Tensor,
    state: LayerState | None,
    record: Sequence[Tensor] = (),
) -> Activity:
    """Return logits `[B, ways]` from the last layer's activity `x` `[T, B, ...]`."""
    weight, bias = params["readout.weight"], params["readout.bias"]
    neuron = network.style.neuron
    matrix = filter_matrix(neuron, len(x), x).trace
    rows = with_state(x, state)
    features = over_time(trace_rows(_OVER_TIME[network.readout](matrix), rows), rows).flatten(2)[0]
    if network.readout != "count":
        logits = linear(features, weight, bias)
        return Activity(logits, record, features, x.new_ones(()))
    style = readout_style(network.style)
    s, _ = layer_spikes(_readout_layer(weight), style, weight, bias, x, state)
    response = bias_response(neuron, len(x), state.elapsed if state else 0, x)
    return Activity(s.sum(0), record, features, response.sum())


_OVER_TIME: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda matrix: matrix[-1:],
    "mean": lambda matrix: matrix.mean(0, keepdim=True),
    "count": lambda matrix: matrix.sum(0, keepdim=True),
}


def readout_style(style: LayerStyle) -> LayerStyle:
    """Return the style of spiking readout units: no gain control, for their rates are logits."""
    return replace(style, gain_control=False)


def _readout_layer(weight: Tensor) -> Layer:
    return Layer(units=weight.shape[0])
