"""Configuration becomes what learns: the learner, its start and the tasks as it takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F

from spikeshot.assemble_data import training_size
from spikeshot.assemble_rule import build_rule
from spikeshot.config import Config
from spikeshot.data.episodes import Episode, Task, TaskSpace
from spikeshot.learn.meta_gradient import RatePenalty
from spikeshot.learn.meta_train import Learner, OuterLoop, TrainState
from spikeshot.learn.rules.rule import Batch, Posed
from spikeshot.snn.network import Network, forward_with_rates
from spikeshot.study.baselines.methods import learn_by
from spikeshot.study.baselines.networks import AnyNetwork, forward_of, init_params, prepare
from spikeshot.study.baselines.transfer import batch_size

INIT_EPISODE = 2**31  # the episode whose frames set the initial scale: never one of training


def build_learner(config: Config, network: AnyNetwork) -> Learner:
    """Return what learns: the network's function of prepared frames, cross-entropy and the rule."""
    learn = config.learn
    by_rule = Learner(
        forward_of(network),
        F.cross_entropy,
        build_rule(config, network),
        learn.inner_steps,
        learn.meta_gradient,
        learn.strategy,
        learn.micro_batch,
        learn.multi_step,
        round(learn.first_order_until * config.train.iterations),
    )
    t = config.train
    if t.rate_penalty and isinstance(network, Network):
        rates = partial(forward_with_rates, network, over=t.rate_over)
        by_rule = replace(by_rule, penalty=RatePenalty(rates, t.rate_penalty, t.rate_target))
    return learn_by(
        *(learn.method, by_rule, network),
        rate=learn.rate,
        rates=learn.rates,
        penalty=learn.penalty,
    )


def build_outer_loop(config: Config) -> OuterLoop:
    """Return the outer loop's constants."""
    t = config.train
    return OuterLoop(t.iterations, t.meta_lr, t.rates_lr, t.warmup, t.clip_norm, t.average)


def start_state(
    config: Config, network: AnyNetwork, learner: Learner, space: TaskSpace, ways: int | None = None
) -> TrainState:
    """Return the state before the first iteration; its readout is for `ways` (None: training's)."""
    init = config.network.init
    params = init_params(
        network,
        ways or training_size(config).ways,
        space.episode(INIT_EPISODE).query,
        generator=torch.Generator().manual_seed(config.seed),
        activity=init.activity,
        drive_std=init.drive_std,
        readout_std=init.readout_std,
    )
    return TrainState(0, params, learner.rule.learned(params))


def training_task(config: Config, names: Sequence[str]) -> Task:
    """Return what is drawn for a training task; `names`: training classes.

    For transfer it is a batch of as many samples, from as many of the classes as it can hold.
    """
    size = training_size(config)
    if config.learn.method != "transfer":
        return size
    return Task(*batch_size(size.ways, size.shots, size.queries, len(names)))


def training_classes(config: Config, spaces: Mapping[str, TaskSpace]) -> tuple[str, ...]:
    """Return the classes that a training task's labels number, none where each has its own."""
    if config.learn.method != "transfer":
        return ()
    drawn = [spaces[name].classes for name in ("train", "simulated") if name in spaces]
    return tuple(sorted(set().union(*drawn)))


def pose_training(network: AnyNetwork, episode: Episode, classes: Sequence[str]) -> Posed:
    """Return a training task as the learner takes it.

    With `classes` it is one batch of all its samples, and the labels are places among them.
    """
    posed = pose(network, episode)
    if not classes:
        return posed
    places = {name: i for i, name in enumerate(classes)}
    label = torch.tensor([places[name] for name in episode.classes])
    support, query, _ = posed
    frames = torch.cat([support.frames, query.frames], 1)
    batch = Batch(frames, label[torch.cat([support.labels, query.labels])])
    return Posed(batch, batch, episode.key)


def pose(network: AnyNetwork, episode: Episode) -> Posed:
    """Return an episode as the learner takes it, prepared for the network."""
    return Posed(
        Batch(prepare(network, episode.support), episode.support_labels),
        Batch(prepare(network, episode.query), episode.query_labels),
        episode.key,
    )
