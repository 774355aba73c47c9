"""A budget in minutes: the schedules run their whole course, and a resumed run counts on."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from fakes import TINY
from spikeshot import jobs, training
from spikeshot.agreement import require_divisible
from spikeshot.assemble_data import is_simulated
from spikeshot.config import config_from_dict, load_config
from spikeshot.errors import ConfigError, Interrupted
from spikeshot.learn.clock import Clock
from spikeshot.learn.meta_train import OuterLoop
from spikeshot.run_folder import RunFolder


def test_iterations_alone_are_the_place_without_minutes():
    clock = Clock(10, spent=1e9)
    assert [clock.place(i) for i in (0, 4, 10)] == [0, 4, 10]
    assert [clock.over(i) for i in (9, 10)] == [False, True]


def test_minutes_are_the_place_whatever_was_done():
    """1.5 of 2 minutes are three quarters of a schedule of 1000 iterations, after 7 or 10^6."""
    clock = Clock(1000, 2.0, 90.0)
    assert clock.place(7) == clock.place(10**6) == 750
    assert not clock.over(10**6)
    clock.spent = 120.0
    assert clock.over(7)


def test_the_schedules_follow_the_place():
    outer = OuterLoop(100, warmup=0)
    assert outer.schedule(3, 50) == pytest.approx(0.5)  # half way down a cosine
    assert outer.schedule(10**6, 100) == pytest.approx(0)
    assert outer.schedule(25) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    cfg = load_config("quickstart", ["data.simulated.share=0.5", "train.iterations=100"])
    assert [is_simulated(cfg, 10**6, place) for place in (49, 50)] == [True, False]


@pytest.fixture
def budgeted(monkeypatch):
    """A configuration of 20 seconds, where each iteration and each validation takes one."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float((next(ticks) + 1) // 2))
    monkeypatch.setattr(training, "time", clock)
    train = TINY["train"] | {"minutes": 20 / 60, "checkpoint_every": 50}
    return config_from_dict(TINY | {"train": train}, "tiny")


def kinds_of(run):
    return [m["kind"][0] for m in RunFolder.open(run).metrics()]


WHOLE = [*"t" * 10, "v", *"t" * 9, "v"]
"""Validations come every 3 of 6 places, so at half of 20 seconds, of which they take one each."""


def test_training_ends_when_the_minutes_are_spent(tmp_path, fake_zip, budgeted):
    results = jobs.train(budgeted, tmp_path / "run", data=fake_zip)
    assert kinds_of(tmp_path / "run") == WHOLE
    assert results["iterations"] == 19
    assert results["best_iteration"] in (10, 19)
    assert results["training_minutes"] == round(21 / 60, 2)


@pytest.mark.parametrize("iterations", [4, 10, 15])
def test_a_resumed_run_has_only_what_is_left_of_its_minutes(
    tmp_path, fake_zip, budgeted, iterations
):
    asked = itertools.count()
    stop = lambda: next(asked) == iterations  # noqa: E731
    with pytest.raises(Interrupted):
        jobs.train(budgeted, tmp_path / "run", data=fake_zip, test=False, stop=stop)
    assert len(kinds_of(tmp_path / "run")) < len(WHOLE)
    jobs.train(budgeted, tmp_path / "run", data=fake_zip, test=False, resume=True)
    assert kinds_of(tmp_path / "run") == WHOLE
    jobs.train(budgeted, tmp_path / "whole", data=fake_zip, test=False)
    ours, theirs = (load_file(tmp_path / out / "best.safetensors") for out in ("run", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_several_processes_have_no_common_clock(tmp_path, fake_zip, budgeted):
    with pytest.raises(ConfigError, match=r"train\.minutes is .* 2 processes.*expected train\.min"):
        require_divisible(budgeted, SimpleNamespace(rank=0, world=2))


def test_what_trains_nothing_takes_no_minutes():
    sets = ["learn.method=centroid", "train.iterations=1", "train.minutes=1"]
    with pytest.raises(ConfigError, match=r"train\.minutes 1\.0, but learn\.method=centroid"):
        load_config("quickstart", sets)
