"""Packs and their store: whole or not at all, noticed when broken, made anew when the source is."""

import json
import os
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import fake_files, fake_recording, write_folder, write_zip
from spikeshot.data import packs, store
from spikeshot.data.events import make_events
from spikeshot.data.frames import FrameSpec, bin_events
from spikeshot.data.packs import collection_of, open_pack, pack, verify_pack
from spikeshot.data.recordings import gather_recordings, join
from spikeshot.data.samples import Collection, Sample
from spikeshot.data.store import fingerprint, pack_folder, packed
from spikeshot.errors import DataError


def recording(digit, number=0):
    return make_events(*zip(*fake_recording(digit, number), strict=True))


def collection(digits=(3, 1, 4), read=recording):
    samples = tuple(
        Sample(f"file {i}", "abcde"[d], f"origin-é{i}", lambda d=d: read(d))
        for i, d in enumerate(digits)
    )
    return Collection(samples, tuple("abcde"), (34, 34))


def gathered(digits=(3, 1, 4)):
    origins = [f"origin-é{i}" for i in range(len(digits))]
    return gather_recordings([recording(d) for d in digits], digits, "abcde", origins, (34, 34))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "packs" / "some-pack"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- what is packed ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [collection(), gathered()], ids=["samples", "recordings"])
def test_a_pack_holds_what_was_packed(folder, source):
    made, expected = pack(source, folder), gathered()
    for recordings in (made, open_pack(folder)):
        assert recordings.digest == expected.digest
        assert recordings.labels.tolist() == [3, 1, 4]
        assert (recordings.classes, recordings.origins) == (expected.classes, expected.origins)
        assert recordings.sensor_size == (34, 34)
        for i in range(3):
            np.testing.assert_array_equal(recordings[i], expected[i])
    verify_pack(folder)
    assert sorted(f.name for f in folder.parent.iterdir()) == ["some-pack"]


def test_the_events_of_a_pack_are_mapped_and_cannot_be_written(folder):
    recordings = pack(collection(), folder)
    assert isinstance(recordings.events, np.memmap)
    for view in (recordings, recordings.before(100_000), recordings.subset(np.array([2, 0]))):
        assert np.shares_memory(view.events, recordings.events)
        with pytest.raises(ValueError, match="read-only"):
            view[0]["x"] = 0


def test_one_recording_at_a_time_is_in_memory(folder):
    alive = []

    def read(digit):
        assert all(earlier() is None for earlier in alive[:-1])  # the last may still be a local
        events = recording(digit).copy()
        alive.append(weakref.ref(events))
        return events

    pack(collection([0, 1, 2, 3, 4] * 4, read), folder)
    assert len(alive) == 20


def test_progress_is_told(folder):
    heard = []
    pack(collection(), folder, lambda *numbers: heard.append(numbers))
    assert heard == [(1, 3), (2, 3), (3, 3)]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.data())
def test_views_of_views_are_the_recordings_themselves(rows, data):
    """`before` and `subset` in any order, of one array and of several, against lists."""
    recordings = gathered()
    lists = [recordings[i].tolist() for i in range(3)]
    if data.draw(st.booleans()):
        part = recordings.subset(np.array([2, 1]))
        recordings = join(join(part, recordings), part)
        lists = [lists[i] for i in (2, 1, 0, 1, 2, 2, 1)]
    for row in rows:
        if data.draw(st.booleans()):
            t_us = data.draw(st.integers(0, 320_000))
            recordings = recordings.before(t_us)
            lists = [[e for e in events if e[2] < t_us] for events in lists]
        else:
            pick = [row % len(lists), 0]
            recordings, lists = recordings.subset(np.array(pick)), [lists[i] for i in pick]
    assert [recordings[i].tolist() for i in range(len(lists))] == lists
    events, lengths = recordings.gather(np.arange(len(lists)))
    assert events.tolist() == [event for events in lists for event in events]
    assert lengths.tolist() == [len(events) for events in lists]
    copy = gather_recordings(
        [recordings[i] for i in range(len(lists)) if lists[i]],
        [label for label, e in zip(recordings.labels, lists, strict=True) if e],
        recordings.classes,
        [origin for origin, e in zip(recordings.origins, lists, strict=True) if e],
        (34, 34),
    )
    if all(lists):
        assert recordings.digest == copy.digest


# --- what cannot be packed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda d: recording(d)[:0], "file 0: no event in it"),
        (lambda d: recording(d)[::-1], "file 0: timestamps go back"),
        (lambda d: recording(d)["x"], "file 0: read as int16 .*; expected a row of"),
    ],
)
def test_a_bad_recording_is_named_and_nothing_is_left(folder, read, message):
    with pytest.raises(DataError, match=message):
        pack(collection(read=read), folder)
    assert list(folder.parent.iterdir()) == []


