"""Finished points become the rows of a table: means over seeds, intervals, paired differences."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from spikeshot.learn.scoring import Score
from spikeshot.study.paired import Estimate, estimate, paired
from spikeshot.study.plan import Point

EPISODES_KEY = ("data_digest", "split", "seed", "ways", "shots", "queries", "episodes")
"""What makes two evaluations go through the same episodes."""

WRITTEN = ("touched", "writes_per_weight")
MINUS, PLUS_MINUS = "\u2212", "±"


@dataclass(frozen=True)
class Done:
    """A finished point: what its evaluation returned, and the score of each episode."""

    point: Point
    result: Mapping[str, Any]
    scores: Sequence[Score]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One arm at one place of the axes, over its seeds; accuracies 0..1.

    `difference`: to the reference, over the same episodes; None where they are not the same.
    `touched` (share of the weights) and `writes_per_weight` of one adaptation, where counted.
    """

    name: str
    arm: str
    values: Mapping[str, str]
    seeds: tuple[int, ...]
    after: Estimate
    before: Estimate
    difference: Estimate | None
    training_minutes: float
    touched: float | None = None
    writes_per_weight: float | None = None


def combination(point: Point) -> str:
    """Return a point's name without its seed."""
    return point.name.rpartition("/")[0]


def rows_of(done: Sequence[Done], reference: str) -> list[Row]:
    """Return a row per arm and place, in the points' order."""
    groups: dict[str, list[Done]] = {}
    for each in done:
        groups.setdefault(combination(each.point), []).append(each)
    theirs = groups.get(reference, [])
    return [_row(name, group, theirs) for name, group in groups.items()]


def _row(name: str, group: Sequence[Done], reference: Sequence[Done]) -> Row:
    first = group[0].point
    return Row(
        name,
        first.arm,
        first.values,
        tuple(d.point.seed for d in group),
        estimate([[s.after for s in d.scores] for d in group]),
        estimate([[s.before for s in d.scores] for d in group]),
        _difference(group, reference),
        sum(d.record.get("training_minutes") or 0.0 for d in group),
        *(_mean(d.result.get(key) for d in group) for key in WRITTEN),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def _difference(group: Sequence[Done], reference: Sequence[Done]) -> Estimate | None:
    theirs = {d.point.seed: d for d in reference}
    pairs = [(d, theirs[d.point.seed]) for d in group if d.point.seed in theirs]
    same = [(a, b) for a, b in pairs if all(a.result[k] == b.result[k] for k in EPISODES_KEY)]
    if not same or len(same) < len(group):
        return None
    return paired(
        [[s.after for s in a.scores] for a, _ in same],
        [[s.after for s in b.scores] for _, b in same],
    )


def _flat(row: Row, axes: Sequence[str]) -> dict[str, Any]:
    """Return a row as plain numbers, per cent, for CSV and JSON."""
    flat: dict[str, Any] = {"arm": row.arm}
    flat |= {axis: row.values.get(axis, "") for axis in axes}
    flat["seeds"] = " ".join(map(str, row.seeds))
    for name, value in (
        ("accuracy", row.after),
        ("before", row.before),
        ("difference", row.difference),
    ):
        flat[name] = round(100 * value.mean, 4) if value else None
        flat[f"{name}_ci_episodes"] = round(100 * value.ci_episodes, 4) if value else None
        over = value.ci_seeds if value else None
        flat[f"{name}_ci_seeds"] = None if over is None else round(100 * over, 4)
    flat |= {key: getattr(row, key) for key in WRITTEN}
    return flat | {"training_minutes": round(row.training_minutes, 2)}


def flat_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain dictionaries, accuracies in per cent."""
    axes = list(dict.fromkeys(axis for row in rows for axis in row.values))
    return [_flat(row, axes) for row in rows]


def to_csv(rows: Sequence[Row]) -> str:
    """Return the table as CSV with a header; accuracies in per cent."""
    flat = flat_rows(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]) if flat else ["arm"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def to_markdown(rows: Sequence[Row], reference: str) -> str:
    """Return the table as markdown: mean ± interval over episodes (± over seeds, from three on)."""
    axes = list(dict.fromkeys(axis for row in rows for axis in row.values))
    head = ["arm", *axes, "seeds", "before, %", "after, %", f"paired difference to {reference}"]
    counted = any(row.touched is not None for row in rows)
    if counted:
        head += ["weights touched, %", "writes per weight"]
    lines = [head, ["---"] * (1 + len(axes)) + ["---:"] * (len(head) - len(axes) - 1)]
    for row in rows:
        paid = ["" if row.touched is None else f"{100 * row.touched:.2f}"]
        paid += ["" if row.writes_per_weight is None else f"{row.writes_per_weight:.4f}"]
        lines.append(
            [
                row.arm,
                *(row.values.get(axis, "") for axis in axes),
                str(len(row.seeds)),
                _percent(row.before),
                _percent(row.after),
                _percent(row.difference, signed=True) if row.name != reference else "",
                *(paid if counted else []),
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(value: Estimate | None, *, signed: bool = False) -> str:
    if value is None:
        return ""
    mean = f"{round(100 * value.mean, 2) + 0.0:{'+' if signed else ''}.2f}".replace("-", MINUS)
    text = f"{mean} {PLUS_MINUS} {100 * value.ci_episodes:.2f}"
    if value.ci_seeds is not None:
        text += f" ({PLUS_MINUS} {100 * value.ci_seeds:.2f} over seeds)"
    return text
