"""The penalty on firing rates in the outer loop: its value by hand, its gradient by differences."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from networks import (
    WAYS,
    random_frames,
    random_labels,
    relative_error,
    slopes,
    small_network,
    start,
)
from spikeshot.errors import ConfigError
from spikeshot.learn.adapt import adapt
from spikeshot.learn.meta_gradient import RatePenalty, meta_gradient
from spikeshot.learn.rules.presets import get_rule
from spikeshot.learn.rules.rule import Batch
from spikeshot.snn.network import forward, forward_recorded, forward_with_rates, prepare
from spikeshot.study.activity import firing_rates

SUPPORT = Batch(random_frames(1), random_labels(1))
QUERY = Batch(random_frames(2), random_labels(2))


def task(network, weight=5.0, target=0.02, over="layers"):
    rule, init = get_rule("sgd", 0.3, "tensor"), start(network)
    support, query = (Batch(prepare(network, b.frames), b.labels) for b in (SUPPORT, QUERY))
    return {
        "forward": partial(forward_logits, network),
        "loss": F.cross_entropy,
        "init": init,
        "learned": rule.transform.learned(init),
        "rule": rule,
        "support": support,
        "query": query,
        "steps": 2,
        "penalty": RatePenalty(partial(forward_with_rates, network, over=over), weight, target),
    }


def forward_logits(network, params, prepared):
    return forward_with_rates(network, params, prepared)[0]


def test_the_penalty_by_hand():
    """Rates .1 and .3, .2 and .5 over a target of .2: excesses 0, .1, 0, .3."""
    rates = torch.tensor([[0.1, 0.3], [0.2, 0.5]], dtype=torch.float64)
    found = RatePenalty(None, 2.0, 0.2).of(rates)
    assert float(found) == pytest.approx(2 * (0.1**2 + 0.3**2) / 4)


@pytest.mark.parametrize("burn_in", [0, 2])
def test_rates_are_the_spikes_counted(burn_in):
    network = small_network(burn_in=burn_in)
    params, frames = start(network), random_frames(3)
    logits, rates = forward_with_rates(network, params, prepare(network, frames))
    torch.testing.assert_close(logits, forward(network, params, frames))
    spikes = forward_recorded(network, params, frames)[1]
    for layer, s in enumerate(spikes):
        for sample in range(4):
            assert float(rates[sample, layer]) == pytest.approx(float(s[:, sample].mean()))
    oracle = replace(network, engine="oracle")
    again = forward_with_rates(oracle, params, prepare(oracle, frames))[1]
    torch.testing.assert_close(again, rates)


@pytest.mark.parametrize("pool_where", ["before", "after"])
def test_the_rate_over_all_neurons_is_that_of_every_spike(pool_where):
    """As a study counts it: a pooled value after the spike stands for its window of neurons."""
    network = small_network(pool_where=pool_where)
    params, frames = start(network), random_frames(3)
    for sample in range(4):
        one = frames[:, sample : sample + 1]
        _, rate = forward_with_rates(network, params, prepare(network, one), over="neurons")
        assert rate.shape == (1, 1)
        assert float(rate) == pytest.approx(firing_rates(network, params, one).overall)
    layers = forward_with_rates(network, params, prepare(network, frames))[1]
    assert len({round(float(r), 6) for r in layers.mean(0)}) > 1  # else any weights would do


@pytest.mark.parametrize("over", ["layers", "neurons"])
def test_exact_against_central_differences_on_the_soft_twin(over):
    """Of loss plus penalty after adaptation, along a random direction of weights and rates."""
    network = small_network(surrogate="sigmoid").soft_twin()  # its primitive is positive, as spikes
    t = task(network, over=over)
    found = meta_gradient(**t)

    def value(init, learned):
        rest = (t["rule"], t["support"], t["steps"])
        adapted = adapt(t["forward"], t["loss"], init, learned, *rest)
        with torch.no_grad():
            logits, rates = forward_with_rates(network, adapted, t["query"].frames, over=over)
            extra = 5.0 * F.relu(rates - 0.02).square().mean()
            return float(F.cross_entropy(logits, QUERY.labels) + extra)

    assert float(found.loss) == pytest.approx(value(t["init"], t["learned"]))
    slope, expected = slopes(t, found, value)
    without = meta_gradient(**t | {"penalty": None})
    assert relative_error(without.init, found.init) > 0.05  # the penalty counts
    assert abs(slope - expected) / abs(slope) < 1e-6


@pytest.mark.parametrize(
    "way", [{"strategy": "remat"}, {"strategy": "double_backward"}, {"micro_batch": 3}]
)
def test_every_strategy_and_micro_batches_give_the_same(way):
    t = task(small_network())
    found, expected = meta_gradient(**t, **way), meta_gradient(**t)
    assert relative_error(found.init, expected.init) < 1e-12
    assert relative_error(found.learned, expected.learned) < 1e-12
    torch.testing.assert_close(found.loss.double(), expected.loss.double())


def test_a_target_that_is_never_passed_changes_nothing():
    t = task(small_network(), target=1.0)
    found, expected = meta_gradient(**t), meta_gradient(**t | {"penalty": None})
    assert relative_error(found.init, expected.init) < 1e-12


def test_descending_the_penalty_lowers_the_rates():
    t = task(small_network(), weight=1000.0)
    network = t["penalty"].forward.args[0]
    g = meta_gradient(**t | {"steps": 0})
    after = {
        n: v - 1e-2 * g.init[n] / g.init[n].norm().clamp(min=1e-9) for n, v in t["init"].items()
    }
    before_rates = forward_with_rates(network, t["init"], t["query"].frames)[1]
    after_rates = forward_with_rates(network, after, t["query"].frames)[1]
    assert float(after_rates.mean()) < float(before_rates.mean())
    assert len(t["init"]["readout.bias"]) == WAYS


def test_a_run_trains_with_it_and_no_other_network_does(tmp_path, tiny_yaml, fake_zip):
    from spikeshot import jobs
    from spikeshot.config import load_config

    keys = ["train.rate_penalty=10", "train.rate_target=0.05", "train.iterations=2"]
    found = jobs.train(load_config(str(tiny_yaml), keys), tmp_path / "run", data=fake_zip)
    plain = jobs.train(load_config(str(tiny_yaml), keys[2:]), tmp_path / "plain", data=fake_zip)
    other = jobs.train(
        load_config(str(tiny_yaml), [*keys, "train.rate_over=neurons"]),
        tmp_path / "over",
        data=fake_zip,
    )
    assert len({found["loss"], plain["loss"], other["loss"]}) == 3
    with pytest.raises(ConfigError, match=r"rate_penalty is 10.*leaky does not fire"):
        load_config(str(tiny_yaml), [*keys, "network.kind=leaky"])
