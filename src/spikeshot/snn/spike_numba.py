"""The passes of reset and threshold as fused numba kernels, for the CPU.

The same formulas as `spike_torch.py` (they stand in `spike.py`), one sweep over memory per pass.
Columns of `[T, N]` are independent: they are shared out to as many threads as torch has
(`workers.py`). Compiled once and cached on disk; float32 and float64.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

from spikeshot.snn.neuron import Neuron
from spikeshot.snn.workers import share_out, threads_for

F = TypeVar("F", bound=Callable[..., Any])
BLOCK = 1024  # columns per block: the block's rows of state stay in the first-level cache
WORTH_A_THREAD = 1 << 17  # elements per thread below which waking one costs more than it saves
KINDS = {"fast_sigmoid": 0, "arctan": 1, "sigmoid": 2, "gaussian": 3, "piecewise_linear": 4}


def _compiled(**options: Any) -> Callable[[F], F]:
    return cast(Callable[[F], F], numba.njit(cache=True, error_model="numpy", **options))


def applies(drive: Tensor, neuron: Neuron) -> bool:
    """True where the kernels can run: on the CPU, in float32 or float64, with hard spikes."""
    return (
        drive.device.type == "cpu"
        and drive.dtype in (torch.float32, torch.float64)
        and not neuron.soft
        and neuron.surrogate in KINDS
    )


def run(drive: Tensor, neuron: Neuron, reset_state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Forward: return spikes S, membrane U and R after the last step `[N]`."""
    drive = drive.detach().contiguous()
    spikes, membrane = torch.empty_like(drive), torch.empty_like(drive)
    reset = torch.zeros_like(drive[0]) if reset_state is None else reset_state.clone()
    _over_columns(_run, drive, spikes, membrane, reset, constants=_constants(neuron, drive.dtype))
    return spikes, membrane, reset


def backward(grad: Tensor, u: Tensor, neuron: Neuron) -> Tensor:
    """Backward: return dV for the cotangent `grad` of S."""
    grad = grad.contiguous()
    out = torch.empty_like(grad)
    _over_columns(_backward, grad, u, out, constants=_constants(neuron, u.dtype))
    return out


def double_backward(
    cotangent: Tensor, grad: Tensor, u: Tensor, neuron: Neuron
) -> tuple[Tensor, Tensor]:
    """Tangent and curvature: return what `cotangent` of dV gives for `grad` and for V."""
    cotangent, grad = cotangent.contiguous(), grad.contiguous()
    for_grad, for_drive = torch.empty_like(grad), torch.empty_like(grad)
    _over_columns(
        _double_backward,
        cotangent,
        grad,
        u,
        for_grad,
        for_drive,
        constants=_constants(neuron, u.dtype),
    )
    return for_grad, for_drive


