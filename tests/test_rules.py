"""Every rule of the registry: it learns, leaves the rest alone, and its meta-gradient is true."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from networks import random_frames, random_labels, relative_error, slopes, small_network, start
from rule_cases import CASES, NAMES, STARTED, Case, case_of, reached
from spikeshot.config_learn import RATES_OF_RULE
from spikeshot.errors import ConfigError
from spikeshot.learn.adapt import adapt
from spikeshot.learn.meta_gradient import MetaGradient, meta_gradient
from spikeshot.learn.rules.compose import UpdateSpec, equip
from spikeshot.learn.rules.devices import DeviceSpec
from spikeshot.learn.rules.presets import RULES, CreditOptions, get_rule
from spikeshot.learn.rules.quantise import WeightSpec
from spikeshot.learn.rules.rule import Batch, Moment, Params, Rule
from spikeshot.learn.rules.start import Prototypes
from spikeshot.snn.network import Network, prepare
from spikeshot.snn.network_forward import NetworkForward

every_rule = pytest.mark.parametrize(
    "name", [name + start for name in sorted(RULES) for start in ("", STARTED)]
)


def rule_of(name: str, steps: int = 2) -> Rule:
    case = case_of(name)
    options = CreditOptions(**case.options)
    rule = get_rule(name.removesuffix(STARTED), case.rate, case.rates, options, steps=steps)
    return replace(rule, start=Prototypes(gain=100.0)) if name.endswith(STARTED) else rule


def task(
    name: str, network: Network | None = None, steps: int = 2, dtype: torch.dtype = torch.float64
) -> dict[str, Any]:
    """Return the arguments of `meta_gradient` for one small task."""
    network = network or small_network(surrogate="arctan")
    rule, init = rule_of(name, steps), {n: v.to(dtype) for n, v in start(network).items()}
    if network.style.neuron.soft:
        if hasattr(rule.credit, "soft_twin"):
            rule = replace(rule, credit=rule.credit.soft_twin())
        if rule.start:  # the traces of the soft twin lie close together
            rule = replace(rule, start=Prototypes(gain=3000.0))
    support, query = (
        Batch(prepare(network, random_frames(seed).to(dtype)), random_labels(seed))
        for seed in (1, 2)
    )
    assert set(support.labels.tolist()) == {0, 1, 2}
    return {
        "forward": NetworkForward(network),
        "loss": F.cross_entropy,
        "init": init,
        "learned": rule.learned(init),
        "rule": rule,
        "support": support,
        "query": query,
        "steps": steps,
        "key": 5,
    }


def adapted(t: dict[str, Any], key: int = 5, steps: int | None = None) -> Params:
    names = ("forward", "loss", "init", "learned", "rule", "support")
    return adapt(*(t[name] for name in names), t["steps"] if steps is None else steps, key=key)


def seen_loss(t: dict[str, Any], batch: Batch, params: Params, step: int) -> float:
    with torch.no_grad():
        forward = t["rule"].seen(t["forward"], Moment(t["key"], step))
        return float(t["loss"](forward(params, batch.frames), batch.labels))


def layer(name: str) -> str:
    return name.split(".")[0]


@cache
def exact(name: str, strategy: Any = "split", steps: int = 3) -> MetaGradient:
    return meta_gradient(**task(name, steps=steps), strategy=strategy)


def test_the_registry_is_not_empty_and_every_rule_declares_itself() -> None:
    assert len(RULES) > 5
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 3])
def test_it_learns_the_support(name: str, steps: int, dtype: torch.dtype) -> None:
    t = task(name, steps=steps, dtype=dtype)
    after = adapted(t)
    assert {v.dtype for v in after.values()} == {dtype}
    before = seen_loss(t, t["support"], adapted(t, steps=0), 0)
    assert seen_loss(t, t["support"], after, steps) < before - 0.01


@every_rule
def test_it_changes_what_it_declares_and_leaves_the_rest_bit_for_bit(name: str) -> None:
    t = task(name, steps=3)
    after, before = adapted(t), adapted(t, steps=0)
    moved = {layer(n) for n in after if not torch.equal(after[n], before[n])}
    assert moved == set(case_of(name).changes)
    assert list(after) == list(t["init"])


@every_rule
def test_the_same_key_gives_the_same_and_another_only_where_it_is_random(name: str) -> None:
    t = task(name)
    first, again, other = adapted(t), adapted(t), adapted(t, key=6)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert all(torch.equal(first[n], other[n]) for n in first) is not case_of(name).random


@every_rule
@pytest.mark.parametrize("strategy", ["split", "remat"])
def test_strategies_equal_double_backward(name: str, strategy: str) -> None:
    found, expected = exact(name, strategy), exact(name, "double_backward")
    assert relative_error(found.init, expected.init) < 1e-11
    assert relative_error(found.learned, expected.learned) < 1e-11
    torch.testing.assert_close(found.loss, expected.loss)


@every_rule
def test_it_reaches_exactly_the_meta_parameters_it_declares(name: str) -> None:
    """All of the start (what inner steps leave alone too), the rates of what they change.

    A readout that starts as prototypes has nothing to meta-learn but its gain.
    """
    case, found = case_of(name), exact(name)
    assert {layer(n) for n, g in found.init.items() if g.abs().max() > 0} == reached(name)
    shapes = {"tensor": lambda v: [], "step": lambda v: [3], "parameter": lambda v: v.shape}
    rates = {
        f"{NAMES[case.rates]}.{n}": list(shapes[case.rates](v))
        for n, v in found.init.items()
        if layer(n) in case.changes
    }
    assert found.learned.keys() == rates.keys() | set(case.learned)
    assert {n: list(found.learned[n].shape) for n in rates} == rates
    assert [n for n, g in found.learned.items() if not g.abs().max() > 0] == []
    if case.rates == "step":  # each step's
        assert all(found.learned[n].abs().min() > 0 for n in rates)


@every_rule
def test_first_order_has_no_second_derivative_and_goes_by_every_strategy(name: str) -> None:
    strategies = ("split", "remat", "double_backward")
    t = task(name)
    found = [meta_gradient(**t, kind="first_order", strategy=s) for s in strategies]
    assert all(relative_error(f.init, found[0].init) < 1e-11 for f in found[1:])
    exact = meta_gradient(**t)
    torch.testing.assert_close(found[0].loss, exact.loss)
    if case_of(name).first_order:
        assert relative_error(found[0].init, exact.init) < 1e-11
    else:
        assert relative_error(found[0].init, exact.init) > 1e-3


def slopes_of(t: dict[str, Any]) -> tuple[float, float]:
    """Return the slope of the meta-gradient and of central differences along a random direction."""

    def value(init: Params, learned: Params) -> float:
        moved = t | {"init": init, "learned": learned}
        return seen_loss(t, t["query"], adapted(moved), t["steps"])

    return slopes(t, meta_gradient(**t), value)


@every_rule
@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_meta_gradient_is_that_of_central_differences(name: str, steps: int) -> None:
    """On the soft twin in float64, along all weights and all learned values at once."""
    case: Case = case_of(name)
    slope, expected = slopes_of(task(name, small_network(surrogate="arctan").soft_twin(), steps))
    gap = abs(slope - expected) / abs(expected)
    assert abs(expected) > 5e-3
    assert gap > 1e-6 if case.constant else gap < 1e-6


def test_sign_moves_every_weight_by_its_rate_against_the_sign_of_its_gradient() -> None:
    """Sign-MAML's inner step; gradients by autograd of the support's loss."""
    t = task("sign")
    weights = {n: v.requires_grad_() for n, v in t["init"].items()}
    loss = t["loss"](t["forward"](weights, t["support"].frames), t["support"].labels)
    grads = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    after = adapted(t, steps=1)
    for name, grad in grads.items():
        expected = weights[name].detach() - 0.02 * grad.sign()
        torch.testing.assert_close(after[name], expected, rtol=1e-12, atol=1e-14)
    assert sum(int((g != 0).sum()) for g in grads.values()) > 50


def test_the_rates_of_a_rule_that_has_its_own() -> None:
    """The configuration knows them too; no others are taken."""
    own = {name: get_rule(name, 0.5, "fixed", steps=2).transform for name in RULES}
    kinds = {n: v.kind for n, v in own.items() if getattr(v, "kind", "fixed") != "fixed"}
    assert kinds == RATES_OF_RULE
    for name, kind in kinds.items():
        assert get_rule(name, 0.5, kind, steps=2).transform == own[name]
        with pytest.raises(ConfigError, match=f"rates are 'tensor'; expected '{kind}'"):
            get_rule(name, 0.5, "tensor")


HARDWARE = {
    "grid": {"weights": WeightSpec(bits=4, rounding="stochastic")},
    "accumulated": {"weights": WeightSpec(bits=4, accumulate=True)},
    "signs": {"updates": UpdateSpec(momentum=0.5, levels="sign")},
    "device": {"device": DeviceSpec("soft_bounds", sigma=0.1, read_noise=0.01)},
}


@every_rule
@pytest.mark.parametrize("hardware", sorted(HARDWARE))
def test_it_meets_hardware(name: str, hardware: str) -> None:
    """By every strategy alike, and what inner steps leave alone stays as it was placed."""
    t = task(name)
    t["rule"] = equip(t["rule"], **HARDWARE[hardware])
    found, again, expected = (
        meta_gradient(**t, strategy=s) for s in ("split", "remat", "double_backward")
    )
    assert relative_error(found.init, expected.init) < 1e-10
    assert relative_error(again.init, expected.init) < 1e-10
    assert relative_error(again.learned, expected.learned) < 1e-10
    after, before = adapted(t), adapted(t, steps=0)
    moved = {layer(n) for n in after if not torch.equal(after[n], before[n])}
    assert moved <= set(case_of(name).changes)
    assert moved or hardware == "accumulated"
