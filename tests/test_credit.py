"""Credit against closed forms, autograd by hand and the step-by-step oracle."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from networks import (
    RESETS,
    WAYS,
    random_frames,
    random_labels,
    relative_error,
    small_network,
    start,
)
from spikeshot.learn.rules.credit import Truncated, backprop
from spikeshot.learn.rules.credit_local import ErrorTriggered, LocalReadouts, local_readout
from spikeshot.learn.rules.forward import Clocked, Through
from spikeshot.learn.rules.part import above, body, last_layer
from spikeshot.learn.rules.presets import get_rule
from spikeshot.learn.rules.rule import Batch, Credit, Moment, Params
from spikeshot.learn.stopwatch import Stopwatch
from spikeshot.snn.network import Network, Readout, prepare
from spikeshot.snn.network_forward import NetworkForward
from spikeshot.snn.neuron import Reset

NOW = Moment(0, 0)
LABELS = random_labels(1)
READOUTS: tuple[Readout, ...] = ("last", "mean", "count")


def batch(network: Network) -> Batch:
    return Batch(prepare(network, random_frames(1)), LABELS)


def leaves(params: Params) -> Params:
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def credited(credit: Credit, network: Network, params: Params) -> Params:
    return credit(
        NetworkForward(network), F.cross_entropy, leaves(params), batch(network), False, NOW
    )


def readout(params: Params) -> Params:
    return {name: value for name, value in params.items() if last_layer(name)}


def error_triggered(network: Network, threshold: float) -> Params:
    params = start(network)
    forward = Through(NetworkForward(network), lambda values: params | values)
    credit = ErrorTriggered(threshold)
    return credit(forward, F.cross_entropy, readout(params), batch(network), False, NOW)


# --- activity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", READOUTS)
@pytest.mark.parametrize("reset", RESETS)
def test_engine_and_oracle_record_the_same_activity(reset: Reset, kind: Readout) -> None:
    network = small_network(reset, readout=kind, burn_in=2)
    oracle, params = replace(network, engine="oracle"), start(network)
    found, expected = (
        NetworkForward(n).recorded(params, prepare(n, random_frames(1))) for n in (network, oracle)
    )
    assert len(found.spikes) == len(expected.spikes) == 3
    for a, b in zip(
        [*found.spikes, found.logits, found.trace, found.unit],
        [*expected.spikes, expected.logits, expected.trace, expected.unit],
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    if kind != "count":
        logits = found.trace @ params["readout.weight"].T + params["readout.bias"] * found.unit
        torch.testing.assert_close(logits, found.logits)


def test_wrappers_keep_what_credit_needs() -> None:
    network, watch = small_network(), Stopwatch()
    params, frames = start(network), batch(network).frames
    plain = NetworkForward(network).last_steps(3)
    doubled = {name: 2 * value for name, value in params.items()}
    wrapped = Through(
        Clocked(NetworkForward(network), watch), lambda p: {n: 2 * v for n, v in p.items()}
    )
    short = wrapped.last_steps(3)
    assert torch.equal(short(params, frames), plain(doubled, frames))
    assert torch.equal(short.recorded(params, frames).trace, plain.recorded(doubled, frames).trace)
    assert len(short.recorded(params, frames).spikes[0]) == 3
    assert watch.seconds["forward"] > 0


# --- parts ---------------------------------------------------------------------------------------


def test_parts_by_name() -> None:
    names = ["layer0.weight", "layer1.bias", "layer10.weight", "readout.bias"]
    assert [last_layer(n) for n in names] == [False, False, False, True]
    assert [body(n) for n in names] == [True, True, True, False]
    assert [above(2)(n) for n in names] == [False, False, True, True]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", ["anil", "boil", "frozen"])
def test_a_part_has_the_gradient_of_the_whole_and_the_rest_none(
    name: str, create_graph: bool
) -> None:
    network = small_network()
    params, rule = leaves(start(network)), get_rule(name, 1.0, "fixed")
    whole = credited(backprop, network, params)
    seen = []
    for n, value in params.items():
        value.register_hook(lambda grad, n=n: seen.append(n))  # type: ignore[misc]
    found = rule.gradients(
        NetworkForward(network), F.cross_entropy, params, {}, batch(network), create_graph, NOW
    )
    assert found.keys() == {n for n in params if rule.part(n)}
    assert relative_error(found, {n: whole[n] for n in found}) < 1e-12
    assert set(seen) <= set(found)


def test_below_the_changed_part_there_is_no_graph() -> None:
    """What makes it fast: with the last layer alone the body runs as it does in evaluation."""
    network, grown = small_network(), []

    class Watched(NetworkForward):
        def __call__(self, params: Any, frames: Any) -> Any:
            activity = self.recorded(params, frames)
            grown.extend(s.requires_grad for s in activity.spikes)
            return activity.logits

    args = (F.cross_entropy, leaves(start(network)), {}, batch(network), False, NOW)
    get_rule("anil", 1.0, "fixed").gradients(Watched(network), *args)
    assert grown == [False] * 3
    get_rule("frozen", 1.0, "fixed").gradients(Watched(network), *args)
    assert grown[3:] == [False, True, True]


# --- error-triggered -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["last", "mean"])
def test_with_threshold_0_it_is_the_last_layers_gradient_of_cross_entropy(kind: Readout) -> None:
    network = small_network(readout=kind)
    expected = readout(credited(backprop, network, start(network)))
    assert relative_error(error_triggered(network, 0.0), expected) < 1e-12


@pytest.mark.parametrize("reset", RESETS)
def test_spiking_readout_units_get_error_times_the_sum_of_their_trace(reset: Reset) -> None:
    """As above, of logits that the sums of the readout's traces would give, by autograd."""
    network = small_network(reset, readout="count")
    activity = NetworkForward(network).recorded(start(network), batch(network).frames)
    values = leaves(readout(start(network)))
    linear = activity.trace @ values["readout.weight"].T + activity.unit * values["readout.bias"]
    error = activity.logits.softmax(1) - F.one_hot(LABELS, WAYS)
    (linear * error).sum().div(len(LABELS)).backward()  # type: ignore[no-untyped-call]
    expected = {n: v.grad for n, v in values.items() if v.grad is not None}
    assert relative_error(error_triggered(network, 0.0), expected) < 1e-12


