"""`spikeshot sweep`: a plan's points are trained and evaluated, each into a folder of its own.

OUT/points/ARM/AXIS=VALUE/s0/   run/ (where trained), scores.csv, point.json (when finished);
                                inside.json (of a study)
OUT/results.json, table.csv, table.md, figure-AXIS.svg
"""

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import spikeshot
from spikeshot.config import Config, config_from_dict, load_config
from spikeshot.errors import ConfigError, Interrupted, RunError, SpikeshotError
from spikeshot.inspecting import inspect_run
from spikeshot.overriding import overridden
from spikeshot.provenance import commit, machine
from spikeshot.run_folder import (
    BEST,
    CONFIG,
    RunFolder,
    digest_of,
    first_difference,
    json_ready,
    read_learner,
)
from spikeshot.study.curve import curve_points
from spikeshot.study.figures import draw_rows
from spikeshot.study.grid import Grid
from spikeshot.study.plan import Point
from spikeshot.study.runner import Status, run_points
from spikeshot.study.scores import read_scores, write_whole
from spikeshot.study.table import Done, flat_rows, rows_of, to_csv, to_markdown

POINT, SCORES, INSIDE = "point.json", "scores.csv", "inside.json"
TRAINING_SHARE = 0.9  # of a trained point's time, about; the rest is its evaluation
TELL_S = 0.5


@dataclass(frozen=True)
class Place:
    """Where a sweep works: its folder, and the recordings (None: those of each run)."""

    out: Path
    data: Path | None = None

    def learner(self, point: Point) -> Path | None:
        """Return the run that a point starts from or evaluates, None for a fresh start."""
        if point.after:
            return self.out / "points" / point.after / "run"
        return Path(point.start) if point.start else None

    def run(self, point: Point) -> Path:
        """Return the run that a point evaluates."""
        learner = self.learner(point)
        return point.folder(self.out) / "run" if point.train or learner is None else learner


def training_config(point: Point, place: Place) -> Config:
    """Return the configuration that a point trains with: one thread, no test at the end."""
    learner = place.learner(point)
    start = [f"train.start={json.dumps(str(learner))}"] if learner else []
    fixed = [f"name={json.dumps(point.name)}", "threads=1", *start]
    return load_config(point.base, [*point.overrides, *fixed])


def require_sound(points: Sequence[Point], place: Place) -> None:
    """Raise the error that any point would end in for its configuration, before the first begins.

    What a learner that is yet to be trained is evaluated with is checked against its configuration.
    """
    by_name = {p.name: p for p in points}
    for point in points:
        try:
            learner = RunFolder.open(Path(point.start)).config() if point.start else None
            if point.train:
                learner = training_config(point, place)
            elif point.after:
                learner = training_config(by_name[point.after], place)
            if learner is None:
                raise ConfigError("it has no learner; expected a start, or iterations.")
            overridden(learner, point.measure.overrides)
        except SpikeshotError as error:
            raise type(error)(f"point {point.name}: {error}") from None


def require_recordings(points: Sequence[Point], place: Place) -> None:
    """Raise the error that new trainings would end in for their recordings, before any begins.

    Those of the first seed are read; the others read the same files.
    """
    from spikeshot import jobs

    new = [training_config(p, place) for p in points if p.train and place.learner(p) is None]
    for config in {config.data: config for config in reversed(new)}.values():
        jobs.require_recordings(config, place.data)


