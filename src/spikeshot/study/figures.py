"""Figures of a sweep: accuracy against an axis, a line per arm, the reference as a line across."""

import io
from collections.abc import Sequence

from spikeshot.study.table import Row


def draw_rows(rows: Sequence[Row], reference: str, axis: str, label: str, title: str) -> bytes:
    """Return an SVG of accuracy after adaptation against the values of `axis`, in their order.

    Rows without the axis (the reference apart) stand at their arm's name, where `axis` is "".
    Error bars are 95 % intervals over episodes.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4))
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    shown = [r for r in rows if r.name != reference and (axis in r.values or not axis)]
    ticks = list(dict.fromkeys(_place(r, axis) for r in shown))
    lines: dict[str, list[Row]] = {}
    for row in shown:
        lines.setdefault(_line(row, axis), []).append(row)
    for number, (name, members) in enumerate(lines.items()):
        shift = 0.08 * (number - (len(lines) - 1) / 2)  # error bars side by side
        axes.errorbar(
            [ticks.index(_place(r, axis)) + shift for r in members],
            [100 * r.after.mean for r in members],
            [100 * r.after.ci_episodes for r in members],
            marker="o",
            markersize=4,
            capsize=2,
            linestyle="-" if axis else "none",
            label=name,
        )
    for row in rows:
        if row.name == reference:
            mean, half = 100 * row.after.mean, 100 * row.after.ci_episodes
            axes.axhspan(mean - half, mean + half, color="0.5", alpha=0.15, linewidth=0)
            axes.axhline(mean, color="0.5", linestyle="--", label=f"{reference}: {mean:.1f} %")
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel(label)
    axes.set_ylabel("query accuracy after adaptation (%)")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "spikeshot"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "spikeshot"})
    return svg.getvalue().encode()


def _place(row: Row, axis: str) -> str:
    return row.values[axis] if axis else row.arm


def _line(row: Row, axis: str) -> str:
    """Return the name of the line a row lies on: its arm and its place on the other axes."""
    others = [f"{name} {value}" for name, value in row.values.items() if name != axis]
    return ", ".join([row.arm, *others]) if axis else "95 % interval over episodes"
