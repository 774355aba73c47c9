"""The verbs as functions: train a run, evaluate a run, load a learner. They print nothing.

A `Listener` hears of progress; `stop()` is asked after every iteration and ends the run with its
checkpoint written.
"""

import contextlib
import ctypes
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

import spikeshot
from spikeshot.assemble import (
    Source,
    batches,
    build_learner,
    build_network,
    build_outer_loop,
    load_recordings,
    load_source,
    resize_readout,
    start_state,
    task_space,
)
from spikeshot.config import Config
from spikeshot.data.episodes import Episode, Task, TaskSpace
from spikeshot.errors import ConfigError, Interrupted, RunError
from spikeshot.learn.meta_train import Learner, StepReport, TrainState, meta_step
from spikeshot.learn.prefetch import prefetch
from spikeshot.learn.rules.rule import Params
from spikeshot.learn.scoring import Score, score_episode
from spikeshot.run_folder import BEST, CONFIG, CURVE, RESULTS, STATE, DataRecord, RunFolder
from spikeshot.study.curve import draw_learning_curve
from spikeshot.study.evaluate import Evaluation, evaluate_episodes


class Listener(Protocol):
    """Hears what a job does."""

    def on_start(self, config: Config, iteration: int, recordings: int) -> None:
        """Training begins at `iteration`."""
        ...

    def on_step(self, report: StepReport) -> None:
        """One meta-iteration is done."""
        ...

    def on_validation(self, iteration: int, result: Evaluation, best: bool) -> None:
        """A validation is done; `best` when it is the best so far."""
        ...

    def on_evaluation_start(self, split: str, episodes: int) -> None:
        """An evaluation of `episodes` episodes begins."""
        ...

    def on_episode(self, score: Score) -> None:
        """One evaluation episode is done."""
        ...


class Silent:
    """The listener that says nothing."""

    def on_start(self, config: Config, iteration: int, recordings: int) -> None:
        """Nothing."""

    def on_step(self, report: StepReport) -> None:
        """Nothing."""

    def on_validation(self, iteration: int, result: Evaluation, best: bool) -> None:
        """Nothing."""

    def on_evaluation_start(self, split: str, episodes: int) -> None:
        """Nothing."""

    def on_episode(self, score: Score) -> None:
        """Nothing."""


def never() -> bool:
    """Return False: do not stop."""
    return False


@dataclass
class _Best:
    accuracy: float = -1.0
    iteration: int = -1


