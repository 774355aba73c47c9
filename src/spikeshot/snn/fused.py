"""One layer after its weights as one `autograd.Function`: filter, bias, reset, threshold, pooling.

`fire(x, bias, plan)` takes `x` `[T, N]`, what the weights made of the layer's input, and gives

    P = filter(x),  V = P + response bias,  [V = max-pooled V,]  U_t = V_t + R_t,
    S_t = H(U_t - threshold),  R_{t+1} = decay R_t - jump m(U_t),  [S = pooled S]

(see `neuron.py`; `bias_response` gives the response). Two rows of x after the last step are Q and P
before the window. With s', s'' the surrogate's derivatives and m', m'' those of m, the four passes
are, for cotangents g of S and h of U:

    forward    as above; U is kept, and is an output in the graph's eyes
    backward   l_t = s'_t g_t + h_t - jump m'_t r_{t+1},    r_t = l_t + decay r_{t+1};
               dV = l, dX = filter^T(l), dbias = sum of response l
    tangent    dV = filter(cotangent of dX) + response (cotangent of dbias),
               dU_t = dV_t + dR_t,  dR_{t+1} = decay dR_t - jump m'_t dU_t;    for g: s' dU
    curvature  for U: dU_t (s''_t g_t - jump m''_t r_{t+1}), with r of the backward pass at h = 0

The double backward is tangent (for g) and curvature (for U); what the curvature does to x and bias
is the backward pass again, with h. Nothing needs a third derivative: the meta-gradient
differentiates each inner gradient once. Strips are shared out to threads (`workers.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from spikeshot.snn import fused_kernels as kernels
from spikeshot.snn.neuron import Neuron, bias_response
from spikeshot.snn.room import room
from spikeshot.snn.workers import share_out, threads_for

STRIP = 1024  # columns in a strip: its rows of state stay in the first-level cache
WORTH_A_THREAD = 1 << 17  # elements per thread below which waking one costs more than it saves


@dataclass(frozen=True)
class Plan:
    """What the passes of one layer need to know, besides the arrays.

    `image` `(B, H, W, C)` are the columns of x (`(B, 1, 1, F)` without an image); `mode` says how
    they are pooled by `pool` (a constant of `fused_kernels`); `filtered`: x is still to be
    filtered; `elapsed`: steps since rest.
    """

    neuron: Neuron
    steps: int
    image: tuple[int, int, int, int]
    mode: int = kernels.NO_POOL
    pool: int = 1
    filtered: bool = True
    elapsed: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The columns of the output, (B, H', W', C)."""
        b, h, w, c = self.image
        return b, h // self.pool, w // self.pool, c


def applies(x: Tensor, neuron: Neuron) -> bool:
    """True where the kernels can run: on the CPU, in float32 or float64, with hard spikes."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not neuron.soft
        and neuron.surrogate in kernels.KINDS
    )


def pool_mode(kind: str, where: str) -> int:
    """Return the mode of pooling that is not part of the weights."""
    if kind == "average":
        return kernels.AVERAGE_AFTER
    return kernels.MAX_BEFORE if where == "before" else kernels.MAX_AFTER


def fire(
    x: Tensor, bias: Tensor, plan: Plan, reset: Tensor | None = None, *, owned: bool = False
) -> tuple[Tensor, Tensor]:
    """Return spikes `[T, *plan.shape]` (pooled) and R after the last step (no gradient).

    x `[T or T + 2, N]`, bias `[C]`; `reset`: R at the first step (zero when None; no gradient).
    `owned`: nobody else needs the numbers in x, nor does autograd. Without pooling the membrane
    then takes their place, and without a graph the spikes take the membrane's.
    """
    rows = x.reshape(len(x), -1).contiguous()
    if torch.is_grad_enabled():
        spikes, _, _, after = _Fire.apply(rows, bias, reset, plan, owned)  # type: ignore[no-untyped-call]
    else:
        spikes, _, _, after = _run(rows, bias, reset, plan, owned, graph=False)
    return spikes.view(plan.steps, *plan.shape), after


def _run(
    x: Tensor, bias: Tensor, reset: Tensor | None, plan: Plan, owned: bool, *, graph: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Forward: return spikes, membrane, places of the largest, and R after the last step.

    Without a `graph` there may be no membrane of its own to return.
    """
    strips = strip_table(plan)
    fires, gives = _columns(strips)
    reuse = owned and plan.mode == kernels.NO_POOL  # a row of x is read before its U is written
    membrane = _same_memory(x[: plan.steps]) if reuse else room(x, plan.steps, fires)
    spikes = membrane if reuse and not graph else room(x, plan.steps, gives)
    places = plan.steps if plan.mode == kernels.MAX_BEFORE else 0
    index = torch.empty(places, fires, dtype=torch.uint8)
    after = x.new_zeros(fires) if reset is None else reset.clone()
    arrays = (x, bias, _response(plan, x), after, spikes, membrane, index)
    _over_strips(kernels.run, strips, arrays, plan, x)
    return spikes, membrane, index, after


def _same_memory(x: Tensor) -> Tensor:
    """Return a tensor over the memory of `x` that autograd takes for a new one."""
    return torch.from_numpy(x.detach().numpy())


