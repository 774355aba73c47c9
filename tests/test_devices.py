"""Devices: their laws against closed forms, noise against its statistics, tables, whole tasks."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from networks import random_frames, random_labels, relative_error, small_network, start
from spikeshot.config import load_config
from spikeshot.errors import ConfigError
from spikeshot.learn.adapt import adapt
from spikeshot.learn.meta_gradient import meta_gradient
from spikeshot.learn.rules.compose import compose
from spikeshot.learn.rules.credit import backprop
from spikeshot.learn.rules.device_table import Table, read_table
from spikeshot.learn.rules.devices import DeviceSpec, fit_device
from spikeshot.learn.rules.quantise import WeightSpec, fit_grids
from spikeshot.learn.rules.rule import Batch, Moment
from spikeshot.learn.rules.writes import counted
from spikeshot.snn.network import forward

SUPPORT = Batch(random_frames(1), random_labels(1))
QUERY = Batch(random_frames(2), random_labels(2))
NOW = Moment(5, 2)
NAME = "layer0.weight"


def changed(spec: DeviceSpec, w: list[float], u: list[float], moment: Moment = NOW) -> list[float]:
    """Return one row of weights after updates, on devices of the range -2..2."""
    device = fit_device({NAME: torch.tensor([[2.0]]).double()}, spec)
    after = device.apply(
        {NAME: torch.tensor([w], dtype=torch.float64)},
        {NAME: torch.tensor([u], dtype=torch.float64)},
        moment,
    )
    return [float(x) for x in after[NAME][0]]


# --- laws ----------------------------------------------------------------------------------------


def test_gokmen_haensch_is_the_papers_formula() -> None:
    """method.md: w' = -B + (B + w) exp(A dw), A = beta + gamma sign(dw), B = alpha / A."""
    alpha, beta, gamma = 1.2, 0.3, -0.8
    spec = DeviceSpec("gokmen_haensch", alpha=alpha, beta=beta, gamma=gamma)
    w, u = [0.5, 0.5, -0.6, 0.0], [0.4, -0.4, 0.2, -1.0]
    expected = []
    for v, x in zip([a / 2 for a in w], [a / 2 for a in u], strict=True):
        a = beta + gamma * math.copysign(1, x)
        b = alpha / a
        expected.append(2 * (-b + (b + v) * math.exp(a * x)))
    assert changed(spec, w, u) == pytest.approx(expected, abs=1e-12)


def test_gokmen_haensch_without_slope_is_linear() -> None:
    spec = DeviceSpec("gokmen_haensch", alpha=0.5, beta=1.0, gamma=-1.0)  # A = 0 going up
    assert changed(spec, [0.3], [0.4]) == pytest.approx([0.3 + 0.5 * 0.4], abs=1e-12)


def test_gokmen_haensch_ends_at_its_bounds() -> None:
    spec = DeviceSpec("gokmen_haensch", alpha=1.0, gamma=-2.0)  # +-alpha / 2 of the range
    assert changed(spec, [0.0, 0.0], [200.0, -200.0]) == pytest.approx([1.0, -1.0], abs=1e-9)


@pytest.mark.parametrize(
    ("spec", "w", "u", "after"),
    [
        (DeviceSpec("ideal"), [0.5, 1.9, -1.9], [0.25, 1.0, -1.0], [0.75, 2.0, -2.0]),
        (DeviceSpec("linear", asymmetry=0.5), [0.0, 0.0], [0.2, -0.2], [0.3, -0.1]),
        (DeviceSpec("soft_bounds"), [1.0, 1.0, 2.0], [0.2, -0.2, 0.5], [1.1, 0.7, 2.0]),
        (DeviceSpec("soft_bounds", curvature=2.0), [1.0], [0.2], [1.05]),
    ],
)
def test_simple_laws_by_hand(
    spec: DeviceSpec, w: list[float], u: list[float], after: list[float]
) -> None:
    assert changed(spec, w, u) == pytest.approx(after, abs=1e-9)


TABLE = Table(up=(0.0, 4.0, 6.0, 7.0, 8.0), down=(8.0, 5.0, 3.0, 1.0, 0.0))  # made up