def train(
    config: Config,
    out: Path,
    *,
    data: Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
    stop: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Meta-train as `config` says into the run folder `out`; return its results.

    Validates on meta-validation classes, keeps the best weights and ends with the evaluation of
    held-out classes. Raises a `SpikeshotError` for anything wrong with config, data or folder,
    `Interrupted` when `stop` said so; the checkpoint is then written.
    """
    listener = listener or Silent()
    _prepare_process(config)
    existing = RunFolder.open(out) if resume and (out / CONFIG).exists() else None
    if existing:
        _require_same_config(existing, config)
        recorded = existing.data().path
        data = data or (Path(recorded) if recorded else None)
    source = load_source(config, data)
    spaces = {
        name: task_space(config, source.recordings, source.split, name, augment=name == "train")
        for name in ("train", "val")
    }
    if source.simulated:
        spaces["simulated"] = task_space(
            config, source.simulated, source.split, "train", augment=True
        )
    task_space(config, source.recordings, source.split, "test")  # fails now rather than at the end
    network = build_network(config, spaces["train"].frame_shape)
    learner = build_learner(config, network)
    run = existing or _new_run(config, out, data, source)
    if existing:
        _require_same_data(existing, source)
    job = _Training(config, run, learner, spaces, listener, stop)
    job.go()
    return _final_results(config, run, source, learner, job, data)


def _final_results(
    config: Config,
    run: RunFolder,
    source: Source,
    learner: Learner,
    job: "_Training",
    data: Path | None,
) -> dict[str, Any]:
    """Evaluate the best weights on held-out classes and write results.json and the curve."""
    result = evaluate(
        run.path,
        episodes=config.train.test_episodes,
        data=data,
        listener=job.listener,
        stop=job.stop,
        recordings=source.recordings,
    )
    seconds = sum(m.get("seconds", 0.0) for m in run.metrics())
    result |= {
        "best_validation_accuracy": job.best.accuracy,
        "best_iteration": job.best.iteration,
        "iterations": config.train.iterations,
        "training_minutes": round(seconds / 60, 2),
        "threads": torch.get_num_threads(),
    }
    run.write(RESULTS, json.dumps(result, indent=2) + "\n")
    run.write(CURVE, draw_learning_curve(list(run.metrics()), result))
    return result


class _Training:
    """The loop of one run: steps, validations and checkpoints in their order."""

    def __init__(
        self,
        config: Config,
        run: RunFolder,
        learner: Learner,
        spaces: dict[str, TaskSpace],
        listener: Listener,
        stop: Callable[[], bool],
    ) -> None:
        self.config, self.run, self.learner = config, run, learner
        self.spaces, self.listener, self.stop = spaces, listener, stop
        self.outer = build_outer_loop(config)
        self.best = _Best()
        self.state = self._first_state()

    def _first_state(self) -> TrainState:
        if not (self.run.path / STATE).exists():
            network = build_network(self.config, self.spaces["train"].frame_shape)
            self.run.cut_metrics(0)
            return start_state(self.config, network, self.learner, self.spaces["train"])
        tensors, about = self.run.read_tensors(STATE)
        if about["config"] != _digest(self.config):
            raise RunError(
                f"{self.run.path / STATE} was written by another configuration. Restore the run's "
                "config.yaml, or start a new run with another --out."
            )
        self.best = _Best(about["best_accuracy"], about["best_iteration"])
        self.run.cut_metrics(about["iteration"])
        return TrainState.from_tensors(about["iteration"], tensors)

    def go(self) -> None:
        """Train to the last iteration; the state is saved however it ends."""
        t = self.config.train
        self.listener.on_start(
            self.config, self.state.iteration, len(self.spaces["train"].recordings)
        )
        first = self.state.iteration * t.meta_batch
        episodes = prefetch(self._episode, range(first, t.iterations * t.meta_batch))
        try:
            while self.state.iteration < t.iterations:
                self._iterate([next(episodes) for _ in range(t.meta_batch)])
                done = self.state.iteration
                if done % t.validate_every == 0 or done == t.iterations:
                    self._validate()
                if done % t.checkpoint_every == 0 or done == t.iterations:
                    self.save()
                if self.stop():
                    self._interrupt()
        except KeyboardInterrupt:
            self._interrupt()
        finally:
            episodes.close()

    def _interrupt(self) -> None:
        self.save()
        raise Interrupted(
            f"stopped at iteration {self.state.iteration}; the checkpoint is in {self.run.path}. "
            "Continue with --resume."
        )

    def _episode(self, index: int) -> Episode:
        """Return training episode `index`, simulated in the first part of the run."""
        limit = self.config.data.simulated.share * self.config.train.iterations
        early = index // self.config.train.meta_batch < limit
        return self.spaces["simulated" if early else "train"].episode(index)

    def _iterate(self, episodes: list[Episode]) -> None:
        start = time.perf_counter()
        tasks = [batches(e) for e in episodes]
        self.state, report = meta_step(self.learner, self.outer, self.state, tasks)
        self.run.append_metrics(
            {
                "kind": "train",
                "iteration": self.state.iteration,
                "loss": report.loss,
                "accuracy": report.accuracy,
                "grad_norm": report.grad_norm,
                "seconds": time.perf_counter() - start,
            }
        )
        self.listener.on_step(report)

    def _validate(self) -> None:
        start = time.perf_counter()
        init, learned = self.state.evaluated()
        score = _scorer(self.learner, init, learned, self.spaces["val"], self.learner.inner_steps)
        result = evaluate_episodes(score, range(self.config.train.validation_episodes))
        best = result.accuracy > self.best.accuracy
        if best:
            self.best = _Best(result.accuracy, self.state.iteration)
            self._save_best(init, learned)
        self.run.append_metrics(
            {
                "kind": "validation",
                "iteration": self.state.iteration,
                **asdict(result),
                "seconds": time.perf_counter() - start,
            }
        )
        self.listener.on_validation(self.state.iteration, result, best)

    def _save_best(self, init: Params, learned: Params) -> None:
        tensors = {f"init/{k}": v for k, v in init.items()}
        tensors |= {f"learned/{k}": v for k, v in learned.items()}
        self.run.write_tensors(BEST, tensors, self._about())

    def save(self) -> None:
        """Write the checkpoint."""
        self.run.write_tensors(STATE, self.state.tensors(), self._about())

    def _about(self) -> dict[str, Any]:
        return {
            "version": spikeshot.__version__,
            "iteration": self.state.iteration,
            "best_accuracy": self.best.accuracy,
            "best_iteration": self.best.iteration,
            "config": _digest(self.config),
            "config_yaml": self.config.to_yaml(),
            "frame_shape": list(self.spaces["train"].frame_shape),
        }


def evaluate(
    out: Path,
    *,
    split: str = "test",
    episodes: int = 1000,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    steps: int | None = None,
    data: Path | None = None,
    corpus: str | None = None,
    listener: Listener | None = None,
    stop: Callable[[], bool] = never,
    recordings: Any = None,
) -> dict[str, Any]:
    """Evaluate the best weights of run `out` on a meta-split; return one JSON-ready dictionary.

    Recordings that the run has never seen count as test recordings. `corpus` and `data` take
    recordings from elsewhere than the run did. `recordings` skips loading when they are at hand.
    """
    listener = listener or Silent()
    run = RunFolder.open(out)
    config, record = run.config(), run.data()
    _prepare_process(config)
    tensors, about = run.read_tensors(BEST)
    if about["config"] != _digest(config):
        raise RunError(
            f"{run.path / BEST} was written by another configuration than config.yaml beside it. "
            "Restore config.yaml."
        )
    corpus = corpus or record.corpus
    if corpus == record.corpus and data is None and record.path:
        data = Path(record.path)
    if recordings is None:
        recordings = load_recordings(config, corpus, data)
    t = config.task
    task = Task(ways or t.ways, shots or t.shots, queries or t.queries)
    steps = steps if steps is not None else config.learn.inner_steps
    space = task_space(config, recordings, record.split, split, task=task)
    if list(space.frame_shape) != about["frame_shape"]:
        raise ConfigError(
            f"frames of corpus {corpus!r} are {space.frame_shape}, the run was trained on "
            f"{tuple(about['frame_shape'])}. Use recordings of the same sensor."
        )
    learner = build_learner(config, build_network(config, space.frame_shape))
    init = {k.removeprefix("init/"): v for k, v in tensors.items() if k.startswith("init/")}
    learned = {
        k.removeprefix("learned/"): v for k, v in tensors.items() if k.startswith("learned/")
    }
    score = _scorer(learner, resize_readout(init, task.ways), learned, space, steps)
    listener.on_evaluation_start(split, episodes)

    def heard(one: Score) -> None:
        listener.on_episode(one)
        if stop():
            raise Interrupted(f"evaluation of {out} stopped; the run is as it was.")

    result = evaluate_episodes(score, range(episodes), heard)
    return {
        **asdict(result),
        "split": split,
        "ways": task.ways,
        "shots": task.shots,
        "queries": task.queries,
        "inner_steps": steps,
        "meta_gradient": config.learn.meta_gradient,
        "rule": config.learn.rule,
        "dataset": corpus,
        "data_digest": recordings.digest,
        "recordings": sum(len(m) for m in space.members.values()),
        "seed": config.seed,
        "config": config.name,
        "iteration": about["iteration"],
        "version": spikeshot.__version__,
    }


def describe(out: Path) -> dict[str, Any]:
    """Return what run `out` is: configuration, seed, data, best validation and result."""
    run = RunFolder.open(out)
    config, record = run.config(), run.data()
    done = max((m["iteration"] for m in run.metrics()), default=0)
    validations = [m for m in run.metrics() if m["kind"] == "validation"]
    best = max(validations, key=lambda m: m["accuracy"], default=None)
    return {
        "config": config,
        "data": record,
        "iterations_done": done,
        "best_validation": best,
        "results": run.results(),
    }


def _new_run(config: Config, out: Path, data: Path | None, source: Source) -> RunFolder:
    run = RunFolder.create(out)
    path = str(data.resolve()) if data else None
    recordings = source.recordings
    run.write_data(
        DataRecord(config.data.corpus, path, recordings.digest, len(recordings), source.split)
    )
    run.write(CONFIG, config.to_yaml())
    return run


def _scorer(
    learner: Learner, init: Params, learned: Params, space: TaskSpace, steps: int
) -> Callable[[int], Score]:
    def score(index: int) -> Score:
        support, query = batches(space.episode(index))
        return score_episode(
            learner.forward, learner.loss, init, learned, learner.rule, support, query, steps
        )

    return score


def _require_same_config(run: RunFolder, config: Config) -> None:
    old, new = run.config().model_dump(mode="json"), config.model_dump(mode="json")
    key = _first_difference(old, new, "")
    if key:
        raise RunError(
            f"run {run.path} was started with another {key}. Resume it with the same "
            f"configuration (`spikeshot train {run.path / CONFIG} --resume`), or choose another "
            "--out."
        )


def _first_difference(old: Any, new: Any, at: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            found = _first_difference(old[key], new.get(key), f"{at}.{key}" if at else key)
            if found:
                return found
        return ""
    return "" if old == new else f"{at} ({old!r}, now {new!r})"


def _require_same_data(run: RunFolder, source: Source) -> None:
    digest = run.data().digest
    if digest != source.recordings.digest:
        raise RunError(
            f"run {run.path} was trained on other recordings (digest {digest}, now "
            f"{source.recordings.digest}). Resume with the same --data."
        )


def _digest(config: Config) -> str:
    return hashlib.blake2b(config.to_yaml().encode(), digest_size=16).hexdigest()


def _prepare_process(config: Config) -> None:
    """Set torch's threads; let glibc keep freed memory, which spares a page fault per tensor."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
