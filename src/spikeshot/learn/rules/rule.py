"""The contracts of the slots of a rule, and the rule that joins them.

    credit(forward, loss, params, batch, create_graph, moment) -> grads
    transform.update(grads, state, learned, moment) -> (updates, state)  updates carry the minus
    apply(params, updates, moment) -> params

and for devices that hold their weights in their own way, two more that do nothing otherwise:

    place(params, moment) -> params      the meta-learned parameters are written onto the device
    read(params, moment) -> params       what a forward pass sees of the parameters

What of this depends on where a task starts, as the step of a grid or the range of a device, is
found once a task by `Rule.settled`, from the meta-learned parameters alone.

A transform may own meta-parameters (learned rates): `learned()` declares them with their start
values, and the outer loop hands their present values back to `update`. Every slot is a function of
its arguments: what is random is drawn from the moment's generator, so that a step that is run again
is the same step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Params = dict[str, Tensor]
Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Batch(NamedTuple):
    """Samples of one task: frames `[T, B, C, H, W]` and labels `[B]`."""

    frames: Tensor
    labels: Tensor


class Posed(NamedTuple):
    """One task as a learner takes it, with the key of what is random in it."""

    support: Batch
    query: Batch
    key: int


class Moment(NamedTuple):
    """When something is done: in which task (its random key) and at which inner step, from 0."""

    key: int
    step: int

    def generator(self, stream: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the generator of this moment for one of several uses, numbered by `stream`.

        The same moment and stream give the same numbers, whatever was drawn before.
        """
        words = f"{self.key}/{self.step}/{stream}".encode()
        seed = int.from_bytes(blake2b(words, digest_size=8).digest(), "little") >> 1
        return torch.Generator(device).manual_seed(seed)


class Credit(Protocol):
    """Assigns credit: what each parameter did to the loss."""

    def __call__(
        self,
        forward: Forward,
        loss: Loss,
        params: Params,
        batch: Batch,
        create_graph: bool,
        moment: Moment,
    ) -> Params:
        """Return one gradient per parameter; with a graph when it is to be differentiated."""
        ...


class Transform(Protocol):
    """Turns gradients into updates."""

    def learned(self, params: Params) -> Params:
        """Return the meta-parameters this transform adds, with their start values."""
        ...

    def init(self, params: Params) -> Any:
        """Return the state at the first inner step."""
        ...

    def update(
        self, grads: Params, state: Any, learned: Params, moment: Moment
    ) -> tuple[Params, Any]:
        """Return updates and the next state."""
        ...


class Apply(Protocol):
    """Writes updates into the parameters."""

    def __call__(self, params: Params, updates: Params, moment: Moment) -> Params:
        """Return new parameters; the old ones stay as they are."""
        ...


class View(Protocol):
    """Parameters as they are after something happened to them that no update asked for."""

    def __call__(self, params: Params, moment: Moment) -> Params:
        """Return new parameters; the old ones stay as they are."""
        ...


def as_is(params: Params, moment: Moment) -> Params:
    """Return the parameters."""
    return params


class Slots(NamedTuple):
    """The slots that a medium fills: what keeps the weights, as a grid or a device, in one task."""

    transform: Transform
    apply: Apply
    place: View = as_is
    read: View = as_is


Medium = Callable[[Params, Transform], Slots]
"""(meta-learned parameters, the rule's transform) -> the slots of a task that starts there."""


@dataclass(frozen=True)
class Rule:
    """One inner step: `apply(params, transform(credit(...)))`.

    `place` comes once, before the first step; `read` at every forward pass, the query's too.
    `medium`, where there is one, fills these slots and may lengthen the transform, by a link that
    learns nothing, when it is known where a task starts.
    """

    credit: Credit
    transform: Transform
    apply: Apply
    place: View = as_is
    read: View = as_is
    medium: Medium | None = None

    def settled(self, init: Params) -> "Rule":
        """Return the rule of a task that starts at the meta-learned parameters `init`.

        What the medium finds there is a constant to every gradient. A settled rule stays as it is.
        """
        if self.medium is None:
            return self
        start = {name: value.detach() for name, value in init.items()}
        slots = self.medium(start, self.transform)
        return replace(self, **slots._asdict(), medium=None)

    def seen(self, forward: Forward, moment: Moment) -> Forward:
        """Return `forward` of the parameters as they are read at this moment."""
        if self.read is as_is:
            return forward
        return lambda params, frames: forward(self.read(dict(params), moment), frames)
