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

import math
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

    x `[T or T + 2, ...]` (N numbers a step), bias `[C]`; `reset`: R at the first step (zero when
    None; no gradient). `owned`: nobody else needs the numbers in x, nor does autograd. Without
    pooling the membrane then takes their place, and without a graph the spikes take the membrane's.
    """
    passes = _passes(plan, x.dtype)
    if torch.is_grad_enabled():
        spikes, _, _, after = _Fire.apply(x, bias, reset, passes, owned)  # type: ignore[no-untyped-call]
    else:
        spikes, _, _, after = passes.run(x, bias, reset, owned, graph=False)
    return spikes, after


def _same_memory(x: Tensor) -> Tensor:
    """Return a tensor over the memory of `x` that autograd takes for a new one."""
    return torch.from_numpy(x.detach().numpy())


class _Fire(Function):
    """forward, with `_FireBackward` as its differentiable backward."""

    @staticmethod
    def forward(
        x: Tensor, bias: Tensor, reset: Tensor | None, passes: "_Passes", owned: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return passes.run(x, bias, reset, owned, graph=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, bias, _, ctx.passes, _ = inputs
        _, membrane, index, after = output
        ctx.mark_non_differentiable(index, after)
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.units = x.shape, len(bias)
        ctx.save_for_backward(membrane, index)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, extra: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        membrane, index = ctx.saved_tensors
        passes: _Passes = ctx.passes
        if grad is None:
            grad = membrane.new_zeros(passes.plan.steps, passes.gives)
        given = (grad, extra, membrane, index, ctx.shape, ctx.units)
        if torch.is_grad_enabled():
            found = _FireBackward.apply(*given, passes)  # type: ignore[no-untyped-call]
        else:  # a node of the graph costs as much as the kernel on a few samples
            found = passes.backward(*given)
        return *found, None, None, None


class _FireBackward(Function):
    """backward, with tangent and curvature as its own backward."""

    @staticmethod
    def forward(
        grad: Tensor, extra: Tensor | None, membrane: Tensor, index: Tensor,
        shape: torch.Size, units: int, passes: "_Passes",
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return passes.backward(grad, extra, membrane, index, shape, units)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        grad, extra, membrane, index, _, _, ctx.passes = inputs
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
        passes: _Passes = ctx.passes
        for_grad, for_membrane = passes.double_backward(for_x, for_bias, grad, membrane, index)
        return for_grad, None, for_membrane, None, None, None, None


@dataclass(frozen=True)
class _Passes:
    """The passes of a plan in one dtype, with all that they need besides the arrays.

    `fires`, `gives`: the columns of U and of the output; `constants`: the kernels' scalars in the
    arrays' dtype, then the whole numbers.
    """

    plan: Plan
    strips: NDArray[np.int64]
    fires: int
    gives: int
    response: NDArray[Any]
    constants: tuple[Any, ...]

    def run(
        self, x: Tensor, bias: Tensor, reset: Tensor | None, owned: bool, *, graph: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Forward: return spikes `[T, *plan.shape]`, membrane, places of the largest, last R.

        Without a `graph` there may be no membrane of its own to return.
        """
        plan, x = self.plan, _rows(x).contiguous()
        reuse = owned and plan.mode == kernels.NO_POOL  # a row of x is read before its U is written
        membrane = _same_memory(x[: plan.steps]) if reuse else room(x, plan.steps, self.fires)
        spikes = membrane if reuse and not graph else room(x, plan.steps, self.gives)
        places = plan.steps if plan.mode == kernels.MAX_BEFORE else 0
        index = torch.empty(places, self.fires, dtype=torch.uint8)
        after = x.new_zeros(self.fires) if reset is None else reset.clone()
        arrays = (*_views(x, bias), self.response, *_views(after, spikes, membrane, index))
        self._over_strips(kernels.run, arrays, self._threads())
        return spikes.view(plan.steps, *plan.shape), membrane, index, after

    def backward(
        self, grad: Tensor, extra: Tensor | None, membrane: Tensor, index: Tensor,
        shape: torch.Size, units: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Backward: return dX `shape` and dbias `[units]`."""
        b, h, w, c = self.plan.image
        out = room(membrane, shape[0], b * h * w * c)
        if h % self.plan.pool or w % self.plan.pool:  # a border that is in no window
            out.zero_()
        threads = self._threads()
        for_bias = membrane.new_zeros(threads, units)
        extra = membrane.new_zeros(0, 0) if extra is None else extra
        arrays = (*_views(_rows(grad), extra, membrane, index), self.response, *_views(out))
        self._over_strips(kernels.backward, arrays, threads, for_bias.numpy())
        return out.view(shape), for_bias.sum(0) if threads > 1 else for_bias[0]

    def double_backward(
        self, for_x: Tensor, for_bias: Tensor, grad: Tensor, membrane: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tangent and curvature: return what cotangents of dX and dbias give for `grad` and U."""
        for_grad, for_membrane = room(grad, len(grad), self.gives), room(membrane, *membrane.shape)
        arrays = (
            *_views(_rows(for_x), for_bias, _rows(grad), membrane, index),
            self.response,
            *_views(for_grad, for_membrane),
        )
        self._over_strips(kernels.double_backward, arrays, self._threads())
        return for_grad.view(grad.shape), for_membrane

    def _threads(self) -> int:
        elements = self.plan.steps * math.prod(self.plan.image)
        return min(threads_for(elements, WORTH_A_THREAD), len(self.strips))

    def _over_strips(
        self,
        kernel: Callable[..., None],
        arrays: tuple[NDArray[Any], ...],
        threads: int,
        per_thread: NDArray[Any] | None = None,
    ) -> None:
        """Run a kernel over all strips, shared out to threads; each has its row of `per_thread`."""

        def job(i: int, start: int, stop: int) -> None:
            own = () if per_thread is None else (per_thread[i],)
            kernel(self.strips[start:stop], *arrays, *own, *self.constants)

        share_out(len(self.strips), threads, job)


def _rows(x: Tensor) -> Tensor:
    return x.detach().reshape(len(x), -1)


def _views(*tensors: Tensor) -> list[NDArray[Any]]:
    return [t.detach().contiguous().numpy() for t in tensors]


@lru_cache(maxsize=256)
def _passes(plan: Plan, dtype: torch.dtype) -> _Passes:
    strips = strip_table(plan)
    n = plan.neuron
    number = np.float32 if dtype == torch.float32 else np.float64
    values = (n.alpha, n.beta, n.decay, n.jump, n.threshold, n.sharpness, 1.0)
    switches = (n.delay, plan.filtered, n.gated, kernels.KINDS[n.surrogate], plan.mode)
    like = torch.empty(0, dtype=dtype)
    return _Passes(
        plan,
        strips,
        int(strips[-1, 2] + strips[-1, 3]),
        int(strips[-1, 4] + strips[-1, 5]),
        bias_response(n, plan.steps, plan.elapsed, like).numpy(),
        (*(number(v) for v in values), *switches, *plan.image[2:], plan.pool),
    )


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
