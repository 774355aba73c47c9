"""A person's own recordings: a folder a class, of any files that a reader knows."""

import hashlib
from collections import defaultdict
from pathlib import Path

from spikeshot.data.events import Events
from spikeshot.data.layouts.fitting import from_zero
from spikeshot.data.readers import READERS, ReadOptions, is_readable, read_events
from spikeshot.data.samples import Collection, Sample
from spikeshot.data.tree import Tree, open_tree
from spikeshot.errors import DataError, LayoutError

_BESIDE = {".txt", ".csv"}  # notes and lists may stand beside the folders of classes


def list_folder(
    path: Path,
    *,
    sensor_size: tuple[int, int] | None = None,
    options: ReadOptions | None = None,
) -> Collection:
    """List the recordings under `path` (folder, zip or tar), in the order of their names.

    A class is the name of a folder at the first level where they differ; an origin is
    class/file. Hidden files and files without a reader are left alone. The time of a recording
    starts at its first event. The sensor (width, height) is `sensor_size`, or what the first
    file says. Raises `DataError` when neither says it, for fewer than two classes, and for a
    recording that is there twice.
    """
    tree = open_tree(path)
    options = options or ReadOptions()
    names = _class_files(tree)
    _check_copies(tree, names)
    first = next(iter(names))
    size = sensor_size or _first_sensor_size(tree, first, options)
    samples = tuple(
        _sample(tree, name, label, origin, size, options) for name, (label, origin) in names.items()
    )
    classes = tuple(dict.fromkeys(sample.label for sample in samples))
    return Collection(samples, classes, size)


def _class_files(tree: Tree) -> dict[str, tuple[str, str]]:
    """Return name -> (class, origin) of the files that are recordings."""
    parts = {name: tuple(name.split("/")) for name, _ in tree if is_readable(name)}
    parts = {n: p for n, p in parts.items() if not any(part.startswith(".") for part in p)}
    deep = [p for p in parts.values() if len(p) > 1]
    if not deep:
        raise LayoutError(
            f"{tree.path}: no recording in a folder of its class; expected <class>/<file> with "
            f"one of {', '.join(READERS)}. Put the recordings of each class into a folder."
        )
    level = _class_level(deep)
    found: dict[str, tuple[str, str]] = {}
    for name, p in parts.items():
        if len(p) < level + 2:
            if Path(name).suffix.lower() in _BESIDE:
                continue
            raise DataError(
                f"{tree.shown(name)}: a recording beside the folders of classes; expected it in "
                "one of them. Move it there, or remove it."
            )
        found[name] = (p[level], "/".join(p[level:]))
    classes = sorted({label for label, _ in found.values()})
    if len(classes) < 2:
        raise DataError(
            f"{tree.path}: only one class, {classes[0]!r}; expected a folder for each of several. "
            "Point --data at the folder that holds the folders of classes."
        )
    return found


def _class_level(paths: list[tuple[str, ...]]) -> int:
    """Return how many folders all recordings share: those are no classes."""
    above = {p[:i] for p in paths for i in range(len(p) - 1)}  # folders that hold folders
    sure = [p for p in paths if p[:-1] not in above or Path(p[-1]).suffix.lower() not in _BESIDE]
    level = 0
    while all(len(p) > level + 2 for p in sure) and len({p[level] for p in sure}) == 1:
        level += 1
    return level


def _check_copies(tree: Tree, names: dict[str, tuple[str, str]]) -> None:
    """Raise `DataError` for two files of one content: they could stand on both sides of a task."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for name in names:
        by_size[tree.entries[name].size].append(name)
    for same in by_size.values():
        seen: dict[bytes, str] = {}
        for name in same if len(same) > 1 else []:
            digest = hashlib.blake2b(tree.read(name), digest_size=16).digest()
            other = seen.setdefault(digest, name)
            if other == name:
                continue
            label, first = names[name][0], names[other][0]
            where = f"classes {first!r} and {label!r}" if label != first else f"class {label!r}"
            raise DataError(
                f"{tree.path}: {other} and {name} are the same recording, in {where}; expected "
                "each once. Remove the wrong one."
            )


def _first_sensor_size(tree: Tree, name: str, options: ReadOptions) -> tuple[int, int]:
    events, size = read_events(tree.shown(name), tree.read(name), options=options)
    if size is not None:
        return size
    reach = int(events["x"].max()) + 1, int(events["y"].max()) + 1
    raise DataError(
        f"{tree.shown(name)}: the file does not say the size of its sensor, and data.sensor_size "
        f"is not set (its events reach {reach[0]}x{reach[1]}). Set data.sensor_size to [width, "
        "height], as --set data.sensor_size=[346,260] (in `spikeshot data`: --sensor-size 346x260)."
    )


def _sample(
    tree: Tree,
    name: str,
    label: str,
    origin: str,
    sensor_size: tuple[int, int],
    options: ReadOptions,
) -> Sample:
    def read() -> Events:
        raw = tree.read(name)
        shown = tree.shown(name)
        return from_zero(read_events(shown, raw, sensor_size=sensor_size, options=options)[0])

    return Sample(tree.shown(name), label, origin, read)
