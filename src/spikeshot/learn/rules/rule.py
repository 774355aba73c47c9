"""The contracts of the three slots of a rule, and the rule that joins them.

    credit(forward, loss, params, batch, create_graph) -> grads
    transform.update(grads, state, learned) -> (updates, state)     updates carry the minus sign
    apply(params, updates) -> params

A transform may own meta-parameters (learned rates): `learned()` declares them with their start
values, and the outer loop hands their present values back to `update`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

Params = dict[str, Tensor]
Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Batch(NamedTuple):
    """Samples of one task: frames `[T, B, C, H, W]` and labels `[B]`."""

    frames: Tensor
    labels: Tensor


class Credit(Protocol):
    """Assigns credit: what each parameter did to the loss."""

    def __call__(
        self, forward: Forward, loss: Loss, params: Params, batch: Batch, create_graph: bool
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

    def update(self, grads: Params, state: Any, learned: Params) -> tuple[Params, Any]:
        """Return updates and the next state."""
        ...


class Apply(Protocol):
    """Writes updates into the parameters."""

    def __call__(self, params: Params, updates: Params) -> Params:
        """Return new parameters; the old ones stay as they are."""
        ...


@dataclass(frozen=True)
class Rule:
    """One inner step: `apply(params, transform(credit(...)))`."""

    credit: Credit
    transform: Transform
    apply: Apply
