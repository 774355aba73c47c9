"""The loop of one run: steps, validations and checkpoints in their order, from any saved state.

Whatever ends it (a stop, a kill, a full disk), the run folder then holds a state from which the
loop goes on as if it had never ended.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import torch

import spikeshot
from spikeshot.assemble import (
    build_outer_loop,
    pose,
    pose_training,
    start_state,
    training_classes,
)
from spikeshot.assemble_data import is_simulated
from spikeshot.config import Config
from spikeshot.data.episodes import Episode, TaskSpace
from spikeshot.errors import DivergenceError, Interrupted, TeamError
from spikeshot.learn.clock import Clock
from spikeshot.learn.meta_train import Learner, StepReport, TrainState, meta_step
from spikeshot.learn.parallel import ALONE, Team
from spikeshot.learn.prefetch import prefetch
from spikeshot.learn.rules.rule import Params, Posed
from spikeshot.learn.scoring import Score, score_episode
from spikeshot.learn.stopwatch import OFF, Profile, Stopwatch
from spikeshot.listener import Listener
from spikeshot.run_folder import BEST, STATE, RunFolder
from spikeshot.snn.network import resize_readout
from spikeshot.starting import Start, started
from spikeshot.study.baselines.networks import AnyNetwork
from spikeshot.study.evaluate import evaluate_episodes

STILL = 100  # iterations without any gradient, at chance, after which a network is given up


@dataclass(frozen=True)
class Progress:
    """How far a run is: the state of training, and its best validation (-1: none yet)."""

    state: TrainState
    best_accuracy: float = -1.0
    best_iteration: int = -1


def first_progress(
    config: Config,
    network: AnyNetwork,
    learner: Learner,
    spaces: Mapping[str, TaskSpace],
    start: Start | None = None,
) -> Progress:
    """Return the progress of a run that has not begun, with what `start` gives."""
    ways = len(training_classes(config, spaces)) or None
    state = start_state(config, network, learner, spaces["train"], ways)
    return Progress(started(state, start) if start else state)


def saved_progress(run: RunFolder, config: Config) -> Progress | None:
    """Return the progress in the run's checkpoint, or None when it wrote none yet."""
    if not (run.path / STATE).exists():
        return None
    tensors, about = run.read_tensors(STATE, config)
    state = TrainState.from_tensors(about["iteration"], tensors)
    return Progress(state, about["best_accuracy"], about["best_iteration"])


def scorer(
    network: AnyNetwork,
    learner: Learner,
    init: Params,
    learned: Params,
    steps: int,
    *,
    count_writes: bool = False,
) -> Callable[[Episode], Score]:
    """Return the function that scores an episode, and counts its writes where asked to.

    It learns by the learner's `test`, where it has one.
    """
    learner = learner.test or learner

    def score(episode: Episode) -> Score:
        support, query, key = pose(network, episode)
        fitting = resize_readout(init, len(episode.classes))
        return score_episode(
            *(learner.forward, learner.loss, fitting, learned, learner.rule),
            *(support, query, steps, key),
            count_writes=count_writes,
        )

    return score


