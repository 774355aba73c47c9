"""The fused kernels of a layer against the same layer in torch operations, to second order."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from networks import RESETS
from spikeshot.snn import fused
from spikeshot.snn.layer import Layer, LayerState, LayerStyle, PoolKind, PoolWhere, layer_spikes
from spikeshot.snn.neuron import Neuron, Reset
from spikeshot.snn.surrogate import SURROGATES

STEPS, BATCH, UNITS = 6, 5, 3
NAMES = ("spikes", "reset after", "dX", "dW", "db", "d2X", "d2W", "d2b", "d2g")


def passes(
    layer: Layer, style: LayerStyle, dtype: torch.dtype, *, state: bool, traced: bool, side: int
) -> list[Tensor]:
    """Return spikes, R, first derivatives, and second derivatives along fixed directions."""
    g = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    shape = (side, side + 1, 2) if layer.kernel else (7,)
    x = normal(STEPS, BATCH, *shape).requires_grad_()
    kernel = (2, layer.kernel, layer.kernel) if layer.kernel else (7,)
    weight = (normal(layer.units, *kernel) * 0.5).requires_grad_()
    bias = (normal(layer.units) * 0.2).requires_grad_()
    before = None
    if state:
        neurons = layer_spikes(layer, style, weight, bias, x, traced=traced)[1]
        trace = None if traced else normal(2, BATCH, *shape)
        before = LayerState(trace, normal(*neurons.shape) * 0.1, 3)
    s, after = layer_spikes(layer, style, weight, bias, x, before, traced=traced)
    cotangent = normal(*s.shape).requires_grad_()
    wanted = [x, weight, bias]
    first = torch.autograd.grad((s * cotangent).sum(), wanted, create_graph=True)
    along = sum(((f + 0.3 * f**2) * normal(*f.shape)).sum() for f in first)
    # the spikes themselves are used a second time, as in a meta-gradient through two inner steps
    second = torch.autograd.grad(along + (s * normal(*s.shape)).sum(), [*wanted, cotangent])
    return [s, after, *first, *second]


def assert_same(
    monkeypatch: pytest.MonkeyPatch, layer: Layer, style: LayerStyle,
    dtype: torch.dtype = torch.float64, *, state: bool = False, traced: bool = False, side: int = 4,
) -> None:  # fmt: skip
    found = passes(layer, style, dtype, state=state, traced=traced, side=side)
    with monkeypatch.context() as patched:
        patched.setattr(fused, "applies", lambda *_: False)
        expected = passes(layer, style, dtype, state=state, traced=traced, side=side)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    for name, mine, theirs in zip(NAMES, found, expected, strict=True):
        if name == "reset after" and side != 4:
            continue  # the kernels leave out neurons that no pooling window covers
        scale = float(theirs.detach().abs().max())
        assert scale > 1e-3, f"{name}: nothing is compared with zeros"
        assert mine.dtype == dtype
        gap = float((mine - theirs).detach().abs().max()) / scale
        assert gap < tolerance, f"{name}: {gap}"


POOLS: list[tuple[PoolKind, PoolWhere]] = [
    ("average", "before"),
    ("max", "before"),
    ("average", "after"),
    ("max", "after"),
]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize(("kind", "where"), POOLS)
@pytest.mark.parametrize("reset", RESETS)
def test_kernels_equal_the_torch_path(
    monkeypatch: pytest.MonkeyPatch,
    reset: Reset, kind: PoolKind, where: PoolWhere, delay: int, state: bool, traced: bool,
) -> None:  # fmt: skip
    neuron = Neuron(0.8, 0.6, 0.5, 0.3, reset, delay, "fast_sigmoid", 4.0)
    style = LayerStyle(neuron, kind, where)
    assert_same(monkeypatch, Layer(UNITS, 3, 2), style, state=state, traced=traced)


@pytest.mark.parametrize(("kind", "where"), POOLS)
@pytest.mark.parametrize("side", [5, 6])
def test_a_border_that_no_window_covers(
    monkeypatch: pytest.MonkeyPatch, kind: PoolKind, where: PoolWhere, side: int
) -> None:
    style = LayerStyle(Neuron(0.8, 0.6, 0.5, 0.0, sharpness=4.0), kind, where)
    assert_same(monkeypatch, Layer(UNITS, 5, 2), style, side=side)
    assert_same(monkeypatch, Layer(UNITS, 3, 3), style, side=side)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_surrogates_in_both_precisions(
    monkeypatch: pytest.MonkeyPatch, reset: Reset, surrogate: str, dtype: torch.dtype
) -> None:
    neuron = Neuron(0.8, 0.6, 0.5, 0.3, reset, 1, surrogate, 0.7)
    assert_same(monkeypatch, Layer(UNITS, 3), LayerStyle(neuron), dtype)
    assert_same(monkeypatch, Layer(UNITS), LayerStyle(neuron), dtype, state=True)


@pytest.mark.parametrize(("kind", "where"), POOLS)
def test_several_strips_and_threads(
    monkeypatch: pytest.MonkeyPatch, kind: PoolKind, where: PoolWhere
) -> None:
    """Strips short enough for many, the last one not full, shared by three threads."""
    monkeypatch.setattr(fused, "STRIP", 16)
    monkeypatch.setattr(fused, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    fused._passes.cache_clear()
    style = LayerStyle(Neuron(0.8, 0.6, 0.5, 0.3, sharpness=4.0), kind, where)
    assert_same(monkeypatch, Layer(UNITS, 3, 2), style, state=True)
    assert_same(monkeypatch, Layer(UNITS, 3), style, state=True)
    fused._passes.cache_clear()


def test_where_the_kernels_do_not_apply() -> None:
    x, neuron = torch.zeros(3, 4), Neuron()
    assert fused.applies(x, neuron)
    assert not fused.applies(x.half(), neuron)
    assert not fused.applies(x.to("meta"), neuron)
    assert not fused.applies(x, replace(neuron, soft=True))


def test_a_third_derivative_is_refused() -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    plan = fused.Plan(Neuron(threshold=0.1), 4, (2, 1, 1, 3))
    s, _ = fused.fire(x, torch.zeros(3).double(), plan)
    (first,) = torch.autograd.grad((s.flatten(1) * x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|differentiable twice"):
        third_derivative(first, x)


def third_derivative(first: Tensor, x: Tensor) -> Tensor:
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    return torch.autograd.grad(second.square().sum(), x)[0]


@pytest.mark.parametrize("graph", [True, False])
def test_what_nobody_needs_is_overwritten_with_the_same_numbers(graph: bool) -> None:
    """Owned drive: its memory becomes the membrane's, or without a graph the spikes'."""
    plan = fused.Plan(Neuron(0.9, 0.8, 0.7), 6, (2, 3, 4, 5))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 120, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    with torch.set_grad_enabled(graph):
        kept, owned = x.clone(), x.clone()
        expected, after = fused.fire(kept, bias, plan)
        found, after_too = fused.fire(owned, bias, plan, owned=True)
    assert (kept == x).all()
    assert not (owned == x).all()
    assert 0 < expected.mean() < 1
    assert (found == expected).all()
    assert (after == after_too).all()
    assert (found.data_ptr() == owned.data_ptr()) is not graph
    if graph:
        first, second = (torch.autograd.grad(s.sum(), bias)[0] for s in (expected, found))
        assert (first == second).all()
