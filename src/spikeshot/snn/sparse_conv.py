"""A convolution that uses the sparsity of spikes where that is faster: a way of `product.py`.

The convolution and its weight gradient of spikes x, that is of a binary x of which at most
`DENSEST` is ones, sum weight rows and gradient rows over lists of spikes (`sparse_kernels.py`).
`pack` is the one place that chooses: its bits, empty for dense, are what the graph keeps of x, 1/32
of the memory in float32. The input gradient and the double backward's cotangents are dense.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from spikeshot.snn.room import room
from spikeshot.snn.workers import share_out, threads_for

DENSEST = 0.4  # share of ones up to which lists of spikes are faster, for every layer measured
FEWEST = 1 << 24  # products below which nothing but calls would be saved
BLOCK = 1 << 19  # numbers of an input gradient that are made at once: they stay in the cache
WORTH_A_THREAD = 1 << 22  # products per thread below which waking one costs more than it saves
LANES = 16  # units per vector: one register of AVX-512, two of AVX2, four of NEON
TAPS = (2, 3, 4, 5)  # row lengths of the weight gradient that kernels are compiled for


@dataclass(frozen=True)
class Geometry:
    """Input height and width, kernel size, stride, and zeros on each side (fewer than `size`)."""

    height: int
    width: int
    size: int
    stride: int
    padding: int

    @property
    def taps(self) -> int:
        """How many windows an input pixel is in, at most, along one axis."""
        return -(-self.size // self.stride)


@dataclass(frozen=True)
class Convolution:
    """The way of a convolution `[N, H, W, C]`: of bits over lists of spikes, else dense."""

    shape: Geometry

    def forward(self, taken: Tensor, weight: Tensor) -> Tensor:
        """Return `[N, H', W', units]`."""
        if taken.dtype == torch.uint16:
            return _sparse_forward(taken, weight, self.shape)
        y = F.conv2d(as_images(taken), weight, stride=self.shape.stride, padding=self.shape.padding)
        return channels_last(y).contiguous()

    def for_input(self, grad: Tensor, weight: Tensor) -> Tensor:
        """Return `[N, H, W, C]`: always dense, an output's gradient is not sparse."""
        return _dense_input_gradient(grad, weight, self.shape)

    def for_weight(self, taken: Tensor, grad: Tensor) -> Tensor:
        """Return `[units, C, k, k]`."""
        if taken.dtype == torch.uint16:
            return _sparse_weight_gradient(taken, grad, self.shape)
        size = (self.shape.size, self.shape.size)
        return dense_weight_gradient(taken, grad, size, self.shape.stride, self.shape.padding)


def dense_weight_gradient(
    x: Tensor, grad: Tensor, size: tuple[int, int], stride: int, padding: int | tuple[int, int]
) -> Tensor:
    """Return `[units, C, *size]` for x `[N, H, W, C]` and the output's gradient, channels last."""
    shape = (grad.shape[-1], x.shape[-1], *size)
    out: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        as_images(x), shape, as_images(grad), stride, padding
    )
    return out


def _can_gain(x: Tensor, weight: Tensor, shape: Geometry) -> bool:
    """True where the kernels run and calls are not what costs: if `x` is spikes, use them."""
    units, channels = weight.shape[:2]
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.dtype == weight.dtype
        and x.numel() * units * shape.size**2 // shape.stride**2 >= FEWEST
        and shape.taps in TAPS
        and units % LANES == channels % LANES == 0
    )


