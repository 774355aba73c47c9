"""Outer loops: Reptile, the multi-step loss, derivative-order annealing, and what they refuse."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from networks import relative_error
from spikeshot.assemble import build_learner
from spikeshot.assemble_network import build_network
from spikeshot.assemble_rule import build_rule
from spikeshot.config import Config, load_config
from spikeshot.config_learn import LearnConfig
from spikeshot.errors import ConfigError
from spikeshot.learn.meta_gradient import Strategy, meta_gradient
from spikeshot.learn.meta_train import Learner, OuterLoop, TrainState, meta_step
from spikeshot.learn.rules.rule import Moment, Posed
from spikeshot.learn.rules.transform import DescendAtRate
from test_rules import adapted, seen_loss, task

# --- Reptile -------------------------------------------------------------------------------------


def test_reptile_is_the_way_from_the_start_to_the_adapted_over_the_steps() -> None:
    t = task("sgd", steps=3) | {"learned": {}}
    t["rule"] = replace(t["rule"], transform=DescendAtRate(0.3))
    found, after = meta_gradient(**t, kind="reptile"), adapted(t)
    expected = {n: (t["init"][n] - after[n]) / 3 for n in after}
    assert relative_error(found.init, expected) < 1e-12
    assert float(found.loss) == pytest.approx(seen_loss(t, t["query"], after, 3))
    assert found.learned == {}


def test_reptile_with_one_step_is_the_rate_times_the_support_gradient() -> None:
    """Nichol et al. 2018, section 3: with k = 1 it is SGD on the expected loss."""
    t = task("sgd", steps=1) | {"learned": {}}
    t["rule"] = replace(t["rule"], transform=DescendAtRate(0.3))
    leaves = {n: v.clone().requires_grad_() for n, v in t["init"].items()}
    value = F.cross_entropy(t["forward"](leaves, t["support"].frames), t["support"].labels)
    grads = torch.autograd.grad(0.3 * value, list(leaves.values()))
    found = meta_gradient(**t, kind="reptile")
    assert relative_error(found.init, dict(zip(leaves, grads, strict=True))) < 1e-12


# --- multi-step loss -----------------------------------------------------------------------------

WEIGHTS = (0.5, 0.0, 0.3, 0.2)


@pytest.mark.parametrize("name", ["sgd", "anil"])
@pytest.mark.parametrize("strategy", ["split", "remat", "double_backward"])
def test_the_multi_step_loss_is_the_weighted_sum_over_runs_of_so_many_steps(
    name: str, strategy: Strategy
) -> None:
    t = task(name, steps=4)
    found = meta_gradient(**t, strategy=strategy, weights=WEIGHTS, micro_batch=3)
    parts = [(w, meta_gradient(**t | {"steps": i})) for i, w in enumerate(WEIGHTS, 1) if w]
    for which in ("init", "learned"):
        expected = {
            n: sum((w * getattr(g, which)[n] for w, g in parts), torch.zeros(()))
            for n in getattr(found, which)
        }
        assert relative_error(getattr(found, which), expected) < 1e-11
    torch.testing.assert_close(found.loss, parts[-1][1].loss)
    assert found.accuracy == parts[-1][1].accuracy


def test_weights_of_the_last_step_alone_are_no_weights() -> None:
    t = task("sgd")
    one, other = meta_gradient(**t, weights=(0.0, 1.0)), meta_gradient(**t)
    assert all(torch.equal(one.init[n], other.init[n]) for n in other.init)


def test_weights_begin_equal_sum_to_1_and_end_with_the_last_step() -> None:
    learner = replace(learner_of(task("sgd")), inner_steps=4, multi_step=10)
    assert learner.weights(0) == pytest.approx((0.25,) * 4)
    assert learner.weights(5) == pytest.approx((0.125, 0.125, 0.125, 0.625))
    assert learner.weights(10) == learner.weights(99) == ()
    seen = [learner.weights(i) for i in range(10)]
    assert all(sum(weights) == pytest.approx(1) for weights in seen)
    assert all(before[-1] < after[-1] for before, after in pairwise(seen))
    assert replace(learner, multi_step=0).weights(0) == ()


# --- over iterations -----------------------------------------------------------------------------


def learner_of(t: dict[str, Any], **settings: Any) -> Learner:
    return Learner(t["forward"], t["loss"], t["rule"], t["steps"], **settings)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["exact", "exact"]),
        ({"first_order_iterations": 1}, ["first_order", "exact"]),
        ({"meta_gradient": "first_order"}, ["first_order", "first_order"]),
        ({"multi_step": 1}, ["multi_step", "exact"]),
    ],
)
def test_an_iteration_has_the_kind_and_the_weights_of_its_time(
    settings: dict[str, Any], kinds: list[str]
) -> None:
    """Told by the norm of the gradient, which is that of a meta-gradient asked for by itself."""
    t = task("sgd")
    for iteration, kind in enumerate(kinds):
        state = TrainState(iteration, t["init"], t["learned"])
        tasks = [Posed(t["support"], t["query"], t["key"])]
        outer = OuterLoop(iterations=10, clip_norm=0)
        _, report = meta_step(learner_of(t, **settings), outer, state, tasks)
        asked: dict[str, Any] = {"kind": kind}
        if kind == "multi_step":
            asked = {"weights": (0.5, 0.5)}
        found = meta_gradient(**t, **asked)
        values = [*found.init.values(), *found.learned.values()]
        norm = float(torch.cat([v.flatten() for v in values]).norm())
        assert report.grad_norm == pytest.approx(norm, rel=1e-9)


def test_the_kinds_of_that_test_have_different_norms() -> None:
    t = task("sgd")
    found = [
        meta_gradient(**t),
        meta_gradient(**t, kind="first_order"),
        meta_gradient(**t, weights=(0.5, 0.5)),
    ]
    norms = [float(torch.cat([v.flatten() for v in g.init.values()]).norm()) for g in found]
    assert min(abs(a / b - 1) for a, b in pairwise([*norms, norms[0]])) > 1e-4


# --- from the configuration ----------------------------------------------------------------------


def learner_with(*overrides: str) -> Learner:
    config: Config = load_config("quickstart", overrides)
    return build_learner(config, build_network(config, (2, 16, 32)))


def test_the_configuration_says_rule_options_and_outer_loop() -> None:
    learner = learner_with(
        "learn.multi_step=7", "learn.first_order_until=0.25", "train.iterations=200"
    )
    assert (learner.multi_step, learner.first_order_iterations) == (7, 50)
    assert (learner.kind(49), learner.kind(50)) == ("first_order", "exact")
    rule = learner_with("learn.rule=frozen", "learn.credit.freeze=2").rule
    assert [rule.part(f"layer{i}.bias") for i in range(3)] == [False, False, True]
    learned = learner_with("learn.rule=soel", "learn.credit.learn_threshold=true").rule.learned(
        {"readout.bias": torch.zeros(5)}
    )
    assert float(learned["credit.log_threshold"].exp()) == pytest.approx(0.05)


def test_a_rule_that_has_rates_of_its_own_brings_them(tmp_path: Path) -> None:
    """Where none are given, and the configuration says so; they may also be given."""
    for rule, kind, name in (
        ("meta-sgd", "parameter", "rate_factor.readout.bias"),
        ("maml++", "step", "log_rates.readout.bias"),
    ):
        file = tmp_path / f"{kind}.yaml"
        file.write_text(f"learn: {{rule: {rule}, inner_steps: 4}}")
        config = load_config(str(file))
        assert config.learn.rates == kind
        assert config == load_config(str(file), [f"learn.rates={kind}"])
        assert config.learn == LearnConfig(rule=rule, inner_steps=4)
        learned = build_rule(config, build_network(config, (2, 34, 34))).learned(
            {"readout.bias": torch.zeros(5)}
        )
        assert {n: len(v) for n, v in learned.items()} == {name: 4 if kind == "step" else 5}
    assert load_config("quickstart", ["learn.rule=sgd"]).learn.rates == "tensor"
    assert Config().learn.rates == LearnConfig(rule="anil").rates == "fixed"


def test_updates_that_come_before_signs_go_with_the_rule_sign() -> None:
    """Signs of the momentum 0.5 m + g, by hand: of 1 and -2, then of 0.5 - 2 and -1 + 2."""
    rule = learner_with("learn.rule=sign", "learn.rates=fixed", "learn.updates.momentum=0.5").rule
    params = {"w": torch.zeros(2)}
    state, rate = rule.state(params), load_config("quickstart").learn.rate
    for grad, signs in (([1.0, -2.0], [1.0, -1.0]), ([-2.0, 2.0], [-1.0, 1.0])):
        updates, state = rule.transform.update({"w": torch.tensor(grad)}, state, {}, Moment(0, 0))
        assert torch.equal(updates["w"], -rate * torch.tensor(signs))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("learn.rates=tensor", "learn.rule=meta-sgd"), "rates is 'tensor', but rule 'meta-sgd'"),
        (("learn.rule=meta-sgd",), "rates is 'fixed', .*expected rates=parameter with it"),
        (("learn.rule=maml++",), "rates is 'fixed', .*expected rates=step with it"),
        (("learn.rule=sign", "learn.updates.levels=ternary"), "updates.levels is 'ternary', but"),
        (("learn.rule=sign", "learn.updates.size=one"), "updates.size is 'one', but rule 'sign'"),
        (("learn.rule=sign", "learn.updates.clip=0.1"), "rule=sgd with updates.levels=sign"),
        (("learn.inner_steps=0",), "inner_steps is 0, .*expected 1 or more, or readout_start=pro"),
        (
            ("learn.inner_steps=0", "learn.readout_start=prototypes", "learn.multi_step=5"),
            "multi_step is 5, .*inner_steps is 0; expected multi_step=0",
        ),
        (("learn.method=protonet", "learn.prototype_gain=3"), "knows no prototype_gain"),
        (("learn.prototype_gain=0",), "prototype_gain is 0; input should be greater than 0"),
        (("learn.rule=frozen", "learn.credit.freeze=9"), "freeze is 9, but the network has"),
        (("learn.credit.threshold=0", "learn.credit.learn_threshold=true"), "expected above 0"),
        (("learn.rates=tensor", "learn.meta_gradient=reptile"), "rates=fixed"),
        (("learn.multi_step=3", "learn.meta_gradient=reptile"), "multi_step=0"),
        (("learn.rule=anil", "learn.meta_gradient=reptile"), "leaves a part alone"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(
    overrides: tuple[str, ...], message: str
) -> None:
    fixed = () if overrides[0].startswith("learn.rates") else ("learn.rates=fixed",)
    with pytest.raises(ConfigError, match=message):
        learner_with(*fixed, *overrides)
