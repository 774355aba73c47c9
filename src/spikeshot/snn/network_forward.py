"""The network as learning takes it: a function of its parameters that also tells its activity."""

from dataclasses import dataclass, replace

from torch import Tensor

from spikeshot.snn.network import Activity, Network, Params, forward_prepared, record_prepared


@dataclass(frozen=True)
class NetworkForward:
    """`forward(params, frames) -> logits [B, ways]`, of frames as `network.prepare` returns them.

    `steps`: the gradient runs through that many last time steps only (0: through all after the
    burn-in); those before them belong to the burn-in.
    """

    network: Network
    steps: int = 0

    def __call__(self, params: Params, frames: Tensor) -> Tensor:
        """Return logits `[B, ways]`; nothing holds the layers' spikes."""
        return forward_prepared(self._within(len(frames)), params, frames)

    def recorded(self, params: Params, frames: Tensor) -> Activity:
        """Return the activity of every layer."""
        return record_prepared(self._within(len(frames)), params, frames)

    def last_steps(self, steps: int) -> "NetworkForward":
        """Return the same with a gradient through the last `steps` time steps only."""
        return replace(self, steps=steps)

    def _within(self, steps: int) -> Network:
        """Return the network for frames of so many time steps."""
        if not self.steps:
            return self.network
        return replace(self.network, burn_in=max(self.network.burn_in, steps - self.steps))
