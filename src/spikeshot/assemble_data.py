"""Configuration becomes data: recordings, the meta-split and spaces of tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from spikeshot.config import Config
from spikeshot.data.augment import Augmentation
from spikeshot.data.class_splits import split_classes
from spikeshot.data.corpora import READING, Request, get_corpus, load_corpus
from spikeshot.data.episodes import Task, TaskSpace
from spikeshot.data.frames import FrameSpec
from spikeshot.data.packs import Progress
from spikeshot.data.pairs import all_pairs, parts_of
from spikeshot.data.recordings import Recordings, join
from spikeshot.data.splits import (
    SPLITS,
    MetaSplit,
    free_classes,
    indices_by_class,
    origins_by_class,
    split_origins,
)
from spikeshot.errors import ConfigError, DataError


@dataclass(frozen=True)
class Source:
    """The recordings of a run, simulated ones for pre-training if any, and the meta-split.

    `simulated_classes`: those that meta-training draws from the simulated ones, and of all of these
    the `simulated_digest`. `turned`: of turned classes of meta-training, and for it only.
    """

    recordings: Recordings
    split: MetaSplit
    simulated: Recordings | None = None
    simulated_classes: tuple[str, ...] = ()
    turned: Recordings | None = None
    simulated_digest: str = ""

    @property
    def training(self) -> Recordings:
        """What meta-training draws from: the recordings, turned ones too."""
        return join(self.recordings, self.turned) if self.turned else self.recordings

    @property
    def turned_classes(self) -> tuple[str, ...]:
        """The turned classes, which meta-training has beside those of the split."""
        return self.turned.classes if self.turned else ()


def frame_spec(config: Config) -> FrameSpec:
    """Return how events become frames."""
    d = config.data
    crop = get_corpus(d.corpus).crop if d.crop == "auto" else d.crop
    return FrameSpec(crop, d.downsample, d.dt_us, d.bins, d.start_us, d.clip, d.stretch)


def augmentation(config: Config) -> Augmentation:
    """Return how meta-training recordings are changed."""
    return Augmentation(**config.data.augment.model_dump())


def load_recordings(
    config: Config,
    corpus: str,
    path: Path | None,
    *,
    turned: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Recordings:
    """Return the recordings of `corpus` (in a run: `config.data.corpus`), or of classes `turned`.

    The latter are the classes of these names as they are when turned by right angles. `progress`
    hears of packing.
    """
    d = config.data
    until_us = None if d.stretch else frame_spec(config).end_us + augmentation(config).reach_us
    request = Request(path, config.seed, until_us, turned, progress=progress)
    if corpus == d.corpus:  # what `digits` for pre-training does not heed
        request = replace(request, **{key: getattr(d, key) for key in READING})
    recordings = load_corpus(corpus, request)
    if d.first_image > 1 and not get_corpus(corpus).needs_path:
        recordings = _from_image(recordings, d.first_image)
    return recordings


def load_source(config: Config, path: Path | None, progress: Progress | None = None) -> Source:
    """Load the recordings of a new run and split them; `progress` hears of packing."""
    d = config.data
    load = partial(load_recordings, config, progress=progress)
    recordings = load(d.corpus, path)
    classes = split_classes(
        d.split, d.corpus, recordings.classes, d.classes, d.class_fractions, config.seed
    )
    if d.classes == "double":
        origins = split_origins(recordings, d.recording_fractions, config.seed)
    else:
        origins = origins_by_class(recordings, classes)
    split = MetaSplit(classes, origins)
    split.require_disjoint()
    turned = None
    if d.turns:
        turned = load(d.corpus, path, turned=frozenset(classes["train"]))
    source = Source(recordings, split, turned=turned)
    wanted = d.simulated.share or d.simulated.mix
    return _with_simulated(config, source, path, load) if wanted else source


def training_size(config: Config) -> Task:
    """Return the size of a task of meta-training."""
    t = config.train
    return Task(t.ways or config.task.ways, config.task.shots, t.queries or config.task.queries)


def validation_size(config: Config) -> Task:
    """Return the size of a task of meta-validation."""
    t = config.task
    return Task(config.train.validation_ways or t.ways, t.shots, t.queries)


def is_simulated(config: Config, index: int, place: int | None = None) -> bool:
    """Return whether training task `index`, at `place` of the schedules, is a simulated one."""
    s, t = config.data.simulated, config.train
    if (index // t.meta_batch if place is None else place) < s.share * t.iterations:
        return True
    return bool(s.mix) and np.random.default_rng([config.seed, index, _MIX]).random() < s.mix


_MIX = 0x51B  # sets this random stream apart from those of `data/episodes.py`


def _with_simulated(
    config: Config, source: Source, path: Path | None, load: Callable[..., Recordings]
) -> Source:
    """Return the source with simulated recordings, none of a class or origin that is held out."""
    s, split = config.data.simulated, source.split
    corpus = get_corpus(s.corpus)
    simulated: Recordings = load(s.corpus, path if corpus.needs_path else None)
    source = replace(source, simulated_digest=simulated.digest)  # a pack knows its own
    if not corpus.needs_path:
        simulated = _from_image(simulated, s.first_image)
    if simulated.sensor_size != source.recordings.sensor_size:
        raise ConfigError(
            f"data.simulated.corpus is {s.corpus!r}, of {simulated.sensor_size} pixels, but corpus "
            f"{config.data.corpus!r} has {source.recordings.sensor_size}; expected the same. Take "
            "another, or set data.simulated.share=0 and data.simulated.mix=0."
        )
    if config.data.classes == "double":  # pairs: as real ones, of parts that may be simulated
        split = split.with_training(simulated.origins)
        classes = split.classes["train"]
        return replace(source, split=split, simulated=simulated, simulated_classes=classes)
    task = training_size(config)
    names = free_classes(simulated, split, task.shots + task.queries)
    mine = np.array([i for i, name in enumerate(simulated.classes) if name in names], np.int64)
    simulated = simulated.subset(np.flatnonzero(np.isin(simulated.labels, mine)))
    split = split.with_training(simulated.origins)
    if config.data.turns and corpus.turns:
        turned: Recordings = load(s.corpus, path, turned=names)
        source = replace(source, simulated_digest=f"{source.simulated_digest}+{turned.digest}")
        simulated = join(simulated, turned)
        names = names.union(turned.classes)
    classes = tuple(sorted(names))
    return replace(source, split=split, simulated=simulated, simulated_classes=classes)


def _from_image(recordings: Recordings, first: int) -> Recordings:
    """Keep recordings of MNIST training images number `first` and later."""
    keep = [
        i
        for i, origin in enumerate(recordings.origins)
        if origin.startswith("train/") and int(origin.removeprefix("train/")) >= first
    ]
    return recordings.subset(np.asarray(keep, np.int64))


def task_space(
    config: Config,
    recordings: Recordings,
    split: MetaSplit,
    name: str,
    *,
    augment: bool = False,
    overlap: float = 0.0,
    task: Task | None = None,
    turned: Sequence[str] = (),
    classes: Sequence[str] | None = None,
) -> TaskSpace:
    """Return the task space of meta-split `name`; `task` defaults to the configuration's.

    `augment`: with the configuration's augmentation; `overlap`: share of tasks whose classes share
    parts; `turned`: further classes; `classes`: other ones than the split's. They are for training;
    evaluation leaves them out.
    """
    names = split.classes[name] if classes is None else classes
    t = config.task
    return TaskSpace(
        recordings,
        {c: _parts(config, c) for c in (*names, *turned)},
        indices_by_class(recordings, split, name),
        split=name,
        seed=config.seed,
        task=task or Task(t.ways, t.shots, t.queries),
        spec=frame_spec(config),
        augmentation=augmentation(config) if augment else None,
        overlap=overlap,
        drawers=[_drawer(o) for o in recordings.origins] if config.data.by_drawer else (),
    )


def split_of_others(config: Config, split: MetaSplit, recordings: Recordings) -> MetaSplit:
    """Return a learner's split as it is for recordings other than those it was trained on.

    Classes that the split has never seen (a pair: with a part that it has never seen) are test
    classes too; test classes of which there is no recording left are none. Raises `DataError` where
    no test class remains.
    """
    seen = {part for name in SPLITS for c in split.classes[name] for part in _parts(config, c)}
    names = recordings.classes
    if set(names) - seen and config.data.classes == "double":
        names = all_pairs(names)
    unseen = [c for c in names if set(_parts(config, c)) - seen]
    there = {c for c, mine in indices_by_class(recordings, split, "test").items() if mine}
    test = tuple(
        c for c in (*split.classes["test"], *unseen) if there.issuperset(_parts(config, c))
    )
    if not test:
        raise DataError(
            f"none of the {len(recordings)} recordings is of a test class and unseen: the learner "
            "was trained or validated on all others. Give recordings that it has not seen."
        )
    return replace(split, classes={**split.classes, "test": test})


def _drawer(origin: str) -> str:
    """Return the last part of an origin, as Omniglot's drawings are named: `07`, `0003_07`."""
    return origin.rsplit("/", 1)[-1].rsplit("_", 1)[-1]


def _parts(config: Config, name: str) -> tuple[str, ...]:
    return parts_of(name) if config.data.classes == "double" else (name,)
