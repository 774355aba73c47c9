"""What hears of a job's progress: the contract, and the listener that says nothing."""

from typing import Protocol

from spikeshot.config import Config
from spikeshot.learn.meta_train import StepReport
from spikeshot.learn.scoring import Score
from spikeshot.learn.stopwatch import Profile
from spikeshot.study.evaluate import Evaluation


class Listener(Protocol):
    """Hears what a job does."""

    def on_packing(self, done: int, total: int) -> None:
        """Recordings are packed, before training: `done` of `total` so far."""
        ...

    def on_start(self, config: Config, iteration: int, recordings: int) -> None:
        """Training begins at `iteration`."""
        ...

    def on_step(self, report: StepReport) -> None:
        """One meta-iteration is done."""
        ...

    def on_validation(self, iteration: int, result: Evaluation, best: bool) -> None:
        """A validation is done; `best` when it is the best so far."""
        ...

    def on_profile(self, profile: Profile) -> None:
        """Training has ended, or was ended; where the time of its steps went, if asked for."""
        ...

    def on_evaluation_start(self, split: str, episodes: int) -> None:
        """An evaluation of `episodes` episodes begins."""
        ...

    def on_episode(self, score: Score) -> None:
        """One evaluation episode is done."""
        ...


class Silent:
    """The listener that says nothing."""

    def on_packing(self, done: int, total: int) -> None:
        """Nothing."""

    def on_start(self, config: Config, iteration: int, recordings: int) -> None:
        """Nothing."""

    def on_step(self, report: StepReport) -> None:
        """Nothing."""

    def on_validation(self, iteration: int, result: Evaluation, best: bool) -> None:
        """Nothing."""

    def on_profile(self, profile: Profile) -> None:
        """Nothing."""

    def on_evaluation_start(self, split: str, episodes: int) -> None:
        """Nothing."""

    def on_episode(self, score: Score) -> None:
        """Nothing."""
