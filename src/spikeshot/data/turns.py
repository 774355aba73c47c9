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


def family(name: str) -> tuple[str, str] | None:
    """Return the folder and the turn of a class, as ("Latin", "90") of `Latin/character01@90`.

    None for a class in no folder.
    """
    folder, slash, rest = name.rpartition("/")
    return (folder, rest.partition("@")[2]) if slash else None
