"""Pictures of a recording: event frames over time, ON and OFF coloured, and its space-time."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.events import Events
from spikeshot.data.frames import FrameSpec, bin_events
from spikeshot.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 8  # event frames in a PNG
STEPS = 30  # event frames in a GIF
POINTS = 20_000  # at most so many events are drawn in space-time
ON, OFF = (0.80, 0.15, 0.15), (0.10, 0.30, 0.75)  # red, blue, on white


def write_picture(events: Events, sensor_size: tuple[int, int], title: str, out: Path) -> None:
    """Draw a recording into `out`: a PNG, or a GIF that moves through time.

    Raises `DataError` for another ending, a recording without events, and a file that cannot be
    written; `out` is written whole or not at all.
    """
    if out.suffix.lower() not in (".png", ".gif"):
        raise DataError(f"{out}: expected a name that ends in .png or .gif.")
    if not len(events):
        raise DataError(f"{title}: no event to draw.")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            part = Path(folder) / out.name
            if out.suffix.lower() == ".png":
                _draw(events, sensor_size, title, PANELS, PANELS)[0].savefig(part, dpi=110)
            else:
                _animate(events, sensor_size, title, part)
            part.replace(out)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}). Choose another --out."
        ) from error


def colour_frames(
    events: Events, sensor_size: tuple[int, int], bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return pictures `[bins, H, W, 3]` of values 0 to 1, and the bins' edges in milliseconds.

    Together the bins cover the recording. A pixel is white without events, else of the colour of
    the polarity it saw more of, the stronger the more events (full at the 99th percentile).
    """
    start, end = int(events["t"][0]), int(events["t"][-1]) + 1
    dt_us = -(-(end - start) // bins)
    counts = bin_events(events, sensor_size, FrameSpec(dt_us=dt_us, bins=bins, start_us=start))
    total, balance = counts.sum(1), counts[:, 1] - counts[:, 0]
    full = max(float(np.quantile(total[total > 0], 0.99)), 1.0)
    strength = np.where(total, 0.3 + 0.7 * np.minimum(total / full, 1), 0.0)[..., None]
    colour = np.where(balance[..., None] >= 0, ON, OFF)
    return 1 - strength * (1 - colour), (start + np.arange(bins + 1) * dt_us) / 1e3


def _draw(
    events: Events, sensor_size: tuple[int, int], title: str, panels: int, bins: int
) -> tuple["Figure", Any, NDArray[np.float64], NDArray[np.float64]]:
    """Return the figure, the axes of its frames, all frames and their edges in milliseconds.

    The first `panels` of the `bins` frames are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    frames, edges = colour_frames(events, sensor_size, bins)
    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.25, 1))
    rows = min(panels, 2)
    axes = halves[0].subplots(rows, panels // rows, squeeze=False).ravel()
    for axis, frame, at, until in zip(axes, frames, edges, edges[1:], strict=False):
        axis.imshow(frame, interpolation="nearest")
        axis.set_title(_span(at, until), fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    _space_time(halves[1].add_subplot(projection="3d"), events, sensor_size)
    figure.suptitle(f"{title}: {len(events):,} events, ON red, OFF blue", fontsize=10)
    return figure, axes, frames, edges


def _span(at: float, until: float) -> str:
    return f"{at:.0f} to {until:.0f} ms"


def _space_time(axis: Any, events: Events, sensor_size: tuple[int, int]) -> None:
    """Draw events at (time, x, y), at most `POINTS` of them, evenly chosen."""
    some = events[:: -(-len(events) // POINTS)]
    colours = np.where(some["p"][:, None] > 0, ON, OFF)
    axis.scatter(some["t"] / 1e3, some["x"], some["y"], c=colours, s=3, linewidths=0, alpha=0.7)
    axis.set_xlabel("time (ms)")
    axis.set_ylabel("x")
    axis.set_zlabel("y")
    axis.set_ylim(0, sensor_size[0])
    axis.set_zlim(sensor_size[1], 0)  # y goes down in a picture
    axis.view_init(elev=20, azim=-65)
    axis.set_box_aspect((1.6, 1, 1))


def _animate(events: Events, sensor_size: tuple[int, int], title: str, out: Path) -> None:
    """Write a GIF of `STEPS` event frames, the space-time plot beside them."""
    from matplotlib.animation import PillowWriter

    figure, axes, frames, edges = _draw(events, sensor_size, title, 1, STEPS)
    picture, writer = axes[0].images[0], PillowWriter(fps=10)
    with writer.saving(figure, str(out), dpi=70):
        for frame, at, until in zip(frames, edges, edges[1:], strict=False):
            picture.set_data(frame)
            axes[0].set_title(_span(at, until), fontsize=8)
            writer.grab_frame()
