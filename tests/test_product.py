"""The product as an autograd function: against torch's own, what is made, and what is refused."""

import pytest
import torch
from torch import Tensor

from spikeshot.snn.product import product
from spikeshot.snn.weights import _Matrix


class Counted(_Matrix):
    """The way of a matrix that counts its input gradients."""

    def __init__(self) -> None:
        self.count = 0

    def for_input(self, grad: Tensor, weight: Tensor) -> Tensor:
        self.count += 1
        return super().for_input(grad, weight)


def tensors(*, wanted: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    return x.requires_grad_(wanted), weight.requires_grad_()


def second(y: Tensor, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    first = torch.autograd.grad(y.sin().sum(), wanted, create_graph=True)
    return torch.autograd.grad(sum(f.pow(3).sum() for f in first), wanted)


@pytest.mark.parametrize(("wanted", "made"), [(False, 0), (True, 3)])
def test_the_input_gradients_that_are_asked_for_and_no_others(wanted: bool, made: int) -> None:
    """Three with x: of the backward pass, of its double backward, and of the forward pass again."""
    x, weight = tensors(wanted=wanted)
    way, leaves = Counted(), [x, weight] if wanted else [weight]
    found = second(product(x, weight, way), leaves)
    assert way.count == made
    for mine, theirs in zip(found, second(x @ weight.t(), leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_weights_without_gradient() -> None:
    x, weight = tensors(wanted=True)
    fixed = weight.detach()
    (found,) = second(product(x, fixed, _Matrix()), [x])
    (expected,) = second(x @ fixed.t(), [x])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_third_derivative_is_refused() -> None:
    x, weight = tensors(wanted=True)
    first = torch.autograd.grad(
        product(x, weight, _Matrix()).pow(3).sum(), [x, weight], create_graph=True
    )
    again = torch.autograd.grad(sum(f.pow(2).sum() for f in first), [x, weight], create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        torch.autograd.grad(sum(f.pow(2).sum() for f in again), [x, weight])