def _constants(neuron: Neuron, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return (decay, jump, threshold, sharpness, 1) in the arrays' dtype, gated and the kind."""
    number = np.float32 if dtype == torch.float32 else np.float64
    values = (neuron.decay, neuron.jump, neuron.threshold, neuron.sharpness, 1.0)
    return *(number(v) for v in values), neuron.gated, KINDS[neuron.surrogate]


def _over_columns(kernel: Callable[..., None], *arrays: Tensor, constants: tuple[Any, ...]) -> None:
    """Run a kernel over all columns, in as many threads as torch has where it is worth it."""
    views = [a.detach().numpy() for a in arrays]
    threads = threads_for(views[0].size, WORTH_A_THREAD)

    def job(_: int, start: int, stop: int) -> None:
        kernel(start, stop, *views, *constants)

    share_out(views[0].shape[1], threads, job)


# Rows are slices indexed from 0 and branches stand outside the loops over a row: only so does the
# compiler vectorise them. Scalars come in the arrays' dtype, `one` included: a Python literal would
# make float32 float64.


@_compiled(inline="always")
def _slopes(
    kind: int, u: Any, threshold: Any, k: Any, one: Any, gated: bool, ds: Any, dm: Any
) -> None:
    """Fill one row of s' and of m'; the formulas are those of `surrogate.py`."""
    n = len(u)
    zero, half = one - one, one / (one + one)
    if kind == 0:
        for i in range(n):
            d = one + k * abs(u[i] - threshold)
            ds[i] = one / (d * d)
    elif kind == 1:
        for i in range(n):
            x = k * (u[i] - threshold)
            ds[i] = one / (one + x * x)
    elif kind == 2:
        for i in range(n):
            e = math.exp(-k * abs(u[i] - threshold))
            d = (one + e) * half
            ds[i] = e / (d * d)
    elif kind == 3:
        for i in range(n):
            x = k * (u[i] - threshold)
            ds[i] = math.exp(-half * x * x)
    else:
        for i in range(n):
            ds[i] = max(one - k * abs(u[i] - threshold), zero)
    for i in range(n):
        spiked = one if u[i] > threshold else zero
        dm[i] = ds[i] * u[i] + spiked if gated else ds[i]


@_compiled(inline="always")
def _bends(
    kind: int, u: Any, threshold: Any, k: Any, one: Any, gated: bool, ds: Any, d2s: Any, d2m: Any
) -> None:
    """Fill one row of s'' and of m''."""
    n = len(u)
    zero, two = one - one, one + one
    if kind == 0:
        for i in range(n):
            v = u[i] - threshold
            d = one + k * abs(v)
            sign = (one if v > zero else zero) - (one if v < zero else zero)
            d2s[i] = -two * k * sign / (d * d * d)
    elif kind == 1:
        for i in range(n):
            x = k * (u[i] - threshold)
            d = one + x * x
            d2s[i] = -two * k * x / (d * d)
    elif kind == 2:
        for i in range(n):
            v = u[i] - threshold
            e = math.exp(-k * abs(v))
            d = one + e
            sign = (one if v > zero else zero) - (one if v < zero else zero)
            d2s[i] = -two * two * k * sign * e * (one - e) / (d * d * d)
    elif kind == 3:
        for i in range(n):
            d2s[i] = -k * k * (u[i] - threshold) * ds[i]
    else:
        for i in range(n):
            v = u[i] - threshold
            sign = (one if v > zero else zero) - (one if v < zero else zero)
            d2s[i] = -k * sign if k * abs(v) < one else zero
    for i in range(n):
        d2m[i] = d2s[i] * u[i] + ds[i] + ds[i] if gated else d2s[i]


@_compiled(nogil=True)
def _run(
    start: int,
    stop: int,
    drive: Any,
    spikes: Any,
    membrane: Any,
    reset: Any,
    decay: Any,
    jump: Any,
    threshold: Any,
    k: Any,
    one: Any,
    gated: bool,
    kind: int,
) -> None:
    zero = one - one
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        r = reset[first:last]
        for t in range(len(drive)):
            v, u, s = drive[t, first:last], membrane[t, first:last], spikes[t, first:last]
            for i in range(last - first):
                u[i] = v[i] + r[i]
                s[i] = one if u[i] > threshold else zero
                r[i] = decay * r[i] - jump * (s[i] * u[i] if gated else s[i])


@_compiled(nogil=True)
def _backward(
    start: int,
    stop: int,
    grad: Any,
    u: Any,
    out: Any,
    decay: Any,
    jump: Any,
    threshold: Any,
    k: Any,
    one: Any,
    gated: bool,
    kind: int,
) -> None:
    ds, dm, later = np.empty(BLOCK, u.dtype), np.empty(BLOCK, u.dtype), np.empty(BLOCK, u.dtype)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        later[:] = one - one
        for t in range(len(u) - 1, -1, -1):
            g, a = grad[t, first:last], out[t, first:last]
            _slopes(kind, u[t, first:last], threshold, k, one, gated, ds, dm)
            for i in range(last - first):
                a[i] = ds[i] * g[i] - jump * dm[i] * later[i]
                later[i] = a[i] + decay * later[i]


@_compiled(nogil=True)
def _double_backward(
    start: int,
    stop: int,
    cotangent: Any,
    grad: Any,
    u: Any,
    for_grad: Any,
    for_drive: Any,
    decay: Any,
    jump: Any,
    threshold: Any,
    k: Any,
    one: Any,
    gated: bool,
    kind: int,
) -> None:
    ds, dm = np.empty(BLOCK, u.dtype), np.empty(BLOCK, u.dtype)
    d2s, d2m = np.empty(BLOCK, u.dtype), np.empty(BLOCK, u.dtype)
    dr, later = np.empty(BLOCK, u.dtype), np.empty(BLOCK, u.dtype)
    later2 = np.empty(BLOCK, u.dtype)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        dr[:] = one - one
        for t in range(len(u)):  # tangent; dU is kept in `for_drive` for the sweep back in time
            w, b, du = cotangent[t, first:last], for_grad[t, first:last], for_drive[t, first:last]
            _slopes(kind, u[t, first:last], threshold, k, one, gated, ds, dm)
            for i in range(last - first):
                du[i] = w[i] + dr[i]
                b[i] = ds[i] * du[i]
                dr[i] = decay * dr[i] - jump * dm[i] * du[i]
        later[:] = one - one
        later2[:] = one - one
        for t in range(len(u) - 1, -1, -1):  # adjoint and curvature
            g, du = grad[t, first:last], for_drive[t, first:last]
            _slopes(kind, u[t, first:last], threshold, k, one, gated, ds, dm)
            _bends(kind, u[t, first:last], threshold, k, one, gated, ds, d2s, d2m)
            for i in range(last - first):
                bend = du[i] * (d2s[i] * g[i] - jump * d2m[i] * later[i])
                du[i] = bend - jump * dm[i] * later2[i]
                later[i] = ds[i] * g[i] - jump * dm[i] * later[i] + decay * later[i]
                later2[i] = du[i] + decay * later2[i]