def pack(x: Tensor, weight: Tensor, shape: Geometry) -> Tensor:
    """Return `x` as bits `[N, H, W, C / LANES]`, empty where the dense operations shall run."""
    if not _can_gain(x, weight, shape):
        return _dense()
    from spikeshot.snn import sparse_kernels  # brings numba: only when a network runs

    flat = x.detach().contiguous().view(-1).numpy()
    bits = np.empty((*x.shape[:3], x.shape[3] // LANES), np.uint16)
    threads = threads_for(x.numel(), WORTH_A_THREAD)
    found = np.zeros(threads, np.int64)

    def job(i: int, start: int, stop: int) -> None:
        sparse_kernels.pack(start, stop, flat, flat.dtype.type(1), bits.reshape(-1), found, i)

    share_out(bits.size, threads, job)
    sparse = found.min() >= 0 and found.sum() <= DENSEST * x.numel()
    return torch.from_numpy(bits) if sparse else _dense()


def _dense() -> Tensor:
    """Return the bits that stand for dense operations: none."""
    return torch.empty(0, dtype=torch.uint16)


def _sparse_forward(bits: Tensor, weight: Tensor, shape: Geometry) -> Tensor:
    """C of packed spikes."""
    from spikeshot.snn import sparse_kernels

    units, channels, size, _ = weight.shape
    width = 2 * LANES if units % (2 * LANES) == 0 else LANES
    rows = weight.detach().reshape(units // width, width, channels, size, size)
    rows = rows.permute(0, 3, 4, 2, 1).contiguous()  # [units / width, k, k, C, width]
    height, breadth = (
        (m + 2 * shape.padding - size) // shape.stride + 1 for m in (shape.height, shape.width)
    )
    out = room(weight, len(bits), height, breadth, units)
    views = bits.numpy(), rows.numpy(), out.detach().numpy()
    block = max(8, 2048 // (shape.height * shape.width))  # images whose sums stay in the cache

    def job(_: int, start: int, stop: int) -> None:
        sparse_kernels.forward(start, stop, *views, shape.stride, shape.padding, block)

    share_out(len(bits), threads_for(out.numel() * channels, WORTH_A_THREAD), job)
    return out


def _sparse_weight_gradient(bits: Tensor, grad: Tensor, shape: Geometry) -> Tensor:
    """G of packed spikes."""
    from spikeshot.snn import sparse_kernels

    n, height, breadth, units = grad.shape
    channels, taps, stride = bits.shape[3] * LANES, shape.taps, shape.stride
    threads = threads_for(grad.numel() * channels, WORTH_A_THREAD)
    out = grad.new_zeros(threads, units // LANES, stride, stride, taps, channels, taps, LANES)
    views = bits.numpy(), grad.detach().contiguous().numpy()
    sums = out.detach().numpy()
    block = max(1, 768 // ((height + taps - 1) * (breadth + taps - 1)))  # as above, gradient rows

    def job(i: int, start: int, stop: int) -> None:
        sparse_kernels.weight_gradient(
            start, stop, *views, sums[i], taps, stride, shape.padding, block
        )

    share_out(n, threads, job)
    total = sums.sum(0) if threads > 1 else sums[0]
    found = total[:, :, :, ::-1, :, ::-1].transpose(0, 6, 4, 3, 1, 5, 2)  # units, C, (tap, phase)^2
    found = found.reshape(units, channels, taps * stride, taps * stride)
    return torch.from_numpy(np.ascontiguousarray(found[:, :, : shape.size, : shape.size]))


def _dense_input_gradient(grad: Tensor, weight: Tensor, shape: Geometry) -> Tensor:
    """D. Input pixels of one phase, (y + padding) mod stride, meet every stride-th tap.

    So one convolution of stride 1 over `grad` gives all phases as channels, to be shuffled into
    place: 1.2 to 2 times as fast as a transposed convolution, where it is large.
    """
    _, channels, size, _ = weight.shape
    taps, stride, padding = shape.taps, shape.stride, shape.padding
    reach = [m - 1 + padding for m in (shape.height, shape.width)]
    if stride == 1 or grad.numel() * channels * size**2 < FEWEST:
        left = [
            r + padding + 1 - size - (m - 1) * stride
            for r, m in zip(reach, grad.shape[1:3], strict=True)
        ]
        return channels_last(
            F.conv_transpose2d(as_images(grad), weight, None, stride, padding, left)
        )
    phases = _phases(weight, taps, stride)
    before = taps - 1 - padding // stride
    beyond = [
        max(0, r // stride + 1 - m - before) for r, m in zip(reach, grad.shape[1:3], strict=True)
    ]
    out = room(grad, len(grad), shape.height, shape.width, channels)
    block = max(1, BLOCK // (shape.height * shape.width * channels))
    for part, some in zip(torch.split(out, block), torch.split(grad, block), strict=True):
        images = (
            F.pad(as_images(some), [0, beyond[1], 0, beyond[0]]) if any(beyond) else as_images(some)
        )
        y = channels_last(F.conv2d(images, phases, padding=before))
        phased = y.reshape(*y.shape[:3], stride, stride, channels)
        _shuffle(phased, part, padding % stride)
    return out


def _phases(weight: Tensor, taps: int, stride: int) -> Tensor:
    """Return the kernel `[phases * C, units, taps, taps]` of the input gradient's phases."""
    units, channels, size, _ = weight.shape
    padded = F.pad(weight, [0, taps * stride - size] * 2)
    order = _order(taps, stride)
    rows = padded.permute(2, 3, 1, 0).reshape(len(order), channels, units)[order]
    phases = rows.view(stride**2, taps**2, channels, units).permute(0, 2, 3, 1)
    return phases.reshape(stride**2 * channels, units, taps, taps)


@lru_cache(maxsize=16)
def _order(taps: int, stride: int) -> Tensor:
    """Return the places of a kernel's taps in the order (phases, taps) of each axis, mirrored."""
    order = torch.arange((taps * stride) ** 2).view(taps, stride, taps, stride).flip(0, 2)
    return order.permute(1, 3, 0, 2).flatten()


def _shuffle(phases: Tensor, out: Tensor, skip: int) -> None:
    """Fill `out` `[n, H, W, C]` with the pixels of `phases` `[n, h, w, s, s, C]` from `skip` on."""
    stride = phases.shape[3]
    for i, j in itertools.product(range(stride), repeat=2):
        to = out[:, (i - skip) % stride :: stride, (j - skip) % stride :: stride]
        y, x = int(i < skip), int(j < skip)
        to.copy_(phases[:, y : y + to.shape[1], x : x + to.shape[2], i, j])


def as_images(x: Tensor) -> Tensor:
    """Return activity `[N, H, W, C]` as torch's images `[N, C, H, W]`, a view."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """Return torch's images `[N, C, H, W]` as activity `[N, H, W, C]`, a view."""
    return x.permute(0, 2, 3, 1)
