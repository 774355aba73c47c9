"""How far a run is in its schedules, and whether it is over: by iterations, or by minutes.

With a budget in minutes the share of it that is spent takes the place of the share of iterations:
the learning rates' decay, the simulated part, derivative-order annealing and the validations all
run their whole course whatever the speed, so that a slow learner and a fast one are each trained
as a run of that length should be. `iterations` is then the unit of the schedules only, and such a
run does not repeat bit for bit.
"""

from dataclasses import dataclass

SECONDS = 60.0


@dataclass
class Clock:
    """The clock of one run; `spent`: seconds of iterations and validations so far.

    `minutes` 0: iterations count alone.
    """

    iterations: int
    minutes: float = 0.0
    spent: float = 0.0

    def place(self, iteration: int) -> int:
        """Return the iteration of the schedules, from 0, that a run is at before `iteration`."""
        if not self.minutes:
            return iteration
        share = self.spent / (SECONDS * self.minutes)
        return min(int(share * self.iterations), self.iterations)

    def over(self, iteration: int) -> bool:
        """Return whether the budget is spent."""
        return self.place(iteration) >= self.iterations
