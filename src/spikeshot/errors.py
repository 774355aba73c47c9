"""Every error that a user can cause, as exceptions of ours, each carrying one clear message.

A message names the thing, the value found, what was expected and the remedy. The command line
prints it without a traceback and ends with the exception's `exit_code`.
"""

import difflib
from collections.abc import Iterable


class SpikeshotError(Exception):
    """Base of all errors that a user's input can cause; `exit_code` is the command's status."""

    exit_code = 2


class DataError(SpikeshotError):
    """Recordings, archives or corpora that cannot be read or do not fit the task."""


class LayoutError(DataError):
    """A folder or archive that holds nothing of a layout: it may be another one."""


class ConfigError(SpikeshotError):
    """An unknown key or preset, or a value out of range."""


class RunError(SpikeshotError):
    """A run folder that is missing, taken, damaged or of another configuration."""


class DivergenceError(SpikeshotError):
    """Training met a NaN or infinite number, or fell silent; the last good checkpoint is kept."""


class Interrupted(SpikeshotError):
    """Training was asked to stop (SIGINT, SIGTERM) and has written its checkpoint."""

    exit_code = 130


class SweepError(SpikeshotError):
    """Points of a sweep that failed; the others are done."""

    exit_code = 1


class TeamError(SpikeshotError):
    """Another process of a run that several share is gone, or does not answer."""

    exit_code = 1


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'x'?)"` for the known name nearest to `name`, or `""`."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{matches[0]}'?)" if matches else ""