def do_point(
    point: Point, tell: Callable[[float], None], stop: Callable[[], bool], *, place: Place
) -> None:
    """Train (on from the last checkpoint) and evaluate a point; its record is written last."""
    import torch

    from spikeshot import jobs

    torch.set_num_threads(1)
    folder, measure = point.folder(place.out), point.measure
    folder.mkdir(parents=True, exist_ok=True)
    run, learner, begun = place.run(point), place.learner(point), time.monotonic()
    share = TRAINING_SHARE if point.train else 0.0
    data = place.data
    if point.train:
        config = training_config(point, place)
        if data is None and learner is not None and not (run / CONFIG).exists():
            recorded = RunFolder.open(learner).data().path
            data = Path(recorded) if recorded else None
        ears = _Ears(tell, 0.0, share, config.train.iterations)
        resume = (run / CONFIG).exists()
        jobs.train(config, run, data=data, resume=resume, test=False, listener=ears, stop=stop)
    result = jobs.evaluate(
        run,
        **asdict(measure),
        scores=folder / SCORES,
        data=place.data,
        workers=1,
        listener=_Ears(tell, share, 1.0, measure.episodes),
        stop=stop,
    )
    if point.inside:
        split, episodes = measure.split, point.inside
        found = inspect_run(run, split=split, episodes=episodes, data=place.data, stop=stop)
        write_whole(folder / INSIDE, json.dumps(found))
    write_whole(
        folder / POINT,
        json.dumps(_record(point, place, result, time.monotonic() - begun), indent=1),
    )


