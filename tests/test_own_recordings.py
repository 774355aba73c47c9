"""A person's own recordings: a folder of files for each class is all that training takes."""

import json

import numpy as np
import pytest
import yaml

from fakes import TINY, write_folder
from made_files import csv_file, made_events, npy_file, table
from spikeshot.assemble_data import frame_spec
from spikeshot.config import load_config
from spikeshot.data.corpora import CORPORA, Request, load_corpus
from spikeshot.data.frames import bin_events
from spikeshot.errors import ConfigError

CLASSES = ("bat", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")
DATA = {
    "corpus": "folder",
    "classes": "single",
    "class_fractions": [0.34, 0.33, 0.33],  # three classes each
}


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Four recordings of each of nine classes: two .npy of four columns, two .csv."""
    files = {}
    for k, label in enumerate(CLASSES):
        for i in range(2):
            files[f"{label}/{i}.npy"] = npy_file(table(made_events(10 * k + i, 80)))
            files[f"{label}/{i}.csv"] = csv_file(made_events(10 * k + 5 + i, 80))
    return write_folder(tmp_path_factory.mktemp("mine"), files)


@pytest.fixture
def my_yaml(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(TINY | {"data": TINY["data"] | DATA}))
    return file


def test_a_folder_of_npy_and_csv_trains_and_evaluates(cli, mine, my_yaml, tmp_path):
    run, size = tmp_path / "run", ("--set", "data.sensor_size=[34,34]")
    ended = cli("train", my_yaml, "--data", mine, "--out", run, *size)
    assert (ended.code, "Traceback" in ended.err) == (0, False)
    record = json.loads((run / "data.json").read_text())
    assert record["recordings"] == 36
    classes = [c for split in record["split"]["classes"].values() for c in split]
    assert sorted(classes) == list(CLASSES)
    result = json.loads(cli("evaluate", run, "--data", mine, "--episodes", "4", "--json").out)
    assert (result["dataset"], result["recordings"], result["episodes"]) == ("folder", 12, 4)


def test_without_a_crop_the_whole_of_a_large_sensor_is_seen():
    """Of N-MNIST's 32 x 32 pixels, none of these four corners was more than one."""
    events = made_events(n=500, size=(346, 260))
    config = load_config("quickstart", ["data.corpus=folder", "data.bins=40"])
    frames = bin_events(events, (346, 260), frame_spec(config))
    assert frames.shape[2:] == (130, 173)
    assert frames.sum() == len(events)
    corner = ["data.corpus=folder", "data.bins=40", "data.crop=[1, 1, 32, 32]"]
    corner = bin_events(events, (346, 260), frame_spec(load_config("quickstart", corner)))
    assert corner.sum() == np.sum(
        (events["x"] - 1 < 32) & (events["y"] - 1 < 32) & (events["x"] > 0) & (events["y"] > 0)
    )


def test_only_corpora_of_the_sensor_of_n_mnist_are_cut_to_32_pixels():
    """N-MNIST's 34 x 34 become 32 x 32 in the method; N-Omniglot has a window of its own."""
    crops = {name: corpus.crop for name, corpus in CORPORA.items() if corpus.crop}
    assert crops.pop("n-omniglot") == (53, 3, 252, 252)
    assert crops == dict.fromkeys(("digits", "nmnist", "omniglot", "signs"), (1, 1, 32, 32))
    for name, crop in crops.items():
        assert frame_spec(load_config("quickstart", [f"data.corpus={name}"])).crop == crop
    whole = load_config("quickstart", ["data.corpus=nmnist", "data.crop=null"])
    assert frame_spec(whole).crop is None


def test_a_sensor_that_no_file_tells_is_asked_for(cli, mine, my_yaml, tmp_path):
    ended = cli("train", my_yaml, "--data", mine, "--out", tmp_path / "run")
    assert ended.code == 2
    assert "reach 34x34). Set data.sensor_size to [width, height]" in " ".join(ended.err.split())
    assert not (tmp_path / "run").exists()


def test_what_files_do_not_say_is_said_in_the_request(mine):
    plain = Request(mine, sensor_size=(34, 34), until_us=None)
    in_us = load_corpus("folder", plain)
    in_ms = load_corpus("folder", Request(mine, sensor_size=(34, 34), time_unit="ms"))
    assert (1_000 * in_us[7]["t"]).tolist() == in_ms[7]["t"].tolist()
    assert load_corpus("folder", plain).digest == in_us.digest != in_ms.digest


def test_a_corpus_that_knows_its_sensor_takes_no_other(fake_zip):
    with pytest.raises(ConfigError, match=r"data.sensor_size is \(3, 4\), but corpus 'nmnist' has"):
        load_corpus("nmnist", Request(fake_zip, sensor_size=(3, 4)))


@pytest.mark.parametrize("command", ["check", "stats", "pack"])
def test_data_commands_take_the_size_of_the_sensor(cli, mine, command):
    ended = cli("data", command, mine)
    assert ended.code == 2
    assert "--sensor-size 346x260" in " ".join(ended.err.split())
    assert "N-MNIST" not in ended.err  # nor any other layout that it does not have
    ended = cli("data", command, mine, "--sensor-size", "34x34")
    assert (ended.code, "36 recordings" in ended.out) == (0, True)
    for bad in ("34", "axb", "0x9"):
        ended = cli("data", command, mine, "--sensor-size", bad)
        assert "expected WIDTHxHEIGHT, as 346x260" in " ".join(ended.err.split())
