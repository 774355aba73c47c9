"""Data-driven initialisation: orthogonal weights, unit-variance membranes, a target activity.

As LSUV (Mishkin & Matas 2016) with an activity target: layer by layer, on one batch of frames, the
weights are scaled until the membrane drive has the wanted variance, then a bias shared by the
layer is found by bisection so that the wanted share of (neuron, step) pairs spikes.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from spikeshot.snn.layer import Layer, LayerStyle, layer_drive, layer_spikes, run_drive
from spikeshot.snn.network import (
    Network,
    parameter_shapes,
    prepare,
    read_out,
    readout_style,
)
from spikeshot.snn.neuron import bias_response


def init_params(
    network: Network,
    ways: int,
    frames: Tensor,
    *,
    generator: torch.Generator,
    activity: float = 0.288,
    drive_std: float = 1.0,
    readout_std: float = 0.1,
) -> dict[str, Tensor]:
    """Return a parameter tree fitted to `frames` `[T, B, C, H, W]`, in their dtype and device.

    `activity`: share of spikes per neuron and step in every layer; `drive_std`: standard deviation
    of the membrane drive (under gain control, which sets it, without effect); `readout_std`: that
    of the logits, whose mean is made zero for every way (0: start at zero; for a spiking readout,
    relative to `drive_std`).
    """
    params = orthogonal_tree(parameter_shapes(network, ways), generator, frames)
    x = prepare(replace(network, engine="auto"), frames)
    with torch.no_grad():
        for i, layer in enumerate(network.layers):
            x = _fit(f"layer{i}", layer, params, network.style, x, activity, drive_std, i == 0)
        if network.readout == "count":  # spiking units too
            style = readout_style(network.style)
            _fit("readout", Layer(ways), params, style, x, activity, drive_std)
            params["readout.weight"] *= readout_std
        else:
            fit_readout(params, read_out(network, params, x, None).logits, readout_std)
    return params


def orthogonal_tree(
    shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator, like: Tensor
) -> dict[str, Tensor]:
    """Return parameters of these shapes: orthogonal weights, gains of 1, the others 0.

    Drawn in float64, so the same in every dtype; in the dtype and on the device of `like`.
    """
    params: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        value = torch.full(shape, float(name.endswith("gain")), dtype=torch.float64)
        if name.endswith("weight"):
            torch.nn.init.orthogonal_(value, generator=generator)
        params[name] = value.to(like)
    return params


def fit_readout(params: dict[str, Tensor], logits: Tensor, readout_std: float) -> None:
    """Scale and shift a linear readout, in place, whose present `logits` `[B, ways]` are given.

    Their standard deviation becomes `readout_std`, and the mean of every way zero.
    """
    centre = logits.mean(0)
    scale = readout_std / (logits - centre).std().clamp(min=1e-6)
    params["readout.weight"] *= scale
    params["readout.bias"] -= centre * scale


def _fit(
    name: str,
    layer: Layer,
    params: dict[str, Tensor],
    style: LayerStyle,
    x: Tensor,
    activity: float,
    drive_std: float,
    traced: bool = False,
) -> Tensor:
    """Scale the weights and set the bias of one layer, in place; return its activity on `x`."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    drive = layer_drive(layer, style, weight, bias, x, traced=traced)
    found = drive.std().clamp(min=1e-6)
    if style.gain_control:  # which takes away any scale of the weights
        drive_std = found.item()
    weight *= drive_std / found
    bias.fill_(_bias_for_activity(drive, style, activity, drive_std))
    return layer_spikes(layer, style, weight, bias, x, traced=traced)[0]


def _bias_for_activity(
    drive: Tensor, style: LayerStyle, activity: float, drive_std: float
) -> float:
    """Return the bias at which the share `activity` of steps has its membrane over threshold.

    For the soft twin too: its primitive grows, so it is compared with that of the threshold.
    """
    rows = drive.reshape(len(drive), -1)
    rows = rows * (drive_std / rows.std().clamp(min=1e-6))
    response = bias_response(style.neuron, len(rows), 0, rows)[:, None]
    low, high = -20.0 * drive_std, 20.0 * drive_std + abs(style.neuron.threshold) * 20
    silent = style.neuron.spike(rows.new_tensor(style.neuron.threshold))
    for _ in range(30):
        middle = (low + high) / 2
        spikes = run_drive(rows + middle * response, style.neuron)
        fires = (spikes > silent).double().mean().item()
        low, high = (middle, high) if fires < activity else (low, middle)
    return (low + high) / 2
