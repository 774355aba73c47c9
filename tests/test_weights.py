"""Every way of applying weights against the plain convolution followed by pooling."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from spikeshot.snn.weights import weigh

SIZES = [(8, 8), (8, 12), (7, 8), (9, 6), (4, 8), (8, 4), (4, 4), (2, 2), (1, 6), (3, 3)]
KERNELS = [(5, 2), (3, 2), (7, 3), (3, 1), (5, 1), (9, 4), (1, 2), (9, 2)]


CASES = [(*kp, size) for kp in KERNELS for size in SIZES if min(size) >= kp[1]]


@pytest.mark.parametrize(("kernel", "pool", "size"), CASES)
def test_pooled_convolution_equals_convolution_then_pooling(
    kernel: int, pool: int, size: tuple[int, int]
) -> None:
    """In float64, value and two derivatives; an axis of few cells is part of the channels."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(3, 2, *size, 4, generator=g, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, 4, kernel, kernel, generator=g, dtype=torch.float64).requires_grad_()
    found = weigh(weight, x, pool)
    plain = conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, padding=kernel // 2)
    pooled = avg_pool2d(plain, pool).permute(0, 2, 3, 1)
    expected = pooled.unflatten(0, x.shape[:2])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(
        derivatives(found, x, weight), derivatives(expected, x, weight), strict=True
    ):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12 * scale)


def derivatives(y: Tensor, x: Tensor, weight: Tensor) -> list[Tensor]:
    """The gradients of a function of `y`, then those of a function of these."""
    first = torch.autograd.grad(y.pow(3).sum(), [x, weight], create_graph=True)
    second = torch.autograd.grad(sum(f.square().sum() for f in first), [x, weight])
    return [*(f.detach() for f in first), *second]
