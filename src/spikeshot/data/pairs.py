"""Composed classes: two plain classes side by side, and the name that the pair goes by."""

from collections.abc import Iterable, Sequence

from spikeshot.errors import DataError

JOIN = "+"
"""Stands between the two names of a pair, unless both are single characters (`46`, `ay`)."""


def pair_name(left: str, right: str) -> str:
    """Return the name of the class that shows `left` beside `right`."""
    return left + right if len(left) == len(right) == 1 else left + JOIN + right


def parts_of(name: str) -> tuple[str, ...]:
    """Return the two plain classes of a pair, left then right: the inverse of `pair_name`."""
    return tuple(name) if len(name) == 2 else tuple(name.split(JOIN))


def all_pairs(names: Sequence[str]) -> tuple[str, ...]:
    """Return all ordered pairs of plain classes.

    Raises `DataError` for a name that holds the sign between two names, or no name at all.
    """
    for name in names:
        if JOIN in name or not name:
            raise DataError(
                f"class {name!r} cannot be one of a pair: {JOIN!r} stands between the two names of "
                "a pair. Rename it, or set data.classes=single."
            )
    return tuple(pair_name(left, right) for left in names for right in names)


def require_pairs(pairs: Iterable[str], names: Sequence[str]) -> None:
    """Raise `DataError` unless each of `pairs` is composed of two of the plain classes `names`."""
    known = set(all_pairs(names))
    for pair in pairs:
        if pair not in known:
            raise DataError(
                f"class {pair!r} is no pair of this corpus's classes {', '.join(names[:12])}"
                f"{', ...' if len(names) > 12 else ''}; expected two of them, as "
                f"{pair_name(names[0], names[-1])!r}. Correct the split file, or choose another "
                "data.split."
            )