def test_errors_below_the_threshold_change_nothing() -> None:
    """Row k of the update sums the samples whose output k errs by more than the threshold."""
    network = small_network()
    activity = NetworkForward(network).recorded(start(network), batch(network).frames)
    error = activity.logits.softmax(1) - F.one_hot(LABELS, WAYS)
    threshold = float(error.abs().median())
    found = error_triggered(network, threshold)["readout.weight"]
    expected = torch.zeros_like(found)
    for e, trace in zip(error, activity.trace, strict=True):
        for k in range(WAYS):
            if abs(float(e[k])) > threshold:
                expected[k] += float(e[k]) * trace / len(error)
    torch.testing.assert_close(found, expected)
    assert error_triggered(network, 1.0)["readout.weight"].abs().max() == 0


# --- local readouts ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "oracle"])
def test_each_layer_has_the_gradient_of_its_own_loss_alone(engine: Any) -> None:
    """By hand: all parameters but the layer's are constants."""
    network = replace(small_network(), engine=engine)
    params = start(network)
    found = credited(LocalReadouts(3), network, params)
    for at in range(3):
        mine = leaves({n: v for n, v in params.items() if n.startswith(f"layer{at}.")})
        spikes = NetworkForward(network).recorded(params | mine, batch(network).frames).spikes[at]
        spikes = spikes.reshape(*spikes.shape[:2], -1)
        weights = local_readout(3, at, spikes.shape[2], WAYS, torch.float64, "cpu")
        losses = [F.cross_entropy(s @ weights, LABELS) for s in spikes]
        grads = torch.autograd.grad(torch.stack(losses).mean(), list(mine.values()))
        expected = dict(zip(mine, grads, strict=True))
        assert relative_error({n: found[n] for n in mine}, expected) < 1e-12


def test_local_readouts_are_of_their_seed_and_layer_and_of_unit_variance() -> None:
    one = local_readout(3, 0, 1000, 5, torch.float64, "cpu")
    assert float(one.square().sum(0).mean()) == pytest.approx(1, abs=0.1)
    assert torch.equal(local_readout(3, 0, 1000, 5, torch.float32, "cpu"), one.float())
    assert torch.equal(local_readout(3, 0, 1000, 7, torch.float64, "cpu")[:, :5], one)
    assert not torch.equal(local_readout(4, 0, 1000, 5, torch.float64, "cpu"), one)
    assert not torch.equal(local_readout(3, 1, 1000, 5, torch.float64, "cpu"), one)


# --- truncated in time ---------------------------------------------------------------------------


def test_looking_back_over_all_steps_is_backpropagation_and_over_fewer_is_not() -> None:
    network = small_network()
    params = start(network)
    whole = credited(backprop, network, params)
    found = [credited(Truncated(k), network, params) for k in (7, 100, 2)]
    assert all(relative_error(f, whole) == 0 for f in found[:2])
    assert relative_error(found[2], whole) > 0.01


@pytest.mark.parametrize("credit", [backprop, LocalReadouts()])
@pytest.mark.parametrize("reset", RESETS)
def test_truncated_credit_is_that_of_the_oracle_cut_at_that_step(
    reset: Reset, credit: Credit
) -> None:
    network = small_network(reset, burn_in=1)
    params = start(network)
    cut = replace(network, engine="oracle", burn_in=2)
    expected = credited(credit, cut, params)
    assert relative_error(credited(Truncated(5, credit), network, params), expected) < 1e-12


def test_truncated_credit_hands_a_learned_threshold_through() -> None:
    credit = Truncated(3, ErrorTriggered(0.2, learn_threshold=True))
    learned = credit.learned(start(small_network()))
    assert float(learned["log_threshold"].exp()) == pytest.approx(0.2)
    inner = credit.using({"log_threshold": torch.tensor(0.5).log()}).credit
    assert isinstance(inner, ErrorTriggered)
    assert float(inner.threshold) == pytest.approx(0.5)
