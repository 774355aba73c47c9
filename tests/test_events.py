"""Events: what a valid recording is, and crop and downsample against a loop over the events."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeshot.data.events import EVENT_DTYPE, check_events, crop, downsample, make_events
from spikeshot.errors import DataError

EVENT = st.tuples(st.integers(0, 33), st.integers(0, 33), st.integers(0, 2**40), st.integers(0, 1))


def events_of(rows):
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    return make_events(*columns)


def rows_of(events):
    return [tuple(int(v) for v in row) for row in events]


PIXELS = [(x, y, 34 * y + x, (x + y) % 2) for y in range(34) for x in range(34)]
"""One event in every pixel of the sensor."""


def test_the_dtype_is_the_documented_one():
    assert [(n, EVENT_DTYPE[n].str) for n in EVENT_DTYPE.names] == [
        ("x", "<i2"),
        ("y", "<i2"),
        ("t", "<i8"),
        ("p", "|u1"),
    ]


@given(st.lists(EVENT))
def test_columns_go_in_and_come_out(rows):
    events = events_of(rows)
    assert events.dtype == EVENT_DTYPE
    assert rows_of(events) == rows


@given(
    st.one_of(st.lists(EVENT), st.just(PIXELS)),
    st.tuples(st.integers(0, 33), st.integers(0, 33), st.integers(1, 34), st.integers(1, 34)),
)
def test_crop_keeps_exactly_the_events_in_its_window_and_moves_them(rows, window):
    left, top, width, height = window
    before = events_of(rows)
    kept = rows_of(crop(before, left, top, width, height))
    assert kept == [
        (x - left, y - top, t, p)
        for x, y, t, p in rows
        if x in range(left, left + width) and y in range(top, top + height)
    ]
    assert rows_of(before) == rows  # the argument is left alone


@given(st.lists(EVENT), st.integers(1, 40))
def test_downsample_divides_the_coordinates_and_loses_none(rows, factor):
    before = events_of(rows)
    coarse = rows_of(downsample(before, factor))
    assert coarse == [(int(x / factor), int(y / factor), t, p) for x, y, t, p in rows]
    assert rows_of(before) == rows


@pytest.mark.parametrize("factor", [0, -2])
def test_downsample_by_less_than_one_is_refused(factor):
    with pytest.raises(DataError, match=f"factor is {factor}; expected 1 or more"):
        downsample(events_of([(1, 1, 1, 1)]), factor)


@given(st.lists(EVENT, min_size=1))
def test_recordings_in_order_of_time_are_valid(rows):
    check_events(events_of(sorted(rows, key=lambda row: row[2])), (34, 34), "ok")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "bad.bin: no event in it"),
        ([(0, 0, 1, 0), (34, 5, 2, 0)], "bad.bin: event 1 lies at x=34, y=5, outside the 34x30"),
        ([(3, 30, 1, 0)], "bad.bin: event 0 lies at x=3, y=30, outside the 34x30"),
        ([(-1, 3, 1, 0)], "bad.bin: event 0 lies at x=-1"),
        ([(3, -1, 1, 0)], "bad.bin: event 0 lies at x=3, y=-1"),
        ([(3, 3, 1, 0), (3, 3, 1, 2)], "bad.bin: event 1 has polarity 2; expected 0 or 1"),
        ([(3, 3, -4, 0)], "bad.bin: first timestamp is -4 us; expected 0 or later"),
        ([(0, 0, 5, 0), (0, 0, 9, 0), (0, 0, 8, 0)], r"event 2 \(9 us to 8 us\); expected them in"),
    ],
)
def test_what_is_wrong_with_a_recording_is_named(rows, message):
    with pytest.raises(DataError, match=message):
        check_events(np.array(rows, EVENT_DTYPE), (34, 30), "bad.bin")


def test_the_largest_pixel_and_equal_timestamps_are_valid():
    check_events(events_of([(33, 29, 0, 1), (0, 0, 0, 0)]), (34, 30), "edge")
