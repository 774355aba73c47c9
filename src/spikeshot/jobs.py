"""The verbs as functions: train a run, evaluate a run. They print nothing.

A `Listener` hears of progress; `stop()` is asked after every iteration and ends the run with its
checkpoint written.
"""

import contextlib
import ctypes
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import spikeshot
from spikeshot.agreement import require_divisible, require_same_config, same_source
from spikeshot.assemble import build_learner, training_task
from spikeshot.assemble_data import Source, load_source, task_space, validation_size
from spikeshot.assemble_network import build_network
from spikeshot.config import Config
from spikeshot.data.episodes import TaskSpace
from spikeshot.data.recordings import Recordings
from spikeshot.data.splits import SPLITS
from spikeshot.errors import ConfigError, Interrupted, nearest_hint
from spikeshot.learn.parallel import ALONE, Team, any_of, first_alone
from spikeshot.learn.scoring import Score
from spikeshot.learn.stopwatch import Stopwatch
from spikeshot.listener import Listener, Silent
from spikeshot.opening import data_of, opened_on
from spikeshot.overriding import overridden
from spikeshot.run_folder import (
    CONFIG,
    CURVE,
    RESULTS,
    START,
    DataRecord,
    RunFolder,
    json_ready,
)
from spikeshot.starting import Start, find_start, held_out
from spikeshot.stored import open_learner
from spikeshot.study.curve import draw_learning_curve
from spikeshot.study.evaluate import available_cores, evaluate_episodes
from spikeshot.study.scores import both, require_writable, write_scores
from spikeshot.training import Training, first_progress, saved_progress


def never() -> bool:
    """Return False: do not stop."""
    return False


def require_recordings(config: Config, data: Path | None = None) -> None:
    """Raise the `SpikeshotError` that a new training would end in for its recordings.

    They are read, and packed where that is still to be done.
    """
    load_source(config, data)


def train(
    config: Config,
    out: Path,
    *,
    data: Path | None = None,
    resume: bool = False,
    profile: bool = False,
    test: bool = True,
    listener: Listener | None = None,
    stop: Callable[[], bool] = never,
    team: Team = ALONE,
) -> dict[str, Any]:
    """Meta-train as `config` says into the run folder `out`; return its results.

    Validates on meta-validation classes, keeps the best weights and ends with the evaluation of
    held-out classes. Raises a `SpikeshotError` for anything wrong with config, data or folder,
    `Interrupted` when `stop` said so; the checkpoint is then written. The folder is made when
    nothing but training is left to go wrong. Without `test` the held-out classes are left alone,
    and the results are empty. With `profile` the listener hears where the
    time of the steps went, and the results hold it. The processes of `team` share the tasks of each
    iteration; the first of them alone writes and is listened to.
    """
    listener = (listener or Silent()) if team.rank == 0 else Silent()
    _prepare_process(config)
    with first_alone(team):  # one reading for all where it leaves a cache, and one message
        require_divisible(config, team)
        existing = RunFolder.open(out) if resume and (out / CONFIG).exists() else None
        if existing:
            require_same_config(existing, config)
            recorded = existing.data().path
            data = data or (Path(recorded) if recorded else None)
        else:
            RunFolder.require_new(out)
        source = load_source(config, data, listener.on_packing)
        start = find_start(config.train.start, existing)
        if start:
            source = replace(source, split=held_out(start, source.split))
        if existing:
            source = same_source(existing, source)
        spaces = _task_spaces(config, source)
        network = build_network(config, spaces["train"].frame_shape)
        learner = build_learner(config, network)
        progress = saved_progress(existing, config) if existing else None
        progress = progress or first_progress(config, network, learner, spaces, start)
    if any_of(team, stop()):
        raise Interrupted(f"stopped before training went on; {out} is as it was.")
    if team.rank:
        run = RunFolder(out, silent=True)
    else:
        run = existing or _new_run(config, out, data, source, start)
    stopwatch = Stopwatch() if profile else None
    training = Training(
        config, run, network, learner, spaces, progress, listener, stop, stopwatch, team
    )
    training.go()
    return _final_results(training, source, data) if test else {}


def _task_spaces(config: Config, source: Source) -> dict[str, TaskSpace]:
    """Return what training draws from: `train`, `val` and, where there is one, `simulated`.

    Validation tasks overlap as training tasks do: drawn at random they are soon all solved, and
    then tell good weights from better ones no more.
    """
    split, overlap = source.split, config.data.overlap
    task = training_task(config, [*split.classes["train"], *source.turned_classes])
    train = task_space(
        config,
        source.training,
        split,
        "train",
        augment=True,
        overlap=overlap,
        task=task,
        turned=source.turned_classes,
    )
    size = validation_size(config)
    val = task_space(config, source.recordings, split, "val", overlap=overlap, task=size)
    spaces = {"train": train, "val": val}
    if source.simulated:
        spaces["simulated"] = task_space(
            config,
            source.simulated,
            split,
            "train",
            augment=True,
            overlap=overlap,
            task=training_task(config, source.simulated_classes),
            classes=source.simulated_classes,
        )
    task_space(config, source.recordings, source.split, "test")  # fails now rather than at the end
    return spaces


