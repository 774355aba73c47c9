"""Presets of data sets that are not at hand: they run on files made up in the published layouts."""

import json

import pytest

from fakes import write_folder
from made_files import DAVIS, made_events, mat_file, n_omniglot_file
from spikeshot.assemble_data import frame_spec
from spikeshot.config import load_config
from spikeshot.data.class_splits import shipped_classes
from spikeshot.data.layouts.asl_dvs import LETTERS, SENSOR_SIZE

FEW = ("train.iterations=3", "train.validation_episodes=2", "train.test_episodes=2")


@pytest.fixture(scope="module")
def asl_dvs(tmp_path_factory):
    """Twelve recordings of each letter, as published: `<letter>/<letter>_<number>.mat`."""
    files = {
        f"{letter}/{letter}_{i:04d}.mat": mat_file(made_events(12 * k + i, 300, SENSOR_SIZE))
        for k, letter in enumerate(LETTERS)
        for i in range(12)
    }
    return write_folder(tmp_path_factory.mktemp("asl-dvs"), files)


@pytest.fixture(scope="module")
def n_omniglot(tmp_path_factory):
    """Five characters of an alphabet of each meta-split, 20 drawings each, as published."""
    published = shipped_classes("omniglot_published")
    halves = {"train": "dvs_background_1", "val": "dvs_background_2", "test": "dvs_evaluation"}
    files = {}
    for k, (split, half) in enumerate(halves.items()):
        for c in range(1, 6):
            place = f"{half}/{published[split][0]}/character{c:02d}/{10 * k + c:04d}"
            raw, table, _ = n_omniglot_file(10 * k + c, n=300)
            files |= {f"{place}.aedat4": raw, f"{place}.csv": table}
    return write_folder(tmp_path_factory.mktemp("n-omniglot"), files)


def train(cli, preset, place, run, *more):
    """Train a preset for a few iterations and return the run's record of its data."""
    sets = [word for text in (*FEW, *more) for word in ("--set", text)]
    ended = cli("train", preset, "--data", place, "--out", run, *sets)
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    return json.loads((run / "data.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("split", ["double_asl_dvs", "double_asl_dvs_2024"])
def test_double_asl_dvs_runs_with_both_published_splits(cli, asl_dvs, tmp_path, split):
    """369, 92 and 115 of the 576 pairs: the published code's `doubledvssign_splits_full.json`."""
    more = (f"data.split={split}", "task.queries=1")  # 12 of 4,200 recordings a letter are here
    record = train(cli, "double-asl-dvs-fast", asl_dvs, tmp_path / "run", *more)
    assert (record["corpus"], record["recordings"]) == ("asl-dvs", 288)
    classes = record["split"]["classes"]
    assert {name: len(pairs) for name, pairs in classes.items()} == {
        **{"train": 369, "val": 92},
        "test": 115,
    }
    assert classes == {name: list(pairs) for name, pairs in shipped_classes(split).items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "frames", [(), ("data.crop=null", "data.downsample=10"), ("data.stretch=false",)]
)
def test_n_omniglot_runs_in_either_size_and_time(cli, n_omniglot, tmp_path, frames):
    frames = ("task.ways=5", "train.ways=0", *frames)  # five characters of a split are here
    record = train(cli, "n-omniglot-fast", n_omniglot, tmp_path / "run", *frames)
    assert (record["corpus"], record["recordings"]) == ("n-omniglot", 300)
    assert {name: len(c) for name, c in record["split"]["classes"].items()} == {
        **{"train": 5, "val": 5},
        "test": 5,
    }


def test_frames_have_the_published_sizes():
    """Double ASL-DVS: 240 x 180 by 6 is 40 x 30. N-Omniglot: 28 x 28, or 34 x 26 of the whole."""
    asl = frame_spec(load_config("double-asl-dvs-fast"))
    assert asl.frame_size(SENSOR_SIZE) == (40, 30)
    square = frame_spec(load_config("n-omniglot-fast"))
    assert square.frame_size(DAVIS) == (28, 28)
    left, top, width, height = square.crop
    assert (top, top + height) == (4 - 1, 254 + 1)  # the published rows 4:254 and columns 54:304,
    assert (left, left + width) == (54 - 1, 304 + 1)  # and a pixel at each side
    whole = load_config("n-omniglot-fast", ["data.crop=null", "data.downsample=10"])
    assert frame_spec(whole).frame_size(DAVIS) == (34, 26)
