"""Memory for activity, which every pass makes and drops: of a kind that is used again.

torch aligns what it allocates, and with glibc's allocator the remainder of that often makes a freed
block too small for the next of the same size, which then takes new memory. numpy's blocks fit.
"""

import numpy as np
import torch
from torch import Tensor

_NUMBERS = {torch.float32: np.float32, torch.float64: np.float64}


def room(like: Tensor, *shape: int) -> Tensor:
    """Return an uninitialised tensor `shape` in the dtype and on the device of `like`."""
    number = _NUMBERS.get(like.dtype)
    if like.device.type != "cpu" or number is None:
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, number))
