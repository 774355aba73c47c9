"""A grid becomes a plan: arms times the values of axes times seeds."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spikeshot.errors import ConfigError
from spikeshot.study.plan import Measure, Point, in_order
from spikeshot.study.yaml_file import require_known

BASE, FRESH = "base", "fresh"
MEASURE_KEYS = ("split", "episodes", "ways", "shots", "queries", "steps", "writes")
LEAST = {"episodes": 2, "ways": 2, "steps": 0}

Keys = dict[str, Any]  # dotted key of a configuration -> value


@dataclass(frozen=True)
class Axis:
    """An axis: its label, and what each of its values sets."""

    label: str
    values: Mapping[str, Keys]


@dataclass(frozen=True)
class Arm:
    """An arm: iterations of training (0: evaluation only), what it sets, and on which learner."""

    label: str
    iterations: int
    keys: Keys
    only: Mapping[str, tuple[str, ...]]
    learner: str
    run: str


@dataclass(frozen=True)
class Grid:
    """A sweep that was read and checked.

    `keys`: of the base's training; `left_out`: arms that need a run and got none; `start`: runs to
    take as the base's; `extra`: keys given at the command line, applied last.
    """

    name: str
    about: str
    base: str
    keys: Keys
    axes: Mapping[str, Axis]
    arms: Mapping[str, Arm]
    reference: str
    measure: Measure
    seeds: tuple[int, ...]
    left_out: tuple[str, ...] = ()
    start: str = ""
    extra: Keys = field(default_factory=dict)

    def combination(self, arm: str, values: Mapping[str, str]) -> str:
        """Return the name of an arm at values of the axes, as `meta-trained/bits=4`."""
        return "/".join([arm, *(f"{axis}={value}" for axis, value in values.items())])


def adjusted(grid: Grid, seeds: Sequence[int] | None, episodes: int | None) -> Grid:
    """Return the sweep with other seeds or another number of episodes."""
    measure = grid.measure if episodes is None else replace(grid.measure, episodes=episodes)
    return replace(grid, seeds=tuple(seeds or grid.seeds), measure=measure)


def points_of(grid: Grid) -> list[Point]:
    """Return the points of a sweep, in an order in which they can be done."""
    points: list[Point] = []
    if len(grid.seeds) > 1:
        for run in filter(None, [grid.start, *(a.run for a in grid.arms.values())]):
            if "{seed}" not in run:
                raise ConfigError(
                    f"run {run!r} is one, but there are {len(grid.seeds)} seeds; expected {{seed}} "
                    "in its name, as in runs/s{seed}."
                )
    for seed in grid.seeds:
        used = {a.learner for a in grid.arms.values() if not a.run} | {grid.reference}
        if BASE in used:
            points.append(_base_point(grid, seed))
        for name, arm in grid.arms.items():
            for values in _combinations(grid, arm):
                points.append(_point(grid, seed, name, arm, values))
    places = {p.name.rpartition("/")[0] for p in points}
    require_known(grid.reference, places, "reference")
    return in_order(points)


def _combinations(grid: Grid, arm: Arm) -> list[dict[str, str]]:
    """Return the values of the axes that an arm stands at; an axis with `only: []` is not its."""
    choices = []
    for name, axis in grid.axes.items():
        kept = [v for v in axis.values if name not in arm.only or v in arm.only[name]]
        if arm.only.get(name) != ():
            choices.append([(name, v) for v in kept])
    return [dict(each) for each in itertools.product(*choices)]


def _base_point(grid: Grid, seed: int) -> Point:
    start = grid.start.replace("{seed}", str(seed))
    measure = replace(grid.measure, overrides=texts(for_evaluation(grid.extra)))
    if start:
        return Point(f"{BASE}/s{seed}", seed, BASE, start=start, measure=measure)
    overrides = texts(grid.keys | grid.extra | {"seed": seed})
    return Point(
        *(f"{BASE}/s{seed}", seed, BASE, {}, True, grid.base, overrides),
        measure=grid.measure,
    )


def _point(grid: Grid, seed: int, name: str, arm: Arm, values: Mapping[str, str]) -> Point:
    keys = dict(arm.keys)
    for axis, value in values.items():
        keys |= grid.axes[axis].values[value]
    measured = {k.partition(".")[2]: v for k, v in keys.items() if k.startswith("evaluate.")}
    for key, value in measured.items():
        require_measure(key, value, f"arm {name!r}: evaluate")
    keys = {k: v for k, v in keys.items() if not k.startswith("evaluate.")}
    measure = replace(grid.measure, **measured)
    folder = f"{re.sub(r'[^=/.+-]', _safe, grid.combination(name, values))}/s{seed}"
    run = (arm.run or (grid.start if arm.learner == BASE else "")).replace("{seed}", str(seed))
    after = "" if run or arm.learner == FRESH else _needed(grid, seed, arm, values)
    point = Point(folder, seed, name, values, bool(arm.iterations), start=run, after=after)
    if not arm.iterations:
        keys |= for_evaluation(grid.extra)
        return replace(point, measure=replace(measure, overrides=texts(keys)))
    given = run or grid.start.replace("{seed}", str(seed))
    base = str(Path(given) / "config.yaml") if given else grid.base
    first = {} if given else grid.keys | {"seed": seed}
    extra = {k: v for k, v in grid.extra.items() if k != "train.iterations"}
    keys = first | {"train.iterations": arm.iterations} | keys | extra
    return replace(point, base=base, overrides=texts(keys), measure=measure)


def _needed(grid: Grid, seed: int, arm: Arm, values: Mapping[str, str]) -> str:
    """Return the name of the point whose learner an arm uses: at the same values, where it has."""
    if arm.learner == BASE:
        return f"{BASE}/s{seed}"
    other = grid.arms[arm.learner]
    if not other.iterations:
        raise ConfigError(
            f"arm {arm.label!r} uses the learner of {arm.learner!r}, which trains none; expected "
            "an arm with iterations."
        )
    for theirs in _combinations(grid, other):
        if theirs.items() <= values.items():
            name = grid.combination(arm.learner, theirs)
            return f"{re.sub(r'[^=/.+-]', _safe, name)}/s{seed}"
    raise ConfigError(
        f"arm {arm.label!r} uses the learner of {arm.learner!r}, which has none at "
        f"{dict(values)}. Set `only` of both alike."
    )


def read_measure(keys: Mapping[str, Any], where: str) -> Measure:
    """Return the evaluation that `keys` say; raises `ConfigError` as `require_measure` does."""
    for key, value in keys.items():
        require_measure(key, value, where)
    return Measure(**keys)


def require_measure(key: str, value: Any, where: str) -> None:
    """Raise `ConfigError` unless an evaluation has such a key and may have such a value."""
    require_known(key, MEASURE_KEYS, f"{where}: key")
    kinds: dict[str, type] = {"split": str, "writes": bool}
    kind, least = kinds.get(key, int), LEAST.get(key, 1)
    fits = type(value) is kind
    if not fits or (kind is int and value < least):
        wanted = {str: "a name", bool: "true or false"}.get(kind, f"a whole number from {least} on")
        raise ConfigError(f"{where}.{key} is {value!r}; expected {wanted}.")


def _safe(match: re.Match[str]) -> str:
    return match[0] if match[0].isalnum() or match[0] == "_" else "_"


def for_evaluation(keys: Mapping[str, Any]) -> Keys:
    """Return the keys that an evaluation heeds."""
    return {k: v for k, v in keys.items() if k.partition(".")[0] in ("learn", "task")}


def texts(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `key=value` texts; JSON is YAML."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in keys.items())