class _Fire(Function):
    """forward, with `_FireBackward` as its differentiable backward."""

    @staticmethod
    def forward(
        x: Tensor, bias: Tensor, reset: Tensor | None, plan: Plan, owned: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _run(x, bias, reset, plan, owned, graph=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, bias, _, ctx.plan, _ = inputs
        _, membrane, index, after = output
        ctx.mark_non_differentiable(index, after)
        ctx.set_materialize_grads(False)
        ctx.rows, ctx.units = len(x), len(bias)
        ctx.save_for_backward(membrane, index)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, extra: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        membrane, index = ctx.saved_tensors
        if grad is None:
            grad = membrane.new_zeros(ctx.plan.steps, _columns(strip_table(ctx.plan))[1])
        for_x, for_bias = _FireBackward.apply(  # type: ignore[no-untyped-call]
            grad, extra, membrane, index, ctx.rows, ctx.units, ctx.plan
        )
        return for_x, for_bias, None, None, None


class _FireBackward(Function):
    """backward, with tangent and curvature as its own backward."""

    @staticmethod
    def forward(
        grad: Tensor, extra: Tensor | None, membrane: Tensor, index: Tensor,
        rows: int, units: int, plan: Plan,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        b, h, w, c = plan.image
        covered = h % plan.pool == 0 and w % plan.pool == 0
        out = room(membrane, rows, b * h * w * c)
        if not covered:  # a border that is in no window
            out.zero_()
        strips = strip_table(plan)
        threads = _threads(strips, plan)
        for_bias = membrane.new_zeros(threads, units)
        extra = membrane.new_zeros(0, 0) if extra is None else extra.contiguous()
        arrays = (grad.contiguous(), extra, membrane, index, _response(plan, membrane), out)
        _over_strips(kernels.backward, strips, arrays, plan, membrane, for_bias)
        return out, for_bias.sum(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        grad, extra, membrane, index, _, _, ctx.plan = inputs
        ctx.third_order = extra is not None
        ctx.save_for_backward(grad, membrane, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_x: Tensor, for_bias: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.third_order:
            raise NotImplementedError(
                "the layer's kernels are differentiable twice, not three times"
            )
        grad, membrane, index = ctx.saved_tensors
        plan: Plan = ctx.plan
        for_grad, for_membrane = room(grad, *grad.shape), room(membrane, *membrane.shape)
        response = _response(plan, membrane)
        arrays = (for_x, for_bias, grad, membrane, index, response, for_grad, for_membrane)
        contiguous = tuple(a.contiguous() for a in arrays)
        _over_strips(kernels.double_backward, strip_table(plan), contiguous, plan, membrane)
        return for_grad, None, for_membrane, None, None, None, None


@lru_cache(maxsize=256)
def strip_table(plan: Plan) -> NDArray[np.int64]:
    """Return where the strips of a plan lie, `[strips, 6]` (see `fused_kernels.py`)."""
    b, h, w, c = plan.image
    if plan.mode == kernels.NO_POOL:
        columns = b * h * w * c
        length = max(c, STRIP // c * c)
        at = np.arange(0, columns, length)
        n = np.minimum(length, columns - at)
        return np.stack([at, n, at, n, at, n], axis=1)
    strip, gives = plan.pool * w * c, w // plan.pool * c
    image, row = np.divmod(np.arange(b * (h // plan.pool)), h // plan.pool)
    at = image * (h * w * c) + row * strip
    number, one = np.arange(len(at)), np.ones(len(at), np.int64)
    fires = gives if plan.mode == kernels.MAX_BEFORE else strip
    return np.stack(
        [at, strip * one, number * fires, fires * one, number * gives, gives * one], axis=1
    )


def _columns(strips: NDArray[np.int64]) -> tuple[int, int]:
    """Return the columns of U and of the output."""
    return int(strips[-1, 2] + strips[-1, 3]), int(strips[-1, 4] + strips[-1, 5])


def _response(plan: Plan, like: Tensor) -> Tensor:
    return bias_response(plan.neuron, plan.steps, plan.elapsed, like)


def _constants(plan: Plan, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return the kernels' scalars in the arrays' dtype, then the whole numbers."""
    n = plan.neuron
    number = np.float32 if dtype == torch.float32 else np.float64
    values = (n.alpha, n.beta, n.decay, n.jump, n.threshold, n.sharpness, 1.0)
    switches = (n.delay, plan.filtered, n.gated, kernels.KINDS[n.surrogate], plan.mode)
    return *(number(v) for v in values), *switches, *plan.image[2:], plan.pool


def _threads(strips: NDArray[np.int64], plan: Plan) -> int:
    elements = plan.steps * int(np.prod(plan.image))
    return min(threads_for(elements, WORTH_A_THREAD), len(strips))


def _over_strips(
    kernel: Callable[..., None],
    strips: NDArray[np.int64],
    arrays: tuple[Tensor, ...],
    plan: Plan,
    like: Tensor,
    per_thread: Tensor | None = None,
) -> None:
    """Run a kernel over all strips, shared out to threads; each has its row of `per_thread`."""
    views = [a.detach().numpy() for a in arrays]
    constants = _constants(plan, like.dtype)

    def job(i: int, start: int, stop: int) -> None:
        own = [] if per_thread is None else [per_thread[i].numpy()]
        kernel(strips[start:stop], *views, *own, *constants)

    share_out(len(strips), _threads(strips, plan), job)
