"""The product of activity and weights as an autograd function, exact to second order.

With C the product, D its input gradient and G its weight gradient, each is bilinear and the
derivatives of one are the other two:

    forward            y = C(x, w)
    backward           for cotangents g of y:  x gets D(g, w), w gets G(x, g)
    double backward    for cotangents a and b of these:  g gets C(a, w) + C(x, b), w gets G(a, g),
                       x gets D(g, b)

Two functions, one for each pass, hold all of these, so that a pass is one node of the graph: on
the few support samples calls cost as much as products. Nothing needs a third derivative. x is no
input of the backward function, which would keep it alive: a second output, of no memory, stands for
it, and what the double backward finds for x comes back as the cotangent of that output.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Way(Protocol):
    """How a product is computed; `taken` is what it keeps of x, or any activity of x's shape."""

    def forward(self, taken: Tensor, weight: Tensor) -> Tensor:
        """Return C."""
        ...

    def for_input(self, grad: Tensor, weight: Tensor) -> Tensor:
        """Return D, as a tensor that nothing else holds."""
        ...

    def for_weight(self, taken: Tensor, grad: Tensor) -> Tensor:
        """Return G."""
        ...


def product(x: Tensor, weight: Tensor, way: Way, taken: Tensor | None = None) -> Tensor:
    """Return C of `x` and `weight`; `taken`: what `way` made of x, x itself where not given."""
    if not torch.is_grad_enabled():
        return way.forward(x if taken is None else taken, weight)
    kept = x.detach() if taken is None else taken
    y: Tensor = _Product.apply(x, weight, kept, way)[0]  # type: ignore[no-untyped-call]
    return y


class _Product(Function):
    """C, and the output that stands for x."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, taken: Tensor, way: Way) -> tuple[Tensor, Tensor]:
        stand_in = x.new_full((), float("nan")).expand(x.shape)  # its use would not go unnoticed
        return way.forward(taken, weight), stand_in

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, weight, taken, ctx.way = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, taken, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, extra: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, taken, stand_in = ctx.saved_tensors
        for_x, for_weight, *_ = ctx.needs_input_grad
        if grad is None:
            return extra, None, None, None
        given = (grad, stand_in if for_x else None, weight, extra, taken, ctx.way, for_weight)
        if torch.is_grad_enabled():
            found = _ProductBackward.apply(*given)  # type: ignore[no-untyped-call]
        else:  # without a node of the graph
            found = _ProductBackward.forward(*given)
        return *found, None, None


class _ProductBackward(Function):
    """D (with what the double backward found for x) and G."""

    @staticmethod
    def forward(
        grad: Tensor, stand_in: Tensor | None, weight: Tensor, extra: Tensor | None,
        taken: Tensor, way: Way, wanted: bool,
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        for_x = None if stand_in is None else way.for_input(grad, weight)
        if for_x is not None and extra is not None:
            for_x.add_(extra)
        return for_x, way.for_weight(taken, grad) if wanted else None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        grad, _, weight, extra, taken, ctx.way, _ = inputs
        ctx.third_order = extra is not None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, weight, taken)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor | None, b: Tensor | None) -> tuple[Tensor | None, ...]:
        if ctx.third_order:
            raise NotImplementedError("a layer's product is differentiable twice, not three times")
        grad, weight, taken = ctx.saved_tensors
        way, (for_grad, for_x, for_weight, *_) = ctx.way, ctx.needs_input_grad
        parts = []
        if for_grad and a is not None:
            parts.append(way.forward(a, weight))
        if for_grad and b is not None:
            parts.append(way.forward(taken, b))
        return (
            parts[0].add_(parts[1]) if len(parts) > 1 else parts[0] if parts else None,
            way.for_input(grad, b) if for_x and b is not None else None,
            way.for_weight(a, grad) if for_weight and a is not None else None,
            *[None] * 4,
        )
