"""What is yet to be read: recordings (samples), and the drawings that others are simulated from."""

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


@dataclass(frozen=True)
class Original:
    """One drawing or photograph yet to be read, which a recording is simulated from.

    `name`: where it lies, for messages; `key`: what it is, alike in copies of one published file;
    `read()`: its content as bytes, or a `DataError`.
    """

    name: str
    key: tuple[str, ...]
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Originals:
    """All originals of one source; `what` they are (`drawing`), and what of it cannot be opened."""

    what: str
    items: tuple[Original, ...]
    problems: tuple[str, ...] = ()
