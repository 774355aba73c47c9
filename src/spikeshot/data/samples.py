"""Samples: recordings yet to be read, listed by the reader of a layout and packed by a store."""

from collections.abc import Callable
from dataclasses import dataclass

from spikeshot.data.events import Events


@dataclass(frozen=True)
class Sample:
    """One recording yet to be read.

    `name`: where it lies, for messages (`N-MNIST.zip: Train/3/00008.bin`); `label`: its class;
    `origin`: what was recorded: recordings of one origin never stand on both sides of a split;
    `read()`: its events, or a `DataError`.
    """

    name: str
    label: str
    origin: str
    read: Callable[[], Events]


@dataclass(frozen=True)
class Collection:
    """All samples of one source in a fixed order, their classes and sensor (width, height)."""

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    sensor_size: tuple[int, int]
