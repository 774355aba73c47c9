"""A trained learner in a person's hands: load it, adapt it on a few recordings, predict.

learner = spikeshot.load("pretrained:double-nmnist")
adapted = learner.adapt(recordings, labels)
labels, probabilities = adapted.predict(others)
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeshot.assemble import build_learner
from spikeshot.assemble_data import frame_spec
from spikeshot.assemble_network import build_network
from spikeshot.config import Config
from spikeshot.data.events import EVENT_DTYPE, Events, make_events
from spikeshot.data.frames import bin_recordings, side_by_side
from spikeshot.data.recordings import gather_recordings
from spikeshot.errors import ConfigError, DataError
from spikeshot.learn.adapt import adaptation, begin, last
from spikeshot.learn.meta_train import Learner
from spikeshot.learn.rules.rule import Batch, Moment, Params, Rule
from spikeshot.overriding import weights_and_rates
from spikeshot.snn.network import Network, forward_recorded, resize_readout
from spikeshot.stored import StoredLearner, open_learner
from spikeshot.study.baselines.networks import AnyNetwork, prepare

Samples = Sequence[Any] | NDArray[Any] | Tensor
"""Recordings (`TrainedLearner.frames` says which kinds are taken), or frames of them."""

AT_ONCE = 100  # samples that go through the network together


class Prediction(NamedTuple):
    """What was predicted: a label and probabilities `[n, ways]` of all labels for each sample."""

    labels: list[Hashable]
    probabilities: Tensor


@dataclass(frozen=True)
class TrainedLearner:
    """A meta-trained network with its rule, ready to be adapted to new classes.

    `sensor_size` (width, height): of the recordings that it was trained on, None where its file
    does not say it; `frame_shape` (2, H, W): of a sample's frames.
    """

    stored: StoredLearner
    network: AnyNetwork
    learner: Learner
    sensor_size: tuple[int, int] | None

    @property
    def config(self) -> Config:
        """The configuration it was trained with."""
        return self.stored.config

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(2, H, W) of the frames it takes, in `config.data.bins` time bins."""
        return self.network.input_shape

    @property
    def parts(self) -> int:
        """Recordings that make one sample: 2 for a learner of pairs, else 1."""
        return 2 if self.config.data.classes == "double" else 1

    def frames(self, samples: Samples) -> Tensor:
        """Return the frames `[T, n, 2, H, W]` (float32 event counts) of n samples.

        `samples`: a list of recordings, each a structured array with the fields `x`, `y` (pixels),
        `t` (microseconds from the start of the recording, in order) and `p` (0 or 1); for a learner
        of pairs a list of tuples (left, right) of them. Or the frames themselves, as a tensor or
        array `[T, n, 2, H, W]`. Raises `DataError` for what is neither, or does not fit.
        """
        if isinstance(samples, np.ndarray) and samples.dtype.names is not None:
            raise DataError("one recording was given; expected a list of them, as [recording].")
        if isinstance(samples, np.ndarray) and samples.dtype.kind in "biuf":
            return self._checked(torch.from_numpy(samples))
        if isinstance(samples, Tensor):
            return self._checked(samples)
        if not len(samples):
            raise DataError("no sample was given; expected one or more.")
        named = [named for i, sample in enumerate(samples) for named in self._parts(sample, i)]
        events = [as_events(one, name) for name, one in named]
        names = [name for name, _ in named]
        spec = frame_spec(self.config)
        size = self.sensor_size or self._smallest_sensor(events)
        recordings = gather_recordings(events, [0] * len(events), ("",), names, size)
        for name, sample in zip(names, events, strict=True):
            if not spec.stretch and sample["t"][0] >= spec.end_us:
                raise DataError(
                    f"{name}: its first event is at {sample['t'][0]} us, but the learner looks at "
                    f"the first {spec.end_us} us. Count microseconds from the start of the "
                    "recording (subtract the first timestamp)."
                )
        counts = bin_recordings(recordings, np.arange(len(events)), spec)
        beside = side_by_side(counts, self.parts)
        return self._checked(torch.from_numpy(beside.astype(np.float32)))

    def _parts(self, sample: Any, number: int) -> list[tuple[str, Any]]:
        """Return (name, recording) of each part of one sample."""
        if self.parts == 1:
            return [(f"sample {number}", sample)]
        if not isinstance(sample, tuple | list) or len(sample) != self.parts:
            raise DataError(
                f"sample {number} is {_described(sample)}; expected a pair (left, right) of "
                f"recordings: {self.stored.source} was trained on pairs, data.classes=double."
            )
        sides = zip(("left", "right"), sample, strict=True)
        return [(f"sample {number}, {side}", one) for side, one in sides]

    def _smallest_sensor(self, events: Sequence[Events]) -> tuple[int, int]:
        """Return the smallest sensor that has all these events and the learner's frames."""
        d, (_, height, width) = frame_spec(self.config), self.frame_shape
        frames = (width // self.parts * d.downsample, height * d.downsample)
        least = (d.crop[0] + d.crop[2], d.crop[1] + d.crop[3]) if d.crop else frames
        reach = [max(int(e[axis].max(initial=0)) + 1 for e in events) for axis in "xy"]
        return max(least[0], reach[0]), max(least[1], reach[1])

    def _checked(self, frames: Tensor) -> Tensor:
        """Return frames as float32; raises `DataError` where their shape is not the learner's."""
        bins = self.config.data.bins
        shape = tuple(frames.shape)
        if len(shape) != 5 or shape[0] != bins or shape[2:] != self.frame_shape or not shape[1]:
            _, height, width = self.frame_shape
            raise DataError(
                f"frames are {list(shape)}; expected [{bins}, n, 2, {height}, {width}], as [time "
                "bins, samples, polarity, height, width]. Use recordings of the same sensor, or "
                "bin and crop as the learner's data.* keys say."
            )
        frames = frames.to(torch.float32)
        if not torch.isfinite(frames).all():
            raise DataError("frames hold NaN or infinity; expected event counts.")
        return frames

    def adapt(
        self,
        samples: Samples,
        labels: Sequence[Hashable],
        *,
        steps: int | None = None,
        key: int = 0,
    ) -> "AdaptedLearner":
        """Return the learner adapted to the classes among `labels` by inner steps on `samples`.

        `samples`: the support set, as `frames` takes it; `labels`: one for each sample, of any kind
        (two different ones or more, and any number of samples of each). `steps`: inner steps
        (default: as many as at the evaluation of the run); `key`: for what is random in the rule.
        Classes are numbered in the order in which they first come, as in an episode; another
        number of them than in meta-training gets a readout of mean rows. Raises `DataError`.
        """
        frames = self.frames(samples)
        labels = list(labels)
        if len(labels) != frames.shape[1]:
            raise DataError(
                f"{len(labels)} labels for {frames.shape[1]} samples; expected one for each."
            )
        classes = tuple(dict.fromkeys(labels))
        if len(classes) < 2:
            raise DataError(
                f"all labels are {classes[0]!r}; expected two classes or more to tell apart."
            )
        steps = self.config.learn.steps_after_training if steps is None else steps
        if steps < 0:
            raise ConfigError(f"steps is {steps}; expected 0 or more inner steps.")
        numbers = torch.tensor([classes.index(label) for label in labels])
        support = Batch(prepare(self.network, frames), numbers)
        forward, loss = self.learner.forward, self.learner.loss
        init, learned = weights_and_rates(self.stored, self.learner)
        init = resize_readout(init, len(classes))
        begun = begin(forward, init, learned, self.learner.rule, support, key=key)
        params = last(adaptation(forward, loss, begun, learned, support, steps, key=key))
        return AdaptedLearner(self, begun.rule, params, classes, Moment(key, steps))


@dataclass(frozen=True)
class AdaptedLearner:
    """A learner after its inner steps on a support set.

    `rule`: as it is for this task; `params`: its parameter tree; `classes`: the labels, in the
    order of the logits; `moment`: the task's key and the inner steps done.
    """

    origin: TrainedLearner
    rule: Rule
    params: Params
    classes: tuple[Hashable, ...]
    moment: Moment

    def predict(self, samples: Samples) -> Prediction:
        """Return the most probable label of each sample, and the probabilities `[n, ways]`.

        `samples` as `TrainedLearner.frames` takes them; columns are in the order of `classes`.
        """
        learner, network = self.origin.learner, self.origin.network
        forward = self.rule.seen(learner.forward, self.moment)
        frames = self.origin.frames(samples)
        with torch.no_grad():
            logits = [
                forward(self.params, prepare(network, frames[:, i : i + AT_ONCE]))
                for i in range(0, frames.shape[1], AT_ONCE)
            ]
        probabilities = torch.cat(logits).softmax(-1)
        numbers = probabilities.argmax(-1).tolist()
        return Prediction([self.classes[i] for i in numbers], probabilities)

    def spikes(self, samples: Samples) -> list[Tensor]:
        """Return the spikes (0 or 1) of every layer for `samples`, after the burn-in.

        Convolutional layers give `[T, n, H, W, units]` (after pooling), others `[T, n, units]`.
        Raises `ConfigError` for a network without time steps.
        """
        network, params = self.origin.network, self.rule.read(dict(self.params), self.moment)
        if not isinstance(network, Network):
            raise ConfigError(
                f"a network of kind {network.kind!r} does not spike; it has no spikes."
            )
        with torch.no_grad():
            return list(forward_recorded(network, params, self.origin.frames(samples))[1])


def as_events(recording: Any, name: str) -> Events:
    """Return a recording of the user's as our events.

    Raises `DataError`, naming it `name`, unless it is a 1-d structured array with integer fields
    `x`, `y`, `t` and `p` that our dtype can hold.
    """
    fields = getattr(getattr(recording, "dtype", None), "names", None) or ()
    if not {"x", "y", "t", "p"} <= set(fields) or recording.ndim != 1:
        raise DataError(
            f"{name} is {_described(recording)}; expected a 1-d structured array with the fields "
            "x, y (pixels), t (microseconds) and p (0 or 1), as spikeshot.make_events(x, y, t, p) "
            "returns."
        )
    for field in "xytp":
        column, kind = recording[field], EVENT_DTYPE[field]
        if column.dtype.kind not in "iub":
            raise DataError(
                f"{name}: field {field!r} is {column.dtype}; expected whole numbers"
                f"{' (microseconds)' if field == 't' else ''}. Convert it first."
            )
        limits = np.iinfo(kind)
        if column.size and not limits.min <= column.min() <= column.max() <= limits.max:
            raise DataError(
                f"{name}: field {field!r} goes from {column.min()} to {column.max()}; expected "
                f"{'0 and 1' if field == 'p' else f'at most {limits.max}'}."
            )
    return make_events(*(recording[field] for field in "xytp"))


def _described(thing: Any) -> str:
    """Return what a thing is, for a message."""
    if isinstance(thing, np.ndarray):
        return f"an array of {thing.dtype} and shape {list(thing.shape)}"
    if isinstance(thing, tuple | list):
        return f"a {type(thing).__name__} of {len(thing)}"
    return f"a {type(thing).__name__}"


def load(source: str | Path) -> TrainedLearner:
    """Return the trained learner of a run folder, a learner file, or `pretrained:NAME`.

    Raises `RunError` for an unknown name and for what is missing or damaged.
    """
    stored = open_learner(source)
    _, height, width = (int(n) for n in stored.about["frame_shape"])
    network = build_network(stored.config, (2, height, width))
    size = stored.about.get("sensor_size") or stored.config.data.sensor_size
    learner = build_learner(stored.config, network)
    return TrainedLearner(
        stored,
        network,
        learner.test or learner,
        (int(size[0]), int(size[1])) if size else None,
    )
