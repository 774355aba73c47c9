"""Figures of the report as inline SVG: lines with intervals, spikes, and a matrix.

Colours come from the page's style sheet (classes `c0`, `c1`, ...), so that they fit light and dark.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

COLOURS = 10  # that the style sheet has
NAME_LETTERS = 38  # of a name beside a line
WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 42


@dataclass(frozen=True)
class Series:
    """A line: its number (colour), name, and points (x, y, half-width of the interval)."""

    number: int
    label: str
    points: Sequence[tuple[float, float, float]]


def chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    names: Sequence[str] = (),
    joined: bool = True,
) -> str:
    """Return a chart of `series`, nothing where there is no point.

    `names`: what stands at x = 0, 1, ... in place of numbers.
    """
    xs = [x for s in series for x, _, _ in s.points]
    ys = [y + k * half for s in series for _, y, half in s.points for k in (-1, 1)]
    if not xs:
        return ""
    low_x, high_x = (-0.5, len(names) - 0.5) if names else (min(xs), max(xs))
    steps = _ticks(max(min(ys), 0.0), min(max(ys), 100.0))
    low_y, high_y = steps[0], steps[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        y = min(max(y, low_y), high_y)
        return (
            LEFT + width * (x - low_x) / ((high_x - low_x) or 1),
            TOP + height * (1 - (y - low_y) / ((high_y - low_y) or 1)),
        )

    parts = [_axis_y(at(low_x, y)[1], y) for y in steps]
    ticks = [x for x in _ticks(low_x, high_x) if low_x <= x <= high_x]
    marks = [(float(i), name) for i, name in enumerate(names)] or [(x, f"{x:g}") for x in ticks]
    parts += [
        _text(at(x, low_y)[0], HEIGHT - BOTTOM + 16, str(name), "middle") for x, name in marks
    ]
    parts.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    for place, s in enumerate(series):
        shift = 6.0 * (place - (len(series) - 1) / 2) if names else 0.0
        placed = [(at(x, y), at(x, y - half)[1], at(x, y + half)[1]) for x, y, half in s.points]
        parts.append(_line(s, [(x + shift, y, low, high) for (x, y), low, high in placed], joined))
    return _svg(WIDTH, HEIGHT, f"{y_label} against {x_label}", parts)


def _line(s: Series, places: Sequence[tuple[float, float, float, float]], joined: bool) -> str:
    drawn = []
    if joined and len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
        drawn.append(f'<polyline points="{path}" class="line"/>')
    for x, y, low, high in places:
        if abs(low - high) > 1:
            drawn.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" class="bar"/>')
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    title = f"<title>{escape(s.label)}</title>"
    return f'<g class="c{s.number % COLOURS}">{title}{"".join(drawn)}</g>'


def _axis_y(y: float, value: float) -> str:
    line = f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" class="grid"/>'
    return line + _text(LEFT - 6, y + 4, f"{value:g}", "end")


def _ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Return round numbers, evenly spaced, that reach from `low` or below to `high` or above."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(unit * m for m in (1, 2, 5, 10, 20) if span / (unit * m) <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, max(last, first + 1) + 1)]


def forest(series: Sequence[Series], label: str) -> str:
    """Return a line for each of `series`, at its name, with the interval of its one point's x."""
    points = [(s, s.points[0][0], s.points[0][2]) for s in series]
    if not points:
        return ""
    low = max(min(x - half for _, x, half in points), 0.0)
    steps = _ticks(low, min(max(x + half for _, x, half in points), 100.0))
    name, line = 250, 26
    bottom = TOP + line * len(points)

    def at(x: float) -> float:
        share = (x - steps[0]) / (steps[-1] - steps[0])
        return name + (WIDTH - RIGHT - 8 - name) * min(max(share, 0.0), 1.0)

    parts = [f'<path d="M{at(x):.1f} {TOP}V{bottom}" class="grid"/>' for x in steps]
    parts += [_text(at(x), bottom + 16, f"{x:g}", "middle") for x in steps]
    parts.append(_text((name + WIDTH - RIGHT) / 2, bottom + 34, label, "middle"))
    for i, (s, x, half) in enumerate(points):
        y = TOP + line * (i + 0.5)
        words = s.label if len(s.label) <= NAME_LETTERS else s.label[: NAME_LETTERS - 1] + "…"
        parts.append(_text(name - 10, y + 4, words, "end"))
        parts.append(
            f'<g class="c{s.number % COLOURS}"><title>{escape(s.label)}</title>'
            f'<path d="M{at(x - half):.1f} {y:.1f}H{at(x + half):.1f}" class="bar"/>'
            f'<circle cx="{at(x):.1f}" cy="{y:.1f}" r="4"/></g>'
        )
    return _svg(WIDTH, bottom + 42, label, parts)


def raster_panel(layer: Mapping[str, Any], which: str, title: str) -> str:
    """Return the spikes of one layer, `before` or `after` adaptation: a dot for each."""
    columns, rows = int(layer["steps"]), max(int(layer["shown"]), 1)
    wide, high = 300 / columns, min(240 / rows, 12.0)
    dots = [
        f'<rect x="{wide * t:.1f}" y="{high * n:.1f}" width="{max(wide - 0.6, 0.6):.1f}" '
        f'height="{max(high - 0.6, 0.6):.1f}"/>'
        for n, row in enumerate(layer[which])
        for t, fired in enumerate(row)
        if fired == "1"
    ]
    frame = f'<rect width="300" height="{high * rows:.1f}" class="frame"/>'
    return _svg(300, high * rows, title, [frame, f'<g class="c0">{"".join(dots)}</g>'])


def matrix(classes: Sequence[str], values: Sequence[Sequence[float | None]]) -> str:
    """Return a matrix of shares (0..1) with the true classes as rows; the diagonal is correct."""
    cell, margin = 18, 64
    side = margin + cell * len(classes)
    parts = []
    for i, name in enumerate(classes):
        middle = margin + cell * (i + 0.5)
        parts.append(_text(margin - 4, middle + 4, name, "end"))
        turned = f"translate({middle + 4:.1f} {margin - 4}) rotate(-90)"
        parts.append(f'<text transform="{turned}">{escape(name)}</text>')
        for j, share in enumerate(values[i]):
            if share is None:
                continue
            kind = "right" if i == j else "wrong"
            strength = share if i == j else min(1.0, math.sqrt(share))
            where = f'x="{margin + cell * j}" y="{margin + cell * i}"'
            said = escape(f"{name} taken for {classes[j]}: {100 * share:.1f} %")
            parts.append(
                f'<rect {where} width="{cell - 1}" height="{cell - 1}" class="{kind}" '
                f'fill-opacity="{strength:.3f}"><title>{said}</title></rect>'
            )
    return _svg(side, side, "confusion of classes", parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" style="max-width:{width:g}px" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
