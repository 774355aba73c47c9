"""A sweep's YAML file becomes a plan: arms times the values of axes times seeds.

    about: one line
    base: double-nmnist-fast              preset or YAML file of the learner that all start from
    set: {train.meta_batch: 2}            keys of its configuration
    axes:
      bits: {key: learn.weights.bits, values: [2, 4]}            one key, or sets of keys by name:
      rule: {values: {sign: {learn.updates.sign: true}, float: {}}}
    arms:
      post-hoc: {set: {learn.weights.where: outer}}              evaluation only
      meta-trained: {iterations: 400, set: {...}, only: {bits: [4]}, learner: base}
    reference: base                       what differences are taken to: base, or ARM/AXIS=VALUE
    evaluate: {split: test, episodes: 600}
    seeds: [0, 1, 2]

`learner`: the arm whose learner an arm starts from or evaluates (`base`, or `fresh`); `run`: a
run's folder instead, {seed} standing for the seed. Keys as `evaluate.steps` set the evaluation.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from spikeshot.errors import ConfigError, nearest_hint
from spikeshot.study.plan import Measure, Point, in_order
from spikeshot.yaml_tree import override, parse_yaml

BASE, FRESH = "base", "fresh"
STUDY_KEYS = ("about", "base", "set", "axes", "arms", "reference", "evaluate", "seeds")
ARM_KEYS = ("label", "iterations", "set", "only", "learner", "run")
AXIS_KEYS = ("label", "key", "values")
MEASURE_KEYS = ("split", "episodes", "ways", "shots", "queries", "steps")

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
    """A sweep that was read and checked; `extra`: keys given at the command line, applied last."""

    name: str
    about: str
    base: str
    keys: Keys
    axes: Mapping[str, Axis]
    arms: Mapping[str, Arm]
    reference: str
    measure: Measure
    seeds: tuple[int, ...]
    start: str = ""
    extra: Keys = field(default_factory=dict)

    def combination(self, arm: str, values: Mapping[str, str]) -> str:
        """Return the name of an arm at values of the axes, as `meta-trained/bits=4`."""
        return "/".join([arm, *(f"{axis}={value}" for axis, value in values.items())])


def sweep_names() -> list[str]:
    """Return the names of the sweeps that ship."""
    folder = resources.files("spikeshot") / "study" / "sweeps"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def load_grid(
    source: str, sets: Sequence[str], config_keys: Iterable[str], *, start: str = ""
) -> Grid:
    """Return the sweep of a name that ships or a YAML file, with `--set` texts.

    `config_keys`: the first words of keys of a configuration; `start`: a run's folder to use for
    the base learner. Raises `ConfigError` for whatever is wrong or unknown.
    """
    raw = _read(source)
    extra: dict[str, Any] = {}
    words = (*STUDY_KEYS, "iterations")
    for text in sets:
        key, first = text.partition("=")[0], text.partition("=")[0].partition(".")[0]
        if key in (raw.get("axes") or {}):
            _set_axis(raw["axes"][key], key, text)
        elif key == "iterations":
            for arm in _mapping(raw.get("arms"), f"{source}: arms").values():
                if arm.get("iterations"):
                    arm["iterations"] = _value(text)
        elif first in STUDY_KEYS:
            override(raw, text)
        elif first in config_keys:
            extra[key] = _value(text)
        else:
            known = [*(raw.get("axes") or {}), *words, *config_keys]
            raise ConfigError(
                f"--set {text!r}: {first!r} is unknown{nearest_hint(first, known)}; expected an "
                f"axis ({', '.join(raw.get('axes') or {})}), a key of the sweep "
                f"({', '.join(words)}) or one of the configuration."
            )
    return replace(_checked(raw, source), start=start, extra=extra)


def adjusted(grid: Grid, seeds: Sequence[int] | None, episodes: int | None) -> Grid:
    """Return the sweep with other seeds or another number of episodes."""
    measure = grid.measure if episodes is None else replace(grid.measure, episodes=episodes)
    return replace(grid, seeds=tuple(seeds or grid.seeds), measure=measure)


def _read(source: str) -> dict[str, Any]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            return parse_yaml(path.read_text(encoding="utf-8"), source)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{source}: cannot be read ({error}); expected a YAML file."
            ) from None
    if source not in sweep_names():
        raise ConfigError(
            f"sweep {source!r} is unknown{nearest_hint(source, sweep_names())}; expected one of "
            f"{', '.join(sweep_names())}, or a YAML file."
        )
    file = resources.files("spikeshot") / "study" / "sweeps" / f"{source}.yaml"
    return parse_yaml(file.read_text(encoding="utf-8"), source)


def _value(text: str) -> Any:
    tree: dict[str, Any] = {}
    override(tree, f"value={text.partition('=')[2]}")
    return tree["value"]


def _set_axis(raw: Any, name: str, text: str) -> None:
    """Put other values on an axis: any for one of a key, some of the known ones for one of sets."""
    value = _value(text)
    wanted = value if isinstance(value, list) else [value]
    if isinstance(raw, dict) and "key" not in raw:
        known = {str(k): v for k, v in _mapping(raw.get("values"), f"axes.{name}.values").items()}
        for each in wanted:
            _require_known(_plain(each), known, f"--set {text!r}: value")
        raw["values"] = {_plain(each): known[_plain(each)] for each in wanted}
    elif isinstance(raw, dict):
        raw["values"] = wanted


def _checked(raw: Mapping[str, Any], source: str) -> Grid:
    for key in raw:
        _require_known(key, STUDY_KEYS, f"{source}: key")
    axes = {
        str(name): _axis(str(name), value, source)
        for name, value in _mapping(raw.get("axes"), f"{source}: axes").items()
    }
    arms_raw = _mapping(raw.get("arms"), f"{source}: arms")
    if not arms_raw:
        raise ConfigError(f"{source}: arms is empty; expected at least one.")
    arms = {
        str(name): _arm(str(name), value, axes, [*arms_raw, BASE, FRESH], source)
        for name, value in arms_raw.items()
    }
    evaluate = _mapping(raw.get("evaluate"), f"{source}: evaluate")
    for key in evaluate:
        _require_known(key, MEASURE_KEYS, f"{source}: evaluate.")
    seeds = raw.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise ConfigError(f"{source}: seeds is {seeds!r}; expected a list of whole numbers.")
    return Grid(
        Path(source).stem,
        str(raw.get("about", "")),
        str(raw.get("base", "")),
        dict(_mapping(raw.get("set"), f"{source}: set")),
        axes,
        arms,
        str(raw.get("reference", BASE)),
        Measure(**evaluate),
        tuple(dict.fromkeys(seeds)),
    )


def _axis(name: str, raw: Any, source: str) -> Axis:
    where = f"{source}: axes.{name}"
    raw = _mapping(raw, where)
    for key in raw:
        _require_known(key, AXIS_KEYS, f"{where}: key")
    values = raw.get("values")
    if "key" in raw:
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: values is {values!r}; expected a list.")
        sets = {_plain(v): {str(raw["key"]): v} for v in values}
    else:
        sets = {
            str(value): dict(_mapping(keys, f"{where}.values.{value}"))
            for value, keys in _mapping(values, f"{where}.values").items()
        }
    if not sets:
        raise ConfigError(f"{where}: values is empty; expected at least one.")
    return Axis(str(raw.get("label", name)), sets)


def _arm(name: str, raw: Any, axes: Mapping[str, Axis], arms: Sequence[str], source: str) -> Arm:
    where = f"{source}: arms.{name}"
    raw = _mapping(raw, where)
    for key in raw:
        _require_known(key, ARM_KEYS, f"{where}: key")
    only = {}
    for axis, values in _mapping(raw.get("only"), f"{where}.only").items():
        _require_known(axis, axes, f"{where}.only: axis")
        only[axis] = tuple(_plain(v) for v in (values if isinstance(values, list) else [values]))
    iterations = raw.get("iterations", 0)
    if type(iterations) is not int or iterations < 0:
        raise ConfigError(f"{where}.iterations is {iterations!r}; expected 0 or more.")
    learner = str(raw.get("learner", BASE))
    _require_known(learner, [a for a in arms if a != name], f"{where}.learner: arm")
    if learner == FRESH and not iterations:
        raise ConfigError(f"{where}.iterations is 0; expected 1 or more with learner 'fresh'.")
    keys = dict(_mapping(raw.get("set"), f"{where}.set"))
    return Arm(
        str(raw.get("label", name)), iterations, keys, only, learner, str(raw.get("run", ""))
    )


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
    _require_known(grid.reference, places, "reference")
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
    measure = replace(grid.measure, overrides=_texts(_for_evaluation(grid.extra)))
    if start:
        return Point(f"{BASE}/s{seed}", seed, BASE, start=start, measure=measure)
    overrides = _texts(grid.keys | grid.extra | {"seed": seed})
    return Point(
        *(f"{BASE}/s{seed}", seed, BASE, {}, True, grid.base, overrides),
        measure=grid.measure,
    )


def _point(grid: Grid, seed: int, name: str, arm: Arm, values: Mapping[str, str]) -> Point:
    keys = dict(arm.keys)
    for axis, value in values.items():
        keys |= grid.axes[axis].values[value]
    measured = {k.partition(".")[2]: v for k, v in keys.items() if k.startswith("evaluate.")}
    for key in measured:
        _require_known(key, MEASURE_KEYS, f"arm {name!r}: key evaluate.")
    keys = {k: v for k, v in keys.items() if not k.startswith("evaluate.")}
    measure = replace(grid.measure, **measured)
    folder = f"{re.sub(r'[^=/.+-]', _safe, grid.combination(name, values))}/s{seed}"
    run = (arm.run or (grid.start if arm.learner == BASE else "")).replace("{seed}", str(seed))
    after = "" if run or arm.learner == FRESH else _needed(grid, seed, arm, values)
    point = Point(folder, seed, name, values, bool(arm.iterations), start=run, after=after)
    if not arm.iterations:
        keys |= _for_evaluation(grid.extra)
        return replace(point, measure=replace(measure, overrides=_texts(keys)))
    given = run or grid.start.replace("{seed}", str(seed))
    base = str(Path(given) / "config.yaml") if given else grid.base
    first = {} if given else grid.keys | {"seed": seed}
    extra = {k: v for k, v in grid.extra.items() if k != "train.iterations"}
    keys = first | {"train.iterations": arm.iterations} | keys | extra
    return replace(point, base=base, overrides=_texts(keys), measure=measure)


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


def _safe(match: re.Match[str]) -> str:
    return match[0] if match[0].isalnum() or match[0] == "_" else "_"


def _for_evaluation(keys: Mapping[str, Any]) -> Keys:
    return {k: v for k, v in keys.items() if k.partition(".")[0] in ("learn", "task")}


def _texts(keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `key=value` texts; JSON is YAML."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in keys.items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; expected `key: value` lines.")
    return value


def _require_known(name: Any, known: Iterable[str], what: str) -> None:
    names = [str(k) for k in known]
    if str(name) not in names:
        raise ConfigError(
            f"{what} {str(name)!r} is unknown{nearest_hint(str(name), names)}; expected one of "
            f"{', '.join(names)}."
        )
