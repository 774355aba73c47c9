"""Configuration becomes a network: spiking, or one to compare with."""

from spikeshot.config import Config
from spikeshot.errors import ConfigError
from spikeshot.snn.layer import Layer, LayerStyle
from spikeshot.snn.network import Network
from spikeshot.snn.neuron import Neuron
from spikeshot.snn.surrogate import get_surrogate
from spikeshot.study.baselines.frame_network import FrameNetwork
from spikeshot.study.baselines.networks import AnyNetwork, leaky_twin


def build_network(config: Config, frame_shape: tuple[int, int, int]) -> AnyNetwork:
    """Return the network for frames `(2, H, W)`: spiking, or one to compare with.

    Raises `ConfigError` for a surrogate that exact second order cannot differentiate twice.
    """
    n = config.network
    layers = tuple(Layer(layer.units, layer.kernel, layer.pool) for layer in n.layers)
    if n.kind in ("relu", "frames", "pixels"):
        return FrameNetwork(
            n.kind,
            frame_shape,
            config.data.bins,
            layers,
            n.pool_kind,
            n.pool_where,
            n.norm,
            n.input_gain,
            n.gain_control,
        )
    network = Network(
        frame_shape,
        layers,
        LayerStyle(_neuron(config), n.pool_kind, n.pool_where, n.gain_control),
        n.readout,
        n.burn_in,
        n.input_gain,
        n.input_alpha,
        n.hold,
        config.engine,
    )
    return leaky_twin(network) if n.kind == "leaky" else network


def _neuron(config: Config) -> Neuron:
    nc = config.network.neuron
    surrogate = get_surrogate(nc.surrogate)
    spikes = config.network.kind == "spiking"
    if spikes and not surrogate.twice_differentiable and config.learn.meta_gradient == "exact":
        raise ConfigError(
            f"network.neuron.surrogate is {nc.surrogate!r}, which is not twice differentiable, but "
            "learn.meta_gradient is 'exact' (second order). Choose another surrogate, as "
            "fast_sigmoid, or learn.meta_gradient=first_order."
        )
    alpha, beta, reset_decay = nc.decays(config.data.dt_us)
    return Neuron(
        alpha,
        beta,
        reset_decay,
        nc.threshold,
        nc.reset,
        nc.delay,
        nc.surrogate,
        nc.sharpness,
    )
