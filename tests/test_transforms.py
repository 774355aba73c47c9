"""Transforms against values worked out by hand, and what the meta-gradient sees of them."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from networks import random_frames, random_labels, relative_error, small_network, start
from spikeshot.errors import ConfigError
from spikeshot.learn.meta_gradient import meta_gradient
from spikeshot.learn.rules.compose import UpdateSpec, compose, equip
from spikeshot.learn.rules.credit import backprop
from spikeshot.learn.rules.rule import Batch, Moment
from spikeshot.learn.rules.transform import DescendAtRate, chain
from spikeshot.learn.rules.transform_limits import Clip, ClipNorm, Sparsify
from spikeshot.learn.rules.transform_memory import KeepBack, Momentum
from spikeshot.learn.rules.transform_precision import Levels, Sign
from spikeshot.snn.network import forward

NOW = Moment(3, 0)


def run(link: Any, *rows: list[float], learned: Any = None, moment: Moment = NOW) -> list[Any]:
    """Return the updates of gradients `rows` of one tensor, one step after the other."""
    state = link.init({"a": torch.zeros(len(rows[0])).double()})
    found = []
    for step, row in enumerate(rows):
        now = Moment(moment.key, moment.step + step)
        updates, state = link.update(
            {"a": torch.tensor(row, dtype=torch.float64)}, state, learned or {}, now
        )
        found.append(pytest.approx(updates["a"].tolist(), abs=1e-12))
    return found


# --- one step by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "grads", "updates"),
    [
        (Sign("one"), [0.5, -2.0, 0.0], [1, -1, 0]),
        (Sign("mean"), [0.5, -2.5, 0.0], [1.5, -1.5, 0]),
        (Sign("one", threshold=0.5), [3.0, -1.0, 3.0, 1.0], [1, 0, 1, 0]),  # rms 2.24
        (Sign("mean", threshold=0.5), [3.0, -1.0, 5.0, 1.0], [4, 0, 4, 0]),  # rms 3
        (Levels(2), [4.0, -1.9, 2.1, 0.0], [4, 0, 4, 0]),
        (Levels(3), [3.0, -1.6, 0.4, -3.0], [3, -2, 0, -3]),
        (Levels(4), [0.0, 0.0], [0, 0]),
        (Clip(1.0), [0.5, -3.0], [0.5, -1.0]),
        (ClipNorm(1.0), [3.0, 4.0], [0.6, 0.8]),
        (ClipNorm(10.0), [3.0, 4.0], [3.0, 4.0]),
        (Sparsify(0.5, "largest"), [1.0, -4.0, 2.0, 0.5], [0, -4, 2, 0]),
        (Sparsify(0.5, "largest", True), [1.0, -4.0, 2.0, 0.5], [0, -8, 4, 0]),
        (DescendAtRate(0.1), [1.0, -2.0], [-0.1, 0.2]),
    ],
)
def test_one_step_by_hand(link: Any, grads: list[float], updates: list[float]) -> None:
    assert [updates] == run(link, grads)


def test_momentum_adds_up() -> None:
    assert run(Momentum(0.5), [1.0], [1.0], [0.0]) == [[1.0], [1.5], [0.75]]


def test_small_updates_are_kept_back_until_they_matter() -> None:
    """Above 1.2 root mean squares: the second number waits, then passes on whole."""
    rows = [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]]  # rms 1.29, 0.58, 1.73
    assert run(KeepBack(1.2), *rows) == [[2, 0, 0], [0, 2, 0], [0, 0, 3]]


def test_a_random_share_is_kept_and_its_mean_with_rescaling() -> None:
    ones = [1.0] * 20_000
    (found,) = run(Sparsify(0.25, rescale=True), ones)
    values = torch.tensor(found.expected)
    assert set(values.tolist()) == {0.0, 4.0}
    assert abs(float((values > 0).double().mean()) - 0.25) < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    assert run(Sparsify(0.25), ones) != run(Sparsify(0.25), ones, moment=Moment(3, 1))


def test_stochastic_levels_keep_the_mean() -> None:
    """0.3 of the step between 0 and 1, 20,000 times, beside one gradient that sets the step."""
    (found,) = run(Levels(2, "stochastic"), [1.0] + [0.3] * 20_000)
    values = torch.tensor(found.expected[1:])
    assert set(values.tolist()) == {0.0, 1.0}
    assert abs(float(values.mean()) - 0.3) < 5 * (0.3 * 0.7 / 20_000) ** 0.5


# --- learned rates -------------------------------------------------------------------------------


def test_rates_per_step_and_the_last_one_beyond_the_trained_steps() -> None:
    link = DescendAtRate(0.1, "step", 2)
    learned = link.learned({"a": torch.zeros(1).double()})
    assert learned["log_rates.a"].shape == (2,)
    learned = {"log_rates.a": torch.tensor([0.1, 0.5], dtype=torch.float64).log()}
    assert run(link, [1.0], [1.0], [1.0], learned=learned) == [[-0.1], [-0.5], [-0.5]]


def test_rates_per_parameter_start_at_the_rate_and_may_be_negative() -> None:
    """Meta-SGD (Li et al. 2017): the rates' vector has the parameters' shape, any sign."""
    link = DescendAtRate(0.1, "parameter")
    learned = link.learned({"a": torch.zeros(2).double()})
    assert run(link, [1.0, 2.0], learned=learned) == [[-0.1, -0.2]]
    learned = {"rate_factor.a": torch.tensor([2.0, -1.0]).double()}
    assert run(link, [1.0, 2.0], learned=learned) == [[-0.2, 0.2]]


def test_a_longer_chain_keeps_the_learned_names_and_no_name_twice() -> None:
    params = {"a": torch.zeros(1)}
    rates = DescendAtRate(0.1, "tensor")
    assert chain(Sign(), Momentum(0.5), rates).learned(params) == rates.learned(params)
    with pytest.raises(ConfigError, match=r"learn 'log_rate.a'"):
        chain(rates, rates).learned(params)


def test_with_nothing_asked_for_the_rule_is_the_same() -> None:
    rule = compose(backprop, 0.3)
    assert equip(rule, updates=UpdateSpec()) == rule


# --- meta-gradients ------------------------------------------------------------------------------


def task(updates: UpdateSpec, kind: Any = "tensor", network: Any = None) -> dict[str, Any]:
    network = network or small_network()
    init, rule = start(network), compose(backprop, 0.3, kind, 2, updates=updates)
    return {
        "forward": partial(forward, network),
        "loss": F.cross_entropy,
        "init": init,
        "learned": rule.transform.learned(init),
        "rule": rule,
        "support": Batch(random_frames(1), random_labels(1)),
        "query": Batch(random_frames(2), random_labels(2)),
        "steps": 3,
        "key": 9,
    }


SMOOTH = UpdateSpec(clip_norm=0.5, momentum=0.7, keep=0.6, keep_rescale=True)
ALL = UpdateSpec(
    clip=0.5,
    momentum=0.5,
    keep=0.7,
    keep_back=0.5,
    levels="bits",
    bits=4,
    rounding="stochastic",
)


@pytest.mark.parametrize("kind", ["tensor", "step", "parameter"])
def test_smooth_links_against_central_differences_on_the_soft_twin(kind: Any) -> None:
    """Along a random direction of all weights and learned values; eps 1e-6, float64."""
    t = task(SMOOTH, kind, small_network(surrogate="arctan").soft_twin())
    found = meta_gradient(**t)
    g = torch.Generator().manual_seed(4)
    ways = {
        group: {n: torch.randn(v.shape, generator=g).double() for n, v in t[group].items()}
        for group in ("init", "learned")
    }

    def loss(eps: float) -> float:
        moved = {g: {n: v + eps * ways[g][n] for n, v in t[g].items()} for g in ways}
        return float(meta_gradient(**(t | moved)).loss)

    slope = sum(float((found.init[n] * w).sum()) for n, w in ways["init"].items())
    slope += sum(float((found.learned[n] * w).sum()) for n, w in ways["learned"].items())
    assert abs(slope) > 1e-3
    assert slope == pytest.approx((loss(1e-6) - loss(-1e-6)) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("strategy", ["split", "remat"])
@pytest.mark.parametrize("spec", [SMOOTH, ALL], ids=["smooth", "all"])
def test_strategies_agree_with_states_and_random_parts(spec: UpdateSpec, strategy: Any) -> None:
    t = task(spec, "step")
    found = meta_gradient(**t, strategy=strategy)
    expected = meta_gradient(**t, strategy="double_backward")
    assert relative_error(found.init, expected.init) < 1e-12
    assert relative_error(found.learned, expected.learned) < 1e-12
    again = meta_gradient(**t, strategy=strategy)
    assert all(torch.equal(found.init[n], again.init[n]) for n in found.init)


@pytest.mark.parametrize("size", ["mean", "one"])
def test_signs_without_derivative_leave_the_first_order(size: Any) -> None:
    """Fan et al. 2021: with a sign that has no derivative, MAML is its first-order variant."""
    t = task(UpdateSpec(levels="sign", size=size, derivative="zero"))
    exact, first = meta_gradient(**t), meta_gradient(**t, kind="first_order")
    assert relative_error(exact.init, first.init) < 1e-12
    through = task(UpdateSpec(levels="sign", size=size))
    assert relative_error(meta_gradient(**through).init, first.init) > 1e-2
