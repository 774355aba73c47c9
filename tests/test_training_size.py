"""Tasks of meta-training may be of another size than those of validation and test."""

import json

import pytest
import torch

from spikeshot.assemble_data import load_source, training_size
from spikeshot.config import load_config
from spikeshot.data.episodes import Task
from spikeshot.errors import ConfigError, Interrupted
from spikeshot.jobs import _task_spaces, train
from spikeshot.opening import data_of, opened_on
from spikeshot.snn.network import resize_readout
from spikeshot.stored import export, open_learner

LARGER = ("train.ways=6", "train.queries=2", "train.validation_ways=4")


def keys(*overrides):
    return [word for key in overrides for word in ("--set", key)]


@pytest.mark.parametrize(
    ("overrides", "size"),
    [((), Task(3, 1, 1)), (LARGER, Task(6, 1, 2)), (("train.queries=4",), Task(3, 1, 4))],
)
def test_zero_means_the_size_of_every_other_task(overrides, size, tiny_yaml):
    assert training_size(load_config(str(tiny_yaml), overrides)) == size


def test_training_and_validation_draw_tasks_of_their_own_sizes(tiny_yaml, fake_zip):
    config = load_config(str(tiny_yaml), [*LARGER, "data.simulated.share=0.5"])
    spaces = _task_spaces(config, load_source(config, fake_zip))
    assert {name: space.task for name, space in spaces.items()} == {
        "train": Task(6, 1, 2),
        "simulated": Task(6, 1, 2),
        "val": Task(4, 1, 1),
    }
    episode = spaces["train"].episode(0)
    assert (len(set(episode.classes)), episode.query.shape[1]) == (6, 12)


@pytest.mark.parametrize(
    "more",
    [(), ("learn.readout_start=prototypes",), ("learn.method=protonet",), ("network.kind=frames",)],
)
def test_a_run_is_validated_and_tested_on_its_own_tasks(more, cli, tmp_path, tiny_yaml, fake_zip):
    run = tmp_path / "run"
    words = keys(*LARGER, *more, "train.iterations=3")
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", run, *words)
    assert ended.code == 0, ended.err
    results = json.loads((run / "results.json").read_text())
    assert (results["ways"], results["queries"]) == (3, 1)
    assert (results["training_ways"], results["validation_ways"]) == (6, 4)
    stored = open_learner(run)
    corpus, recordings = data_of(stored, stored.config, None, fake_zip)
    opened = opened_on(stored, stored.config, corpus, recordings)
    assert stored.init["readout.bias"].shape == (6,)
    assert opened.init["readout.bias"].shape == (3,)
    assert torch.equal(
        opened.init["readout.weight"], resize_readout(stored.init, 3)["readout.weight"]
    )
    export(run, tmp_path / "mine.safetensors")
    shipped = open_learner(tmp_path / "mine.safetensors")
    assert all(torch.equal(shipped.init[name], value) for name, value in opened.init.items())


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(cli, tmp_path, tiny_yaml, fake_zip):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = keys(*LARGER)
    assert cli("train", tiny_yaml, "--data", fake_zip, "--out", whole, *words).code == 0
    config = load_config(str(tiny_yaml), LARGER)
    calls = iter([False] * 12 + [True] * 1000)
    with pytest.raises(Interrupted):
        train(config, parts, data=fake_zip, stop=lambda: next(calls))
    assert cli("train", tiny_yaml, "--data", fake_zip, "--out", parts, *words, "--resume").code == 0
    first, second = (open_learner(run).init for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("train.ways=1",), "train.ways is 1; expected 2 or more, or 0"),
        (("train.validation_ways=1",), "train.validation_ways is 1; expected 2 or more, or 0"),
        ((*LARGER, "learn.rates=parameter"), "train.ways is 6 and task.ways 3"),
        (("train.queries=-1",), "train.queries is -1"),
    ],
)
def test_what_cannot_be_is_said(overrides, said, tiny_yaml):
    with pytest.raises(ConfigError) as caught:
        load_config(str(tiny_yaml), overrides)
    assert said in str(caught.value)


def test_more_ways_than_there_are_classes_are_refused_before_training(
    cli, tmp_path, tiny_yaml, fake_zip
):
    run = tmp_path / "run"
    words = keys("train.ways=65")
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", run, *words)
    assert ended.code == 2
    assert "split train has 64 classes, fewer than ways=65" in ended.err
    assert "train.ways" in ended.err
    assert not run.exists()
