"""The readout as the support's prototypes: against its closed form, for any ways and shots."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks import random_frames, small_network, start
from spikeshot.assemble import build_learner
from spikeshot.assemble_network import build_network
from spikeshot.config import load_config
from spikeshot.errors import ConfigError
from spikeshot.learn.adapt import adapt
from spikeshot.learn.meta_gradient import MetaGradientKind, Strategy, meta_gradient
from spikeshot.learn.meta_train import Learner
from spikeshot.learn.rules.apply import add
from spikeshot.learn.rules.compose import equip
from spikeshot.learn.rules.credit import backprop
from spikeshot.learn.rules.part import last_layer
from spikeshot.learn.rules.quantise import Grid, WeightSpec
from spikeshot.learn.rules.rule import Batch, Moment, Params, Rule
from spikeshot.learn.rules.start import Prototypes
from spikeshot.learn.rules.transform import DescendAtRate
from spikeshot.learn.scoring import score_episode
from spikeshot.snn import network as network_module
from spikeshot.snn.network import Readout, prepare, resize_readout
from spikeshot.snn.network_forward import NetworkForward
from spikeshot.study.baselines.methods import learn_by

RULE = Rule(backprop, DescendAtRate(0.1), add, start=Prototypes(gain=100.0))


def task(ways: int, shots: int, readout: Readout = "last", *, soft: bool = False) -> dict[str, Any]:
    """Return a small task, from weights whose readout was learned for other ways."""
    network = small_network(readout=readout)
    network = network.soft_twin() if soft else network
    init = resize_readout(start(network), ways)
    frames = prepare(network, random_frames(1, batch=ways * shots))
    support = Batch(frames, torch.arange(ways).repeat(shots))
    query = Batch(prepare(network, random_frames(2, batch=6)), torch.arange(6) % ways)
    return {
        "forward": NetworkForward(network),
        "loss": F.cross_entropy,
        "init": init,
        "learned": RULE.learned(init),
        "rule": RULE,
        "support": support,
        "query": query,
    }


def begun(t: dict[str, Any], steps: int = 0) -> Params:
    names = ("forward", "loss", "init", "learned", "rule", "support")
    return adapt(*(t[name] for name in names), steps)


def mean_squared_distance(t: dict[str, Any], ways: int) -> Tensor:
    """Return |f - c|^2 / features, `[B, ways]`, sample by sample: its definition."""
    trace = t["forward"].recorded(t["init"], t["support"].frames).trace
    rows = t["forward"].recorded(t["init"], t["query"].frames).trace
    mine = [trace[t["support"].labels == way].mean(0) for way in range(ways)]
    return torch.stack([torch.stack([(f - c).square().mean() for c in mine]) for f in rows])


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize(("ways", "shots"), [(3, 1), (2, 3), (5, 1), (5, 3)])
def test_logits_are_the_distances_to_the_prototypes_but_for_a_number_per_sample(
    ways: int, shots: int, readout: Readout
) -> None:
    t = task(ways, shots, readout)
    logits = t["forward"](begun(t), t["query"].frames)
    assert logits.shape == (6, ways)
    expected = -100.0 * mean_squared_distance(t, ways)
    assert (expected - expected[:, :1]).abs().max() > 0.02
    torch.testing.assert_close(
        logits - logits.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True)
    )


def test_only_the_readout_starts_elsewhere_and_inner_steps_go_on_from_there() -> None:
    t = task(5, 3)
    t["rule"] = replace(RULE, part=last_layer)  # a convex loss, which small steps make less
    first, after = begun(t), begun(t, steps=5)
    moved = {name for name in first if not torch.equal(first[name], t["init"][name])}
    assert moved == {"readout.weight", "readout.bias"}
    losses = [
        float(F.cross_entropy(t["forward"](p, t["support"].frames), t["support"].labels))
        for p in (first, after)
    ]
    assert losses[1] < losses[0] - 1e-4


def test_the_meta_learned_readout_is_not_used() -> None:
    t = task(3, 1)
    other = t["init"] | {"readout.weight": torch.randn(3, 6).double()}
    first, second = begun(t, steps=2), begun(t | {"init": other}, steps=2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_grid_is_fitted_to_the_prototypes_as_the_placed_body_sees_them() -> None:
    """Whatever the meta-learned readout: its size would set another step."""
    t = task(3, 1)
    spec = WeightSpec(bits=4, fit="max", readout_headroom=1.0)
    t["rule"] = equip(RULE, weights=spec)
    body = equip(RULE, weights=spec).settled(t["init"])
    placed = body.place(t["init"], Moment(0, 0))
    names = ("forward", "loss", "learned", "support")
    kept = {name: t[name] for name in names} | {"init": placed, "rule": RULE}
    float_readout = begun(kept)["readout.weight"]
    for size in (1.0, 100.0):
        t["init"] = t["init"] | {"readout.weight": size * t["init"]["readout.weight"]}
        found = begun(t)
        grid = Grid(float_readout.abs().max() / 7, 7)
        torch.testing.assert_close(found["readout.weight"], grid.put(float_readout))
        assert torch.equal(found["layer1.weight"], placed["layer1.weight"])
        assert grid.codes(found["readout.weight"]).abs().max() == 7


@pytest.mark.parametrize("kind", ["exact", "first_order"])
@pytest.mark.parametrize("strategy", ["split", "remat", "double_backward"])
def test_without_inner_steps_the_meta_gradient_is_that_of_a_prototypical_network(
    kind: MetaGradientKind, strategy: Strategy
) -> None:
    """Autograd of the distances to class means: -exp(log_gain) |f - c|^2 / F as logits."""
    t = task(3, 3)
    found = meta_gradient(**t, steps=0, kind=kind, strategy=strategy)
    init = {name: value.clone().requires_grad_() for name, value in t["init"].items()}
    log_gain = t["learned"]["start.log_gain"].clone().requires_grad_()
    logits = -log_gain.exp() * mean_squared_distance(t | {"init": init}, 3)
    loss = F.cross_entropy(logits, t["query"].labels)
    body = [name for name in init if not name.startswith("readout")]
    grads = torch.autograd.grad(loss, [*(init[name] for name in body), log_gain])
    for name, grad in zip(body, grads, strict=False):
        assert grad.abs().max() > 0
        torch.testing.assert_close(found.init[name], grad, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(found.learned["start.log_gain"], grads[-1], rtol=1e-9, atol=1e-13)
    assert not any(found.init[f"readout.{part}"].any() for part in ("weight", "bias"))
    torch.testing.assert_close(found.loss, loss.detach())
    score = score_episode(**t, steps=0)
    assert score.loss == pytest.approx(float(loss.detach()))
    assert score.after == float((logits.argmax(1) == t["query"].labels).double().mean())


def test_without_inner_steps_a_task_takes_the_passes_of_a_prototypical_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Support and query forward once, and backward once; an inner step takes more of both."""
    t, layer_spikes = task(3, 3), network_module.layer_spikes
    seen: Counter[str] = Counter()

    def spy(*arguments: Any, **options: Any) -> Any:
        out = layer_spikes(*arguments, **options)
        seen["forward"] += 1
        out[0].register_hook(lambda grad: seen.update(["backward"]))
        return out

    monkeypatch.setattr(network_module, "layer_spikes", spy)
    network = t["forward"].network
    learner = Learner(t["forward"], F.cross_entropy, RULE, 0)
    counts = []
    for one in (
        learner,
        learn_by(
            "protonet", replace(learner, rule=replace(RULE, start=None)), network, rates="scalar"
        ),
        replace(learner, inner_steps=1),
    ):
        seen.clear()
        t |= {"rule": one.rule, "learned": one.rule.learned(t["init"])}
        meta_gradient(**t, steps=one.inner_steps)
        counts.append(dict(seen))
    layers = len(network.layers)
    assert counts[0] == counts[1] == {"forward": 2 * layers, "backward": 2 * layers}
    assert min(counts[2].values()) >= 3 * layers