def _final_results(training: Training, source: Source, data: Path | None) -> dict[str, Any]:
    """Evaluate the best weights on held-out classes and write results.json and the curve."""
    config, run = training.config, training.run
    result = evaluate(
        run.path,
        episodes=config.train.test_episodes,
        data=data,
        listener=training.listener,
        stop=training.stop,
        recordings=source.recordings,
        workers=torch.get_num_threads(),
        team=training.team,
    )
    if training.team.rank:
        return result
    seconds = sum(m.get("seconds", 0.0) for m in run.metrics())
    result |= {
        "best_validation_accuracy": training.progress.best_accuracy,
        "best_iteration": training.progress.best_iteration,
        "iterations": training.progress.state.iteration,
        "training_minutes": round(seconds / 60, 2),
        "training_ways": training.spaces["train"].task.ways,
        "validation_ways": training.spaces["val"].task.ways,
        "threads": torch.get_num_threads(),
        "processes": training.team.world,
    }
    if profile := training.profile():
        result["profile"] = asdict(profile) | {
            "ms_per_step": profile.ms_per_step,
            "percent": profile.percent,
        }
    run.write(RESULTS, json.dumps(result, indent=2) + "\n")
    run.write(CURVE, draw_learning_curve(list(run.metrics()), result))
    return result


def evaluate(
    out: Path | str,
    *,
    split: str = "test",
    episodes: int = 1000,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    steps: int | None = None,
    overrides: Sequence[str] = (),
    scores: Path | None = None,
    data: Path | None = None,
    corpus: str | None = None,
    workers: int | None = None,
    writes: bool = False,
    listener: Listener | None = None,
    stop: Callable[[], bool] = never,
    recordings: Recordings | None = None,
    team: Team = ALONE,
) -> dict[str, Any]:
    """Evaluate the best weights of run `out` on a meta-split; return one JSON-ready dictionary.

    `out` is a run folder, a learner file or `pretrained:NAME`. Recordings and classes that the run
    has never seen count as test recordings and test classes. `corpus` and `data` take
    recordings from elsewhere than the run did; with `data` alone, a run that was trained on
    simulated recordings is put to real ones (`nmnist`). `recordings` skips loading when they are at
    hand. `overrides` evaluate under another rule, precision or device (`overriding.py`); `scores`
    is a file for the accuracies of every episode (`study/scores.py`). `writes` counts what inner
    steps write (`learn/rules/writes.py`) and adds its means. `workers` threads score episodes
    (default: one per core); the processes of `team` share the episodes out (default: one thread
    each). The result is the same for any number of both.
    """
    listener = (listener or Silent()) if team.rank == 0 else Silent()
    if split not in SPLITS:
        raise ConfigError(
            f"split is {split!r}{nearest_hint(split, SPLITS)}; expected one of {', '.join(SPLITS)}."
        )
    with first_alone(team):
        stored = open_learner(out)
        config = overridden(stored.config, overrides)
        require_writable(scores)
        _prepare_process(config)
        if recordings is None:
            corpus, recordings = data_of(stored, config, corpus, data)
    opened = opened_on(
        *(stored, config, corpus or stored.data().corpus, recordings),
        split=split,
        ways=ways,
        shots=shots,
        queries=queries,
        steps=steps,
    )
    space, task = opened.space, opened.space.task
    workers = workers or (available_cores() if team.world == 1 else 1)
    listener.on_evaluation_start(split, episodes)
    heard: list[Score] = []
    result = evaluate_episodes(
        *(space.episode, opened.scorer(count_writes=writes), range(episodes)),
        both(heard.append, listener.on_episode),
        workers=workers,
        stop=stop,
        team=team,
    )
    if result is None:
        raise Interrupted(f"evaluation of {out} stopped; the run is as it was.")
    if scores and team.rank == 0:
        write_scores(scores, heard)
    paid = {"writes_per_weight": fmean(s.writes for s in heard)} if writes else {}
    paid |= {"touched": fmean(s.touched for s in heard)} if writes else {}
    return {
        **json_ready(asdict(result) | paid),
        "split": split,
        "ways": task.ways,
        "shots": task.shots,
        "queries": task.queries,
        "inner_steps": opened.steps,
        "meta_gradient": config.learn.meta_gradient,
        "rule": config.learn.rule,
        "overrides": list(overrides),
        "method": config.learn.method,
        "network": config.network.kind,
        "dataset": opened.corpus,
        "data_digest": recordings.digest,
        "recordings": sum(len(m) for m in space.members.values()),
        "classes": len(space.classes),
        "seed": config.seed,
        "config": config.name,
        "iteration": stored.about["iteration"],
        "version": spikeshot.__version__,
    }


def _new_run(
    config: Config, out: Path, data: Path | None, source: Source, start: Start | None
) -> RunFolder:
    run = RunFolder.create(out)
    if start:
        run.write_tensors(START, start.tensors, start.about)
    path = str(data.resolve()) if data else None
    recordings = source.recordings
    run.write_data(
        DataRecord(
            *(config.data.corpus, path, recordings.digest, len(recordings), source.split),
            start.digest if start else "",
            source.simulated_digest,
        )
    )
    run.write(CONFIG, config.to_yaml())
    return run


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
