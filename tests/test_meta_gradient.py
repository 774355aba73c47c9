"""The meta-gradient against finite differences on the soft twin, and against its oracles."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from networks import (
    RESETS,
    random_frames,
    random_labels,
    relative_error,
    slopes,
    small_network,
    start,
)
from spikeshot.learn.adapt import adapt
from spikeshot.learn.meta_gradient import Strategy, meta_gradient
from spikeshot.learn.rules.presets import get_rule
from spikeshot.learn.rules.rule import Batch
from spikeshot.learn.rules.transform import RateKind
from spikeshot.snn import fused
from spikeshot.snn.network import Network, forward, forward_prepared, prepare
from spikeshot.snn.neuron import Reset
from spikeshot.snn.surrogate import SURROGATES

SUPPORT = Batch(random_frames(1), random_labels(1))
QUERY = Batch(random_frames(2), random_labels(2))


def setting(network: Network, kind: RateKind = "tensor", rate: float = 0.3) -> dict[str, Any]:
    """Return the arguments of `meta_gradient` for one small task."""
    rule, init = get_rule("sgd", rate, kind), start(network)
    return {
        "forward": partial(forward, network),
        "loss": F.cross_entropy,
        "init": init,
        "learned": rule.learned(init),
        "rule": rule,
        "support": SUPPORT,
        "query": QUERY,
        "steps": 2,
    }


def loss_after_adaptation(task: dict[str, Any], init: Any, learned: Any) -> float:
    adapted = adapt(
        task["forward"], task["loss"], init, learned, task["rule"], SUPPORT, task["steps"]
    )
    with torch.no_grad():
        return float(task["loss"](task["forward"](adapted, QUERY.frames), QUERY.labels))


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("burn_in", [0])
def test_exact_against_central_differences_on_the_soft_twin(reset: Reset, burn_in: int) -> None:
    """Along a random direction of all weights and all learned rates at once; eps 1e-6."""
    network = small_network(reset, surrogate="arctan", burn_in=burn_in).soft_twin()
    task = setting(network)
    found = meta_gradient(**task)
    slope, expected = slopes(task, found, partial(loss_after_adaptation, task))
    assert abs(slope) > 1e-2
    assert abs(slope - expected) / abs(slope) < 1e-6


@pytest.mark.parametrize("micro_batch", [0, 3])
@pytest.mark.parametrize("strategy", ["split", "remat"])
@pytest.mark.parametrize("kind", ["fixed", "scalar", "tensor"])
@pytest.mark.parametrize("reset", RESETS)
def test_strategies_equal_double_backward_through_everything(
    reset: Reset, kind: RateKind, strategy: Strategy, micro_batch: int
) -> None:
    task = setting(small_network(reset), kind)
    found = meta_gradient(**task, strategy=strategy, micro_batch=micro_batch)
    expected = meta_gradient(**task, strategy="double_backward")
    assert relative_error(found.init, expected.init) < 1e-12
    if kind != "fixed":
        assert relative_error(found.learned, expected.learned) < 1e-12
    assert found.learned.keys() == expected.learned.keys()
    torch.testing.assert_close(found.loss, expected.loss)
    assert found.accuracy == expected.accuracy


@pytest.mark.parametrize("strategy", ["split", "remat", "double_backward"])
def test_a_query_prepared_pass_by_pass_gives_the_same(strategy: Strategy) -> None:
    network = small_network()
    task = setting(network) | {"forward": partial(forward_prepared, network)}
    task["support"] = Batch(prepare(network, SUPPORT.frames), SUPPORT.labels)
    found = meta_gradient(
        **task, strategy=strategy, micro_batch=3, prepare=partial(prepare, network)
    )
    expected = meta_gradient(**setting(network), strategy="double_backward")
    assert relative_error(found.init, expected.init) < 1e-12


def test_no_symbolic_algebra_is_loaded() -> None:
    """torch imports sympy, 35 MB, for gradients of more than a number: we ask for none."""
    tests = str(Path(__file__).parent)
    program = (
        f"import sys; sys.path.insert(0, {tests!r}); import test_meta_gradient as t\n"
        "for strategy in ('split', 'remat'):\n"
        "    t.meta_gradient(**t.setting(t.small_network()), strategy=strategy)\n"
        "print('sympy' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr


@pytest.mark.parametrize("strategy", ["split", "remat", "double_backward"])
def test_first_order_is_the_same_by_every_strategy(strategy: Strategy) -> None:
    task = setting(small_network())
    expected = meta_gradient(**task, kind="first_order")
    found = meta_gradient(**task, kind="first_order", strategy=strategy)
    assert relative_error(found.init, expected.init) < 1e-12
    assert relative_error(found.learned, expected.learned) < 1e-12


@pytest.mark.parametrize("reset", RESETS)
def test_engine_and_oracle_give_the_same_meta_gradient(reset: Reset) -> None:
    network = small_network(reset, burn_in=2)
    found = meta_gradient(**setting(network))
    expected = meta_gradient(**setting(replace(network, engine="oracle")))
    assert relative_error(found.init, expected.init) < 1e-12
    assert relative_error(found.learned, expected.learned) < 1e-12


@pytest.mark.parametrize("reset", RESETS)
def test_first_order_differs_from_exact(reset: Reset) -> None:
    """So that nobody can lose the second order unseen."""
    task = setting(small_network(reset))
    exact, first = meta_gradient(**task), meta_gradient(**task, kind="first_order")
    assert relative_error(first.init, exact.init) > 0.05
    torch.testing.assert_close(first.loss, exact.loss)  # the same adaptation, another gradient


def test_first_order_is_the_query_gradient_at_the_adapted_parameters() -> None:
    """FOMAML's definition (Finn et al. 2017, section 5.2)."""
    task = setting(small_network())
    found = meta_gradient(**task, kind="first_order")
    adapted = adapt(
        task["forward"], task["loss"], task["init"], task["learned"], task["rule"], SUPPORT, 2
    )
    leaves = {n: v.clone().requires_grad_() for n, v in adapted.items()}
    value = F.cross_entropy(task["forward"](leaves, QUERY.frames), QUERY.labels)
    expected = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
    assert relative_error(found.init, expected) < 1e-12


