"""Convolutions of binary spikes as sums of weight rows, one per spike: numba kernels for the CPU.

A spike's product with a weight is the weight, and no spike has no product, so a convolution is a
sum of rows `[units]`: for an output pixel, over the spikes under its window, of weight rows (the
forward pass); for a weight row, over the spikes of its channel, of rows of the output's gradient
(the weight gradient). The sums stay in registers while they run, in vectors of `LANES` units.

Spikes are packed into bits once, `[N, H, W, C / LANES]`; both passes list positions from them:

    forward          per image row, in the order (x, c): those under a window's row are one slice
    weight gradient  per channel and phase (y mod stride, x mod stride): all spikes of a list have
                     the same taps, and the taps of one kernel row are adjacent gradient rows

Blocks of images, and a kernel row or a block of units at a time, keep the rows in the caches. The
kernels release the interpreter and work on images `start` to `stop`, for threads.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from spikeshot.snn.sparse_conv import LANES

F = TypeVar("F", bound=Callable[..., Any])
Emit = Callable[[Any, Any, Any, Any], Any]  # (context, builder, signature, arguments) -> value


def _compiled(**options: Any) -> Callable[[F], F]:
    return cast(Callable[[F], F], numba.njit(cache=True, error_model="numpy", **options))


def _emitted(function: Callable[..., tuple[Any, Emit] | None]) -> Any:
    """Make an operation that kernels call from a function that writes its LLVM code.

    For what numba has no words for: a vector in registers. LLVM makes it of what the CPU has.
    """
    return intrinsic(prefer_literal=True)(function)


@_emitted
def _lowest(_: Any, bits: Any) -> tuple[Any, Emit]:
    """Return the place of the lowest set bit, 64 if there is none."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), emit


