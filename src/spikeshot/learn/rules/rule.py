"""The contracts of the slots of a rule, and the rule that joins them.

    credit(forward, loss, params, batch, create_graph, moment) -> grads
    transform.update(grads, state, learned, moment) -> (updates, state)  updates carry the minus
    apply(params, updates, moment) -> params

and for devices that hold their weights in their own way, two more that do nothing otherwise:

    place(params, moment) -> params      the meta-learned parameters are written onto the device
    read(params, moment) -> params       what a forward pass sees of the parameters

A task may `start` elsewhere than at the meta-learned parameters: where its support says
(`start(forward, params, learned, support, moment) -> params`, `start.py`), before `place`.

What of this depends on where a task starts, as the step of a grid or the range of a device, is
found once a task, by `Rule.begun`, from the parameters before they are placed (`Rule.settled`).

`part` says which parameters inner steps change at all: the slots see only those, so the others stay
as they are bit for bit, and their gradient is never computed.

A transform may own meta-parameters (learned rates): `learned()` declares them with their start
values, and the outer loop hands their present values back to `update`. So may a credit
(`LearnedCredit`) and a start. Every slot is a function of its arguments: what is random is drawn
from the moment's generator, so that a step that is run again is the same step.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from spikeshot.learn.rules.forward import Forward as Forward
from spikeshot.learn.rules.forward import Params as Params
from spikeshot.learn.rules.forward import Through

Loss = Callable[[Tensor, Tensor], Tensor]
Part = Callable[[str], bool]
CREDIT, START = "credit.", "start."  # before the names of their meta-parameters


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


@runtime_checkable
class LearnedCredit(Protocol):
    """A credit with meta-parameters of its own."""

    def learned(self, params: Params) -> Params:
        """Return the meta-parameters this credit adds, with their start values."""
        ...

    def using(self, learned: Params) -> Credit:
        """Return the credit with these values of its meta-parameters."""
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


class Start(Protocol):
    """Says where a task starts."""

    def learned(self, params: Params) -> Params:
        """Return the meta-parameters this start adds, with their start values."""
        ...

    def __call__(
        self, forward: Forward, params: Params, learned: Params, support: Batch, moment: Moment
    ) -> Params:
        """Return new parameters; differentiable in the old ones and in `learned`."""
        ...


def as_is(params: Params, moment: Moment) -> Params:
    """Return the parameters."""
    return params


def whole(name: str) -> bool:
    """The part that is everything."""
    return True


class Slots(NamedTuple):
    """The slots that a medium fills: what keeps the weights, as a grid or a device, in one task."""

    transform: Transform
    apply: Apply
    place: View = as_is
    read: View = as_is


Medium = Callable[[Params, Transform], Slots]
"""(parameters that a task starts from, the rule's transform) -> the slots of that task."""


class Begun(NamedTuple):
    """A task before its first inner step: the rule, settled there, and the placed parameters."""

    rule: "Rule"
    params: Params


@dataclass(frozen=True)
class Rule:
    """One inner step: `apply(params, transform(credit(...)))` on the `part` that steps change.

    `place` comes once, before the first step; `read` at every forward pass, the query's too; both
    see all parameters. `constant`: gradients are cut off from the graph (first order). `medium`,
    where there is one, fills these slots and may lengthen the transform, by a link that learns
    nothing, when it is known where a task starts.
    """

    credit: Credit
    transform: Transform
    apply: Apply
    place: View = as_is
    read: View = as_is
    part: Part = whole
    constant: bool = False
    start: Start | None = None
    medium: Medium | None = None

    def learned(self, params: Params) -> Params:
        """Return the meta-parameters of transform, credit and start, with their start values."""
        found = self.transform.learned(self.changed(params))
        if isinstance(self.credit, LearnedCredit):
            found |= {CREDIT + name: v for name, v in self.credit.learned(params).items()}
        if self.start:
            found |= {START + name: v for name, v in self.start.learned(params).items()}
        return found

    def settled(self, params: Params) -> "Rule":
        """Return the rule of a task that starts at `params`, which are not yet placed.

        What the medium finds there is a constant to every gradient. A settled rule stays as it is.
        """
        if self.medium is None:
            return self
        start = {name: value.detach() for name, value in params.items()}
        slots = self.medium(start, self.transform)
        return replace(self, **slots._asdict(), medium=None)

    def begun(
        self, forward: Forward, params: Params, learned: Params, support: Batch, moment: Moment
    ) -> Begun:
        """Return the task before its first inner step, from the meta-learned parameters.

        A start sees the support through the placed parameters, as inner steps will; what it makes
        is placed with the others, on a grid or device that is fitted to all of them. They are
        tensors of their own: where some are made of others, the credit of these is still that of
        each by itself.
        """
        if self.start:
            early = self.settled(params)
            placed = early.place(params, moment)
            made = self.start(
                *(early.seen(forward, moment), placed, _of(START, learned), support, moment)
            )
            params = params | {n: value for n, value in made.items() if value is not placed[n]}
            params = {name: value.view_as(value) for name, value in params.items()}
        rule = self.settled(params)
        return Begun(rule, rule.place(params, moment))

    def state(self, params: Params) -> Any:
        """Return the transform's state at the first inner step."""
        return self.transform.init(self.changed(params))

    def changed(self, params: Params) -> Params:
        """Return those of the parameters that inner steps change."""
        if self.part is whole:
            return params
        return {name: value for name, value in params.items() if self.part(name)}

    def seen(self, forward: Forward, moment: Moment) -> Forward:
        """Return `forward` of the parameters as they are read at this moment."""
        if self.read is as_is:
            return forward
        return Through(forward, lambda params: self.read(params, moment))

    def gradients(
        self,
        forward: Forward,
        loss: Loss,
        params: Params,
        learned: Params,
        batch: Batch,
        create_graph: bool,
        moment: Moment,
    ) -> Params:
        """Return the credit of every parameter that inner steps change.

        Without a graph the others are constants: no graph is built through the layers below.
        """
        create_graph = create_graph and not self.constant
        changed, forward = self.changed(params), self.seen(forward, moment)
        if self.constant:
            changed = {name: value.detach().requires_grad_() for name, value in changed.items()}
        if self.part is not whole:
            others = {n: v if create_graph else v.detach() for n, v in params.items()}
            forward = Through(forward, lambda values: others | values)
        credit = self.credit
        if isinstance(credit, LearnedCredit):
            credit = credit.using(_of(CREDIT, learned))
        grads = credit(forward, loss, changed, batch, create_graph, moment)
        return {n: g.detach() for n, g in grads.items()} if self.constant else grads


def _of(slot: str, learned: Params) -> Params:
    return {n.removeprefix(slot): v for n, v in learned.items() if n.startswith(slot)}