def _record(
    point: Point, place: Place, result: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    run = RunFolder.open(place.run(point))
    metrics = list(run.metrics()) if point.train else []
    trained = sum(m.get("seconds") or 0.0 for m in metrics)
    return {
        "name": point.name,
        "recipe": point.recipe(),
        "result": json_ready(dict(result)),
        "config": run.config().model_dump(mode="json"),
        "learner_digest": digest_of(read_learner(run.path / BEST)[0]),
        "start_digest": run.data().start_digest,
        "training_minutes": round(trained / 60, 3),
        "iterations": sum(m["kind"] == "train" for m in metrics),
        "curve": curve_points(metrics),
        "seconds": round(seconds, 2),
        "commands": commands(point, place),
        "version": spikeshot.__version__,
        "commit": commit(),
        "machine": machine(),
    }


def commands(point: Point, place: Place) -> list[str]:
    """Return the commands that give this point by hand."""
    data = ["--data", str(place.data)] if place.data else []
    run, m = place.run(point), point.measure
    made = []
    if point.train:
        start = place.learner(point)
        sets = [*point.overrides, "threads=1", *([f"train.start={start}"] if start else [])]
        line = ["spikeshot", "train", point.base, *data, "--out", str(run)]
        made.append(line + [word for text in sets for word in ("--set", text)])
    options = {k: v for k, v in asdict(m).items() if k not in ("overrides", "writes")}
    line = ["spikeshot", "evaluate", str(run), *data]
    line += [word for k, v in options.items() if v is not None for word in (f"--{k}", str(v))]
    line += ["--writes"] if m.writes else []
    made.append(line + [word for text in m.overrides for word in ("--set", text)])
    return [shlex.join(words) for words in made]


class _Ears:
    """A listener that tells the share of a point that is done, now and then."""

    def __init__(self, tell: Callable[[float], None], first: float, last: float, of: int) -> None:
        self.tell, self.first, self.last, self.of = tell, first, last, of
        self.done, self.told = 0, time.monotonic()

    def on_packing(self, done: int, total: int) -> None:
        """Nothing."""

    def on_start(self, config: Config, iteration: int, recordings: int) -> None:
        """Training begins."""
        self.done = iteration

    def on_step(self, report: Any) -> None:
        """One iteration is done."""
        self._one()

    def on_episode(self, score: Any) -> None:
        """One episode is done."""
        self._one()

    def on_validation(self, iteration: int, result: Any, best: bool) -> None:
        """Nothing."""

    def on_profile(self, profile: Any) -> None:
        """Nothing."""

    def on_evaluation_start(self, split: str, episodes: int) -> None:
        """Nothing."""

    def _one(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.told >= TELL_S:
            self.told = now
            self.tell(self.first + (self.last - self.first) * self.done / self.of)


def read_done(points: Sequence[Point], place: Place) -> dict[str, Done]:
    """Return the points that are finished, by name.

    Raises `RunError` for one that was made by another recipe or from a preset that has changed
    since, or that is damaged.
    """
    done = {}
    for point in points:
        file = point.folder(place.out) / POINT
        if not file.exists():
            continue
        try:
            record = json.loads(file.read_bytes())
            recipe, result, config = record["recipe"], record["result"], record["config"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is damaged ({error}). Delete it, then --resume.") from error
        ours = json.loads(json.dumps(point.recipe()))
        if recipe != ours:
            key = next(k for k in ours if recipe.get(k) != ours[k])
            raise RunError(
                f"point {point.name} in {place.out} was made by another recipe: {key} is "
                f"{ours[key]!r}, was {recipe.get(key)!r}. Choose another --out."
            )
        if point.train:
            trained = config_from_dict(config, str(file))
            if other := _other_training(trained, training_config(point, place)):
                raise RunError(
                    f"point {point.name} in {place.out} was trained with another configuration "
                    f"(has {point.base} changed since?): {other}. Choose another --out."
                )
        done[point.name] = Done(point, result, read_scores(file.with_name(SCORES)), record)
    return done


def _other_training(recorded: Config, ours: Config) -> str:
    """Return the first key in which a recorded training is another than ours, or "".

    Where its start lay is of no account, for folders are moved: what it was the recipe says.
    """
    train = recorded.train.model_copy(update={"start": ours.train.start})
    return first_difference(recorded.model_copy(update={"train": train}), ours)


def do_points(
    points: Sequence[Point],
    place: Place,
    *,
    todo: Sequence[Point] | None = None,
    processes: int = 1,
    resume: bool = False,
    on_status: Callable[[Status], None] = lambda status: None,
    on_end: Callable[[Point, str, Mapping[str, Any]], None] = lambda point, problem, result: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Do the points (of which only `todo`); return those that failed, and why.

    With `resume`, finished points are kept and interrupted trainings continued. Raises a
    `SpikeshotError` for what is wrong before the first point begins, `Interrupted` when stopped.
    """
    require_sound(points, place)
    if (place.out / "points").exists() and not resume:
        raise RunError(
            f"{place.out} holds points already. Continue it with --resume, or choose another --out."
        )
    done = read_done(points, place)
    wanted = points if todo is None else todo
    require_recordings([p for p in wanted if p.name not in done], place)
    finished = {name: float(d.record.get("seconds", 0.0)) for name, d in done.items()}

    def ended(point: Point, problem: str) -> None:
        result = {} if problem else read_done([point], place)[point.name].result
        on_end(point, problem, result)

    try:
        return run_points(
            wanted,
            partial(do_point, place=place),
            processes=processes,
            finished=finished,
            on_status=on_status,
            on_end=ended,
            stop=stop,
        )
    except Interrupted as error:
        raise Interrupted(f"{place.out}: {error}") from None


def sweep(grid: Grid, points: Sequence[Point], place: Place, **doing: Any) -> dict[str, Any]:
    """Do the points as `do_points` does, then write tables and figures; return the results."""
    return write_results(grid, points, place, do_points(points, place, **doing))


def write_results(
    grid: Grid, points: Sequence[Point], place: Place, failed: Mapping[str, str]
) -> dict[str, Any]:
    """Write results.json, the tables and the figures of the points that are finished."""
    done = list(read_done(points, place).values())
    results: dict[str, Any] = {
        "sweep": grid.name,
        "about": grid.about,
        "reference": grid.reference,
        "left_out": list(grid.left_out),
        "version": spikeshot.__version__,
        "commit": commit(),
        "data_digest": sorted({str(d.result["data_digest"]) for d in done}),
        "points": {
            d.point.name: {k: v for k, v in d.record.items() if k not in ("config", "curve")}
            for d in done
        },
        "failed": dict(failed),
        "unfinished": sorted({p.name for p in points} - {d.point.name for d in done}),
    }
    if done:
        rows = rows_of(done, grid.reference)
        results["rows"] = flat_rows(rows)
        write_whole(place.out / "table.csv", to_csv(rows))
        write_whole(place.out / "table.md", to_markdown(rows, grid.reference))
        title = f"{grid.name}: {grid.about}" if len(grid.about) < 60 else grid.name
        for name, label in [(n, a.label) for n, a in grid.axes.items()] or [("", "")]:
            svg = draw_rows(rows, grid.reference, name, label, title)
            write_whole(place.out / f"figure-{name or 'arms'}.svg", svg)
    write_whole(place.out / "results.json", json.dumps(results, indent=1) + "\n")
    return results
