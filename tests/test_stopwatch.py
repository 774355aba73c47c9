"""The profile of a training: every moment counts for one phase, and only when it is asked for."""

import contextlib
import json
import math
import re
import shutil

import pytest

from networks import small_network
from spikeshot import jobs
from spikeshot.config import load_config
from spikeshot.errors import Interrupted
from spikeshot.learn.meta_gradient import meta_gradient
from spikeshot.learn.stopwatch import OFF, PHASES, Stopwatch
from spikeshot.listener import Silent
from test_meta_gradient import setting


class Clock:
    """A clock that the test winds."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_phase_within_a_phase_stops_the_outer_clock():
    clock = Clock()
    watch = Stopwatch(clock)
    with watch.phase("other"):
        clock.now += 1
        with watch.phase("inner"):
            clock.now += 10
            with watch.phase("forward"):
                clock.now += 100
            clock.now += 20
        clock.now += 2
    clock.now += 1000  # in no phase
    with watch.phase("inner"):
        clock.now += 40
    found = watch.profile(2)
    assert found.ms == {"forward": 50_000, "inner": 35_000, "other": 1500}
    assert found.ms_per_step == 86_500
    assert sum(found.percent.values()) == pytest.approx(100)
    assert found.percent["forward"] == pytest.approx(100 * 50 / 86.5)


def test_an_error_leaves_no_phase_running():
    clock = Clock()
    watch = Stopwatch(clock)
    with contextlib.suppress(ValueError), watch.phase("data"):
        clock.now += 1
        raise ValueError
    clock.now += 5
    with watch.phase("inner"):
        clock.now += 2
    assert watch.profile(1).ms == {"data": 1000, "inner": 2000}


def test_a_stopwatch_that_is_off_does_nothing():
    with OFF.phase("data"), OFF.phase("data"):
        pass


@pytest.mark.parametrize(
    ("strategy", "forwards"),
    [("split", ["forward"] * 2 + ["query"]), ("double_backward", ["forward"] * 2 + ["query"]),
     ("remat", ["forward"] * 2 + ["query"] + ["backward"] * 2)],
)  # fmt: skip
def test_every_forward_pass_counts_for_its_phase(strategy, forwards):
    """Two inner steps; one unit of time per forward pass, and none for anything else."""
    clock, task = Clock(), setting(small_network())
    forward = task["forward"]
    watch, seen = Stopwatch(clock), []

    def counted(params, frames):
        seen.append(watch._running[-1])
        clock.now += 1
        return forward(params, frames)

    meta_gradient(**task | {"forward": counted}, strategy=strategy, watch=watch)
    assert seen == forwards
    expected = {f"{name}": 1000.0 * seen.count(name) for name in PHASES if name in seen}
    assert watch.profile(1).ms == expected


class Ears(Silent):
    def __init__(self):
        self.profiles, self.steps = [], 0

    def on_step(self, report):
        self.steps += 1

    def on_profile(self, profile):
        self.profiles.append(profile)


def test_training_tells_its_profile_in_one_line_and_in_the_results(
    cli, tiny_yaml, tmp_path, fake_zip
):
    run = tmp_path / "run"
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", run, "--profile")
    assert ended.code == 0
    lines = [line for line in ended.err.splitlines() if line.startswith("profile of 6 steps, ")]
    assert len(lines) == 1
    shares = dict(re.findall(r"(\w+) (\d+\.\d) %", lines[0]))
    assert list(shares) == [name for name in PHASES if name != "reduce"]
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.5)  # rounded
    found = json.loads((run / "results.json").read_text())["profile"]
    assert found["steps"] == 6
    assert {n: f"{p:.1f}" for n, p in found["percent"].items()} == shares
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = math.fsum(m["seconds"] for m in steps if m["kind"] == "train")
    assert 6 * found["ms_per_step"] >= 1000 * seconds  # the whole of every step


def test_without_profile_there_is_none(cli, tiny_run, tiny_yaml, tmp_path, fake_zip):
    assert "profile" not in json.loads((tiny_run / "results.json").read_text())
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", tmp_path / "run")
    assert "profile" not in ended.err


def test_a_stopped_training_tells_the_profile_of_what_it_did(tmp_path, tiny_yaml, fake_zip):
    ears, run = Ears(), tmp_path / "run"
    config = load_config(str(tiny_yaml))
    with pytest.raises(Interrupted):
        jobs.train(
            config, run, data=fake_zip, profile=True, listener=ears, stop=lambda: ears.steps == 2
        )
    assert [p.steps for p in ears.profiles] == [3]  # the third was under way
    jobs.train(config, run, data=fake_zip, resume=True, profile=True, listener=ears)
    assert [p.steps for p in ears.profiles] == [3, 3]


def test_a_run_with_no_step_left_has_no_profile(tmp_path, tiny_run, tiny_yaml, fake_zip):
    run, ears = shutil.copytree(tiny_run, tmp_path / "run"), Ears()
    config = load_config(str(tiny_yaml))
    result = jobs.train(config, run, resume=True, profile=True, listener=ears)
    assert "profile" not in result
    assert ears.profiles == []
