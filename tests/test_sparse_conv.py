"""The convolution on lists of spikes against torch's dense one, in value and derivatives."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks import relative_error, small_network
from spikeshot.snn import sparse_conv, weights, workers
from spikeshot.snn.init import init_params
from spikeshot.snn.layer import Layer
from spikeshot.snn.network import forward
from spikeshot.snn.product import product
from spikeshot.snn.sparse_conv import Convolution, Geometry

SHAPES = [(7, 2, 2, 7, 5), (6, 2, 2, 8, 6), (4, 2, 1, 9, 8), (3, 1, 1, 4, 5), (5, 1, 2, 5, 6)]
SHAPES += [(7, 3, 2, 8, 6), (8, 2, 3, 7, 4)]
"""Kernel size, stride, padding, height, width: all row lengths; strides that leave pixels over."""


@pytest.fixture(autouse=True)
def _small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_conv, "FEWEST", 0)


def dense(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The oracle: torch's convolution, channels last."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, stride=stride, padding=padding)
    return y.permute(0, 2, 3, 1)


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def spikes(*shape: int, density: float = 0.2) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(*shape, generator=generator) < density).double()


def convolve(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Over lists of spikes where that is chosen, as in `weights.py`; else our functions, dense."""
    shape = Geometry(x.shape[1], x.shape[2], weight.shape[-1], stride, padding)
    bits = sparse_conv.pack(x, weight, shape)
    return product(x, weight, Convolution(shape), bits if bits.numel() else None)


def is_sparse(x: Tensor, weight: Tensor, stride: int, padding: int) -> bool:
    shape = Geometry(x.shape[1], x.shape[2], weight.shape[-1], stride, padding)
    return sparse_conv.pack(x, weight, shape).numel() > 0


