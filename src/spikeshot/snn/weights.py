"""The weights of a layer applied to activity, with as few products as an exact dense way needs.

Three identities, all exact. (1) Averaging p x p outputs of a k x k convolution is one convolution
of stride p with the kernel averaged over p x p shifts, of size K = k + p - 1: for k = 5, p = 2 it
has 0.36 of the products. (2) A convolution of stride p on pixels is one of stride 1 on cells of
p x p pixels, with the same products and a much faster gradient for its input. (3) Where an image is
so low or narrow that every output sees every input along that axis, the axis is one more part of
the channels: no product is spent on the padding (4 instead of 6 for two cells and three taps).
Where the activity is spikes, and sparse enough, sums over lists of spikes take the place of all
this (`sparse_conv.py`).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn.product import product
from spikeshot.snn.sparse_conv import (
    Convolution,
    Geometry,
    as_images,
    channels_last,
    dense_weight_gradient,
    pack,
)


def weigh(weight: Tensor, x: Tensor, pool: int) -> Tensor:
    """Apply weights to `x` `[T, B, H, W, C]` or `[T, B, ...]`.

    Returns `[T, B, H', W', units]` or `[T, B, units]`. `weight` `[units, C, k, k]` (zero padding
    that keeps the size, then average pooling over `pool` x `pool`; a border that fills no window is
    cut) or `[units, F]`.
    """
    if weight.dim() == 2:
        return product(x.flatten(2).flatten(0, 1), weight, _Matrix()).view(
            *x.shape[:2], len(weight)
        )
    images = x.flatten(0, 1)
    y = _as_spikes(weight, images, pool)
    y = _convolve(weight, images, pool) if y is None else y
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _as_spikes(weight: Tensor, images: Tensor, p: int) -> Tensor | None:
    """Return the sum over lists of spikes, or None where that does not apply or does not pay."""
    k = weight.shape[-1]
    _, height, width, _ = images.shape
    if max(height, width) // p <= k // 2 // p + 1:  # then one small matrix product does it
        return None
    shape = Geometry(height, width, k + p - 1, p, k // 2)
    bits = pack(images, weight, shape)
    if not bits.numel():
        return None
    return product(images, _folded(weight, p), Convolution(shape), bits)


def _convolve(weight: Tensor, images: Tensor, p: int) -> Tensor:
    """Return `[n, H / p, W / p, units]` for `images` `[n, H, W, C]`."""
    units, channels, k, _ = weight.shape
    n, height, width, _ = images.shape
    if height % p or width % p or k // 2 % p:
        return _strided(weight, images, p)
    h, w, reach = height // p, width // p, k // 2 // p  # in cells
    low, narrow = h <= reach + 1, w <= reach + 1
    if p == 1 and not (low or narrow):
        return _strided(weight, images, p)
    spread = _spread(k, p, h if low else 0, w if narrow else 0, weight.dtype, str(weight.device))
    out_y, out_x = h if low else 1, w if narrow else 1
    in_y, in_x = h if low else 2 * reach + 1, w if narrow else 2 * reach + 1
    wide = (weight.flatten(2) @ spread).view(units, channels, out_y, out_x, in_y, in_x, p * p)
    cells = images.view(n, h, p, w, p, channels)
    if low and narrow:
        matrix = wide.permute(2, 3, 0, 4, 5, 6, 1).reshape(h * w * units, -1)
        rows = cells.permute(0, 1, 3, 2, 4, 5).reshape(n, -1)
        return product(rows, matrix, _Matrix()).view(n, h, w, units)
    if narrow:  # columns are part of the channels
        kernel = wide.permute(2, 3, 0, 4, 5, 6, 1).reshape(w * units, in_y, 1, -1)
        rows = cells.permute(0, 1, 3, 2, 4, 5).reshape(n, h, 1, -1)
        return _plain(kernel, rows, (reach, 0)).view(n, h, w, units)
    if low:  # rows are
        kernel = wide.permute(2, 3, 0, 5, 4, 6, 1).reshape(h * units, 1, in_x, -1)
        rows = cells.permute(0, 3, 1, 2, 4, 5).reshape(n, 1, w, -1)
        y = _plain(kernel, rows, (0, reach)).view(n, w, h, units)
        return y.transpose(1, 2).contiguous()
    kernel = wide.permute(2, 3, 0, 4, 5, 6, 1).reshape(units, in_y, in_x, -1)
    rows = cells.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, -1)
    return _plain(kernel, rows, (reach, reach))


def _strided(weight: Tensor, images: Tensor, p: int) -> Tensor:
    """The same as one convolution of stride p."""
    kernel, padding = _folded(weight, p), weight.shape[-1] // 2
    shape = Geometry(images.shape[1], images.shape[2], kernel.shape[-1], p, padding)
    return product(images, kernel, Convolution(shape))


def _folded(weight: Tensor, p: int) -> Tensor:
    """Return the kernel averaged over p x p shifts, `[units, C, k + p - 1, k + p - 1]`."""
    if p == 1:
        return weight
    k = weight.shape[-1]
    spread = _spread(k, 1, 0, 0, weight.dtype, str(weight.device), p)
    return (weight.flatten(2) @ spread).view(*weight.shape[:2], k + p - 1, k + p - 1)


def _plain(kernel: Tensor, rows: Tensor, padding: tuple[int, int]) -> Tensor:
    """Convolve `rows` `[n, H, W, C]` with `kernel` `[units, k, k, C]`: `[n, H, W, units]`."""
    return product(rows, kernel.permute(0, 3, 1, 2), _SameSize(padding))


@dataclass(frozen=True)
class _SameSize:
    """The way of a convolution of stride 1 on `[n, H, W, C]`, with zeros above and beside."""

    padding: tuple[int, int]

    def forward(self, taken: Tensor, weight: Tensor) -> Tensor:
        return channels_last(F.conv2d(as_images(taken), weight, padding=self.padding)).contiguous()

    def for_input(self, grad: Tensor, weight: Tensor) -> Tensor:
        x = F.conv_transpose2d(as_images(grad), weight, padding=self.padding)
        return channels_last(x).contiguous()

    def for_weight(self, taken: Tensor, grad: Tensor) -> Tensor:
        (h, w), (oh, ow), (y, x) = taken.shape[1:3], grad.shape[1:3], self.padding
        size = (h - oh + 2 * y + 1, w - ow + 2 * x + 1)
        return dense_weight_gradient(taken, grad, size, 1, self.padding)


class _Matrix:
    """The way of a matrix `[units, F]` times rows `[n, F]`."""

    def forward(self, taken: Tensor, weight: Tensor) -> Tensor:
        return taken @ weight.t()

    def for_input(self, grad: Tensor, weight: Tensor) -> Tensor:
        return grad @ weight

    def for_weight(self, taken: Tensor, grad: Tensor) -> Tensor:
        return grad.t() @ taken


@lru_cache(maxsize=64)
def _spread(
    k: int, p: int, height: int, width: int, dtype: torch.dtype, device: str, pool: int = 0
) -> Tensor:
    """Return the matrix `[k k, ...]` that turns a k x k kernel into one on cells of p x p pixels.

    Columns are ordered (output row and column, input row and column, pixel in the cell); along an
    axis that is part of the channels, of `height` or `width` cells, outputs and inputs are its
    cells; along another (0) there is one output, and the inputs are the kernel's taps. `pool`: the
    pooling folded in (p where not given).
    """
    pool = pool or p
    unit = torch.eye(k * k, dtype=torch.float64).view(-1, 1, k, k)
    wide = F.avg_pool2d(F.pad(unit, [pool - 1] * 4), pool, stride=1)[:, 0]
    reach, taps = k // 2 // p, wide.shape[-1] // p
    wide = wide.view(k * k, taps, p, taps, p)

    def places(cells: int) -> Tensor:
        """Return the tap by which each output sees each input, `[outputs, inputs]`."""
        if not cells:
            return torch.arange(taps)[None]
        return torch.arange(cells)[None] - torch.arange(cells)[:, None] + reach

    y, x = places(height), places(width)
    wide = wide[:, y][:, :, :, :, x]  # (kk, out_y, in_y, p, out_x, in_x, p)
    order = wide.permute(0, 1, 4, 2, 5, 3, 6)
    return order.reshape(k * k, -1).to(dtype=dtype, device=device)
