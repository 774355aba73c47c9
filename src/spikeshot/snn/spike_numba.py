"""The passes of reset and threshold as fused numba kernels, for the CPU.

The same formulas as `spike_torch.py` (they stand in `spike.py`), one sweep over memory per pass.
Columns of `[T, N]` are independent: they are shared out to as many threads as torch has, which wait
for nothing but their work (numba's own parallel loops would fight torch's threads for the cores and
take ten times as long to compile). Compiled once and cached on disk; float32 and float64.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

from spikeshot.snn.neuron import Neuron

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
    columns = views[0].shape[1]
    threads = min(torch.get_num_threads(), views[0].size // WORTH_A_THREAD)
    if threads < 2:
        kernel(0, columns, *views, *constants)
        return
    cuts = [round(columns * i / threads) for i in range(threads + 1)]
    jobs = [
        _pool(threads).submit(kernel, start, stop, *views, *constants)
        for start, stop in pairwise(cuts)
    ]
    for job in jobs:
        job.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikes")


# Scalars come in the arrays' dtype, `one` included: a Python literal would make float32 float64.


@_compiled(inline="always")
def _slope(kind: int, v: Any, k: Any, one: Any) -> Any:
    """Derivative of the surrogate; the formulas are those of `surrogate.py`."""
    x = k * v
    if kind == 0:
        d = one + abs(x)
        return one / (d * d)
    if kind == 1:
        return one / (one + x * x)
    if kind == 2:
        e = math.exp(-abs(x))
        d = (one + e) / (one + one)
        return e / (d * d)
    if kind == 3:
        return math.exp(-x * x / (one + one))
    return max(one - abs(x), one - one)


@_compiled(inline="always")
def _bend(kind: int, v: Any, k: Any, one: Any) -> Any:
    """Second derivative of the surrogate's primitive."""
    x = k * v
    two, zero = one + one, one - one
    sign = one if v > zero else (-one if v < zero else zero)
    if kind == 0:
        d = one + abs(x)
        return -two * k * sign / (d * d * d)
    if kind == 1:
        d = one + x * x
        return -two * k * x / (d * d)
    if kind == 2:
        e = math.exp(-abs(x))
        d = one + e
        return -two * two * k * sign * e * (one - e) / (d * d * d)
    if kind == 3:
        return -k * x * math.exp(-x * x / two)
    return -k * sign if abs(x) < one else zero


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
    steps = len(drive)
    zero = one - one
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        for t in range(steps):
            for i in range(first, last):
                u = drive[t, i] + reset[i]
                s = one if u > threshold else zero
                membrane[t, i] = u
                spikes[t, i] = s
                reset[i] = decay * reset[i] - jump * (s * u if gated else s)


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
    steps = len(u)
    zero = one - one
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        later = np.zeros(last - first, u.dtype)
        for t in range(steps - 1, -1, -1):
            for i in range(first, last):
                v = u[t, i] - threshold
                ds = _slope(kind, v, k, one)
                dm = ds * u[t, i] + (one if v > zero else zero) if gated else ds
                adjoint = ds * grad[t, i] - jump * dm * later[i - first]
                out[t, i] = adjoint
                later[i - first] = adjoint + decay * later[i - first]


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
    steps = len(u)
    zero = one - one
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        tangent = np.zeros(last - first, u.dtype)
        for t in range(steps):
            for i in range(first, last):
                v = u[t, i] - threshold
                ds = _slope(kind, v, k, one)
                dm = ds * u[t, i] + (one if v > zero else zero) if gated else ds
                du = cotangent[t, i] + tangent[i - first]
                for_grad[t, i] = ds * du
                for_drive[t, i] = du  # kept here until the sweep back in time needs it
                tangent[i - first] = decay * tangent[i - first] - jump * dm * du
        later = np.zeros(last - first, u.dtype)
        later2 = np.zeros(last - first, u.dtype)
        for t in range(steps - 1, -1, -1):
            for i in range(first, last):
                v = u[t, i] - threshold
                ds = _slope(kind, v, k, one)
                d2s = _bend(kind, v, k, one)
                dm = ds * u[t, i] + (one if v > zero else zero) if gated else ds
                d2m = d2s * u[t, i] + ds + ds if gated else d2s
                r, r2 = later[i - first], later2[i - first]
                adjoint = ds * grad[t, i] - jump * dm * r
                bend = for_drive[t, i] * (d2s * grad[t, i] - jump * d2m * r)
                adjoint2 = bend - jump * dm * r2
                for_drive[t, i] = adjoint2
                later[i - first] = adjoint + decay * r
                later2[i - first] = adjoint2 + decay * r2