def test_a_class_that_is_not_listed_and_no_recording_at_all(folder):
    whole = collection()
    with pytest.raises(DataError, match=r"file 0: class 'd' is none of the 3 classes"):
        pack(Collection(whole.samples, ("a", "b", "c"), (34, 34)), folder)
    with pytest.raises(DataError, match="no recording to pack"):
        pack(Collection((), ("a",), (34, 34)), folder)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, DataError("bad"), MemoryError])
def test_what_ends_it_early_leaves_nothing(folder, stop):
    def read(digit):
        if digit == 4:
            raise stop
        return recording(digit)

    with pytest.raises(type(stop) if isinstance(stop, DataError) else stop):
        pack(collection(read=read), folder)
    assert list(folder.parent.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_the_recordings_are_held_in_memory(tmp_path, folder):
    """No file may grow past 3 kB, with the real `pack` in a process of its own."""
    code = (
        "import resource, sys; sys.path.insert(0, 'tests'); from pathlib import Path;"
        "from test_store import *; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000));\n"
        "try: pack(collection(), Path(sys.argv[1]))\n"
        "except DataError as e: print(e)\n"
        "print(packed('x', 1, collection).digest)"
    )
    environment = os.environ | {"SPIKESHOT_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=environment
    )
    told, digest = ended.stdout.splitlines()
    assert told.startswith(f"{folder}: recordings cannot be packed (File too large). Free some")
    assert digest == gathered().digest
    assert list(folder.parent.iterdir()) == []


def test_without_a_pack_only_so_much_is_held_in_memory(cache, monkeypatch):
    cache.write_text("a file, not a folder")
    assert packed("x", 1, collection).digest == gathered().digest
    monkeypatch.setattr(store, "MEMORY_LIMIT", 100)
    with pytest.raises(DataError, match="SPIKESHOT_CACHE to a folder that can be written"):
        packed("x", 1, collection)
    assert packed("x", 1, gathered).digest == gathered().digest  # in memory already


# --- broken packs --------------------------------------------------------------------------------


def rewrite(folder, change):
    """Change line 2 of the index and leave the rest."""
    head, body = (folder / "index.jsonl").read_text().splitlines()
    body = json.loads(body)
    change(body)
    (folder / "index.jsonl").write_text(f"{head}\n{json.dumps(body)}\n")


def cut(name, keep):
    def change(folder):
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[:keep])

    return change


