"""Class splits: which classes are for which meta-split, by a shipped file, a user's, or a seed.

A split file is JSON with the lists `train`, `val` and `test`. An entry names a class, a pair of
classes, or a folder of classes (`Latin` stands for `Latin/character01` and all others of it).
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from spikeshot.data.pairs import all_pairs, require_pairs
from spikeshot.data.splits import SPLITS, cuts
from spikeshot.errors import ConfigError, DataError, nearest_hint

ClassSplit = dict[str, tuple[str, ...]]

AUTO, FRACTIONS = "auto", "fractions"
OWN = {
    ("digits", "double"): "double_nmnist",
    ("nmnist", "double"): "double_nmnist",
    ("signs", "double"): "double_nmnist",
    ("asl-dvs", "double"): "double_asl_dvs",
    ("omniglot", "single"): "omniglot",
    ("omniglot-strokes", "single"): "omniglot_strokes",
    ("omniglot-untimed", "single"): "omniglot",
    ("n-omniglot", "single"): "omniglot_published",
}
"""The split that `auto` takes, by (corpus, kind of classes); all others are split by fractions."""


def split_classes(
    choice: str,
    corpus: str,
    names: Sequence[str],
    kind: str,
    fractions: tuple[float, float, float],
    seed: int,
) -> ClassSplit:
    """Return the classes of each meta-split.

    `choice`: `auto`, `fractions`, the name of a shipped split or the path of a split file;
    `names`: the corpus's plain classes; `kind`: `single`, or `double` for pairs of them.
    Raises `ConfigError` for an unknown choice and `DataError` for a split that does not fit.
    """
    if choice == AUTO:
        choice = OWN.get((corpus, kind), FRACTIONS)
    if choice == FRACTIONS:
        return seeded_classes(all_pairs(names) if kind == "double" else names, fractions, seed)
    shipped = choice in shipped_splits()
    entries = shipped_classes(choice) if shipped else _read_split_file(choice)
    if kind == "double":
        require_pairs((pair for split in SPLITS for pair in entries[split]), names)
        return entries
    return _expand(entries, names, choice, lenient=shipped)


def shipped_splits() -> list[str]:
    """Return the names of the splits that ship."""
    folder = resources.files("spikeshot.data") / "splits"
    return sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name[-5:] == ".json")


def shipped_classes(name: str) -> ClassSplit:
    """Return the entries of the shipped split `name`."""
    text = (resources.files("spikeshot.data") / "splits" / f"{name}.json").read_text("utf-8")
    return _entries(json.loads(text), name)


def seeded_classes(
    names: Sequence[str], fractions: tuple[float, float, float], seed: int
) -> ClassSplit:
    """Split classes by `fractions`, seeded; the order of `names` does not matter."""
    rng = np.random.default_rng([seed, len(names)])
    order = [sorted(names)[i] for i in rng.permutation(len(names))]
    first, second = cuts(len(order), fractions)
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    return {split: tuple(sorted(members)) for split, members in parts.items()}


def _expand(
    entries: Mapping[str, Sequence[str]], names: Sequence[str], source: str, *, lenient: bool
) -> ClassSplit:
    """Return the classes that the entries name, folders of classes opened.

    Classes that no entry names are left out. `lenient`: entries may find no class, as long as each
    split finds one (a corpus of which only a part is there).
    """
    found: ClassSplit = {}
    for split in SPLITS:
        members: list[str] = []
        for entry in entries[split]:
            mine = [name for name in names if name == entry or name.startswith(f"{entry}/")]
            if not mine and not lenient:
                raise DataError(
                    f"{source}: entry {entry!r} of {split} names no class"
                    f"{nearest_hint(entry, names)}; expected one of the corpus's classes, or a "
                    "folder of them. Correct the file."
                )
            members += mine
        if not members:
            raise DataError(
                f"split {source!r} has no class for {split} here; expected some of "
                f"{', '.join(entries[split])}. Add their recordings, or choose another data.split."
            )
        found[split] = tuple(sorted(set(members)))
    return found


def _read_split_file(choice: str) -> ClassSplit:
    path = Path(choice)
    if path.suffix != ".json" and not path.is_file():
        known = [AUTO, FRACTIONS, *shipped_splits()]
        raise ConfigError(
            f"data.split is {choice!r}{nearest_hint(choice, known)}; expected one of "
            f"{', '.join(known)}, or a .json file with the lists train, val and test."
        )
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON ({error}); expected the lists train, val and test."
        ) from None
    return _entries(raw, str(path))


def _entries(raw: Any, source: str) -> ClassSplit:
    for split in SPLITS:
        entries = raw.get(split) if isinstance(raw, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            raise DataError(
                f"{source}: {split!r} is {'missing' if entries is None else 'no list of names'}; "
                'expected the class names of train, val and test, as {"train": ["a"], ...}.'
            )
        if not entries:
            raise DataError(f"{source}: {split!r} is empty; expected one class or more.")
    return {split: tuple(raw[split]) for split in SPLITS}
