"""Weights on a grid: exact codes, rounding, straight-through gradients, and a whole task on it."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from networks import random_frames, random_labels, relative_error, small_network, start
from spikeshot.config import load_config
from spikeshot.errors import ConfigError
from spikeshot.learn.adapt import adapt
from spikeshot.learn.meta_gradient import meta_gradient
from spikeshot.learn.rules.compose import compose, equip
from spikeshot.learn.rules.credit import backprop
from spikeshot.learn.rules.quantise import Grid, WeightSpec, clamp, fit_grids
from spikeshot.learn.rules.rounding import to_whole
from spikeshot.learn.rules.rule import Batch, Moment
from spikeshot.snn.network import forward

SUPPORT = Batch(random_frames(1), random_labels(1))
QUERY = Batch(random_frames(2), random_labels(2))
BITS = list(range(2, 17))


def tensors(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"layer0.weight": (6, 3, 5, 5), "layer0.bias": (6,), "readout.weight": (5, 30)}
    return {n: torch.randn(s, generator=g).to(dtype) * 0.3 for n, s in shapes.items()}


# --- the grid ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("scale", ["tensor", "channel"])
@pytest.mark.parametrize("bits", BITS)
def test_whole_numbers_are_read_off_and_put_back_bit_for_bit(
    bits: int, scale: Any, power_of_two: bool, dtype: torch.dtype
) -> None:
    """Every code of the grid, there and back; and every weight that was put on it."""
    spec = WeightSpec(bits, bits, scale=scale, power_of_two=power_of_two, fit="max")
    params = tensors(bits, dtype)
    for name, grid in fit_grids(params, spec).items():
        units = len(grid.step) if grid.step.dim() else 1
        codes = torch.arange(-grid.limit, grid.limit + 1, dtype=torch.int32)
        codes = codes.expand(units, -1) if grid.step.dim() else codes
        flat = Grid(grid.step.reshape(-1, 1) if grid.step.dim() else grid.step, grid.limit)
        assert torch.equal(flat.codes(flat.values(codes)), codes)
        put = grid.put(params[name])
        assert grid.holds(put)
        assert torch.equal(grid.values(grid.codes(put)), put)
        assert torch.equal(grid.put(put), put)
        assert torch.equal(grid.put(put, torch.full_like(put, 0.999999)), put)  # stays where it is
        assert not torch.signbit(put[put == 0]).any()
        assert (put - params[name]).abs().max() <= grid.step.max() / 2 * (1 + 1e-5)


def test_a_grid_by_hand() -> None:
    """3 bits reach 3 steps; the largest |w| is 0.6, so the step is 0.2; halves go to even codes."""
    params = {"layer0.weight": torch.tensor([[0.6, -0.35, 0.09, -0.25, 0.5, 0.0]]).double()}
    grid = fit_grids(params, WeightSpec(3, fit="max"))["layer0.weight"]
    assert grid.limit == 3
    assert float(grid.step) == pytest.approx(0.2)
    codes = grid.codes(grid.put(params["layer0.weight"]))
    assert codes.tolist() == [[3, -2, 0, -1, 2, 0]]
    assert grid.codes(grid.put(torch.tensor([9.0, -9.0]).double())).tolist() == [3, -3]


@pytest.mark.parametrize(
    ("largest", "step"), [(0.6, 0.25), (0.75, 0.25), (0.7500001, 0.5), (3.0, 1.0), (0.01, 2**-8)]
)
def test_a_power_of_two_reaches_at_least_as_far(largest: float, step: float) -> None:
    params = {"layer0.weight": torch.tensor([[largest, 0.0]]).double()}
    grid = fit_grids(params, WeightSpec(3, fit="max", power_of_two=True))["layer0.weight"]
    assert float(grid.step) == step


def test_steps_per_channel_come_from_each_channel_and_biases_have_one() -> None:
    params = {
        "layer0.weight": torch.tensor([[0.7, 0.1], [0.07, 0.0], [0.0, 0.0]]),
        "layer0.bias": torch.tensor([0.5, 1.0, 0.0]),
    }
    grids = fit_grids(params, WeightSpec(4, 8, scale="channel", fit="max"))
    torch.testing.assert_close(grids["layer0.weight"].step, torch.tensor([[0.1], [0.01], [1 / 7]]))
    torch.testing.assert_close(grids["layer0.bias"].step, torch.tensor(1 / 127))
    assert "layer0.bias" not in fit_grids(params, WeightSpec(4, 0))


def test_the_readout_has_more_room() -> None:
    params = {n: torch.tensor([[1.0]]) for n in ("layer0.weight", "readout.weight")}
    grids = fit_grids(params, WeightSpec(2, fit="max", headroom=1.5, readout_headroom=4.0))
    assert [float(grids[n].step) for n in params] == [1.5, 4.0]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_fit_of_least_error_is_near_the_best_for_a_normal_distribution(bits: int) -> None:
    """Uniform quantisers of 2^bits - 1 levels, by direct search over steps of one large sample."""
    value = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(1)).double()

    def error(grid: Grid) -> float:
        return float((grid.put(value) - value).square().mean())

    grids = {fit: fit_grids({"a": value}, WeightSpec(bits, fit=fit))["a"] for fit in ("max", "mse")}
    limit = 2 ** (bits - 1) - 1
    best = min(error(Grid(torch.tensor(i / 200).double(), limit)) for i in range(20, 600))
    assert error(grids["mse"]) < 1.03 * best
    assert error(grids["max"]) > 1.5 * best


# --- rounding and gradients ----------------------------------------------------------------------


def test_stochastic_rounding_keeps_the_mean_and_nearest_loses_small_steps() -> None:
    """100,000 draws of 0.3: the mean is within 5 standard errors; nearest gives 0."""
    x = torch.full((100_000,), 0.3).double()
    draw = torch.rand(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    error = (0.3 * 0.7 / len(x)) ** 0.5
    assert abs(float(to_whole(x, draw).mean()) - 0.3) < 5 * error
    assert abs(float(to_whole(-x, draw).mean()) + 0.3) < 5 * error
    assert set(to_whole(x, draw).tolist()) == {0.0, 1.0}
    assert to_whole(x).abs().max() == 0


def test_the_gradient_passes_straight_through_or_ends_at_the_range() -> None:
    grid = Grid(torch.tensor(0.5).double(), 1)
    value = torch.tensor([0.1, 0.6, 2.0, -3.0]).double().requires_grad_()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    for clipped, expected in ((False, [1, 2, 3, 4]), (True, [1, 0, 0, 0])):
        put = grid.put(value, clipped=clipped)
        assert put.tolist() == [0.0, 0.5, 0.5, -0.5]
        (grad,) = torch.autograd.grad((put * weight).sum(), value)
        assert grad.tolist() == expected


def test_clamp_holds_values_between_bounds() -> None:
    low, high = {"a": torch.tensor(-1.0)}, {"a": torch.tensor(0.5)}
    held = clamp(low, high)({"a": torch.tensor([-2.0, 0.2, 2.0])}, Moment(0, 0))
    assert held["a"].tolist() == [-1.0, pytest.approx(0.2), 0.5]


# --- a whole task --------------------------------------------------------------------------------


def task(spec: WeightSpec, rate: float = 0.3, dtype: Any = torch.float64) -> dict[str, Any]:
    init = {n: v.to(dtype) for n, v in start(small_network()).items()}
    rule = compose(backprop, rate, "tensor", weights=spec)
    return {
        "forward": partial(forward, small_network()),
        "loss": F.cross_entropy,
        "init": init,
        "learned": rule.transform.learned(init),
        "rule": rule,
        "support": Batch(SUPPORT.frames.to(dtype), SUPPORT.labels),
        "query": Batch(QUERY.frames.to(dtype), QUERY.labels),
        "steps": 3,
        "key": 7,
    }


def adapted(t: dict[str, Any], steps: int = 3, key: int = 7) -> dict[str, torch.Tensor]:
    return adapt(
        *(t["forward"], t["loss"], t["init"], t["learned"], t["rule"], t["support"], steps), key=key
    )


SPECS = {
    "plain": WeightSpec(4),
    "channel": WeightSpec(3, 8, scale="channel", power_of_two=True),
    "stochastic": WeightSpec(4, 4, rounding="stochastic", place_rounding="stochastic"),
    "accumulate": WeightSpec(4, accumulate=True),
    "inner": WeightSpec(2, where="inner", clipped_gradient=True, fit="max"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPECS)
def test_all_inner_steps_stay_on_the_one_grid_of_the_start(name: str, dtype: torch.dtype) -> None:
    t = task(SPECS[name], dtype=dtype)
    grids = fit_grids(t["init"], SPECS[name])
    first = 1 if SPECS[name].where == "inner" else 0
    for steps in range(first, 4):
        after = adapted(t, steps)
        assert after.keys() == grids.keys()
        assert all(grids[n].holds(v) for n, v in after.items())


@pytest.mark.parametrize("strategy", ["split", "remat"])
@pytest.mark.parametrize("name", SPECS)
def test_strategies_agree_on_a_grid(name: str, strategy: Any) -> None:
    t = task(SPECS[name])
    found = meta_gradient(**t, strategy=strategy)
    expected = meta_gradient(**t, strategy="double_backward")
    assert relative_error(found.init, expected.init) < 1e-12
    assert relative_error(found.learned, expected.learned) < 1e-12
    assert found.loss == pytest.approx(float(expected.loss), rel=1e-12)


def test_outer_alone_places_the_start_and_leaves_the_steps_free() -> None:
    spec = WeightSpec(3, 3, where="outer")
    t = task(spec)
    grids = fit_grids(t["init"], spec)
    assert all(grids[n].holds(v) for n, v in adapted(t, 0).items())
    assert not any(grids[n].holds(v) for n, v in adapted(t, 2).items() if n.startswith("readout"))


def test_none_and_zero_bits_change_nothing() -> None:
    rule = compose(backprop, 0.3)
    for spec in (WeightSpec(4, where="none"), WeightSpec(0)):
        assert equip(rule, weights=spec) == rule


def test_small_updates_vanish_by_nearest_and_are_kept_by_both_others() -> None:
    """A rate so small that no step reaches half a grid step; many steps add up to some."""
    after = {}
    for name in ("plain", "accumulate", "stochastic"):
        spec = WeightSpec(4, 4, accumulate=name == "accumulate", fit="max")
        spec = WeightSpec(4, 4, rounding="stochastic", fit="max") if name == "stochastic" else spec
        t = task(spec, rate=0.02)
        placed = adapted(t, 0)
        ends = adapted(t, 40)
        after[name] = sum(int((ends[n] != placed[n]).sum()) for n in ends)
    assert after["plain"] == 0
    assert after["accumulate"] > 0
    assert after["stochastic"] > 0


def test_the_same_key_gives_the_same_weights_and_another_key_others() -> None:
    t = task(SPECS["stochastic"])
    one, again, other = adapted(t, 2, 7), adapted(t, 2, 7), adapted(t, 2, 8)
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)


def test_randomness_hangs_on_names_not_on_the_order_of_the_tree() -> None:
    """A resumed run reads its parameters in another order."""
    t = task(SPECS["stochastic"])
    turned = t | {"init": dict(reversed(t["init"].items()))}
    one, other = adapted(t, 2), adapted(turned, 2)
    assert all(torch.equal(one[n], other[n]) for n in one)


# --- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learn.weights.bits=1", "learn.weights: bits is 1; expected 2 to 16, or 0"),
        ("learn.weights.bits=17", "learn.weights.bits is 17; "),
        ("learn.weights.where=outside", "learn.weights.where is 'outside'; "),
        ("learn.weights.bit=4", "did you mean 'bits'?"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("quickstart", [override])
    assert said in str(error.value)


def test_accumulation_needs_inner_steps_on_the_grid() -> None:
    with pytest.raises(ConfigError, match="expected where=inner or both"):
        load_config(
            "quickstart",
            [f"learn.weights.{x}" for x in ("bits=4", "where=outer", "accumulate=true")],
        )
