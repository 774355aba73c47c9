"""What an inference and an adaptation cost: operations, memory, and energy under assumptions.

Energies of an operation in 45 nm at 0.9 V, in pJ (Horowitz 2014, "1.1 Computing's energy problem
(and what we can do about it)", ISSCC, pages 10-14, figure 1.1.9): a 32-bit float addition takes
0.9, a multiplication 3.7. So a multiply-accumulate takes 4.6, and a synaptic operation, which adds
a weight, 0.9. Memory traffic, control and the pooling are left out: an estimate to compare with, no
measurement.

A backward pass is counted as twice the dense products of a forward one (gradients of inputs and of
weights), for a spiking network too, whose surrogate derivatives are dense; over the steps after its
burn-in. Readouts made in closed form (prototypes, centroids, regression) cost one forward pass of
the support; what is done with the features then is left out.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from spikeshot.snn.network import Network
from spikeshot.study.baselines.networks import AnyNetwork
from spikeshot.study.operations import memory, multiply_accumulates, synaptic_operations

ADD_PJ, MULTIPLY_PJ = 0.9, 3.7
MAC_PJ = ADD_PJ + MULTIPLY_PJ
BYTES = 4  # of a 32-bit number


@dataclass(frozen=True)
class Operations:
    """Multiply-accumulates, accumulates of a weight, and updates of a neuron's state.

    An update is one multiply-accumulate: of decay and input, per number of state and step.
    """

    macs: float = 0.0
    accumulates: float = 0.0
    updates: float = 0.0

    def times(self, factor: float) -> "Operations":
        """Return `factor` times as many."""
        return Operations(self.macs * factor, self.accumulates * factor, self.updates * factor)

    def plus(self, other: "Operations") -> "Operations":
        """Return both together."""
        return Operations(
            self.macs + other.macs,
            self.accumulates + other.accumulates,
            self.updates + other.updates,
        )

    @property
    def energy_nj(self) -> float:
        """Energy in nJ, under the assumptions above."""
        return (MAC_PJ * (self.macs + self.updates) + ADD_PJ * self.accumulates) / 1000


def inference(
    network: AnyNetwork, params: Mapping[str, Tensor], frames: Tensor, *, spiking: bool
) -> Operations:
    """Return the operations of one sample, the mean of `frames` `[T, B, 2, H, W]`.

    Of a spiking network at its measured sparsity; of any other the dense products.
    """
    ways, steps = len(params["readout.bias"]), len(frames)
    updates = memory(network, ways).state * steps if isinstance(network, Network) else 0
    if spiking and isinstance(network, Network):
        found = synaptic_operations(network, params, frames)
        return Operations(0.0, found.total, updates)
    return Operations(float(multiply_accumulates(network, ways, steps)), 0.0, updates)


def adaptation(
    network: AnyNetwork,
    once: Operations,
    *,
    ways: int,
    steps: int,
    time_steps: int,
    samples: int,
    method: str,
    prototypes: bool,
) -> Operations:
    """Return the operations of one adaptation to `samples` support samples by `steps` inner steps.

    `once`: of one inference; `prototypes`: whether the readout starts from them.
    """
    forward = once.times(samples)
    if method == "none":
        return Operations()
    if method != "maml":
        return forward
    burn_in = network.burn_in if isinstance(network, Network) else 0
    dense = multiply_accumulates(network, ways, time_steps - burn_in)
    step = forward.plus(Operations(2.0 * dense * samples))
    start = forward if prototypes else Operations()
    return start.plus(step.times(steps))


def described(operations: Operations) -> dict[str, Any]:
    """Return the operations and their energy as a dictionary."""
    return asdict(operations) | {"energy_nj": operations.energy_nj}


def memory_bytes(network: AnyNetwork, ways: int) -> dict[str, int]:
    """Return the bytes of weights and of one sample's state, in 32-bit numbers."""
    kept = memory(network, ways)
    return {"weights": BYTES * kept.weights, "state": BYTES * kept.state}
