"""Packs: recordings written once as a memory-mapped array of events with a checked index.

A pack is a folder of two files:

    events.bin    the events of all recordings, one after another, as `EVENT_DTYPE`
    index.jsonl   line 1: format, size of events.bin and digest of line 2; line 2: the rest

The events are stored as the one dtype, not compressed: a 4,000-event recording out of a pack of
64-bit words takes 1.5 times as long to bin, because it has to be decoded
(`benchmarks/random_access.py` measures the form used).

A pack appears whole or not at all: it is written into a temporary folder that is renamed at the
end. Of two processes that pack the same at once, the first to end wins, and the other opens what
it finds. What a killed process left is swept away by a later one.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spikeshot.data.events import EVENT_DTYPE, Events, check_events
from spikeshot.data.recordings import ContentDigest, Recordings, offsets_of
from spikeshot.data.samples import Collection, Sample
from spikeshot.errors import DataError

FORMAT = 1  # goes up whenever the files come to mean something else
EVENTS, INDEX = "events.bin", "index.jsonl"
STALE_SECONDS = 3600.0  # a temporary folder in which nothing was written for so long is left over

Progress = Callable[[int, int], None]
"""Hears (recordings packed so far, recordings in all)."""


class UnwritablePack(DataError):
    """A pack that the disk refused; the recordings themselves are well."""


def pack(
    source: Collection | Recordings, folder: Path, progress: Progress | None = None
) -> Recordings:
    """Write `source` as the pack `folder`, one recording in memory at a time, and open it.

    A sound pack that is there already, or comes while this one is written, is kept and opened; a
    broken one is replaced. Temporary folders that a killed process left are removed. Raises
    `DataError` for a bad or missing recording, `UnwritablePack` when the disk refuses; nothing
    half-written is then left.
    """
    collection = collection_of(source) if isinstance(source, Recordings) else source
    if not collection.samples:
        raise DataError(f"{folder.name}: no recording to pack; expected at least one.")
    part: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        part = Path(tempfile.mkdtemp(".part", f".{folder.name}.", folder.parent))
        _write(collection, part, progress)
        return _put_in_place(part, folder)
    except OSError as error:
        raise UnwritablePack(
            f"{folder}: recordings cannot be packed ({error.strerror or error}). Free some space, "
            "or set SPIKESHOT_CACHE to a folder that can be written."
        ) from error
    finally:
        if part is not None:  # what a full disk, a bad recording or Ctrl-C leaves
            shutil.rmtree(part, ignore_errors=True)


def _write(collection: Collection, part: Path, progress: Progress | None) -> None:
    digest, lengths, labels = ContentDigest(), [], labels_of(collection)
    with (part / EVENTS).open("wb") as stream:
        for done, sample in enumerate(collection.samples, 1):
            events = read_sample(sample, collection)
            stream.write(events.tobytes())
            digest.add(events)
            lengths.append(len(events))
            if progress:
                progress(done, len(collection.samples))
        _flush(stream)
    origins = tuple(s.origin for s in collection.samples)
    body = {
        "digest": digest.end(labels, collection.classes, origins, collection.sensor_size),
        "classes": collection.classes,
        "sensor_size": collection.sensor_size,
        "labels": labels,
        "origins": origins,
        "lengths": lengths,
    }
    text = json.dumps(body)
    head = {
        "spikeshot_pack": FORMAT,
        "bytes": sum(lengths) * EVENT_DTYPE.itemsize,
        "blake2b": _digest(text),
    }
    with (part / INDEX).open("w", encoding="ascii") as stream:
        stream.write(f"{json.dumps(head)}\n{text}\n")
        _flush(stream)


def read_sample(sample: Sample, collection: Collection) -> Events:
    """Return the checked events of one sample; raises `DataError` for a bad one."""
    events = sample.read()
    if events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise DataError(
            f"{sample.name}: read as {events.dtype} {events.shape}; expected a row of "
            f"{EVENT_DTYPE}. Mend its reader."
        )
    check_events(events, collection.sensor_size, sample.name)
    return events


def labels_of(collection: Collection) -> list[int]:
    """Return the number of each sample's class; raises `DataError` for a class not listed."""
    numbers = {name: i for i, name in enumerate(collection.classes)}
    for sample in collection.samples:
        if sample.label not in numbers:
            raise DataError(
                f"{sample.name}: class {sample.label!r} is none of the {len(numbers)} classes."
            )
    return [numbers[sample.label] for sample in collection.samples]


