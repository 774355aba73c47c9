"""Conventional networks as pure functions of a parameter tree, with the layers of a spiking one.

    relu     time bins are input channels; convolution or full connection, pooling and ReLU in the
             spiking network's order. Bins as channels keep the order in time, which a mean over
             frames would lose, and cost a T-th of the products.
    frames   all bins summed; convolution, normalisation, ReLU, 2 x 2 (`Layer.pool`) maximum: the
             block of Vinyals et al. 2016 that MAML uses (Finn et al. 2017)
    pixels   all bins summed, and no layer: the readout sees the event counts

Parameters are named as those of `snn/network.py`; a normalised layer has `layer<i>.gain` too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn.gain_control import control_gain
from spikeshot.snn.init import fit_readout, orthogonal_tree
from spikeshot.snn.layer import Layer, PoolKind, PoolWhere
from spikeshot.snn.network import layer_shapes

FrameKind = Literal["relu", "frames", "pixels"]
Norm = Literal["batch", "layer"]
Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class FrameNetwork:
    """The shape of a conventional network; the numbers live in the parameter tree.

    `input_shape` (2, H, W); `bins`: time bins T of the frames; `pool_kind` and `pool_where`: of
    `relu`. `norm`, of `frames`: by the statistics of the `batch`, of the support at a step of
    adaptation and of the query afterwards, as MAML's own code does, which tells each query sample
    something of the others; or of each sample, over its `layer`. `input_gain` multiplies counts.
    `gain_control`, of `relu`: as the spiking network's (`snn/gain_control.py`).
    """

    kind: FrameKind
    input_shape: tuple[int, int, int]
    bins: int
    layers: tuple[Layer, ...]
    pool_kind: PoolKind = "average"
    pool_where: PoolWhere = "before"
    norm: Norm = "batch"
    input_gain: float = 1.0
    gain_control: bool = False


def parameter_shapes(network: FrameNetwork, ways: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, in order; raises `ConfigError` if layers do not fit."""
    channels, height, width = network.input_shape
    if network.kind == "relu":
        channels *= network.bins
    layers = () if network.kind == "pixels" else network.layers
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layer_shapes((channels, height, width), layers, ways).items():
        shapes[name] = shape
        if network.kind == "frames" and name.startswith("layer") and name.endswith("weight"):
            shapes[name.replace("weight", "gain")] = shape[:1]
    return shapes


def prepare(network: FrameNetwork, frames: Tensor) -> Tensor:
    """Return frames `[T, B, 2, H, W]` as one image of each sample, `[1, B, C, H, W]`.

    C is 2 T (bin by bin) for `relu`, else 2.
    """
    if network.kind == "relu":
        x = frames.transpose(0, 1).flatten(1, 2)[None]  # (T, B, 2, H, W) -> (1, B, 2T, H, W)
    else:
        x = frames.sum(0, keepdim=True)
    return x * network.input_gain


def forward_prepared(network: FrameNetwork, params: Params, prepared: Tensor) -> Tensor:
    """Return logits `[B, ways]` for what `prepare` made of the frames."""
    features = features_prepared(network, params, prepared)
    return F.linear(features, params["readout.weight"], params["readout.bias"])


def features_prepared(network: FrameNetwork, params: Params, prepared: Tensor) -> Tensor:
    """Return what the readout's weights see, `[B, F]`."""
    x = prepared[0]
    if network.kind != "pixels":
        for i in range(len(network.layers)):
            x = _activity(network, i, params, _drive(network, i, params, x))
    return x.flatten(1)


def init_params(
    network: FrameNetwork,
    ways: int,
    frames: Tensor,
    *,
    generator: torch.Generator,
    drive_std: float = 1.0,
    readout_std: float = 0.1,
) -> dict[str, Tensor]:
    """Return a parameter tree fitted to `frames` `[T, B, 2, H, W]`, in their dtype and device.

    As the spiking network's (`snn/init.py`): orthogonal weights, scaled layer by layer to the
    standard deviation `drive_std` where no normalisation does it; `readout_std`: that of the
    logits, whose mean is made zero for every way. Biases are 0 and gains 1.
    """
    params = orthogonal_tree(parameter_shapes(network, ways), generator, frames)
    x = prepare(network, frames)
    with torch.no_grad():
        if network.kind == "relu":
            _scale_layers(network, params, x[0], drive_std)
        fit_readout(params, forward_prepared(network, params, x), readout_std)
    return params


def _scale_layers(
    network: FrameNetwork, params: dict[str, Tensor], x: Tensor, drive_std: float
) -> None:
    """Scale the weights of each layer, in place, to the wanted deviation of its sums."""
    for i in range(len(network.layers)):
        params[f"layer{i}.weight"] *= drive_std / _drive(network, i, params, x).std().clamp(
            min=1e-6
        )
        x = _activity(network, i, params, _drive(network, i, params, x))


def _drive(network: FrameNetwork, i: int, params: Params, x: Tensor) -> Tensor:
    """Return the weighted sums of layer `i`, pooled if pooling comes before the bias."""
    layer, weight = network.layers[i], params[f"layer{i}.weight"]
    if not layer.kernel:
        y = F.linear(x.flatten(1), weight)
    else:
        y = F.conv2d(x, weight, padding=layer.kernel // 2)
        if network.kind == "relu" and network.pool_where == "before":
            y = _pool(y, layer.pool, network.pool_kind)
    return control_gain(y, 1) if network.kind == "relu" and network.gain_control else y


def _activity(network: FrameNetwork, i: int, params: Params, drive: Tensor) -> Tensor:
    """Return the activity of layer `i` for its weighted sums."""
    layer, bias = network.layers[i], params[f"layer{i}.bias"]
    if network.kind == "frames":
        gain = params[f"layer{i}.gain"]
        return _pool(F.relu(normalise(drive, gain, bias, network.norm)), layer.pool, "max")
    y = F.relu(drive + (bias[:, None, None] if layer.kernel else bias))
    return _pool(y, layer.pool, network.pool_kind) if network.pool_where == "after" else y


def normalise(x: Tensor, gain: Tensor, bias: Tensor, norm: Norm) -> Tensor:
    """Return `x` `[B, C, ...]` with mean 0 and variance 1, times gain `[C]`, plus bias `[C]`.

    `batch`: over all but C (Ioffe & Szegedy 2015); `layer`: over all but B (Ba et al. 2016).
    """
    if norm == "layer":
        return F.group_norm(x, 1, gain, bias)
    return F.batch_norm(x, None, None, gain, bias, training=True)


def _pool(x: Tensor, size: int, kind: PoolKind) -> Tensor:
    if size == 1:
        return x
    return F.avg_pool2d(x, size) if kind == "average" else F.max_pool2d(x, size)
