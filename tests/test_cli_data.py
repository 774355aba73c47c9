"""`spikeshot data`: what it prints, how it ends, and what it says of bad input."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fakes import fake_files, fake_recording, pack, write_folder, write_zip
from spikeshot.data import plots
from spikeshot.data.corpora import CORPORA
from spikeshot.data.events import make_events
from spikeshot.data.plots import OFF, ON, colour_frames
from spikeshot.data.recordings import gather_recordings
from spikeshot.data.statistics import summarise
from spikeshot.errors import DataError

BAD = {
    "Train/5/59991.bin": pack(fake_recording(5, 1))[:-1],
    "Train/5/59992.bin": pack([(1, 1, 9, 1), (1, 1, 8, 1)]),
    "Train/6/59993.bin": b"",
    "Train/7/59994.bin": pack([(40, 1, 9, 1)]),
    "Train/8/59995.bin": fake_files()["Train/3/00004.bin"],  # a copy, under another class
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "cache"


def refused(ended, *texts):
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("spikeshot: ")
    assert ended.err.count("\n") == 1
    for text in texts:
        assert text in ended.err


# --- list and get --------------------------------------------------------------------------------


def test_list_shows_every_corpus_and_the_bridge(cli):
    ended = cli("data", "list")
    assert ended.code == 0
    for text in (*CORPORA, "tonic:NAME", "CC BY-SA 4.0", "spikeshot data get nmnist", "10 digits"):
        assert text in ended.out
    listed = json.loads(cli("data", "list", "--json").out)
    assert [c["name"] for c in listed] == [*CORPORA, "tonic:NAME"]
    assert {"about", "classes", "size", "licence", "obtain", "citation"} < set(listed[0])


def test_get_of_what_cannot_be_fetched(cli):
    refused(cli("data", "get", "digits"), "pip install 'spikeshot[sample]'")
    refused(cli("data", "get", "nmnits"), "did you mean 'nmnist'")


def test_get_prints_where_the_files_are_and_warns_of_checksums(cli, cache):
    """The files are here already, as those of another publisher would be: nothing is fetched."""
    folder = cache / "downloads" / "nmnist"
    for name in ("Train.zip", "Test.zip"):
        files = {n: raw for n, raw in fake_files().items() if n.startswith(name[:-4])}
        write_zip(folder / name, files)
    ended = cli("data", "get", "nmnist")
    assert ended.code == 0
    assert ended.out.split() == [str(folder / "Train.zip"), str(folder / "Test.zip")]
    assert ended.err.count("warning: ") == 2
    assert cli("data", "check", "nmnist").out == "nmnist: 140 recordings read, 0 bad\n"


# --- check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_check_reports_every_bad_file(cli, tmp_path, write):
    place = write(tmp_path / "data", fake_files() | BAD)
    ended = cli("data", "check", place)
    assert ended.code == 1
    lines = ended.out.splitlines()
    for line, (name, text) in zip(
        lines,
        {
            "Train/5/59991.bin": "not a multiple of the 5 bytes",
            "Train/5/59992.bin": "timestamps go back",
            "Train/6/59993.bin": "no event in it",
            "Train/7/59994.bin": "x=40, y=1, outside the 34x34 sensor",
            "Train/8/59995.bin": f"holds the same events as {place}: Train/3/00004.bin",
        }.items(),
        strict=False,
    ):
        assert line.startswith(f"{place}: {name}: ")
        assert text in line
    assert lines[5:] == [f"{place}: 145 recordings read, 5 bad"]
    report = json.loads(cli("data", "check", place, "--json").out)
    assert (report["samples"], report["problems"]) == (145, lines[:5])


def test_names_that_are_no_text_are_told_all_the_same(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff\xe9"
    place = os.fsdecode(folder)
    try:
        write_folder(Path(place), fake_files(2) | {"Train/5/59991.bin": b"123"})
    except OSError:
        pytest.skip("this file system takes only names that are text")
    for command, code in (("check", 1), ("pack", 2)):
        command = [sys.executable, "-m", "spikeshot", "data", command, folder]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == code
        assert "59991.bin: 3 bytes, not a multiple" in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr


def test_check_of_good_recordings(cli, fake_zip):
    assert cli("data", "check", fake_zip) == (0, f"{fake_zip}: 140 recordings read, 0 bad\n", "")
    assert cli("data", "check", fake_zip, "--corpus", "nmnist").code == 0


def test_check_reads_a_pack_through(cli, fake_zip):
    folder = cli("data", "pack", fake_zip).out.split(":")[0]
    assert cli("data", "check", folder).out == f"{folder}: 140 recordings read, 0 bad\n"
    with open(f"{folder}/events.bin", "r+b") as stream:
        stream.write(b"\xff")
    refused(cli("data", "check", folder), "its content has changed")


@pytest.mark.parametrize("command", ["check", "pack", "stats", "show"])
def test_what_is_not_there_or_fits_no_layout(cli, tmp_path, command):
    more = ["--out", tmp_path / "a.png"] if command == "show" else []
    refused(cli("data", command, "nmnst", *more), "neither a file or folder nor a corpus", "nmnist")
    refused(cli("data", command, "nmnist", *more), "reads your data", "data get nmnist")
    refused(cli("data", command, tmp_path, *more), "Point --data at the folder or zip")
    refused(cli("data", command, tmp_path, "--corpus", "x", *more), "corpus 'x' is unknown")
    (tmp_path / "text.zip").write_text("words")
    refused(cli("data", command, tmp_path / "text.zip", *more), "not a readable zip")


def test_check_of_a_corpus_that_reads_no_files(cli):
    refused(cli("data", "check", "digits"), "corpus 'digits' has no files to list")


# --- pack and stats ------------------------------------------------------------------------------


def test_pack_says_where_and_what_and_packs_once(cli, cache, fake_zip, fake_recordings):
    first, second = cli("data", "pack", fake_zip), cli("data", "pack", fake_zip)
    assert first == second
    (folder,) = (cache / "packs").iterdir()
    assert first.out == f"{folder}: 140 recordings, digest {fake_recordings.digest}\n"


def test_pack_into_a_cache_that_cannot_be_written(cli, cache, fake_zip):
    cache.write_text("a file, not a folder")
    refused(cli("data", "pack", fake_zip), f"cannot be packed into {cache}", "SPIKESHOT_CACHE")


def test_a_bad_recording_ends_pack_and_leaves_nothing(cli, cache, tmp_path):
    place = write_folder(tmp_path / "data", fake_files() | {"Train/6/59993.bin": b""})
    refused(cli("data", "pack", place), "Train/6/59993.bin: no event in it")
    assert list((cache / "packs").iterdir()) == []


def test_stats_prints_and_gives_json(cli, fake_zip, fake_recordings):
    summary = json.loads(cli("data", "stats", fake_zip, "--json").out)
    assert summary == summarise(fake_recordings)
    text = cli("data", "stats", fake_zip).out
    assert f"{fake_zip}: 140 recordings, sensor 34 x 34\n" in text
    assert f"digest {fake_recordings.digest}" in text
    assert text.count("#" * 40) == 1  # the longest bar
    assert f"{'9':>22} {14:>8}\n" in text


def test_the_statistics_of_two_recordings_worked_out_by_hand():
    one = make_events([0, 1, 2], [0, 0, 0], [0, 500, 2_000], [1, 0, 1])
    other = make_events([0], [0], [70], [0])
    summary = summarise(gather_recordings([one, other], [1, 1], ["a", "b"], ["p", "q"], (4, 3)))
    assert summary["recordings"] == 2
    assert summary["events_in_all"] == 4
    assert summary["on_share"] == 0.5
    assert summary["events"] == {"min": 1, "median": 2, "mean": 2, "max": 3}
    assert summary["duration_ms"] == {"min": 0, "median": 1, "mean": 1, "max": 2}
    assert summary["events_per_second"]["min"] == 1500  # 3 events in 2 ms; 1 in no time: above
    assert summary["per_class"] == {"a": 0, "b": 2}
    assert sum(summary["histogram"]["counts"]) == 2
    with pytest.raises(DataError, match="no recording"):
        summarise(gather_recordings([], [], [], [], (4, 3)))


# --- show ----------------------------------------------------------------------------------------


def test_show_writes_a_png_and_a_gif_that_moves(cli, fake_zip, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "STEPS", 4)
    png, gif = tmp_path / "a.png", tmp_path / "a.gif"
    for file in (png, gif):
        ended = cli("data", "show", fake_zip, "--index", 3, "--out", file)
        assert ended == (0, f"{file}\n", "")
    raw = png.read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", raw[16:24])
    assert min(width, height) > 400
    raw = gif.read_bytes()
    assert raw[:6] == b"GIF89a"
    assert raw.count(b"\x21\xf9\x04") == 4  # one graphic control extension a frame
    assert {f.name for f in tmp_path.iterdir()} == {"a.png", "a.gif", "cache"}


def test_show_of_what_cannot_be(cli, fake_zip, tmp_path):
    show = "data", "show", fake_zip, "--out"
    refused(cli(*show, tmp_path / "a.jpg"), "ends in .png or .gif")
    refused(cli(*show, tmp_path / "no" / "a.png"), "cannot be written (No such file or directory)")
    refused(cli(*show, tmp_path / "a.png", "--index", 140), "--index is 140", "0 to 139")
    refused(cli(*show, tmp_path / "a.png", "--index", -1), "--index")
    refused(cli("data", "show", fake_zip), "Missing option '--out'")


def test_frames_are_white_red_where_on_and_blue_where_off():
    events = make_events([0, 1, 1, 3], [0, 1, 1, 2], [100, 200, 900, 1_099], [1, 0, 0, 1])
    frames, edges = colour_frames(events, (4, 3), 2)
    assert frames.shape == (2, 3, 4, 3)
    assert edges.tolist() == [0.1, 0.6, 1.1]
    np.testing.assert_allclose(frames[0, 0, 0], ON)
    np.testing.assert_allclose(frames[0, 1, 1], OFF)
    np.testing.assert_allclose(frames[1, 2, 3], ON)
    assert (frames == 1).all(-1).sum() == 2 * 12 - 4
