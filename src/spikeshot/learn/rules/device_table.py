"""A device known by measurement: its conductance after each of a row of equal pulses."""

import csv
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from spikeshot.errors import ConfigError
from spikeshot.learn.rules.rounding import straight_through, to_whole


@dataclass(frozen=True)
class Table:
    """Conductance after 0, 1, ... pulses in any unit: `up` rising, `down` falling."""

    up: tuple[float, ...]
    down: tuple[float, ...]


def read_table(file: Path) -> Table:
    """Return the table in a CSV file with a header and the columns `up` and `down`, a row a pulse.

    The first row is before the first pulse. Raises `ConfigError` for a file that cannot be read, is
    not such a table, or whose conductances do not strictly rise and fall.
    """
    expected = "expected a CSV file with the columns up and down, conductance after each pulse"
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        up, down = (tuple(float(row[column]) for row in rows) for column in ("up", "down"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); {expected}.") from None
    except KeyError as error:
        raise ConfigError(f"{file} has no column {error}; {expected}.") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise ConfigError(f"{file} is no such table ({error}); {expected}.") from None
    if len(up) < 2 or not all(map(math.isfinite, up + down)):
        raise ConfigError(f"{file} has {len(up)} rows, or a number that is not finite; {expected}.")
    rises = all(a < b for a, b in pairwise(up)) and all(a > b for a, b in pairwise(down))
    if not rises:
        raise ConfigError(
            f"{file}: up must rise and down fall from each row to the next; expected smoothed "
            "measurements (their noise is learn.device.write_noise)."
        )
    return Table(up, down)


def pulsed(table: Table, v: Tensor, x: Tensor, draw: Tensor | None) -> Tensor:
    """Return the states after pulses that are asked to change the states `v` (-1..1) by `x`.

    -1 and 1 are the lowest and highest measured conductance; a pulse is asked for each 2 / pulses
    of `x`, in whole numbers, nearest or stochastic by `draw`. Between measured points the curve is
    straight. Derivatives are the curve's, straight through the whole numbers.
    """
    low, high = min(table.up + table.down), max(table.up + table.down)
    pulses = len(table.up) - 1
    asked = x * (pulses / 2)
    count = straight_through(asked, to_whole(asked, draw))
    ways = []
    for curve in (table.up, table.down[::-1]):  # both rising; a pulse is one place on, or back
        points = (v.new_tensor(curve) - low) * (2 / (high - low)) - 1
        ways.append(_at(points, (_place(points, v) + count).clamp(0, pulses)))
    after = torch.where(count > 0, ways[0], ways[1])
    return torch.where(count == 0, v + straight_through(x, torch.zeros_like(x)), after)


def _place(points: Tensor, v: Tensor) -> Tensor:
    """Return where on the curve the states `v` lie, as a place between its points."""
    v = v.clamp(float(points[0]), float(points[-1]))
    i = (torch.searchsorted(points, v.detach().contiguous(), right=True) - 1).clamp(
        0, len(points) - 2
    )
    return i + (v - points[i]) / (points[i + 1] - points[i])


def _at(points: Tensor, place: Tensor) -> Tensor:
    """Return the states at places on the curve."""
    i = place.detach().floor().long().clamp(0, len(points) - 2)
    return points[i] + (place - i) * (points[i + 1] - points[i])
