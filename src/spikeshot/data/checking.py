"""Checking samples: every one is read, and every bad one is told."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from spikeshot.data.packs import labels_of, read_sample
from spikeshot.data.samples import Collection
from spikeshot.errors import DataError


@dataclass(frozen=True)
class Report:
    """What came of a check: how many samples and events were read, and a message per bad one."""

    samples: int
    events: int
    problems: tuple[str, ...]


def check_samples(
    collection: Collection, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Read every sample, one at a time; bad recordings and copies of another one are problems.

    A copy may stand on both sides of a split, so that a learner is tested on what it has seen.
    """
    labels_of(collection)
    events, problems = 0, []
    seen: dict[bytes, str] = {}
    for done, sample in enumerate(collection.samples, 1):
        try:
            recording = read_sample(sample, collection)
        except DataError as error:
            problems.append(str(error))
        else:
            events += len(recording)
            content = hashlib.blake2b(recording.tobytes(), digest_size=16).digest()
            if content in seen:
                problems.append(
                    f"{sample.name}: holds the same events as {seen[content]}. Remove one of them."
                )
            seen.setdefault(content, sample.name)
        if progress:
            progress(done, len(collection.samples))
    return Report(len(collection.samples), events, tuple(problems))