class Training:
    """One run in progress; `go` takes it to the last iteration."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        network: AnyNetwork,
        learner: Learner,
        spaces: Mapping[str, TaskSpace],
        progress: Progress,
        listener: Listener,
        stop: Callable[[], bool],
        stopwatch: Stopwatch | None = None,
        team: Team = ALONE,
    ) -> None:
        self.config, self.run = config, run
        self.network, self.learner = network, learner
        self.spaces, self.listener, self.stop = spaces, listener, stop
        self.classes = training_classes(config, spaces)
        self.outer = build_outer_loop(config)
        self.progress = progress
        self.clock = Clock(config.train.iterations, config.train.minutes)
        self.validated = self.validated_at = 0  # last iteration with a validation, and its place
        self.stopwatch, self.team = stopwatch, team
        self.still = 0  # iterations in a row whose gradient was zero
        self.first = progress.state.iteration  # where this process took the run up

    def go(self) -> None:
        """Train until the budget is spent; a stop saves the state and raises `Interrupted`.

        Raises `DivergenceError` for numbers that are not finite and for a network gone silent.
        At the end all that the first process wrote is there for the others.
        """
        t = self.config.train
        done = self.progress.state.iteration
        self.run.cut_metrics(done)
        self._recall()
        self.listener.on_start(self.config, done, len(self.spaces["train"].recordings))
        last = sys.maxsize if t.minutes else t.iterations * t.meta_batch
        made = prefetch(
            self._task, range(done * t.meta_batch + self.team.rank, last, self.team.world)
        )
        try:
            self._validate_if_due()  # where it was stopped between a step and its validation
            while not self._over:
                report = self._iterate(made)
                if report.stopping:
                    self._interrupt()
                self._require_life(report)
                self._validate_if_due()
                done = self.progress.state.iteration
                if done % t.checkpoint_every == 0 or self._over:
                    self.save()
            self.team.wait()
        except KeyboardInterrupt:
            self._interrupt()
        except TeamError:
            self.save()
            raise
        finally:
            made.close()
            if profile := self.profile():
                self.listener.on_profile(profile)

    def _recall(self) -> None:
        """Take up the clock and the last validation from what the run has written."""
        for line in self.run.metrics():
            self.clock.spent += line.get("seconds") or 0.0
            if line["kind"] == "validation":
                self.validated = line["iteration"]
                self.validated_at = self.clock.place(self.validated)

    @property
    def _over(self) -> bool:
        return self.clock.over(self.progress.state.iteration)

    def profile(self) -> Profile | None:
        """Return where the time of the steps went, where a stopwatch was given."""
        steps = self.progress.state.iteration - self.first
        return self.stopwatch.profile(steps) if self.stopwatch and steps else None

    def _interrupt(self) -> NoReturn:
        self.save()
        self.team.wait()  # a process that ends takes the others with it
        raise Interrupted(
            f"stopped at iteration {self.progress.state.iteration}; the checkpoint is in "
            f"{self.run.path}. Continue with --resume."
        )

    def _task(self, index: int) -> Posed:
        """Return training task `index`, of simulated recordings or real."""
        place = self.clock.place(index // self.config.train.meta_batch)
        simulated = is_simulated(self.config, index, place)
        space = self.spaces["simulated" if simulated else "train"]
        return pose_training(self.network, space.episode(index), self.classes)

    def _iterate(self, made: Iterator[Posed]) -> StepReport:
        start = time.perf_counter()
        watch, p = self.stopwatch or OFF, self.progress
        share = self.config.train.meta_batch // self.team.world
        with watch.phase("other"):
            with watch.phase("data"):
                tasks = [next(made) for _ in range(share)]
            state, report = meta_step(
                *(self.learner, self.outer, p.state, tasks),
                team=self.team,
                watch=watch,
                stop=self.stop,
                place=self.clock.place(p.state.iteration),
            )
            seconds = time.perf_counter() - start
            self.clock.spent += seconds
            self.run.append_metrics(
                {
                    "kind": "train",
                    "iteration": state.iteration,
                    "loss": report.loss,
                    "accuracy": report.accuracy,
                    "grad_norm": report.grad_norm,
                    "seconds": seconds,
                }
            )
            self.progress = Progress(state, p.best_accuracy, p.best_iteration)
            self.listener.on_step(report)
        return report

    def _require_life(self, report: StepReport) -> None:
        """Raise `DivergenceError` after `STILL` iterations that had no gradient and only chance.

        A layer that never fires passes nothing on, and far from the threshold its surrogate's
        derivative is zero in floating point: nothing brings such a network back.
        """
        ways = len(self.classes) or self.spaces["train"].task.ways
        silent = not report.grad_norm and report.loss > 0.9 * math.log(ways)
        self.still = self.still + 1 if silent else 0
        if self.still >= STILL:
            raise DivergenceError(
                f"iteration {report.iteration}: for {STILL} iterations the meta-gradient is 0 "
                "and the accuracy chance: the network has gone silent, and no gradient brings it "
                "back. Lower train.meta_lr or train.rate_penalty, raise train.warmup, or take "
                "another seed."
            )

    def _validate_if_due(self) -> None:
        every, done = self.config.train.validate_every, self.progress.state.iteration
        due = self.clock.place(done) // every > self.validated_at // every
        if done > self.validated and (due or self._over):
            self._validate()
            self.validated, self.validated_at = done, self.clock.place(done)

    def _validate(self) -> None:
        start = time.perf_counter()
        state = self.progress.state
        init, learned = state.evaluated()
        result = evaluate_episodes(
            self.spaces["val"].episode,
            scorer(
                *(self.network, self.learner, init, learned),
                self.config.learn.steps_after_training,
            ),
            range(self.config.train.validation_episodes),
            workers=torch.get_num_threads(),  # as many as the training may use
            stop=self.stop,
            team=self.team,
        )
        if result is None:  # a resumed run does it again
            self._interrupt()
        best = result.accuracy > self.progress.best_accuracy
        if best:
            progress = Progress(state, result.accuracy, state.iteration)
            self._save_best(init, learned, progress)
            self.progress = progress
        seconds = time.perf_counter() - start
        self.clock.spent += seconds
        self.run.append_metrics(
            {
                "kind": "validation",
                "iteration": state.iteration,
                **asdict(result),
                "seconds": seconds,
            }
        )
        self.listener.on_validation(state.iteration, result, best)

    def _save_best(self, init: Params, learned: Params, progress: Progress) -> None:
        tensors = {f"init/{k}": v for k, v in init.items()}
        tensors |= {f"learned/{k}": v for k, v in learned.items()}
        self.run.write_tensors(BEST, tensors, self._about(progress))

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = self.progress.state.tensors()
        self.run.write_tensors(STATE, tensors, self._about(self.progress))

    def _about(self, progress: Progress) -> dict[str, Any]:
        return {
            "version": spikeshot.__version__,
            "iteration": progress.state.iteration,
            "best_accuracy": progress.best_accuracy,
            "best_iteration": progress.best_iteration,
            "config_yaml": self.config.to_yaml(),
            "frame_shape": list(self.spaces["train"].frame_shape),
            "sensor_size": list(self.spaces["train"].recordings.sensor_size),
        }
