"""A network that has gone silent ends its training with one message, not with its budget."""

import math
from dataclasses import replace

import pytest

from spikeshot import training
from spikeshot.config import load_config
from spikeshot.errors import DivergenceError
from spikeshot.jobs import train
from spikeshot.learn.meta_train import StepReport

CHANCE = math.log(3)  # the loss of three ways


def reporting(*reports):
    """Return a stand-in for `meta_step` that reports these (loss, gradient norm) in turn."""
    told = iter(reports)

    def step(learner, outer, state, tasks, **more):
        loss, norm = next(told)
        after = replace(state, iteration=state.iteration + 1)
        return after, StepReport(state.iteration, loss, 1 / 3, norm)

    return step


@pytest.fixture
def run(monkeypatch, tiny_yaml, fake_zip, tmp_path):
    """Return a function that trains on such reports, three of which are silence."""

    def go(*reports):
        monkeypatch.setattr(training, "STILL", 3)
        monkeypatch.setattr(training, "meta_step", reporting(*reports))
        overrides = [f"train.iterations={len(reports)}"]
        config = load_config(str(tiny_yaml), overrides)
        return train(config, tmp_path / "run", data=fake_zip, test=False)

    return go


def test_silence_is_told_with_its_remedies(run, tmp_path):
    with pytest.raises(DivergenceError) as caught:
        run((0.9, 0.2), *[(CHANCE, 0.0)] * 9)
    for text in ("iteration 3:", "gone silent", "train.meta_lr", "train.rate_penalty"):
        assert text in str(caught.value)
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count('"train"') == 4


@pytest.mark.parametrize(
    "reports",
    [
        [(1e-9, 0.0)] * 6,  # solved
        [(CHANCE, 1e-9)] * 6,  # hard, but not silent
        [(CHANCE, 0.0), (CHANCE, 0.0), (CHANCE, 0.1)] * 2,  # alive again
    ],
)
def test_what_is_solved_or_hard_goes_on(run, reports):
    assert run(*reports) == {}
