"""Statistics of recordings: how many, how long, how busy, and of which classes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spikeshot.data.recordings import Recordings
from spikeshot.errors import DataError

BINS = 12  # of the histogram


def summarise(recordings: Recordings) -> dict[str, Any]:
    """Return the statistics of recordings, JSON-ready.

    `events`, `duration_ms` (first to last event) and `events_per_second` of a recording as minimum,
    median, mean and maximum; `on_share` of all events; `per_class` counts of recordings;
    `histogram` of events per recording. Raises `DataError` when there is no recording.
    """
    if not len(recordings):
        raise DataError("there is no recording; expected at least one.")
    lengths, durations, on = [], [], 0
    for i in range(len(recordings)):
        events = recordings[i]
        lengths.append(len(events))
        durations.append(int(events["t"][-1] - events["t"][0]) / 1e3 if len(events) else 0.0)
        on += int(np.count_nonzero(events["p"]))
    rates = np.asarray(lengths) / np.maximum(durations, 1e-3) * 1e3
    counts, edges = np.histogram(lengths, BINS)
    per_class = np.bincount(recordings.labels, minlength=len(recordings.classes))
    return {
        "recordings": len(recordings),
        "sensor_size": list(recordings.sensor_size),
        "events_in_all": sum(lengths),
        "on_share": on / max(sum(lengths), 1),
        "events": _spread(lengths),
        "duration_ms": _spread(durations),
        "events_per_second": _spread(rates),
        "per_class": dict(zip(recordings.classes, per_class.tolist(), strict=True)),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "digest": recordings.digest,
    }


def _spread(values: ArrayLike) -> dict[str, float]:
    v = np.asarray(values, np.float64)
    return {
        "min": float(v.min()),
        "median": float(np.median(v)),
        "mean": float(v.mean()),
        "max": float(v.max()),
    }