@pytest.mark.parametrize(
    ("w", "u", "after"),
    [
        (-2.0, 1.0, 0.0),  # one pulse up from the lowest: conductance 4 of 0..8
        (-2.0, 2.1, 1.0),  # two
        (2.0, -1.0, 0.5),  # one down from the highest: 5
        (0.0, 1.0, 1.0),  # from 4 up to 6, on the rising curve
        (-0.5, -1.0, -1.5),  # from 3 down to 1, on the falling one
        (-1.0, 1.0, 0.5),  # from 2, half way to 4, to half way between 4 and 6
        (0.3, 0.2, 0.3),  # less than half a pulse
        (1.9, 9.0, 2.0),  # no further than measured
    ],
)
def test_a_table_goes_along_the_measured_curves(w: float, u: float, after: float) -> None:
    spec = DeviceSpec("table", table=TABLE, rounding="nearest")
    assert changed(spec, [w], [u]) == pytest.approx([after], abs=1e-12)


def test_stochastic_pulses_keep_the_mean_of_small_updates() -> None:
    """A fifth of a pulse, 20,000 times: one pulse (from 0 to 4: by 2 of -2..2) in a fifth."""
    spec = DeviceSpec("table", table=TABLE)
    after = torch.tensor(changed(spec, [-2.0] * 20_000, [0.2] * 20_000))
    assert set(after.tolist()) == {-2.0, 0.0}
    share = float((after == 0).double().mean())
    assert abs(share - 0.2) < 5 * (0.2 * 0.8 / 20_000) ** 0.5


# --- noise ---------------------------------------------------------------------------------------


def test_pulse_noise_grows_with_the_root_of_the_update() -> None:
    """Standard deviation sigma sqrt(|x|) in half ranges, within 3 percent for 20,000 devices."""
    spec = DeviceSpec("ideal", sigma=0.05)
    for u in (0.02, 0.5):
        after = torch.tensor(changed(spec, [0.0] * 20_000, [u] * 20_000))
        assert float(after.std()) == pytest.approx(2 * 0.05 * math.sqrt(u / 2), rel=0.03)
        assert float(after.mean()) == pytest.approx(u, abs=0.003)


@pytest.mark.parametrize("model", ["ideal", "linear", "soft_bounds", "gokmen_haensch", "table"])
def test_what_is_asked_for_nothing_stays_bit_for_bit(model: Any) -> None:
    noisy = {"sigma": 0.3, "write_noise": 0.3, "variation": 0.5, "asymmetry": 0.5}
    spec = DeviceSpec(model, table=TABLE if model == "table" else None, **noisy)
    weights = [0.1, -0.7, 1.3, 1 / 3]
    assert changed(spec, weights, [0.0] * 4) == weights
    assert all(a != b for a, b in zip(changed(spec, weights, [0.9] * 4), weights, strict=True))


def test_devices_differ_and_stay_the_same_in_a_task() -> None:
    """ln(strength) has the given spread; the same at every step, others in another task."""
    spec = DeviceSpec("ideal", variation=0.4)
    one, later, other = (
        torch.tensor(changed(spec, [0.0] * 20_000, [1e-3] * 20_000, moment))
        for moment in (Moment(5, 0), Moment(5, 9), Moment(6, 0))
    )
    assert torch.equal(one, later)
    assert not torch.equal(one, other)
    assert float((one / 1e-3).log().std()) == pytest.approx(0.4, rel=0.03)


def test_reading_and_placing_are_noisy_and_biases_are_numbers() -> None:
    params = {NAME: torch.zeros(100, 200).double(), "layer0.bias": torch.ones(3).double()}
    params[NAME][0, 0] = 2.0
    device = fit_device(params, DeviceSpec("ideal", read_noise=0.1, place_noise=0.05))
    for view, std in ((device.read, 0.2), (device.place, 0.1)):
        seen = view(params, NOW)
        assert float(seen[NAME].std()) == pytest.approx(std, rel=0.03)
        assert torch.equal(seen["layer0.bias"], params["layer0.bias"])
        assert torch.equal(view(params, NOW)[NAME], seen[NAME])
    assert not torch.equal(device.read(params, Moment(5, 3))[NAME], device.read(params, NOW)[NAME])


# --- whole tasks ---------------------------------------------------------------------------------


def task(spec: DeviceSpec, network: Any = None, **more: Any) -> dict[str, Any]:
    network = network or small_network()
    init, rule = start(network), compose(backprop, 0.3, "tensor", device=spec, **more)
    return {
        "forward": partial(forward, network),
        "loss": F.cross_entropy,
        "init": init,
        "learned": rule.transform.learned(init),
        "rule": rule,
        "support": SUPPORT,
        "query": QUERY,
        "steps": 3,
        "key": 7,
    }


