"""`spikeshot study`: all arms of a study are trained and evaluated, and become one report.

OUT/points/...          as a sweep's (`sweeps.py`)
OUT/results.json, table.csv, table.md, report.html
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

import spikeshot
from spikeshot.config import load_config
from spikeshot.errors import ConfigError, RunError
from spikeshot.provenance import commit
from spikeshot.study.plan import Point
from spikeshot.study.report import render
from spikeshot.study.scores import write_whole
from spikeshot.study.study_file import Study
from spikeshot.study.study_points import Settings, arm_overrides, study_points
from spikeshot.study.table import Done, Row, combination, flat_rows, rows_of, to_csv, to_markdown
from spikeshot.sweeps import INSIDE, POINT, Place, do_points, read_done

REPORT, RESULTS = "report.html", "results.json"


def points_of_study(study: Study) -> list[Point]:
    """Return the points of a study; raises `ConfigError`, naming the arm, for a wrong setting."""
    settings = {}
    for name, arm in study.arms.items():
        if arm.train:
            centroid = ["train.iterations=1"] if arm.method == "centroid" else []
            try:
                config = load_config(study.base, [*arm_overrides(study, name), *centroid])
            except ConfigError as error:
                raise ConfigError(f"arm {name}: {error}") from None
            t = config.task
            settings[name] = Settings(config.train.meta_batch, t.ways, t.shots)
    return study_points(study, settings)


def run_study(
    study: Study, points: Sequence[Point], place: Place, again: Sequence[str], **doing: Any
) -> dict[str, Any]:
    """Do the points as `do_points` does, then write results, tables and report; return the results.

    `again`: the words of the command that makes all of it, for the report.
    """
    failed = do_points(points, place, **doing)
    return write_study(study, points, place, failed, again)


def write_study(
    study: Study,
    points: Sequence[Point],
    place: Place,
    failed: Mapping[str, str],
    again: Sequence[str],
) -> dict[str, Any]:
    """Write results.json, the tables and the report of the points that are finished.

    Raises `RunError` where none is, or where one is damaged or was made by another recipe.
    """
    done = list(read_done(points, place).values())
    if not done and not failed:
        raise RunError(f"{place.out} has no finished point; run the study first.")
    rows = study_rows(study, done)
    results: dict[str, Any] = {
        "study": study.name,
        "about": study.about,
        "reference": study.reference,
        "budget": str(study.budget) if study.budget else f"the iterations of {study.base}",
        "timed": bool(study.budget and study.budget.minutes),
        "seeds": list(study.seeds),
        "version": spikeshot.__version__,
        "commit": sorted({str(d.record.get("commit")) for d in done}),
        "written_by": commit(),
        "machine": sorted({str(d.record.get("machine")) for d in done}),
        "data": _data(done),
        "task": _task(done),
        "minutes": round(sum(float(d.record.get("seconds") or 0.0) for d in done) / 60, 2),
        "again": shlex.join(again),
        "config": _config(study, done),
        "arms": {name: _arm(study, name, done) for name in study.arms},
        "rows": flat_rows(rows),
        "inside": _inside(study, done, place),
        "curves": _curves(study, done),
        "failed": dict(failed),
        "unfinished": sorted({p.name for p in points} - {d.point.name for d in done}),
    }
    if done:
        write_whole(place.out / "table.csv", to_csv(rows))
        write_whole(place.out / "table.md", to_markdown(rows, study.reference))
    write_whole(place.out / RESULTS, json.dumps(results, indent=1) + "\n")
    write_whole(place.out / REPORT, render(results))
    return results


def study_rows(study: Study, done: Sequence[Done]) -> list[Row]:
    """Return the rows of a study; differences are to the reference at the same place."""
    places: dict[str, list[Done]] = {}
    for each in done:
        places.setdefault(combination(each.point).partition("/")[2], []).append(each)
    rows = []
    for place, members in places.items():
        reference = f"{study.reference}/{place}" if place else study.reference
        rows += rows_of(members, reference)
    return rows


def _data(done: Sequence[Done]) -> list[dict[str, Any]]:
    """Return corpora, digests and numbers of recordings that were evaluated."""
    keys = ("dataset", "data_digest", "split", "classes", "recordings")
    found = {tuple(d.result.get(key) for key in keys): None for d in done}
    return [dict(zip(keys, values, strict=True)) for values in found]


def _task(done: Sequence[Done]) -> str:
    """Return the size of the tasks that all arms are compared on, "" where none is finished."""
    main = [d.result for d in done if not d.point.values]
    return f"{main[0]['ways']}-way {main[0]['shots']}-shot" if main else ""


def _config(study: Study, done: Sequence[Done]) -> str:
    """Return the complete configuration of the reference's first training, as YAML; "" for none."""
    arm = study.arms[study.reference]
    name = study.reference if arm.train else arm.learner
    trained = [d.record["config"] for d in done if combination(d.point) == name]
    return yaml.safe_dump(trained[0], sort_keys=False) if trained else ""


def _arm(study: Study, name: str, done: Sequence[Done]) -> dict[str, Any]:
    """Return what an arm is, what it was trained for, and the commands of its first seed."""
    arm = study.arms[name]
    mine = [d for d in done if combination(d.point) == name]
    learns = arm.train and arm.method != "centroid"
    batch = [d.record["config"]["train"]["meta_batch"] for d in mine if learns]
    counted = [d.record.get("iterations") or 0 for d in mine if learns]
    return {
        "label": arm.label,
        "learner": arm.learner,
        "trained": arm.train,
        "set": arm.keys,
        "tasks": [i * b for i, b in zip(counted, batch, strict=True)],
        "minutes": [d.record.get("training_minutes") or 0.0 for d in mine],
        "commands": mine[0].record["commands"] if mine else [],
    }


def _inside(study: Study, done: Sequence[Done], place: Place) -> dict[str, Any]:
    """Return what was seen inside the learner of each arm's first seed.

    Rasters and the matrix of confusion are the reference's alone.
    """
    found: dict[str, Any] = {}
    for each in done:
        file = each.point.folder(place.out) / INSIDE
        if each.point.inside and each.point.arm not in found:
            try:
                found[each.point.arm] = json.loads(file.read_bytes())
            except (OSError, ValueError) as error:
                raise RunError(
                    f"{file} is damaged ({error}). Delete {POINT} beside it, then --resume."
                ) from error
    for name, seen in found.items():
        if name != study.reference:  # the report draws these of one arm
            seen["confusion"].pop("matrix", None)
            seen.pop("rasters", None)
    return {name: found[name] for name in study.arms if name in found}


def _curves(study: Study, done: Sequence[Done]) -> dict[str, Any]:
    """Return the learning curve of each arm's first seed, where it was trained."""
    found: dict[str, Any] = {}
    for each in done:
        if each.point.train and each.record["iterations"] > 1:
            batch = each.record["config"]["train"]["meta_batch"]
            validation = each.record["curve"]["validation"]
            found.setdefault(each.point.arm, {"meta_batch": batch, "validation": validation})
    return {name: found[name] for name in study.arms if name in found}
