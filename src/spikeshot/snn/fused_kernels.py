"""The passes of one spiking layer after its weights, as numba kernels: one sweep over memory each.

Arrays are `[T, N]`, columns `[B, H, W, C]` flattened. They are worked off in strips, runs of
columns short enough for the state of their neurons to stay in the first-level cache; a strip that
is pooled holds as many image rows as a pooling window. A row of `strips` says where a strip begins
and how long it is: (columns of X, length, columns of U, length, columns of the output, length).
The formulas stand in `fused.py`.

Rows are slices indexed from 0 and branches stand outside the loops over a row: only so does the
compiler vectorise them. Scalars come in the arrays' dtype, `one` included: a Python literal would
make float32 float64. All kernels are in this file, because numba's cache on disk looks at no other
file than a kernel's own.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
KINDS = {"fast_sigmoid": 0, "arctan": 1, "sigmoid": 2, "gaussian": 3, "piecewise_linear": 4}
NO_POOL, MAX_BEFORE, AVERAGE_AFTER, MAX_AFTER = 0, 1, 2, 3


def _compiled(**options: Any) -> Callable[[F], F]:
    return cast(Callable[[F], F], numba.njit(cache=True, error_model="numpy", **options))


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


@_compiled(inline="always")
def _filter(
    x: Any, q: Any, p: Any, alpha: Any, beta: Any, one: Any, delay: int, filtered: bool, out: Any
) -> None:
    """Advance the two filters by the input row `x`; fill `out` with P, or with `x` itself."""
    n = len(x)
    if not filtered:
        for i in range(n):
            out[i] = x[i]
    elif delay:
        for i in range(n):
            p[i] = alpha * p[i] + (one - alpha) * q[i]
            q[i] = beta * q[i] + (one - beta) * x[i]
            out[i] = p[i]
    else:
        for i in range(n):
            q[i] = beta * q[i] + (one - beta) * x[i]
            p[i] = alpha * p[i] + (one - alpha) * q[i]
            out[i] = p[i]


@_compiled(inline="always")
def _filter_back(
    a: Any, q: Any, p: Any, alpha: Any, beta: Any, one: Any, delay: int, filtered: bool, out: Any
) -> None:
    """Run the filters' adjoint by one step: `a` is the cotangent of P_t, `out` that of X_t.

    `q` and `p` hold the cotangents of Q_t and P_t that come from later steps.
    """
    n = len(a)
    if not filtered:
        for i in range(n):
            out[i] = a[i]
    elif delay:
        for i in range(n):
            out[i] = (one - beta) * q[i]
            total = a[i] + p[i]
            q[i] = beta * q[i] + (one - alpha) * total
            p[i] = alpha * total
    else:
        for i in range(n):
            total = a[i] + p[i]
            synapse = q[i] + (one - alpha) * total
            out[i] = (one - beta) * synapse
            q[i] = beta * synapse
            p[i] = alpha * total


@_compiled(inline="always")
def _average(row: Any, width: int, units: int, pool: int, one: Any, out: Any) -> None:
    """Average `row` `[pool, width, units]` over windows into `out` `[width // pool, units]`."""
    scale = one / type(one)(pool * pool)
    for j in range(width // pool):
        cell = out[j * units : (j + 1) * units]
        cell[:] = one - one
        for d in range(pool * pool):
            at = (d // pool * width + j * pool + d % pool) * units
            part = row[at : at + units]
            for c in range(units):
                cell[c] += part[c] * scale


@_compiled(inline="always")
def _spread(row: Any, width: int, units: int, pool: int, one: Any, out: Any) -> None:
    """The adjoint of `_average`: spread `row` over the windows of `out`."""
    scale = one / type(one)(pool * pool)
    out[:] = one - one
    for j in range(width // pool):
        cell = row[j * units : (j + 1) * units]
        for d in range(pool * pool):
            at = (d // pool * width + j * pool + d % pool) * units
            part = out[at : at + units]
            for c in range(units):
                part[c] = cell[c] * scale


@_compiled(inline="always")
def _argmax(row: Any, width: int, units: int, pool: int, index: Any) -> None:
    """Fill `index` `[width // pool, units]` with the first place of each window's largest."""
    for j in range(width // pool):
        for c in range(units):
            best = row[j * pool * units + c]
            where = 0
            for d in range(1, pool * pool):
                value = row[(d // pool * width + j * pool + d % pool) * units + c]
                if value > best:
                    best, where = value, d
            index[j * units + c] = where


@_compiled(inline="always")
def _pick(row: Any, index: Any, width: int, units: int, pool: int, out: Any) -> None:
    """Take the values at the places `index` of the windows of `row`."""
    for i in range(len(index)):
        j, c, d = i // units, i % units, index[i]
        out[i] = row[(d // pool * width + j * pool + d % pool) * units + c]


@_compiled(inline="always")
def _place(row: Any, index: Any, width: int, units: int, pool: int, one: Any, out: Any) -> None:
    """The adjoint of `_pick`: put `row` at those places of `out`, zero elsewhere."""
    out[:] = one - one
    for i in range(len(index)):
        j, c, d = i // units, i % units, index[i]
        out[(d // pool * width + j * pool + d % pool) * units + c] = row[i]


@_compiled(inline="always")
def _copy(row: Any, out: Any) -> None:
    """Fill `out` with the start of `row`; numba is slower at assigning a slice."""
    for i in range(len(out)):
        out[i] = row[i]


@_compiled(inline="always")
def _fired(u: Any, threshold: Any, one: Any, out: Any) -> None:
    zero = one - one
    for i in range(len(u)):
        out[i] = one if u[i] > threshold else zero


@_compiled(inline="always")
def _narrow(
    row: Any, fired: Any, one: Any, mode: int, width: int, units: int, pool: int, where: Any,
    out: Any,
) -> None:  # fmt: skip
    """Fill `out` with `row` pooled as the spikes `fired` are: the adjoint of `_widen`."""
    if mode == AVERAGE_AFTER:
        _average(row, width, units, pool, one, out)
    elif mode == MAX_AFTER:
        _argmax(fired, width, units, pool, where)
        _pick(row, where, width, units, pool, out)
    else:
        _copy(row, out)


@_compiled(nogil=True)
def run(
    strips: Any, x: Any, bias: Any, response: Any, reset: Any, spikes: Any, membrane: Any,
    index: Any,
    alpha: Any, beta: Any, decay: Any, jump: Any, threshold: Any, k: Any, one: Any,
    delay: int, filtered: bool, gated: bool, kind: int, mode: int, width: int, units: int,
    pool: int,
) -> None:  # fmt: skip
    """Forward: fill spikes (pooled), membrane, places of the largest, and R after the last step."""
    steps = len(spikes)
    _, strip, _, fires, _, gives = strips[0]
    q, p, v = np.empty(strip, x.dtype), np.empty(strip, x.dtype), np.empty(strip, x.dtype)
    w, s, current = np.empty(fires, x.dtype), np.empty(fires, x.dtype), np.empty(fires, x.dtype)
    where = np.empty(gives, np.uint8)
    for i in range(fires):
        current[i] = bias[i % units]
    for at, n, fired_at, m, out_at, size in strips:
        _start(x, steps, at, n, one, q, p)
        r = reset[fired_at : fired_at + m]
        for t in range(steps):
            now = response[t]
            _filter(x[t, at : at + n], q[:n], p[:n], alpha, beta, one, delay, filtered, v[:n])
            u, out = membrane[t, fired_at : fired_at + m], spikes[t, out_at : out_at + size]
            if mode == MAX_BEFORE:
                chosen = index[t, fired_at : fired_at + m]
                _argmax(v, width, units, pool, chosen)
                _pick(v, chosen, width, units, pool, w)
            else:
                _copy(v, w[:m])
            for i in range(m):
                u[i] = w[i] + now * current[i] + r[i]
            _fired(u, threshold, one, s[:m])
            for i in range(m):
                r[i] = decay * r[i] - jump * (s[i] * u[i] if gated else s[i])
            _narrow(s[:m], s, one, mode, width, units, pool, where, out)


@_compiled(inline="always")
def _start(x: Any, steps: int, at: int, n: int, one: Any, q: Any, p: Any) -> None:
    """Set the filters' state: the rows after the last step, where there are any, or zero."""
    q[:] = one - one
    p[:] = one - one
    if len(x) > steps:
        q[:n] = x[steps, at : at + n]
        p[:n] = x[steps + 1, at : at + n]


@_compiled(inline="always")
def _widen(
    grad: Any, u: Any, threshold: Any, one: Any, mode: int, width: int, units: int, pool: int,
    fired: Any, where: Any, out: Any,
) -> None:  # fmt: skip
    """Fill `out` with the cotangent of the spikes, given that of the layer's pooled output."""
    if mode == AVERAGE_AFTER:
        _spread(grad, width, units, pool, one, out)
    elif mode == MAX_AFTER:
        _fired(u, threshold, one, fired)
        _argmax(fired, width, units, pool, where)
        _place(grad, where, width, units, pool, one, out)
    else:
        _copy(grad, out)


@_compiled(nogil=True)
def backward(
    strips: Any, grad: Any, extra: Any, u: Any, index: Any, response: Any, out: Any,
    for_bias: Any,
    alpha: Any, beta: Any, decay: Any, jump: Any, threshold: Any, k: Any, one: Any,
    delay: int, filtered: bool, gated: bool, kind: int, mode: int, width: int, units: int,
    pool: int,
) -> None:  # fmt: skip
    """Backward: dX and dbias for cotangents of the output and of U (`extra`, may have no row)."""
    steps = len(u)
    _, strip, _, fires, _, gives = strips[0]
    ds, dm, later = np.empty(fires, u.dtype), np.empty(fires, u.dtype), np.empty(fires, u.dtype)
    g, a, fired = np.empty(fires, u.dtype), np.empty(fires, u.dtype), np.empty(fires, u.dtype)
    q, p, v = np.empty(strip, u.dtype), np.empty(strip, u.dtype), np.empty(strip, u.dtype)
    where = np.empty(gives, np.uint8)
    total = np.zeros(fires, u.dtype)
    for at, n, fired_at, m, out_at, size in strips:
        later[:] = one - one
        q[:] = one - one
        p[:] = one - one
        for t in range(steps - 1, -1, -1):
            now = response[t]
            membrane, row = u[t, fired_at : fired_at + m], grad[t, out_at : out_at + size]
            _widen(row, membrane, threshold, one, mode, width, units, pool, fired[:m], where, g[:m])
            _slopes(kind, membrane, threshold, k, one, gated, ds[:m], dm[:m])
            for i in range(m):
                a[i] = ds[i] * g[i] - jump * dm[i] * later[i]
            if len(extra):
                more = extra[t, fired_at : fired_at + m]
                for i in range(m):
                    a[i] += more[i]
            for i in range(m):
                later[i] = a[i] + decay * later[i]
                total[i] += now * a[i]
            if mode == MAX_BEFORE:
                _place(a, index[t, fired_at : fired_at + m], width, units, pool, one, v)
            else:
                _copy(a, v[:m])
            x = out[t, at : at + n]
            _filter_back(v[:n], q[:n], p[:n], alpha, beta, one, delay, filtered, x)
        if len(out) > steps:
            out[steps, at : at + n] = q[:n]
            out[steps + 1, at : at + n] = p[:n]
    for i in range(fires):
        for_bias[i % units] += total[i]


@_compiled(nogil=True)
def double_backward(
    strips: Any, for_x: Any, for_bias: Any, grad: Any, u: Any, index: Any, response: Any,
    for_grad: Any, for_membrane: Any,
    alpha: Any, beta: Any, decay: Any, jump: Any, threshold: Any, k: Any, one: Any,
    delay: int, filtered: bool, gated: bool, kind: int, mode: int, width: int, units: int,
    pool: int,
) -> None:  # fmt: skip
    """Tangent and curvature: what cotangents of dX and dbias give for `grad` and for U."""
    steps = len(u)
    _, strip, _, fires, _, gives = strips[0]
    ds, dm, later = np.empty(fires, u.dtype), np.empty(fires, u.dtype), np.empty(fires, u.dtype)
    d2s, d2m, dr = np.empty(fires, u.dtype), np.empty(fires, u.dtype), np.empty(fires, u.dtype)
    g, w, fired = np.empty(fires, u.dtype), np.empty(fires, u.dtype), np.empty(fires, u.dtype)
    q, p, v = np.empty(strip, u.dtype), np.empty(strip, u.dtype), np.empty(strip, u.dtype)
    where = np.empty(gives, np.uint8)
    current = np.empty(fires, u.dtype)
    for i in range(fires):
        current[i] = for_bias[i % units]
    for at, n, fired_at, m, out_at, size in strips:
        dr[:] = one - one
        _start(for_x, steps, at, n, one, q, p)
        for t in range(steps):  # tangent; dU is kept in `for_membrane` for the sweep back in time
            now = response[t]
            x, out = for_x[t, at : at + n], for_grad[t, out_at : out_at + size]
            _filter(x, q[:n], p[:n], alpha, beta, one, delay, filtered, v[:n])
            if mode == MAX_BEFORE:
                _pick(v, index[t, fired_at : fired_at + m], width, units, pool, w)
            else:
                _copy(v, w[:m])
            membrane, du = u[t, fired_at : fired_at + m], for_membrane[t, fired_at : fired_at + m]
            _slopes(kind, membrane, threshold, k, one, gated, ds[:m], dm[:m])
            for i in range(m):
                du[i] = w[i] + now * current[i] + dr[i]
                dr[i] = decay * dr[i] - jump * dm[i] * du[i]
                w[i] = ds[i] * du[i]
            if mode == MAX_AFTER:
                _fired(membrane, threshold, one, fired)
            _narrow(w[:m], fired, one, mode, width, units, pool, where, out)
        later[:] = one - one
        for t in range(steps - 1, -1, -1):  # curvature
            membrane, du = u[t, fired_at : fired_at + m], for_membrane[t, fired_at : fired_at + m]
            row = grad[t, out_at : out_at + size]
            _widen(row, membrane, threshold, one, mode, width, units, pool, fired[:m], where, g[:m])
            _slopes(kind, membrane, threshold, k, one, gated, ds[:m], dm[:m])
            _bends(kind, membrane, threshold, k, one, gated, ds[:m], d2s[:m], d2m[:m])
            for i in range(m):
                du[i] *= d2s[i] * g[i] - jump * d2m[i] * later[i]
                later[i] = ds[i] * g[i] - jump * dm[i] * later[i] + decay * later[i]
