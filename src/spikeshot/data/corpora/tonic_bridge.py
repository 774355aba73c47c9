"""The bridge `tonic:NAME`: any data set of the package tonic as a corpus.

tonic is GPL-3.0, this package Apache-2.0. Nothing here is tonic's, and no statement imports it: a
user who has installed tonic asks for it by name, and only then is it looked up, at run time,
through `importlib`. Without it everything else works.

An origin is the number of the recording in tonic's data set: that two data sets show the same
images, as N-MNIST and the simulated `digits`, is not known here.
"""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spikeshot.data.corpora.corpus import NMNIST_CROP, Corpus, Request
from spikeshot.data.corpora.facts import TONIC
from spikeshot.data.events import Events, make_events
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Collection, Sample
from spikeshot.data.store import cache_folder, fingerprint, packed
from spikeshot.errors import ConfigError, DataError, nearest_hint

PREFIX = "tonic:"


def tonic_corpus(name: str) -> Corpus:
    """Return the corpus `tonic:NAME`; whether tonic has such a data set shows when it loads.

    Its path, which may be left out, is where tonic keeps its files (tonic's `save_to`).
    """
    dataset = name.removeprefix(PREFIX)

    def load(request: Request) -> Recordings:
        return _load(dataset, request.path or cache_folder() / "downloads" / "tonic")

    about, crop = f"{dataset} as tonic reads it", NMNIST_CROP if dataset == "NMNIST" else None
    return Corpus(name, about, False, load, TONIC, optional_path=True, crop=crop)


def _load(name: str, save_to: Path) -> Recordings:
    halves = _open(name, save_to)
    first = next(iter(halves.values()))
    place = Path(getattr(first, "location_on_system", save_to))
    key = (
        getattr(importlib.import_module("tonic"), "__version__", ""),
        fingerprint(place) if place.exists() else "",
        [len(half) for half in halves.values()],
    )
    return packed(f"{PREFIX}{name}", key, lambda: _list(name, halves))


def _open(name: str, save_to: Path) -> dict[str, Any]:
    """Return tonic's data sets by the name of their half: train and test, or all."""
    try:
        datasets = importlib.import_module("tonic.datasets")
    except ImportError as error:
        raise DataError(
            f"corpus '{PREFIX}{name}' needs the package tonic, which cannot be imported ({error}). "
            "Run: pip install tonic"
        ) from error
    known = [n for n in dir(datasets) if isinstance(getattr(datasets, n), type)]
    if name not in known:
        raise ConfigError(
            f"corpus '{PREFIX}{name}': tonic has no data set {name!r}{nearest_hint(name, known)}."
        )
    kind = getattr(datasets, name)
    try:
        if "train" in inspect.signature(kind).parameters:
            return {
                half: kind(save_to=str(save_to), train=half == "train")
                for half in ("train", "test")
            }
        return {"all": kind(save_to=str(save_to))}
    except Exception as error:  # whatever tonic, its downloads and its archives come up with
        raise DataError(
            f"corpus '{PREFIX}{name}': tonic cannot open it in {save_to} ({error}). See tonic's "
            "page of the data set, or put its files there by hand."
        ) from error


def _list(name: str, halves: dict[str, Any]) -> Collection:
    samples: list[Sample] = []
    numbers: dict[str, Any] = {}  # of class names, for their order
    for half, dataset in halves.items():
        for i in range(len(dataset)):
            place = f"{name}/{half}/{i:06d}"
            target = _target(dataset, i, f"{PREFIX}{place}")
            label = _class_name(dataset, target)
            numbers[label] = target
            samples.append(Sample(f"{PREFIX}{place}", label, place, _reader(dataset, i, place)))
    plain = all(isinstance(n, int | np.integer) for n in numbers.values())
    classes = sorted(numbers, key=numbers.__getitem__ if plain else str)
    return Collection(tuple(samples), tuple(classes), _sensor_size(halves, samples))


def _item(dataset: Any, i: int, name: str) -> tuple[Any, Any]:
    try:
        events, target = dataset[i]
    except Exception as error:  # as above
        raise DataError(f"{name}: tonic cannot read it ({error}).") from error
    return events, target


def _target(dataset: Any, i: int, name: str) -> Any:
    """Return the class of item `i`, without reading its events where tonic lists the classes."""
    targets = getattr(dataset, "targets", ())
    return targets[i] if len(targets) == len(dataset) else _item(dataset, i, name)[1]


def _class_name(dataset: Any, target: Any) -> str:
    names = getattr(dataset, "classes", None)
    if isinstance(target, int | np.integer) and isinstance(names, list | tuple):
        return str(names[target]) if 0 <= target < len(names) else str(target)
    return str(target)


def _reader(dataset: Any, i: int, place: str) -> Callable[[], Events]:
    name = f"{PREFIX}{place}"
    return lambda: _convert(_item(dataset, i, name)[0], name)


def _convert(given: Any, name: str) -> Events:
    """Return tonic's structured array as events.

    A missing y (audio) is 0, a missing polarity ON. Events are put in order of time. A clock that
    does not begin with the recording (the first event later than the recording is long) is set to
    begin with it.
    """
    fields = getattr(getattr(given, "dtype", None), "names", None) or ()
    if not {"t", "x"} <= set(fields):
        raise DataError(
            f"{name}: tonic gives {type(given).__name__}; expected events with t and x."
        )
    t = np.rint(np.asarray(given["t"], np.float64)).astype(np.int64)
    order = np.argsort(t, kind="stable")
    if len(t) and (t.min() < 0 or t.min() > t.max() - t.min()):
        t = t - t.min()
    y = given["y"] if "y" in fields else np.zeros(len(t))
    p = given["p"] if "p" in fields else np.ones(len(t))
    return make_events(given["x"], y, t, np.asarray(p) > 0)[order]


def _sensor_size(halves: dict[str, Any], samples: list[Sample]) -> tuple[int, int]:
    """Return tonic's sensor size, or where it has none the smallest that holds all events."""
    size = getattr(next(iter(halves.values())), "sensor_size", None)
    if size is not None:
        return int(size[0]), int(size[1])
    width = height = 1
    for sample in samples:
        events = sample.read()
        if len(events):
            width = max(width, int(events["x"].max()) + 1)
            height = max(height, int(events["y"].max()) + 1)
    return width, height