def passes(run: object, x: Tensor, weight: Tensor, stride: int, padding: int) -> list[Tensor]:
    """Value, first derivatives, and those of a scalar made of both first derivatives."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = run(x, weight, stride, padding)  # type: ignore[operator]
    g = normal(3, *y.shape).requires_grad_()
    first = torch.autograd.grad((y.sin() * g).sum(), [x, weight], create_graph=True)
    scalar = sum((v * normal(4 + i, *v.shape)).sum() for i, v in enumerate(first))
    return [y, *first, *torch.autograd.grad(scalar, [x, weight, g])]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_derivatives_to_second_order(shape: tuple[int, ...], binary: bool) -> None:
    size, stride, padding, height, width = shape
    x = spikes(40, height, width, 16)  # more than one block of images
    if not binary:
        x = x * normal(1, *x.shape)
    weight = normal(2, 32 if size % 2 else 16, 16, size, size)
    assert is_sparse(x, weight, stride, padding) == binary
    found = passes(convolve, x, weight, stride, padding)
    for one, expected in zip(found, passes(dense, x, weight, stride, padding), strict=True):
        scale = float(expected.detach().abs().max())
        assert scale > 1  # nothing is compared with zeros
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("fewest", [0, 1 << 40])
def test_finite_differences_to_second_order(fewest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_conv, "FEWEST", fewest)
    x, weight = spikes(2, 4, 4, 16).requires_grad_(), normal(2, 16, 16, 4, 4).requires_grad_()
    assert is_sparse(x, weight, 2, 1) == (fewest == 0)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, 2, 1)

    assert torch.autograd.gradcheck(run, (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, weight), fast_mode=True)


def test_an_input_without_gradient_keeps_the_double_backward_of_the_weights() -> None:
    x, g = normal(1, 6, 8, 8, 2), normal(2, 6, 4, 4, 3)

    def curvature(run: object) -> Tensor:
        weight = normal(3, 3, 2, 6, 6).requires_grad_()
        y = run(x, weight, 2, 2)  # type: ignore[operator]
        (first,) = torch.autograd.grad((y.sin() * g).sum(), weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), weight)[0]

    torch.testing.assert_close(curvature(convolve), curvature(dense), rtol=1e-12, atol=1e-10)


def test_three_threads_give_what_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = spikes(50, 8, 6, 32), normal(2, 16, 32, 6, 6)
    one = passes(convolve, x, weight, 2, 2)
    monkeypatch.setattr(sparse_conv, "threads_for", lambda work, worth: 3)
    for found, expected in zip(passes(convolve, x, weight, 2, 2), one, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-11)


def test_float32() -> None:
    x, weight = spikes(20, 8, 6, 16), normal(2, 16, 16, 6, 6)
    assert is_sparse(x.float(), weight.float(), 2, 2)
    weight32, expected = weight.float().requires_grad_(), passes(dense, x, weight, 2, 2)
    y = convolve(x.float(), weight32, 2, 2)
    g = normal(3, *y.shape)
    (found,) = torch.autograd.grad((y.sin() * g).sum(), weight32)
    torch.testing.assert_close(y.double(), expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.double(), expected[2], rtol=1e-3, atol=1e-3)


def test_what_runs_dense() -> None:
    x, weight = spikes(9, 8, 6, 16), normal(2, 16, 16, 6, 6)
    assert is_sparse(x, weight, 2, 2)
    assert is_sparse(torch.zeros_like(x), weight, 2, 2)
    assert not is_sparse(spikes(9, 8, 6, 16, density=0.9), weight, 2, 2)
    assert not is_sparse(2 * x, weight, 2, 2)
    last = x.clone()
    last[-1, -1, -1, -1] = 0.5
    assert not is_sparse(last, weight, 2, 2)
    assert not is_sparse(x[..., :8], weight[:, :8], 2, 2)
    assert not is_sparse(x, weight[:9], 2, 2)
    assert not is_sparse(x.bfloat16(), weight.bfloat16(), 2, 2)
    assert not is_sparse(x.to("meta"), weight.to("meta"), 2, 2)
    assert not is_sparse(x, normal(2, 16, 16, 6, 6), 1, 2)  # rows of 6 taps: not compiled


@pytest.mark.parametrize("burn_in", [0, 4])
def test_a_network_of_spikes_equals_the_oracle(
    burn_in: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second layer's input is binary; after a burn-in, the state beside it is not."""
    network = replace(
        small_network(burn_in=burn_in), layers=(Layer(16, 3, 2), Layer(16, 3, 2), Layer(16))
    )
    generator = torch.Generator().manual_seed(1)
    frames = torch.poisson(torch.full((9, 5, 2, 8, 7), 0.3).double(), generator=generator)
    params = init_params(network, 3, frames, generator=generator, activity=0.25)
    kinds = []
    pack = sparse_conv.pack

    def spy(*args: object) -> Tensor:
        bits: Tensor = pack(*args)  # type: ignore[arg-type]
        kinds.append(bits.numel() > 0)
        return bits

    monkeypatch.setattr(weights, "pack", spy)

    def gradient(engine: str) -> dict[str, Tensor]:
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        logits = forward(replace(network, engine=engine), leaves, frames)  # type: ignore[arg-type]
        first = torch.autograd.grad(logits.square().sum(), leaves.values(), create_graph=True)
        second = torch.autograd.grad(
            sum(f.square().sum() for f in first), leaves.values(), allow_unused=True
        )
        return {n: s for n, s in zip(leaves, second, strict=True) if s is not None}

    found = gradient("auto")
    assert any(kinds)
    assert relative_error(found, gradient("oracle")) < 1e-12


def test_shares_cover_the_whole_and_errors_come_out() -> None:
    seen: list[tuple[int, int, int]] = []
    workers.share_out(10, 3, lambda *share: seen.append(share))
    assert sorted(seen) == [(0, 0, 3), (1, 3, 7), (2, 7, 10)]
    with pytest.raises(ZeroDivisionError):
        workers.share_out(2, 2, lambda i, start, stop: 1 // (start - start))  # type: ignore[arg-type,return-value]