def test_without_second_derivative_the_meta_gradient_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The surrogate's second derivative counts: setting it to zero must be noticed."""
    task = setting(small_network())
    exact = meta_gradient(**task)
    monkeypatch.setattr(fused, "applies", lambda x, neuron: False)
    flat = replace(SURROGATES["fast_sigmoid"], second=lambda u, k: torch.zeros_like(u))
    monkeypatch.setitem(SURROGATES, "fast_sigmoid", flat)
    found = meta_gradient(**task)
    lower = [n for n in exact.init if n.startswith("layer")]
    parts = [{n: g.init[n] for n in lower} for g in (found, exact)]
    assert relative_error(parts[0], parts[1]) > 0.05


def test_learned_rates_start_at_the_rate_and_act_like_it() -> None:
    fixed, learned = (setting(small_network(), kind) for kind in ("fixed", "tensor"))
    ends = [
        adapt(t["forward"], t["loss"], t["init"], t["learned"], t["rule"], SUPPORT, 2)
        for t in (fixed, learned)
    ]
    assert relative_error(ends[1], ends[0]) < 1e-12
    assert relative_error(ends[0], fixed["init"]) > 1e-3  # adaptation moved the parameters


def test_adaptation_leaves_its_inputs_alone_and_no_graph() -> None:
    task = setting(small_network())
    before = {n: v.clone() for n, v in task["init"].items()}
    after = adapt(
        task["forward"], task["loss"], task["init"], task["learned"], task["rule"], SUPPORT, 3
    )
    assert all(torch.equal(before[n], task["init"][n]) for n in before)
    assert not any(v.requires_grad for v in after.values())
