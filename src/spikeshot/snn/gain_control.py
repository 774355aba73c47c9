"""Gain control: what arrives at a layer is divided by how much arrives at all of it.

    y  ->  y / sqrt(mean(y^2) + EPS)

of each sample at each time step, the mean over all neurons of the layer: the divisive normalisation
of Carandini & Heeger, "Normalization as a canonical neural computation", Nature Reviews
Neuroscience 13 (2012), in the form of RMSNorm (Zhang & Sennrich, NeurIPS 2019) and without a
learned gain. It sees no other sample, and no other time step. Plain torch operations: autograd
differentiates it as often as it likes.
"""

from torch import Tensor

EPS = 1e-5  # nothing that arrives stays nothing


def control_gain(y: Tensor, shared: int) -> Tensor:
    """Return `y` divided by its root mean square over all but its first `shared` dimensions."""
    over = tuple(range(shared, y.dim()))
    return y * (y.square().mean(over, keepdim=True) + EPS).rsqrt()
