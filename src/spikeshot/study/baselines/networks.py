"""One set of functions for every network that a learner can have, spiking or not."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from spikeshot.learn.rules.rule import Forward
from spikeshot.snn import init
from spikeshot.snn import network as spiking
from spikeshot.snn.network import Network
from spikeshot.snn.network_forward import NetworkForward
from spikeshot.study.baselines import frame_network
from spikeshot.study.baselines.frame_network import FrameNetwork
from spikeshot.study.baselines.prototypes import Reading

AnyNetwork = Network | FrameNetwork
Params = Mapping[str, Tensor]


def leaky_twin(network: Network) -> Network:
    """Return the network with softsign, u / (1 + |u|), in the place of every spike.

    Layers, filters, reset and readout stay: the analogue twin that Stewart & Neftci 2022 compare
    with. `u` is the membrane above the threshold. All of it is smooth: plain gradients are exact.
    """
    neuron = replace(network.style.neuron, soft=True, surrogate="fast_sigmoid", sharpness=1.0)
    return replace(network, style=replace(network.style, neuron=neuron))


def parameter_shapes(network: AnyNetwork, ways: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, in order; raises `ConfigError` if layers do not fit."""
    if isinstance(network, Network):
        return spiking.parameter_shapes(network, ways)
    return frame_network.parameter_shapes(network, ways)


def prepare(network: AnyNetwork, frames: Tensor) -> Tensor:
    """Return what the network takes for frames `[T, B, 2, H, W]`, samples in dimension 1."""
    if isinstance(network, Network):
        return spiking.prepare(network, frames)
    return frame_network.prepare(network, frames)


def forward_prepared(network: AnyNetwork, params: Params, prepared: Tensor) -> Tensor:
    """Return logits `[B, ways]` for what `prepare` made of the frames."""
    if isinstance(network, Network):
        return spiking.forward_prepared(network, params, prepared)
    return frame_network.forward_prepared(network, params, prepared)


def forward_of(network: AnyNetwork) -> Forward:
    """Return the network as learning takes it: a function of parameters and prepared frames."""
    if isinstance(network, Network):
        return NetworkForward(network)
    return Reading(partial(frame_network.features_prepared, network))


def features_prepared(network: AnyNetwork, params: Params, prepared: Tensor) -> Tensor:
    """Return what the readout's weights see, `[B, F]`, for what `prepare` made of the frames."""
    if isinstance(network, Network):
        return spiking.features_prepared(network, params, prepared)
    return frame_network.features_prepared(network, params, prepared)


def init_params(
    network: AnyNetwork,
    ways: int,
    frames: Tensor,
    *,
    generator: torch.Generator,
    activity: float,
    drive_std: float,
    readout_std: float,
) -> dict[str, Tensor]:
    """Return a parameter tree fitted to `frames`; `activity` is for spiking and leaky units."""
    scales = {"drive_std": drive_std, "readout_std": readout_std}
    if isinstance(network, Network):
        return init.init_params(
            network, ways, frames, generator=generator, activity=activity, **scales
        )
    return frame_network.init_params(network, ways, frames, generator=generator, **scales)
