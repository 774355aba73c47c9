"""A sweep's YAML file, and what the command line changes of it, become a checked grid.

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
run's folder instead, {seed} standing for the seed; an arm whose run is "" is left out until --set
arms.ARM.run=... names one. Keys as `evaluate.steps` set the evaluation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeshot.errors import ConfigError, nearest_hint
from spikeshot.study.grid import BASE, FRESH, Arm, Axis, Grid, read_measure
from spikeshot.study.yaml_file import (
    mapping,
    plain,
    read_source,
    require_known,
    seeds_of,
    shipped_names,
    value_of,
)
from spikeshot.yaml_tree import override

FOLDER = "sweeps"

STUDY_KEYS = ("about", "base", "set", "axes", "arms", "reference", "evaluate", "seeds")
ARM_KEYS = ("label", "iterations", "set", "only", "learner", "run")
AXIS_KEYS = ("label", "key", "values")


def sweep_names() -> list[str]:
    """Return the names of the sweeps that ship."""
    return shipped_names(FOLDER)


def load_grid(
    source: str, sets: Sequence[str], config_keys: Iterable[str], *, start: str = ""
) -> Grid:
    """Return the sweep of a name that ships or a YAML file, with `--set` texts.

    `config_keys`: the first words of keys of a configuration; `start`: a run's folder to use for
    the base learner. Raises `ConfigError` for whatever is wrong or unknown.
    """
    raw = read_source(source, FOLDER, "sweep")
    extra: dict[str, Any] = {}
    words = (*STUDY_KEYS, "iterations")
    for text in sets:
        key, first = text.partition("=")[0], text.partition("=")[0].partition(".")[0]
        if key in (raw.get("axes") or {}):
            _set_axis(raw["axes"][key], key, text)
        elif key == "iterations":
            for arm in mapping(raw.get("arms"), f"{source}: arms").values():
                if arm.get("iterations"):
                    arm["iterations"] = value_of(text)
        elif first in STUDY_KEYS:
            override(raw, text)
        elif first in config_keys:
            extra[key] = value_of(text)
        else:
            known = [*(raw.get("axes") or {}), *words, *config_keys]
            raise ConfigError(
                f"--set {text!r}: {first!r} is unknown{nearest_hint(first, known)}; expected an "
                f"axis ({', '.join(raw.get('axes') or {})}), a key of the sweep "
                f"({', '.join(words)}) or one of the configuration."
            )
    return replace(_checked(raw, source), start=start, extra=extra)


def _set_axis(raw: Any, name: str, text: str) -> None:
    """Put other values on an axis: any for one of a key, some of the known ones for one of sets."""
    value = value_of(text)
    wanted = value if isinstance(value, list) else [value]
    if isinstance(raw, dict) and "key" not in raw:
        known = {str(k): v for k, v in mapping(raw.get("values"), f"axes.{name}.values").items()}
        for each in wanted:
            require_known(plain(each), known, f"--set {text!r}: value")
        raw["values"] = {plain(each): known[plain(each)] for each in wanted}
    elif isinstance(raw, dict):
        raw["values"] = wanted


def _checked(raw: Mapping[str, Any], source: str) -> Grid:
    for key in raw:
        require_known(key, STUDY_KEYS, f"{source}: key")
    axes = {
        str(name): _axis(str(name), value, source)
        for name, value in mapping(raw.get("axes"), f"{source}: axes").items()
    }
    arms_raw = mapping(raw.get("arms"), f"{source}: arms")
    if not arms_raw:
        raise ConfigError(f"{source}: arms is empty; expected at least one.")
    arms = {
        str(name): _arm(str(name), value, axes, [*arms_raw, BASE, FRESH], source)
        for name, value in arms_raw.items()
    }
    left_out = tuple(n for n in arms if "run" in (arms_raw[n] or {}) and not arms[n].run)
    measure = read_measure(
        mapping(raw.get("evaluate"), f"{source}: evaluate"), f"{source}: evaluate"
    )
    return Grid(
        Path(source).stem,
        str(raw.get("about", "")),
        str(raw.get("base", "")),
        dict(mapping(raw.get("set"), f"{source}: set")),
        axes,
        {name: arm for name, arm in arms.items() if name not in left_out},
        str(raw.get("reference", BASE)),
        measure,
        seeds_of(raw.get("seeds", [0]), source),
        left_out,
    )


def _axis(name: str, raw: Any, source: str) -> Axis:
    where = f"{source}: axes.{name}"
    raw = mapping(raw, where)
    for key in raw:
        require_known(key, AXIS_KEYS, f"{where}: key")
    values = raw.get("values")
    if "key" in raw:
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: values is {values!r}; expected a list.")
        sets = {plain(v): {str(raw["key"]): v} for v in values}
    else:
        sets = {
            str(value): dict(mapping(keys, f"{where}.values.{value}"))
            for value, keys in mapping(values, f"{where}.values").items()
        }
    if not sets:
        raise ConfigError(f"{where}: values is empty; expected at least one.")
    return Axis(str(raw.get("label", name)), sets)


def _arm(name: str, raw: Any, axes: Mapping[str, Axis], arms: Sequence[str], source: str) -> Arm:
    where = f"{source}: arms.{name}"
    raw = mapping(raw, where)
    for key in raw:
        require_known(key, ARM_KEYS, f"{where}: key")
    only = {}
    for axis, values in mapping(raw.get("only"), f"{where}.only").items():
        require_known(axis, axes, f"{where}.only: axis")
        only[axis] = tuple(plain(v) for v in (values if isinstance(values, list) else [values]))
    iterations = raw.get("iterations", 0)
    if type(iterations) is not int or iterations < 0:
        raise ConfigError(f"{where}.iterations is {iterations!r}; expected 0 or more.")
    learner = str(raw.get("learner", BASE))
    require_known(learner, [a for a in arms if a != name], f"{where}.learner: arm")
    if learner == FRESH and not iterations:
        raise ConfigError(f"{where}.iterations is 0; expected 1 or more with learner 'fresh'.")
    keys = dict(mapping(raw.get("set"), f"{where}.set"))
    return Arm(
        str(raw.get("label", name)), iterations, keys, only, learner, str(raw.get("run", ""))
    )
