"""A plan: points to train or evaluate, of which some use the learner of another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from spikeshot.errors import ConfigError, nearest_hint


@dataclass(frozen=True)
class Measure:
    """How a learner is evaluated; None: as it was trained. `overrides`: learn.* and task.* keys.

    `writes`: what inner steps write is counted.
    """

    split: str = "test"
    episodes: int = 600
    ways: int | None = None
    shots: int | None = None
    queries: int | None = None
    steps: int | None = None
    writes: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One learner, trained or taken, and its evaluation.

    `name`: also its folder; `arm` and `values` (axis to name of its value): where it stands in a
    table. `base`: preset or YAML file of the training, `overrides` its `key=value`; both are of no
    use without `train`. `start` (a run's folder) or `after` (the name of another point): the
    learner that training starts from or, without `train`, that is evaluated. `inside`: episodes
    over which the learner is looked into (`inspecting.py`).
    """

    name: str
    seed: int
    arm: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    train: bool = False
    base: str = ""
    overrides: tuple[str, ...] = ()
    start: str = ""
    after: str = ""
    measure: Measure = Measure()
    inside: int = 0

    def recipe(self) -> dict[str, Any]:
        """Return all of it, ready for JSON; `inside` where there is any."""
        made = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()} | {
            "measure": asdict(self.measure) | {"overrides": list(self.measure.overrides)}
        }
        return made if self.inside else {k: v for k, v in made.items() if k != "inside"}

    def folder(self, out: Path) -> Path:
        """Return where in `out` the point keeps what is its own."""
        return out / "points" / self.name


def in_order(points: Sequence[Point]) -> list[Point]:
    """Return the points, each behind the one whose learner it uses, else in their order.

    Raises `ConfigError` for two points of one name, an unknown point or a circle.
    """
    by_name = {p.name: p for p in points}
    if len(by_name) < len(points):
        names = [p.name for p in points]
        twice = next(n for n in names if names.count(n) > 1)
        raise ConfigError(f"point {twice!r} stands twice in the plan; expected different names.")
    placed: dict[str, Point] = {}

    def place(point: Point, above: tuple[str, ...]) -> None:
        if point.name in above:
            raise ConfigError(f"point {point.name!r} waits for itself: {' <- '.join(above)}.")
        if point.after and point.after not in by_name:
            raise ConfigError(
                f"point {point.name!r} uses the learner of {point.after!r}, which is not in the "
                f"plan{nearest_hint(point.after, by_name)}."
            )
        if point.after and point.after not in placed:
            place(by_name[point.after], (*above, point.name))
        placed.setdefault(point.name, point)

    for point in points:
        place(point, ())
    return list(placed.values())


def chosen(points: Sequence[Point], pattern: str) -> list[Point]:
    """Return the points whose name fits a pattern (`*` and `?`), and those that they use.

    Raises `ConfigError` where none does.
    """
    by_name = {p.name: p for p in points}
    keep = {p.name for p in points if fnmatchcase(p.name, pattern)}
    if not keep:
        raise ConfigError(
            f"--only {pattern!r} fits no point{nearest_hint(pattern, by_name)}; their names are "
            f"as {points[0].name!r} and {points[-1].name!r}, and * stands for any text."
        )
    for name in list(keep):
        while after := by_name[name].after:
            keep.add(after)
            name = after
    return [p for p in points if p.name in keep]
