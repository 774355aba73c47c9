"""Activity of a spiking network: how often the neurons of each layer fire."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeshot.snn.network import Network, forward_recorded, neuron_counts


@dataclass(frozen=True)
class FiringRates:
    """Spikes per neuron and time step (0..1): of every layer, and over all neurons (`overall`).

    Divided by the length of a time bin in seconds, they are rates per second.
    """

    layers: tuple[float, ...]
    overall: float


def firing_rates(network: Network, params: Mapping[str, Tensor], frames: Tensor) -> FiringRates:
    """Return the mean firing rates on `frames` `[T, B, 2, H, W]`, after the burn-in.

    Where maximum pooling comes after the spike, a window counts as one neuron: what is sent on.
    """
    with torch.no_grad():
        record = forward_recorded(network, params, frames)[1]
    rates = tuple(float(s.double().mean()) for s in record)
    neurons = neuron_counts(network, record)
    total = sum(r * n for r, n in zip(rates, neurons, strict=True))
    return FiringRates(rates, total / max(sum(neurons), 1))
