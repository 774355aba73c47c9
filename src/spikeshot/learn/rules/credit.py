"""Credit: the gradient of the support loss."""

import torch

from spikeshot.learn.rules.rule import Batch, Forward, Loss, Moment, Params


def backprop(
    forward: Forward,
    loss: Loss,
    params: Params,
    batch: Batch,
    create_graph: bool,
    moment: Moment,
) -> Params:
    """Return the gradient of the loss on `batch` for every parameter, by backpropagation."""
    value = loss(forward(params, batch.frames), batch.labels)
    grads = torch.autograd.grad(value, list(params.values()), create_graph=create_graph)
    return dict(zip(params, grads, strict=True))
