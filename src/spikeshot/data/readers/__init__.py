"""Readers of event files: bytes become events, for any bytes, or one clear `DataError`."""

from spikeshot.data.readers.columns import ReadOptions
from spikeshot.data.readers.registry import READERS, is_readable, read_events

__all__ = ["READERS", "ReadOptions", "is_readable", "read_events"]
