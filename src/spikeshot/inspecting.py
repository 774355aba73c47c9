"""What a trained learner does inside: whom it confuses, how it fires, what it costs."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from spikeshot.assemble import pose
from spikeshot.data.episodes import Episode
from spikeshot.errors import Interrupted
from spikeshot.learn.adapt import adaptation, begin, last
from spikeshot.learn.rules.rule import Moment, Params
from spikeshot.opening import Opened, data_of, opened_on
from spikeshot.snn.network import Network, forward_recorded
from spikeshot.stored import open_learner
from spikeshot.study import cost
from spikeshot.study.activity import firing_rates
from spikeshot.study.confusion import Confusion
from spikeshot.study.rasters import raster

RATE_EPISODES = 10  # over which firing rates and operations are measured


class Adapted(NamedTuple):
    """One episode, the parameters before and after its inner steps, and the predicted labels."""

    episode: Episode
    before: Params
    after: Params
    predicted: list[int]


def inspect_run(
    run: Path | str,
    *,
    split: str,
    episodes: int,
    data: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Return what a run's learner does on the first `episodes` episodes of a meta-split.

    `confusion` over all of them; `rates` and `operations`, means over the queries of the first;
    `rasters` of the first episode's first support sample; `memory` in bytes. Rates and rasters are
    there for spiking networks only. Raises `Interrupted` when `stop` says so.
    """
    stored = open_learner(run)
    opened = opened_on(
        *(stored, stored.config, *data_of(stored, stored.config, None, data)), split=split
    )
    confusion, first = Confusion(), []
    for index in range(episodes):
        if stop():
            raise Interrupted(f"stopped while {run} was looked into; the run is as it was.")
        done = _adapted(opened, opened.space.episode(index))
        labels = done.episode.query_labels.tolist()
        confusion.add(done.episode.classes, labels, done.predicted)
        if index < RATE_EPISODES:
            first.append(done)
    return {
        "split": split,
        "episodes": episodes,
        "measured_episodes": len(first),
        "seed": opened.config.seed,
        "confusion": confusion.summary(),
        **_costs(opened, first),
        **_spikes(opened, first),
    }


def _adapted(opened: Opened, episode: Episode) -> Adapted:
    learner = opened.learner.test or opened.learner
    support, query, key = pose(opened.network, episode)
    init, learned = opened.init, opened.learned
    begun = begin(learner.forward, init, learned, learner.rule, support, key=key)
    steps = adaptation(
        *(learner.forward, learner.loss, begun, learned, support, opened.steps), key=key
    )
    params, moment = last(steps), Moment(key, opened.steps)
    with torch.no_grad():
        logits = begun.rule.seen(learner.forward, moment)(params, query.frames)
    before = begun.rule.read(dict(begun.params), Moment(key, 0))
    after = begun.rule.read(dict(params), moment)
    return Adapted(episode, before, after, logits.argmax(-1).tolist())


def _costs(opened: Opened, first: list[Adapted]) -> dict[str, Any]:
    config, network, task = opened.config, opened.network, opened.space.task
    spiking = config.network.kind == "spiking"
    found = [cost.inference(network, a.after, a.episode.query, spiking=spiking) for a in first]
    once = cost.Operations(*(fmean(f) for f in zip(*map(_numbers, found), strict=True)))
    adapting = cost.adaptation(
        network,
        once,
        ways=task.ways,
        steps=opened.steps,
        time_steps=config.data.bins,
        samples=task.ways * task.shots,
        method=config.learn.method,
        prototypes=config.learn.readout_start == "prototypes",
    )
    return {
        "operations": {
            "inference": cost.described(once),
            "adaptation": cost.described(adapting),
            "inner_steps": opened.steps,
            "support": task.ways * task.shots,
        },
        "memory": cost.memory_bytes(network, task.ways),
    }


def _numbers(operations: cost.Operations) -> tuple[float, float, float]:
    return operations.macs, operations.accumulates, operations.updates


def _spikes(opened: Opened, first: list[Adapted]) -> dict[str, Any]:
    """Return firing rates and rasters, nothing of a network that does not spike."""
    network = opened.network
    if opened.config.network.kind != "spiking" or not isinstance(network, Network):
        return {}
    rates = {}
    for name, trees in (("before", [a.before for a in first]), ("after", [a.after for a in first])):
        both = zip(first, trees, strict=True)
        found = [firing_rates(network, params, a.episode.query) for a, params in both]
        layers = [fmean(layer) for layer in zip(*(f.layers for f in found), strict=True)]
        rates[name] = {"layers": layers, "overall": fmean(f.overall for f in found)}
    sample = first[0].episode.support[:, :1]
    with torch.no_grad():
        before, after = (
            forward_recorded(network, p, sample)[1] for p in (first[0].before, first[0].after)
        )
    drawn = [raster(b, a) for b, a in zip(before, after, strict=True)]
    return {"rates": rates, "rasters": drawn, "raster_class": first[0].episode.classes[0]}
