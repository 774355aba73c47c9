"""Configuration becomes objects: recordings, meta-split, task spaces, network and learner."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from spikeshot.config import Config
from spikeshot.data.augment import Augmentation
from spikeshot.data.class_splits import split_classes
from spikeshot.data.corpora import READING, Request, get_corpus, load_corpus
from spikeshot.data.episodes import Episode, Task, TaskSpace
from spikeshot.data.frames import FrameSpec
from spikeshot.data.pairs import all_pairs, parts_of
from spikeshot.data.recordings import Recordings, join
from spikeshot.data.splits import (
    SPLITS,
    MetaSplit,
    indices_by_class,
    origins_by_class,
    split_origins,
)
from spikeshot.errors import ConfigError, DataError
from spikeshot.learn.meta_train import Learner, OuterLoop, TrainState
from spikeshot.learn.rules.presets import get_rule
from spikeshot.learn.rules.rule import Batch, Params, Posed
from spikeshot.snn.init import init_params
from spikeshot.snn.layer import Layer, LayerStyle
from spikeshot.snn.network import Network, forward_prepared, prepare
from spikeshot.snn.neuron import Neuron
from spikeshot.snn.surrogate import get_surrogate

INIT_EPISODE = 2**31  # the episode whose frames set the initial scale: never one of training


@dataclass(frozen=True)
class Source:
    """The recordings of a run, simulated ones for pre-training if any, and the meta-split.

    `turned`: recordings of turned classes, of those of meta-training only and for it only.
    """

    recordings: Recordings
    split: MetaSplit
    simulated: Recordings | None = None
    turned: Recordings | None = None

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
    return FrameSpec(d.crop, d.downsample, d.dt_us, d.bins, d.start_us, d.clip, d.stretch)


def augmentation(config: Config) -> Augmentation:
    """Return how meta-training recordings are changed."""
    return Augmentation(**config.data.augment.model_dump())


def load_recordings(
    config: Config, corpus: str, path: Path | None, *, turned: frozenset[str] = frozenset()
) -> Recordings:
    """Return the recordings of `corpus` (in a run: `config.data.corpus`), or of classes `turned`.

    The latter are the classes of these names as they are when turned by right angles.
    """
    d = config.data
    until_us = None if d.stretch else frame_spec(config).end_us + augmentation(config).reach_us
    request = Request(path, config.seed, until_us, turned)
    if corpus == d.corpus:  # what `digits` for pre-training does not heed
        request = replace(request, **{key: getattr(d, key) for key in READING})
    recordings = load_corpus(corpus, request)
    if d.first_image > 1 and not get_corpus(corpus).needs_path:
        recordings = _from_image(recordings, d.first_image)
    return recordings


def load_source(config: Config, path: Path | None) -> Source:
    """Load the recordings of a new run and split them."""
    d = config.data
    recordings = load_recordings(config, d.corpus, path)
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
        turned = load_recordings(config, d.corpus, path, turned=frozenset(classes["train"]))
    if not d.simulated.share:
        return Source(recordings, split, turned=turned)
    simulated = _from_image(load_recordings(config, "digits", None), d.simulated.first_image)
    return Source(recordings, split.with_training(simulated.origins), simulated, turned)


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
) -> TaskSpace:
    """Return the task space of meta-split `name`; `task` defaults to the configuration's.

    `augment`: with the configuration's augmentation; `overlap`: share of tasks whose classes share
    parts; `turned`: further classes. They are for training; evaluation leaves them out.
    """
    t = config.task
    return TaskSpace(
        recordings,
        {c: _parts(config, c) for c in (*split.classes[name], *turned)},
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


def build_network(config: Config, frame_shape: tuple[int, int, int]) -> Network:
    """Return the network for frames `(2, H, W)`.

    Raises `ConfigError` for a surrogate that exact second order cannot differentiate twice.
    """
    n, nc = config.network, config.network.neuron
    surrogate = get_surrogate(nc.surrogate)
    if not surrogate.twice_differentiable and config.learn.meta_gradient == "exact":
        raise ConfigError(
            f"network.neuron.surrogate is {nc.surrogate!r}, which is not twice differentiable, but "
            "learn.meta_gradient is 'exact' (second order). Choose another surrogate, as "
            "fast_sigmoid, or learn.meta_gradient=first_order."
        )
    alpha, beta, reset_decay = nc.decays(config.data.dt_us)
    neuron = Neuron(
        alpha,
        beta,
        reset_decay,
        nc.threshold,
        nc.reset,
        nc.delay,
        nc.surrogate,
        nc.sharpness,
    )
    return Network(
        frame_shape,
        tuple(Layer(layer.units, layer.kernel, layer.pool) for layer in n.layers),
        LayerStyle(neuron, n.pool_kind, n.pool_where),
        n.readout,
        n.burn_in,
        n.input_gain,
        config.engine,
    )


def build_learner(config: Config, network: Network) -> Learner:
    """Return what learns: the network's function of prepared frames, cross-entropy and the rule."""
    learn = config.learn
    rule = get_rule(learn.rule, learn.rate, learn.rates)
    return Learner(
        partial(forward_prepared, network),
        F.cross_entropy,
        rule,
        learn.inner_steps,
        learn.meta_gradient,
        learn.strategy,
        learn.micro_batch,
    )


def build_outer_loop(config: Config) -> OuterLoop:
    """Return the outer loop's constants."""
    t = config.train
    return OuterLoop(t.iterations, t.meta_lr, t.rates_lr, t.warmup, t.clip_norm, t.average)


def start_state(config: Config, network: Network, learner: Learner, space: TaskSpace) -> TrainState:
    """Return the state before the first iteration."""
    init = config.network.init
    params = init_params(
        network,
        config.task.ways,
        space.episode(INIT_EPISODE).query,
        generator=torch.Generator().manual_seed(config.seed),
        activity=init.activity,
        drive_std=init.drive_std,
        readout_std=init.readout_std,
    )
    return TrainState(0, params, learner.rule.transform.learned(params))


def pose(network: Network, episode: Episode) -> Posed:
    """Return an episode as the learner takes it, prepared for the network."""
    return Posed(
        Batch(prepare(network, episode.support), episode.support_labels),
        Batch(prepare(network, episode.query), episode.query_labels),
        episode.key,
    )


def resize_readout(params: Params, ways: int) -> Params:
    """Return the parameters with a readout for another number of ways.

    Every new row is the mean of the meta-trained rows: no way is preferred before adaptation.
    """
    resized = dict(params)
    if len(params["readout.bias"]) != ways:
        for name in ("readout.weight", "readout.bias"):
            mean = params[name].mean(0, keepdim=True)
            resized[name] = mean.expand(ways, *mean.shape[1:]).clone()
    return resized
