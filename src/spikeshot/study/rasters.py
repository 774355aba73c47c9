"""Spikes of one sample as a few rows of 0 and 1, to be drawn."""

from typing import Any

import torch
from torch import Tensor

NEURONS = 60  # that are shown of each layer


def raster(before: Tensor, after: Tensor) -> dict[str, Any]:
    """Return the spikes `[T, 1, ...]` of one layer before and after adaptation, to be drawn.

    Of many neurons, those are shown that fire at some but not all steps, or the most of the others,
    evenly spread: what all neurons do is told by the firing rates. A row is a neuron's spikes, one
    digit for each step.
    """
    one, two = (s.detach()[:, 0].flatten(1) > 0 for s in (before, after))
    both = torch.cat([one, two]).double().mean(0)
    some = ((both > 0) & (both < 1)).nonzero()[:, 0]
    chosen = some if len(some) else torch.arange(one.shape[1])
    if len(chosen) > NEURONS:
        places = torch.linspace(0, len(chosen) - 1, NEURONS).round().long()
        chosen = chosen[places]
    return {
        "neurons": one.shape[1],
        "shown": len(chosen),
        "steps": len(one),
        "before": _rows(one[:, chosen]),
        "after": _rows(two[:, chosen]),
    }


def _rows(spikes: Tensor) -> list[str]:
    return ["".join("01"[fired] for fired in row) for row in spikes.T.int().tolist()]
