"""Times of the engine's kernels, for pytest-benchmark: `make bench` (not part of `make test`).

    python -m pytest benchmarks/test_kernels.py --benchmark-only [-k REGEX]

The three passes of a layer after its weights, for every reset and way of pooling, on the first
hidden layer of the benchmark's `small` query pass; and a convolution followed by average pooling,
as it stands, as one strided convolution with the folded kernel, and on cells (what the engine
does), each forward with its gradients. One thread, float32.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn import fused, weights
from spikeshot.snn.neuron import Neuron

pytest.importorskip("pytest_benchmark")

STEPS, IMAGE = 30, (10, 16, 16, 16)  # time steps; samples, height, width, channels
KERNEL, POOL, UNITS = 5, 2, 32
RESETS = ("refractory", "subtract", "zero")
MODES = {
    "no pooling": fused.kernels.NO_POOL,
    "max before": fused.kernels.MAX_BEFORE,
    "average after": fused.kernels.AVERAGE_AFTER,
    "max after": fused.kernels.MAX_AFTER,
}
Benchmark = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch, and with it the kernels, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan_of(reset: str, pooling: str) -> fused.Plan:
    """Return the plan of a layer with this reset and way of pooling."""
    neuron = Neuron(0.95, 0.9, 0.65, 0.1, reset)
    return fused.Plan(neuron, STEPS, IMAGE, MODES[pooling], POOL if MODES[pooling] else 1)


def fused_passes(plan: fused.Plan) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """Return x, bias, spikes, their cotangent and the first derivatives, with their graph."""
    generator = torch.Generator().manual_seed(0)
    x = (4 * torch.randn(STEPS, *IMAGE, generator=generator)).requires_grad_()
    bias = torch.zeros(IMAGE[-1], requires_grad=True)
    spikes, _ = fused.fire(x, bias, plan)
    cotangent = torch.randn(spikes.shape, generator=generator).requires_grad_()
    first = torch.autograd.grad(spikes, [x, bias], cotangent, create_graph=True)
    return x, bias, spikes, cotangent, list(first)


@pytest.mark.parametrize("pooling", MODES)
@pytest.mark.parametrize("reset", RESETS)
def test_forward(benchmark: Benchmark, reset: str, pooling: str) -> None:
    benchmark.group = "fused forward"
    plan = plan_of(reset, pooling)
    x, bias, spikes, *_ = fused_passes(plan)
    with torch.no_grad():
        again, _ = benchmark(fused.fire, x, bias, plan)
    assert torch.equal(again, spikes)
    assert 0.02 < float((spikes > 0).float().mean()) < 0.98


@pytest.mark.parametrize("pooling", MODES)
@pytest.mark.parametrize("reset", RESETS)
def test_backward(benchmark: Benchmark, reset: str, pooling: str) -> None:
    benchmark.group = "fused backward"
    x, bias, spikes, cotangent, first = fused_passes(plan_of(reset, pooling))
    found = benchmark(
        lambda: torch.autograd.grad(spikes, [x, bias], cotangent.detach(), retain_graph=True)
    )
    assert all(torch.equal(a, b) for a, b in zip(found, first, strict=True))


@pytest.mark.parametrize("pooling", MODES)
@pytest.mark.parametrize("reset", RESETS)
def test_double_backward(benchmark: Benchmark, reset: str, pooling: str) -> None:
    """Tangent, curvature, and the backward pass again that carries the curvature to x and bias."""
    benchmark.group = "fused double backward"
    x, bias, _, cotangent, first = fused_passes(plan_of(reset, pooling))
    along = [torch.ones_like(f) for f in first]
    found = benchmark(
        lambda: torch.autograd.grad(first, [x, bias, cotangent], along, retain_graph=True)
    )
    assert all(float(f.abs().max()) > 0 for f in found)


def plain(weight: Tensor, images: Tensor) -> Tensor:
    """Convolve `[n, H, W, C]` at every pixel, then average."""
    y = F.conv2d(images.permute(0, 3, 1, 2), weight, padding=KERNEL // 2)
    return F.avg_pool2d(y, POOL).permute(0, 2, 3, 1)


def strided(weight: Tensor, images: Tensor) -> Tensor:
    """One convolution of stride 2 with the folded kernel."""
    return weights._strided(weight, images, POOL)


def on_cells(weight: Tensor, images: Tensor) -> Tensor:
    """The folded kernel on cells of 2 x 2 pixels: the engine's dense way."""
    return weights._convolve(weight, images, POOL)


def engine(weight: Tensor, images: Tensor) -> Tensor:
    """What the engine chooses: lists of spikes in a hidden layer, cells in the first."""
    return weights.weigh(weight, images[None], POOL)[0]


@pytest.mark.parametrize("way", [plain, strided, on_cells, engine], ids=lambda f: f.__name__)
@pytest.mark.parametrize("channels", [2, 16], ids=["first layer", "hidden layer"])
def test_convolution_and_pooling(benchmark: Benchmark, channels: int, way: Any) -> None:
    """Forward, and backward for the weights and (in a hidden layer) the input."""
    benchmark.group = f"convolution and pooling, {channels} channels"
    generator = torch.Generator().manual_seed(0)
    batch, height, width, _ = IMAGE
    images = (torch.rand(STEPS * batch, height, width, channels, generator=generator) < 0.2).float()
    images.requires_grad_(channels > 2)
    weight = torch.randn(UNITS, channels, KERNEL, KERNEL, generator=generator).requires_grad_()
    wanted = [weight, images] if images.requires_grad else [weight]

    def passes() -> tuple[Tensor, ...]:
        y = way(weight, images)
        return y, *torch.autograd.grad(y, wanted, torch.ones_like(y))

    y, *_ = benchmark(passes)
    y, expected = y.detach(), plain(weight, images).detach()
    assert float((y - expected).abs().max()) < 1e-4 * float(expected.abs().max())