ALL = {
    "sigma": 0.01,
    "write_noise": 0.01,
    "read_noise": 0.02,
    "place_noise": 0.01,
    "variation": 0.2,
}


@pytest.mark.parametrize("strategy", ["split", "remat"])
@pytest.mark.parametrize("model", ["linear", "soft_bounds", "gokmen_haensch", "table"])
def test_strategies_agree_with_every_noise_on(model: Any, strategy: Any) -> None:
    t = task(DeviceSpec(model, table=TABLE if model == "table" else None, **ALL))
    found = meta_gradient(**t, strategy=strategy)
    expected = meta_gradient(**t, strategy="double_backward")
    assert relative_error(found.init, expected.init) < 1e-12
    assert relative_error(found.learned, expected.learned) < 1e-12


@pytest.mark.parametrize("model", ["soft_bounds", "gokmen_haensch", "linear"])
def test_meta_gradient_against_central_differences_on_the_soft_twin(model: Any) -> None:
    """In the learned rates, which leave the ranges as they are; eps 1e-6, float64."""
    spec = DeviceSpec(model, variation=0.3, read_noise=0.02, beta=0.3, asymmetry=0.3, headroom=1.5)
    t = task(spec, small_network(surrogate="arctan").soft_twin())
    found = meta_gradient(**t)
    g = torch.Generator().manual_seed(4)
    way = {n: torch.randn((), generator=g).double() for n in t["learned"]}

    def loss(eps: float) -> float:
        learned = {n: v + eps * way[n] for n, v in t["learned"].items()}
        return float(meta_gradient(**(t | {"learned": learned})).loss)

    slope = sum(float(found.learned[n] * way[n]) for n in way)
    assert abs(slope) > 1e-3
    assert slope == pytest.approx((loss(1e-6) - loss(-1e-6)) / 2e-6, rel=1e-5)


def test_a_grid_after_a_device_holds_and_the_range_too() -> None:
    weights = WeightSpec(5, 0)
    t = task(DeviceSpec("soft_bounds", **ALL), weights=weights)
    after = adapt(*(t["forward"], t["loss"], t["init"], t["learned"], t["rule"], SUPPORT, 3), key=7)
    grids = fit_grids(t["init"], weights)
    assert grids
    assert all(grid.holds(after[n]) for n, grid in grids.items())


# --- writes --------------------------------------------------------------------------------------


def test_writes_are_counted_by_hand() -> None:
    """5 weights; the first step changes two, the second one of them again."""
    rule = compose(backprop, 1.0)
    init = {"a": torch.zeros(4), "b": torch.zeros(1)}
    rule, tally = counted(rule, init)
    after = rule.apply(init, {"a": torch.tensor([1.0, 0, 0, 0]), "b": torch.ones(1)}, NOW)
    rule.apply(after, {"a": torch.tensor([1.0, 0, 0, 0]), "b": torch.zeros(1)}, NOW)
    assert (tally.writes, tally.weights) == (3, 5)
    assert tally.writes_per_weight == pytest.approx(0.6)
    assert tally.touched == pytest.approx(0.4)


# --- files and configuration ---------------------------------------------------------------------


def test_a_table_is_read(tmp_path: Path) -> None:
    """A made-up device."""
    file = tmp_path / "device.csv"
    file.write_text("pulse,up,down\n0,1e-6,9e-6\n1,5e-6,4e-6\n2,9e-6,1e-6\n")
    assert read_table(file) == Table((1e-6, 5e-6, 9e-6), (9e-6, 4e-6, 1e-6))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("up\n1\n2\n", "has no column 'down'"),
        ("up,down\n1,2\n", "has 1 rows"),
        ("up,down\n1,2\n2,x\n", "is no such table"),
        ("up,down\n1,2\n2\n", "is no such table"),
        ("up,down\n1,2\n1,1\n", "up must rise and down fall"),
        ("up,down\n1,2\nnan,1\n", "not finite"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "device.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_table(file)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["device.model=memristor"], "learn.device.model is 'memristor'; "),
        (["device.model=table"], "expected a CSV file where"),
        (["device.table=x.csv"], "only where, model is 'table'"),
        (["device.model=table", "device.table=x.csv", "weights.bits=4"], "expected weights.bits=0"),
        (["device.sigma=-1"], "learn.device.sigma is -1; "),
    ],
)
def test_wrong_settings_are_named(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("quickstart", [f"learn.{text}" for text in overrides])
    assert said in str(error.value)