DAMAGES = {
    "no events": lambda f: (f / "events.bin").unlink(),
    "no index": lambda f: (f / "index.jsonl").unlink(),
    "empty events": cut("events.bin", 0),
    "short events": cut("events.bin", -13),
    "torn events": cut("events.bin", -1),
    "long events": lambda f: (f / "events.bin").write_bytes((f / "events.bin").read_bytes() * 2),
    "empty index": cut("index.jsonl", 0),
    "short index": cut("index.jsonl", -20),
    "half index": cut("index.jsonl", 100),
    "binary index": lambda f: (f / "index.jsonl").write_bytes(bytes(range(256))),
    "other index": lambda f: (f / "index.jsonl").write_text("[]\n{}\n"),
    "labels": lambda f: rewrite(f, lambda b: b["labels"].reverse()),
    "lengths": lambda f: rewrite(f, lambda b: b["lengths"].reverse()),
    "origins": lambda f: rewrite(f, lambda b: b["origins"].pop()),
    "digest": lambda f: rewrite(f, lambda b: b.update(digest="0")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_pack_is_noticed_when_opened_and_replaced(cache, damage):
    folder = pack_folder("x", 1)
    packed("x", 1, collection)
    DAMAGES[damage](folder)
    with pytest.raises(DataError, match=r"the pack is damaged|no pack there, or a part of it"):
        open_pack(folder)
    assert packed("x", 1, collection).digest == gathered().digest
    verify_pack(folder)
    assert [f.name for f in (cache / "packs").iterdir()] == [folder.name]


def test_a_pack_of_another_format_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(packs, "FORMAT", 99)
    pack(collection(), folder)
    monkeypatch.undo()
    with pytest.raises(DataError, match="format 99, expected 1"):
        open_pack(folder)


def test_a_file_in_the_place_of_a_pack_gives_way(folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("words")
    assert pack(collection(), folder).digest == gathered().digest


@pytest.mark.parametrize("at", [0, 5, 12, -1])
def test_verify_notices_a_single_changed_byte(folder, at):
    pack(collection(), folder)
    raw = bytearray((folder / "events.bin").read_bytes())
    raw[at] ^= 1
    (folder / "events.bin").write_bytes(bytes(raw))
    open_pack(folder)  # reads no event
    with pytest.raises(DataError, match="its content has changed"):
        verify_pack(folder)


def test_a_polarity_that_the_disk_has_damaged_counts_nowhere(folder):
    pack(collection(), folder)
    with (folder / "events.bin").open("r+b") as stream:
        stream.seek(12)  # x, y int16, t int64: then p
        stream.write(b"\xff")
    recordings, spec = open_pack(folder), FrameSpec(bins=400)
    assert bin_events(recordings[0], (34, 34), spec).sum() == len(recordings[0]) - 1


# --- many at once, and what the dead left ---------------------------------------------------------


def test_several_processes_pack_the_same_at_once(tmp_path, folder):
    code = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; import time;"
        "from test_store import *;\n"
        "def slow(d): time.sleep(.01); return recording(d)\n"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(pack(collection([0, 1, 2] * 9, slow), Path(sys.argv[1])).digest)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    digests = {process.communicate("go\n")[0].strip() for process in running}
    assert digests == {gathered([0, 1, 2] * 9).digest}
    verify_pack(folder)
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]


def test_the_first_of_two_wins_and_what_is_open_stays_readable(folder):
    """The second is packed from other samples, to tell them apart."""
    inner = []

    def read(digit):
        if not inner:
            inner.append(pack(collection([0]), folder))
        return recording(digit)

    assert pack(collection(read=read), folder).digest == gathered([0]).digest
    DAMAGES["short events"](folder)
    fresh = pack(collection(), folder)
    assert fresh.digest == gathered().digest
    assert fresh[0].tolist() == recording(3).tolist()


def test_leftovers_of_killed_processes_are_swept_away_but_work_in_progress_is_not(folder):
    for name, age in (("old", 7200), ("new", 60)):
        left = folder.parent / f".{name}.part"
        left.mkdir(parents=True)
        (left / "events.bin").write_bytes(b"half")
        for path in (left / "events.bin", left):
            os.utime(path, (time.time() - age,) * 2)
    pack(collection(), folder)
    assert {f.name for f in folder.parent.iterdir()} == {folder.name, ".new.part"}


# --- the key -------------------------------------------------------------------------------------


def test_a_pack_is_made_once_for_each_key(cache):
    calls = []

    def make():
        calls.append(1)
        return collection()

    for name, key in [("x", 1), ("x", 1), ("x", 2), ("y", 1), ("x", ("1",)), ("x", 1)]:
        assert packed(name, key, make).digest == gathered().digest
    assert len(calls) == 4
    assert pack_folder("tonic:../N MNIST", 1).parent == cache / "packs"


def edit(folder):
    file = folder / "Train" / "3" / "00004.bin"
    file.write_bytes(file.read_bytes()[:-5])


CHANGES = {
    "shorter": edit,
    "one byte": lambda f: (f / "a.txt").write_text("wordS"),
    "renamed": lambda f: (f / "a.txt").rename(f / "b.txt"),
    "added": lambda f: (f / "c.txt").write_text(""),
    "removed": lambda f: (f / "a.txt").unlink(),
}


@pytest.mark.parametrize("small", [1 << 20, 0], ids=["by content", "by times"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_source_has_another_fingerprint(tmp_path, monkeypatch, small, change):
    monkeypatch.setattr(store, "SMALL_SOURCE", small)
    place = write_folder(tmp_path / "data", fake_files(2) | {"a.txt": b"words"})
    before = fingerprint(place)
    assert fingerprint(place) == before
    CHANGES[change](place)
    if change == "one byte":
        os.utime(place / "a.txt", ns=(0, time.time_ns() + 1_000_000))
    assert fingerprint(place) != before


def test_a_small_source_is_known_wherever_it_lies_and_whenever_it_was_touched(tmp_path):
    one = write_zip(tmp_path / "data.zip", fake_files(2))
    (tmp_path / "there").mkdir()
    other = tmp_path / "there" / "data.zip"
    other.write_bytes(one.read_bytes())
    os.utime(other, (0, 0))
    assert fingerprint(one) == fingerprint(other)


def test_a_source_with_links_and_other_things_has_a_fingerprint(tmp_path):
    place = write_folder(tmp_path / "data", {"a.txt": b"words"})
    (place / "broken").symlink_to(place / "nothing")
    (place / "circle").symlink_to(place)
    os.mkfifo(place / "pipe")
    assert fingerprint(place) == fingerprint(place)


def test_no_source_at_all(tmp_path):
    with pytest.raises(DataError, match=r"gone.zip: no such file or folder"):
        fingerprint(tmp_path / "gone.zip")


def test_recordings_as_samples_are_the_recordings():
    samples = collection_of(gathered()).samples
    assert [s.label for s in samples] == ["d", "b", "e"]
    assert [s.read().tolist() for s in samples] == [recording(d).tolist() for d in (3, 1, 4)]