def _flush(stream: Any) -> None:
    """Bring a file to the disk itself: a rename must not overtake it when the power fails."""
    stream.flush()
    os.fsync(stream.fileno())


def _put_in_place(part: Path, folder: Path) -> Recordings:
    """Rename `part` to `folder`, unless a sound pack is there by now; open what is there."""
    while True:
        try:
            part.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            with contextlib.suppress(DataError):
                return open_pack(folder)  # another process was first
            aside = tempfile.TemporaryDirectory(".part", f".{folder.name}.", folder.parent)
            with aside, contextlib.suppress(FileNotFoundError):  # moved by another process
                folder.rename(Path(aside.name) / "broken")
        else:
            return open_pack(folder)


def _sweep(parent: Path) -> None:
    """Remove temporary folders that a killed process left."""
    for left in parent.glob(".*.part"):
        with contextlib.suppress(OSError):
            newest = max(f.stat().st_mtime for f in (left, *left.iterdir()))
            if time.time() - newest > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def open_pack(folder: Path) -> Recordings:
    """Open a pack; its events are a read-only `np.memmap`, of which nothing is read yet.

    Raises `DataError` where there is none, or where it is cut short, half-written, of another
    format, or has a changed index. That each event is what was packed is for `verify_pack`.
    """
    try:
        first, second = (folder / INDEX).read_text(encoding="ascii").splitlines()
        head, body = json.loads(first), json.loads(second)
        if head["spikeshot_pack"] != FORMAT:
            raise ValueError(f"format {head['spikeshot_pack']}, expected {FORMAT}")
        if head["blake2b"] != _digest(second):
            raise ValueError("the index is not what was written")
        offsets = offsets_of(body["lengths"])
        size = (folder / EVENTS).stat().st_size
        if size != head["bytes"] or size != offsets[-1] * EVENT_DTYPE.itemsize:
            raise ValueError(f"{EVENTS} has {size} bytes, expected {head['bytes']}")
        events = np.memmap(folder / EVENTS, EVENT_DTYPE, mode="r")
        width, height = body["sensor_size"]
        return Recordings(
            events=events,
            offsets=offsets,
            labels=np.asarray(body["labels"], np.int64),
            classes=tuple(body["classes"]),
            origins=tuple(body["origins"]),
            sensor_size=(width, height),
            known_digest=body["digest"],
        )
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no pack there, or a part of it is missing.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: the pack is damaged ({error}). Remove it.") from error


def folder_of(recordings: Recordings) -> Path | None:
    """Return the folder of the pack that holds the events of `recordings`; None: in memory."""
    file = getattr(recordings.events, "filename", None)  # of an np.memmap
    return Path(file).parent if file else None


def verify_pack(folder: Path) -> Recordings:
    """Read a pack through and return it; raises `DataError` unless it is what was packed."""
    recordings = open_pack(folder)
    if replace(recordings, known_digest=None).digest != recordings.digest:
        raise DataError(f"{folder}: the pack is damaged (its content has changed). Remove it.")
    return recordings


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def collection_of(recordings: Recordings) -> Collection:
    """Return recordings as samples that are read already."""

    def reader(index: int) -> Callable[[], Events]:
        return lambda: recordings[index]

    samples = tuple(
        Sample(origin, recordings.classes[label], origin, reader(i))
        for i, (origin, label) in enumerate(zip(recordings.origins, recordings.labels, strict=True))
    )
    return Collection(samples, recordings.classes, recordings.sensor_size)
