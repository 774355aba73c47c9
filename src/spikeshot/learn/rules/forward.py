"""A forward pass as rules see it: logits, what a credit needs beside them, and wrappers of both.

`Forward` is the protocol; the network's own is `snn.network_forward.NetworkForward`. A rule that
asks for logits alone also runs with any function of (params, frames).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from spikeshot.learn.stopwatch import Watch

Params = dict[str, Tensor]


class Activity(Protocol):
    """What a forward pass did, layer by layer; T' are the steps that carry a gradient."""

    @property
    def logits(self) -> Tensor:
        """`[B, ways]`."""
        ...

    @property
    def spikes(self) -> Sequence[Tensor]:
        """The output of each layer, `[T', B, ...]`."""
        ...

    @property
    def trace(self) -> Tensor:
        """What the readout's weights multiply, `[B, features]`: its presynaptic trace."""
        ...

    @property
    def unit(self) -> Tensor:
        """What the readout's bias is multiplied with, `[]`."""
        ...


class Forward(Protocol):
    """A network as a function of its parameters."""

    def __call__(self, params: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        """Return logits `[B, ways]` for frames (as the network prepares them)."""
        ...

    def recorded(self, params: Mapping[str, Tensor], frames: Tensor) -> Activity:
        """Return the activity of every layer, the logits among it."""
        ...

    def last_steps(self, steps: int) -> "Forward":
        """Return the forward pass whose gradient runs through the last `steps` time steps only."""
        ...


@dataclass(frozen=True)
class Through:
    """A forward pass whose parameters go through `view` first."""

    forward: Forward
    view: Callable[[Params], Params]

    def __call__(self, params: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        """Return logits `[B, ways]`."""
        return self.forward(self.view(dict(params)), frames)

    def recorded(self, params: Mapping[str, Tensor], frames: Tensor) -> Activity:
        """Return the activity of every layer."""
        return self.forward.recorded(self.view(dict(params)), frames)

    def last_steps(self, steps: int) -> "Through":
        """Return the same with a gradient through the last `steps` time steps only."""
        return replace(self, forward=self.forward.last_steps(steps))


@dataclass(frozen=True)
class Clocked:
    """A forward pass whose time counts for the phase `forward` of a stopwatch."""

    forward: Forward
    watch: Watch

    def __call__(self, params: Mapping[str, Tensor], frames: Tensor) -> Tensor:
        """Return logits `[B, ways]`."""
        with self.watch.phase("forward"):
            return self.forward(params, frames)

    def recorded(self, params: Mapping[str, Tensor], frames: Tensor) -> Activity:
        """Return the activity of every layer."""
        with self.watch.phase("forward"):
            return self.forward.recorded(params, frames)

    def last_steps(self, steps: int) -> "Clocked":
        """Return the same with a gradient through the last `steps` time steps only."""
        return replace(self, forward=self.forward.last_steps(steps))
