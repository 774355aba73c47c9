"""Meta-splits: classes and recordings for meta-training, validation and test, all disjoint."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from spikeshot.data.recordings import Recordings
from spikeshot.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class MetaSplit:
    """Disjoint classes and disjoint origins of `train`, `val` and `test`."""

    classes: Mapping[str, tuple[str, ...]]
    origins: Mapping[str, frozenset[str]]

    def of_origin(self, origin: str) -> str:
        """Return the split of an origin; one that the split has never seen is for `test`."""
        for split in SPLITS:
            if origin in self.origins[split]:
                return split
        return "test"

    def with_training(self, origins: Iterable[str]) -> "MetaSplit":
        """Return the split with those of `origins` added to `train` that are in no split yet."""
        held_out = self.origins["val"] | self.origins["test"]
        train = self.origins["train"] | (frozenset(origins) - held_out)
        return replace(self, origins={**self.origins, "train": train})

    def require_disjoint(self) -> None:
        """Raise `DataError` unless no class and no origin stands in two splits."""
        _require_disjoint(self.classes.values(), "class")
        _require_disjoint(self.origins.values(), "recording of")

    def to_json(self) -> str:
        """Return the split as JSON text, the inverse of `from_json`."""
        return json.dumps(
            {
                "classes": {s: list(self.classes[s]) for s in SPLITS},
                "origins": {s: sorted(self.origins[s]) for s in SPLITS},
            }
        )

    @staticmethod
    def from_json(text: str) -> "MetaSplit":
        """Return the split written by `to_json`."""
        raw = json.loads(text)
        return MetaSplit(
            {s: tuple(raw["classes"][s]) for s in SPLITS},
            {s: frozenset(raw["origins"][s]) for s in SPLITS},
        )


def split_origins(
    recordings: Recordings, fractions: tuple[float, float, float], seed: int
) -> dict[str, frozenset[str]]:
    """Split origins by `fractions` (train, val, test) within each class, seeded."""
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"recording fractions {fractions}; expected three positive, summing to 1.")
    parts: dict[str, set[str]] = {split: set() for split in SPLITS}
    for label, name in enumerate(recordings.classes):
        members = np.flatnonzero(recordings.labels == label)
        origins = sorted({recordings.origins[i] for i in members})
        rng = np.random.default_rng([seed, *name.encode()])
        order = [origins[i] for i in rng.permutation(len(origins))]
        first, second = cuts(len(order), fractions)
        parts["train"].update(order[:first])
        parts["val"].update(order[first:second])
        parts["test"].update(order[second:])
    return {split: frozenset(names) for split, names in parts.items()}


def origins_by_class(
    recordings: Recordings, classes: Mapping[str, Iterable[str]]
) -> dict[str, frozenset[str]]:
    """Split origins as their classes are split: every recording of a class stays with it.

    What plain classes need: each is in one split only, and with it all its recordings. Those of
    classes in no split are left out.
    """
    parts: dict[str, frozenset[str]] = {}
    for split in SPLITS:
        chosen = set(classes[split])
        mine = np.flatnonzero([name in chosen for name in recordings.classes])
        members = np.flatnonzero(np.isin(recordings.labels, mine))
        parts[split] = frozenset(recordings.origins[i] for i in members)
    return parts


def free_classes(recordings: Recordings, split: MetaSplit, least: int) -> frozenset[str]:
    """Return the classes that meta-training may take from other recordings than the split's.

    Left out are the held-out classes, those of their folders (with `Latin/character01` all of
    `Latin`), those that an origin of validation or test is of, and those with less than `least`
    recordings.
    """
    held = {name for s in ("val", "test") for name in split.classes[s]}
    folders = {name.rsplit("/", 1)[0] for name in held if "/" in name}
    origins = split.origins["val"] | split.origins["test"]
    counts = np.bincount(recordings.labels, minlength=len(recordings.classes))
    seen = {
        recordings.classes[label]
        for label, origin in zip(recordings.labels, recordings.origins, strict=True)
        if origin in origins
    }
    return frozenset(
        name
        for name, count in zip(recordings.classes, counts.tolist(), strict=True)
        if count >= least
        and name not in held | seen
        and not any(name.startswith(f"{folder}/") for folder in folders)
    )


def cuts(n: int, fractions: tuple[float, float, float]) -> tuple[int, int]:
    """Return where `n` things, in order, are cut into train, val and test: two indices."""
    val, test = round(n * fractions[1]), round(n * fractions[2])
    return n - val - test, n - test


def indices_by_class(recordings: Recordings, split: MetaSplit, name: str) -> dict[str, list[int]]:
    """Return, per class, the indices of the recordings that belong to split `name`."""
    members: dict[str, list[int]] = {c: [] for c in recordings.classes}
    for i, (label, origin) in enumerate(zip(recordings.labels, recordings.origins, strict=True)):
        if split.of_origin(origin) == name:
            members[recordings.classes[label]].append(i)
    return members


def _require_disjoint(groups: Iterable[Iterable[str]], what: str) -> None:
    """Raise `DataError` if two groups share a member; `what` names the members."""
    seen: set[str] = set()
    for group in groups:
        members = set(group)
        both = seen & members
        if both:
            raise DataError(f"{what} {sorted(both)[0]!r} stands in two splits; expected one.")
        seen |= members