def test_before_adaptation_nothing_is_known_of_the_support() -> None:
    """With its labels moved on by one class: accuracy before is that of the learned readout."""
    t = task(3, 3)
    moved = Batch(t["support"].frames, (t["support"].labels + 1) % 3)
    scores = [score_episode(**(t | {"support": s}), steps=1) for s in (t["support"], moved)]
    logits = t["forward"](t["init"], t["query"].frames)
    plain = float((logits.argmax(1) == t["query"].labels).double().mean())
    assert scores[0].before == scores[1].before == plain
    assert scores[0].loss != scores[1].loss


def test_the_credit_of_the_body_is_that_of_the_body_alone() -> None:
    """Of a readout made of the body's own features, with a graph and without: the same step."""
    t = task(3, 3)
    t["init"] = {name: value.requires_grad_() for name, value in t["init"].items()}
    names = ("forward", "loss", "init", "learned", "rule", "support")
    plain, graph = (adapt(*(t[n] for n in names), 1, create_graph=g) for g in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(graph[name].detach(), value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["learn.meta_gradient=reptile", "learn.rates=fixed"], "readout_start=learned"),
        (["network.readout=count"], "need a linear readout"),
    ],
)
def test_what_cannot_start_from_prototypes_says_so(overrides: Sequence[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        learner_of(["learn.readout_start=prototypes", *overrides])


def test_the_configuration_gives_a_rule_that_starts_from_prototypes() -> None:
    assert learner_of(["learn.readout_start=prototypes"]).rule.start == Prototypes(10.0)
    more = ["learn.readout_start=prototypes", "learn.prototype_gain=200"]
    assert learner_of(more).rule.start == Prototypes(200.0)
    assert learner_of([]).rule.start is None


def learner_of(overrides: Sequence[str]) -> Learner:
    config = load_config("quickstart", overrides)
    return build_learner(config, build_network(config, (2, 32, 32)))