@_emitted
def _count(_: Any, bits: Any) -> tuple[Any, Emit]:
    """Return how many bits are set."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), emit


@_emitted
def _mask(_: Any, x: Any, at: Any, value: Any) -> tuple[Any, Emit]:
    """Return the bits of `x[at : at + LANES] != value`, the first element lowest."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = _load(context, builder, _vectors(context, builder, x, args[0], args[1], 1)[0])
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        undefined = ir.Constant(found.type, ir.Undefined)
        first = builder.insert_element(undefined, args[2], ir.Constant(ir.IntType(32), 0))
        wanted = builder.shuffle_vector(first, undefined, lanes)
        differs = builder.fcmp_unordered("!=", found, wanted)
        return builder.zext(builder.bitcast(differs, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(x, types.intp, x.dtype), emit


@_emitted
def _add_rows(
    _: Any, vectors: Any, out: Any, at: Any, rows: Any, base: Any, pos: Any, lo: Any, hi: Any
) -> tuple[Any, Emit] | None:
    """Add to `out[at:]` the rows `rows[base + p:]`, p in `pos[lo:hi]`, `vectors` vectors each.

    `vectors` is a literal: the sums are registers. Short rows are summed several at a time, for
    each addition waits for the one before it.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    width = vectors.literal_value
    ways = max(1, 4 // width)
    signature = types.void(vectors, out, types.intp, rows, types.intp, pos, types.intp, types.intp)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, target, at, source, base, places, lo, hi = args
        target = _vectors(context, builder, out, target, at, width)
        places = context.make_array(pos)(context, builder, places).data

        def add(event: Any, sums: list[Any]) -> list[Any]:
            place = builder.sext(builder.load(builder.gep(places, [event])), base.type)
            row = _vectors(context, builder, rows, source, builder.add(base, place), width)
            pairs = zip(sums, row, strict=True)
            return [builder.fadd(s, _load(context, builder, r)) for s, r in pairs]

        total = [_load(context, builder, t) for t in target]
        zero = [ir.Constant(total[0].type, [0.0] * LANES)] * width
        event, sums = _loop(builder, lo, hi, [total] + [zero] * (ways - 1), add)
        total = sums[0]
        for more in sums[1:]:
            total = [builder.fadd(a, b) for a, b in zip(total, more, strict=True)]
        if ways > 1:
            _, (total,) = _loop(builder, event, hi, [total], add)
        for place, value in zip(target, total, strict=True):
            builder.store(value, place, align=_align(context, value))
        return context.get_dummy_value()

    return signature, emit


def _loop(
    builder: Any, start: Any, stop: Any, sums: list[Any], add: Callable[[Any, Any], Any]
) -> tuple[Any, list[Any]]:
    """Emit a loop that adds `len(sums)` events at a time, one to each of the sums, while it can.

    Returns the first event that is left and the sums.
    """
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    here = builder.phi(start.type)
    here.add_incoming(start, before)
    kept = [[builder.phi(value.type) for value in one] for one in sums]
    then = builder.add(here, ir.Constant(start.type, len(sums)))
    builder.cbranch(builder.icmp_signed("<=", then, stop), body, after)
    builder.position_at_end(body)
    added = [add(builder.add(here, ir.Constant(start.type, i)), one) for i, one in enumerate(kept)]
    here.add_incoming(then, body)
    for phis, old, new in zip(kept, sums, added, strict=True):
        for phi, at_start, in_loop in zip(phis, old, new, strict=True):
            phi.add_incoming(at_start, before)
            phi.add_incoming(in_loop, body)
    builder.branch(head)
    builder.position_at_end(after)
    return here, kept


def _vectors(context: Any, builder: Any, kind: Any, array: Any, at: Any, count: int) -> list[Any]:
    """Emit pointers to `count` vectors from element `at` of a flat array on."""
    data = context.make_array(kind)(context, builder, array).data
    pointer = ir.VectorType(context.get_data_type(kind.dtype), LANES).as_pointer()
    offsets = [builder.add(at, ir.Constant(at.type, LANES * i)) for i in range(count)]
    return [builder.bitcast(builder.gep(data, [offset]), pointer) for offset in offsets]


def _load(context: Any, builder: Any, pointer: Any) -> Any:
    return builder.load(pointer, align=context.get_abi_sizeof(pointer.type.pointee.element))


def _align(context: Any, vector: Any) -> Any:
    return context.get_abi_sizeof(vector.type.element)


@_compiled(inline="always")
def _list(mask: int, first: int, step: int, pos: Any, k: int) -> int:
    """Write `first + step * i`, for the bits i of `mask`, to `pos[k:]`; return the next free k.

    Four at a time, the last of them junk that is overwritten: few branches are hard to foresee.
    """
    end: int = k + _count(mask)
    while mask:
        for j in range(4):
            pos[k + j] = first + step * _lowest(mask)
            mask &= mask - 1
        k += 4
    return end


@_compiled(nogil=True)
def pack(start: int, stop: int, x: Any, one: Any, bits: Any, found: Any, slot: int) -> None:
    """Pack the flat `x` into `bits`; found[slot] = spikes among them, -1 if not all are 0 or 1."""
    zero = one - one
    spikes, other = 0, 0
    for i in range(start, stop):
        mask = _mask(x, i * LANES, zero)
        other |= mask & _mask(x, i * LANES, one)
        spikes += _count(mask)
        bits[i] = mask
        if other and i % 64 == 0:
            break
    found[slot] = -1 if other else spikes


@_compiled(nogil=True)
def forward(
    start: int, stop: int, bits: Any, weight: Any, out: Any, stride: int, padding: int, block: int
) -> None:
    """Sum weight rows: `out` `[N, H', W', units]` becomes the convolution.

    `bits` `[N, H, W, C / LANES]`; `weight` `[units / width, k, k, C, width]`.
    """
    h, w, groups = bits.shape[1:]
    parts, k, _, c, width = weight.shape
    oh, ow, units = out.shape[1:]
    rows, sums = weight.reshape(-1), out.reshape(-1)
    pos = np.empty(block * h * w * c + LANES, np.int32)
    edges = np.empty((block, h, w + 1), np.int64)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        n = 0
        for i in range(first, last):
            for y in range(h):
                for x in range(w):
                    edges[i - first, y, x] = n
                    for g in range(groups):
                        at = (x * c + g * LANES) * width
                        n = _list(int(bits[i, y, x, g]), at, width, pos, n)
                edges[i - first, y, w] = n
        out[first:last] = 0
        for part in range(parts):
            for ky in range(k):
                base = (part * k + ky) * k * c * width
                for i in range(first, last):
                    for oy in range(oh):
                        y = oy * stride + ky - padding
                        if y < 0 or y >= h:
                            continue
                        edge = edges[i - first, y]
                        for ox in range(ow):
                            x = ox * stride - padding
                            lo, hi = edge[max(x, 0)], edge[max(min(x + k, w), 0)]
                            at = ((i * oh + oy) * ow + ox) * units + part * width
                            if width == LANES:
                                _add_rows(1, sums, at, rows, base - x * c * width, pos, lo, hi)
                            else:
                                _add_rows(2, sums, at, rows, base - x * c * width, pos, lo, hi)


@_compiled(nogil=True)
def weight_gradient(
    start: int,
    stop: int,
    bits: Any,
    grad: Any,
    out: Any,
    taps: int,
    stride: int,
    padding: int,
    block: int,
) -> None:
    """Sum gradient rows: add to `out` `[units / LANES, s, s, taps, C, taps, LANES]`.

    s is `stride`, `taps` = ceil(k / s). A spike at y belongs to phase (y + padding) mod s and adds
    the gradient at (y + padding) div s - taps + 1 + j to tap j.
    """
    h, w, groups = bits.shape[1:]
    oh, ow, units = grad.shape[1:]
    c, around = groups * LANES, taps - 1 - padding // stride  # rows of zeros before the gradient's
    ph, pw = (h - 1 + padding) // stride + around + 1, (w - 1 + padding) // stride + around + 1
    most = block * ((h + stride - 1) // stride) * ((w + stride - 1) // stride)
    pos = np.empty((stride, stride, c, most), np.int32)
    size = np.empty((stride, stride, c), np.int64)
    padded = np.zeros((block, ph, pw, LANES), grad.dtype)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        _list_by_channel(bits[first:last], stride, padding, ph, pw, pos, size)
        for part in range(units // LANES):
            for i in range(last - first):
                for y in range(oh):
                    for x in range(ow):
                        row = grad[first + i, y, x, part * LANES : (part + 1) * LANES]
                        for u in range(LANES):
                            padded[i, y + around, x + around, u] = row[u]
            _add_gradients(padded.reshape(-1), pos, size, pw * LANES, taps, out[part])


@_compiled(nogil=True)
def _list_by_channel(
    bits: Any, stride: int, padding: int, ph: int, pw: int, pos: Any, size: Any
) -> None:
    """List, per phase and channel, where in the padded gradient a spike's first row stands."""
    n, h, w, groups = bits.shape
    size[:] = 0
    for i in range(n):
        for y in range(h):
            py, row = (y + padding) % stride, (y + padding) // stride - padding // stride
            for x in range(w):
                px, column = (x + padding) % stride, (x + padding) // stride - padding // stride
                lists, ends = pos[py, px], size[py, px]
                for g in range(groups):
                    mask = int(bits[i, y, x, g])
                    while mask:
                        channel = g * LANES + _lowest(mask)
                        mask &= mask - 1
                        end = ends[channel]
                        lists[channel, end] = ((i * ph + row) * pw + column) * LANES
                        ends[channel] = end + 1


@_compiled(nogil=True)
def _add_gradients(rows: Any, pos: Any, size: Any, line: int, taps: int, out: Any) -> None:
    """Add the listed rows, for each tap in y one `line` further, to `out`, one part of it."""
    stride, _, channels = size.shape
    sums, at = out.reshape(-1), 0
    for py in range(stride):
        for px in range(stride):
            for j in range(taps):
                for c in range(channels):
                    places, n = pos[py, px, c], size[py, px, c]
                    if taps == 2:
                        _add_rows(2, sums, at, rows, j * line, places, 0, n)
                    elif taps == 3:
                        _add_rows(3, sums, at, rows, j * line, places, 0, n)
                    elif taps == 4:
                        _add_rows(4, sums, at, rows, j * line, places, 0, n)
                    else:
                        _add_rows(5, sums, at, rows, j * line, places, 0, n)
                    at += taps * LANES
