"""Checking what a user has: every file is read, and every bad one is told."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from spikeshot.data.packs import labels_of, read_sample
from spikeshot.data.published import two_versions
from spikeshot.data.samples import Collection, Originals
from spikeshot.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """What came of a check.

    How many samples and events were read, a message per bad one, and what a sample is.
    """

    samples: int
    events: int
    problems: tuple[str, ...]
    what: str = "recording"


def check_samples(collection: Collection, progress: Progress | None = None) -> Report:
    """Read every sample, one at a time; bad recordings and copies of another one are problems.

    A copy may stand on both sides of a split, so that a learner is tested on what it has seen.
    """
    labels_of(collection)
    events, problems = 0, []
    copies = _Copies("events")
    for done, sample in enumerate(collection.samples, 1):
        try:
            recording = read_sample(sample, collection)
            events += len(recording)
            copies.add(sample.name, recording.tobytes())
        except DataError as error:
            problems.append(str(error))
        if progress:
            progress(done, len(collection.samples))
    return Report(len(collection.samples), events, tuple(problems))


def check_originals(originals: Originals, progress: Progress | None = None) -> Report:
    """Read every drawing or photograph that recordings are simulated from, as `check_samples` does.

    The same published file may be there twice (in two archives), as long as both are the same.
    """
    problems = list(originals.problems)
    copies = _Copies(originals.what)
    seen: dict[tuple[str, ...], tuple[bytes, str]] = {}  # key -> digest, name
    for done, original in enumerate(originals.items, 1):
        try:
            content = original.read()
            digest = _digest(content)
            first, name = seen.setdefault(original.key, (digest, original.name))
            if first != digest:
                raise two_versions(original.name, name)
            if name == original.name:
                copies.add(name, content)
        except DataError as error:
            problems.append(str(error))
        if progress:
            progress(done, len(originals.items))
    return Report(len(originals.items), 0, tuple(problems), originals.what)


class _Copies:
    """Notices content that was there before, under another name."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: dict[bytes, str] = {}

    def add(self, name: str, content: bytes) -> None:
        """Raise `DataError` for content that another file holds."""
        other = self._seen.setdefault(_digest(content), name)
        if other != name:
            raise DataError(f"{name}: holds the same {self._what} as {other}. Remove one of them.")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
