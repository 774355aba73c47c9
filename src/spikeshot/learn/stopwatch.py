"""Where the time of a training step goes: a stopwatch that is handed in, and one that is off.

A phase inside another one stops the outer one's clock, so that phases add up to the whole. Training
has these (the times are those of the process; under torchrun, of the first one):

    data        waiting for the episodes that a background thread makes
    forward     forward passes on the support, within the inner steps
    inner       the rest of the inner steps: support gradient (with its graph) and update
    query       query gradient at the adapted parameters, forward passes included
    backward    the product back through the inner steps; with `remat` their second run too
    reduce      waiting for the other processes' gradients, where there are any
    optimiser   clipping, Adam, the running mean
    other       metrics and progress

With the strategy `double_backward` there is one gradient for all: `query` is the query's forward
pass alone, `backward` the rest.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

PHASES = ("data", "forward", "inner", "query", "backward", "reduce", "optimiser", "other")


@dataclass(frozen=True)
class Profile:
    """Mean times of `steps` training steps: `ms` per step, in all phases that were entered."""

    steps: int
    ms: dict[str, float]

    @property
    def ms_per_step(self) -> float:
        """Milliseconds of a whole step."""
        return sum(self.ms.values())

    @property
    def percent(self) -> dict[str, float]:
        """The share of each phase in the step, in %."""
        return {name: 100 * ms / (self.ms_per_step or 1.0) for name, ms in self.ms.items()}


class Watch(Protocol):
    """Measures phases, or does not."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return the context in which time counts for `name`."""
        ...


class Off:
    """The stopwatch that is off: no phase costs more than an empty context."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return an empty context."""
        return _NOTHING


_NOTHING = nullcontext()
OFF = Off()


class Stopwatch:
    """Adds up the time of each phase, of one thread; `clock()` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._running: list[str] = []
        self._since = 0.0
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time in this context for `name`, one of `PHASES`, and for no phase around."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def profile(self, steps: int) -> Profile:
        """Return the mean over `steps` steps (1 or more)."""
        return Profile(steps, {n: 1000 * s / steps for n, s in self.seconds.items() if s})

    def _turn(self) -> None:
        """Count the time since the last turn for the phase that was running."""
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
