"""Turned classes: a class turned by a right angle is another class, for meta-training only.

As is usual with Omniglot's characters since Santoro et al., "Meta-Learning with Memory-Augmented
Neural Networks", ICML (2016). The class `X` turned by 90 degrees, counter-clockwise as
`numpy.rot90` turns, is called `X@90`.
"""

QUARTERS = (1, 2, 3)
"""The turns that make new classes, in right angles."""


def turned_class(name: str, quarters: int) -> str:
    """Return the name of class `name` turned by `quarters` right angles (0: its own)."""
    return f"{name}@{90 * quarters}" if quarters else name


def base_class(name: str) -> str:
    """Return the class that `name` was turned from, or `name` itself."""
    base, at, angle = name.rpartition("@")
    return base if at and angle in {str(90 * q) for q in QUARTERS} else name
