"""The results of a study as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from spikeshot.study import cost
from spikeshot.study.study_points import STEPS, TASK
from spikeshot.study.svg import Series, chart, forest, matrix, raster_panel
from spikeshot.study.table import MINUS, PLUS_MINUS

TEMPLATE = "report.html.j2"
Results = Mapping[str, Any]
FlatRow = Mapping[str, Any]


def render(results: Results) -> str:
    """Return the page of a study's results.json; text from data is escaped."""
    from jinja2 import Environment, StrictUndefined

    text = (resources.files("spikeshot") / "study" / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "short": short, "value": value}
    inside = results["inside"]
    reference = inside.get(results["reference"])
    main = [r for r in results["rows"] if not r.get(STEPS) and not r.get(TASK)]
    view = {
        "results": results,
        "main": main,
        "labels": {name: arm["label"] for name, arm in results["arms"].items()},
        "numbers": {name: i for i, name in enumerate(results["arms"])},
        "tasks": _task_table(results, main),
        "accuracy": _accuracy(results, main),
        "curves": _curves(results),
        "steps": _against_steps(results),
        "stepping": list(dict.fromkeys(r["arm"] for r in results["rows"] if r.get(STEPS))),
        "shots": _against_tasks(results),
        "adapting": list(dict.fromkeys(r["arm"] for r in results["rows"] if r.get(TASK))),
        "matrix": _matrix(reference),
        "rasters": _rasters(reference or {}),
        "energy": {"mac": cost.MAC_PJ, "add": cost.ADD_PJ, "multiply": cost.MULTIPLY_PJ},
    }
    return environment.from_string(text).render(view)


def percent(row: FlatRow | None, name: str, *, signed: bool = False) -> str:
    """Return a mean with its intervals over episodes and, where there is one, over seeds."""
    if row is None or row.get(name) is None:
        return "–"
    mean = f"{round(row[name], 2) + 0.0:{'+' if signed else ''}.2f}".replace("-", MINUS)
    text = f"{mean} {PLUS_MINUS} {row[f'{name}_ci_episodes']:.2f}"
    over = row.get(f"{name}_ci_seeds")
    return text if over is None else f"{text} ({PLUS_MINUS} {over:.2f} over seeds)"


def short(number: float) -> str:
    """Return a number with three digits and k, M or G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def value(thing: Any) -> str:
    """Return a setting as text."""
    return str(thing).lower() if isinstance(thing, bool) else str(thing)


def _number(results: Results, arm: str) -> int:
    return list(results["arms"]).index(arm)


def _series(results: Results, arm: str, points: Sequence[tuple[float, float, float]]) -> Series:
    return Series(_number(results, arm), results["arms"][arm]["label"], points)


def _point(x: float, row: FlatRow) -> tuple[float, float, float]:
    return x, row["accuracy"], row["accuracy_ci_episodes"]


def _accuracy(results: Results, main: Sequence[FlatRow]) -> str:
    found = [(row["accuracy"], 0.0, row["accuracy_ci_episodes"]) for row in main]
    lines = [_series(results, row["arm"], [p]) for row, p in zip(main, found, strict=True)]
    return forest(lines, "accuracy after adaptation, %")


def _curves(results: Results) -> str:
    """Return validation accuracy over training tasks, or minutes where they are the budget."""
    timed = results["timed"]
    lines = []
    for arm, curve in results["curves"].items():
        batch = curve["meta_batch"]
        points = [
            (minutes if timed else iteration * batch, 100 * accuracy, 100 * (half or 0.0))
            for iteration, minutes, accuracy, half in curve["validation"]
        ]
        lines.append(_series(results, arm, points))
    return chart(lines, "minutes" if timed else "training tasks", "validation accuracy, %")


def _against_steps(results: Results) -> str:
    lines = []
    for arm in results["arms"]:
        mine = [r for r in results["rows"] if r["arm"] == arm and r.get(STEPS)]
        if mine:
            lines.append(_series(results, arm, [_point(float(r[STEPS]), r) for r in mine]))
    return chart(lines, "inner steps", "accuracy, %")


def _places(results: Results) -> list[str]:
    return list(dict.fromkeys(r[TASK] for r in results["rows"] if r.get(TASK)))


def _task_table(results: Results, main: Sequence[FlatRow]) -> dict[str, Any]:
    """Return the heads and, for every arm, the row at each size of task; the main one first."""
    places = _places(results)
    rows = {row["arm"]: [row] + [None] * len(places) for row in main}
    for r in results["rows"]:
        if r.get(TASK) and r["arm"] in rows:
            rows[r["arm"]][1 + places.index(r[TASK])] = r
    return {"places": places, "rows": rows if places else {}}


def _against_tasks(results: Results) -> str:
    """Return accuracies at each size of task, of what adapts; the one trained for comes first."""
    places = _places(results)
    rows = [r for r in results["rows"] if not r.get(STEPS)]
    lines = []
    for arm in dict.fromkeys(r["arm"] for r in rows if r.get(TASK)):
        mine = [(places.index(r[TASK]) + 1 if r[TASK] else 0, r) for r in rows if r["arm"] == arm]
        lines.append(_series(results, arm, [_point(x, r) for x, r in mine]))
    names = [results["task"], *places]
    return chart(lines, "task", "accuracy, %", names=names, joined=False)


def _matrix(reference: Mapping[str, Any] | None) -> str:
    confusion = reference["confusion"] if reference else {}
    return matrix(confusion["classes"], confusion["matrix"]) if "matrix" in confusion else ""


def _rasters(reference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the panels of the reference's layers, none where it does not spike."""
    return [
        {
            "layer": i,
            "neurons": layer["neurons"],
            "shown": layer["shown"],
            **{
                which: raster_panel(layer, which, f"layer {i} {which} adaptation")
                for which in ("before", "after")
            },
        }
        for i, layer in enumerate(reference.get("rasters", ()))
    ]
