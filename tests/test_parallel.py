"""One process and many: the same run; and how a run of many ends, whatever ends it.

Most of it is tried with a team of threads, which is quick; what only processes can show, with
torchrun.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fakes import PATIENCE, TINY, wait_for
from spikeshot import jobs, torchrun, training
from spikeshot.config import Config, load_config
from spikeshot.errors import ConfigError, DivergenceError, Interrupted, TeamError
from spikeshot.learn.parallel import ALONE, connect, first_alone, numbers
from spikeshot.learn.rules.rule import Batch
from spikeshot.listener import Silent
from spikeshot.run_folder import STATE
from test_resume import done_in, metrics_of

TRAIN = TINY["train"] | {"iterations": 10, "meta_batch": 2, "validate_every": 5, "clip_norm": 0.05}
CONFIG = Config.model_validate(TINY | {"train": TRAIN})


class Threads:
    """A member of a team of threads."""

    def __init__(self, rank, world, barrier, table):
        self.rank, self.world, self.barrier, self.table = rank, world, barrier, table

    def sum(self, tree):
        self.table[self.rank] = {name: value.double() for name, value in tree.items()}
        self.wait()
        trees = [self.table[rank] for rank in range(self.world)]
        self.wait()
        return {name: sum(each[name] for each in trees) for name in tree}

    def wait(self):
        try:
            self.barrier.wait(timeout=PATIENCE)
        except threading.BrokenBarrierError:
            raise TeamError("another one is gone") from None


def together(world, work):
    """Return what `work(team)` returns or raises in every member, in the order of their ranks."""
    barrier, table = threading.Barrier(world), {}

    def member(rank):
        try:
            return work(Threads(rank, world, barrier, table))
        except (DivergenceError, Interrupted) as error:  # all members raise these
            return error
        except BaseException as error:
            barrier.abort()
            return error

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(member, range(world)))


def same_numbers(run, other):
    """Check that two runs agree but for the order of summation, and have the same files."""
    ours, theirs = (load_file(r / STATE) for r in (run, other))
    assert list(ours) == list(theirs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-9)
    assert {f.relative_to(run) for f in run.rglob("*")} == {
        f.relative_to(other) for f in other.rglob("*")
    }
    ours, theirs = metrics_of(run), metrics_of(other)
    assert [(m["kind"], m["iteration"]) for m in ours] == [
        (m["kind"], m["iteration"]) for m in theirs
    ]
    assert [m["loss"] for m in ours] == pytest.approx([m["loss"] for m in theirs], rel=1e-5)
    return True


@pytest.fixture(scope="module")
def one(tmp_path_factory, fake_zip):
    """The run of one process."""
    run = tmp_path_factory.mktemp("one") / "run"
    jobs.train(CONFIG, run, data=fake_zip)
    return run


class Ears(Silent):
    def __init__(self):
        self.steps, self.scores = 0, 0

    def on_step(self, report):
        self.steps += 1

    def on_episode(self, score):
        self.scores += 1


# --- the object ----------------------------------------------------------------------------------


def test_every_task_is_one_members():
    teams = [Threads(rank, 3, None, None) for rank in range(3)]
    for count in (0, 1, 7, 9):
        shared = [list(numbers(team, count)) for team in teams]
        assert sorted(n for each in shared for n in each) == list(range(count))
        assert all(n % 3 == rank for rank, each in enumerate(shared) for n in each)
    assert list(numbers(ALONE, 4)) == [0, 1, 2, 3]


def test_the_first_goes_first():
    done = []

    def work(team):
        with first_alone(team):
            done.append(team.rank)

    together(3, work)
    assert done[0] == 0
    assert sorted(done) == [0, 1, 2]


def test_where_the_first_fails_the_others_end_without_a_word_of_their_own():
    def work(team):
        with first_alone(team):
            raise ConfigError("wrong")

    first, second = together(2, work)
    assert isinstance(first, ConfigError)
    assert isinstance(second, Interrupted)


def test_what_torchrun_says():
    assert torchrun.place({}) == (0, 1)
    assert torchrun.place({"RANK": "3", "WORLD_SIZE": "4"}) == (0, 1)  # a cluster's, not torchrun's
    assert torchrun.place({"MASTER_ADDR": "here", "RANK": "3", "WORLD_SIZE": "4"}) == (3, 4)
    with torchrun.joined({}) as team:
        assert team is ALONE
    assert connect(0, 1, timeout_s=1) is ALONE
    with (
        pytest.raises(ConfigError, match="SPIKESHOT_TIMEOUT is 'soon'"),
        torchrun.joined({"SPIKESHOT_TIMEOUT": "soon"}),
    ):
        pass


# --- a team of threads ---------------------------------------------------------------------------


def test_two_train_as_one_and_only_the_first_is_heard(one, tmp_path, fake_zip):
    run, ears = tmp_path / "run", [Ears(), Ears()]

    def work(team):
        return jobs.train(CONFIG, run, data=fake_zip, team=team, listener=ears[team.rank])

    first, second = together(2, work)
    assert same_numbers(run, one)
    assert [(e.steps, e.scores) for e in ears] == [(10, 4), (0, 0)]
    assert first["processes"] == 2
    assert second.items() <= first.items()
    expected = json.loads((one / "results.json").read_text())
    assert first["accuracy"] == expected["accuracy"]
    assert first["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(one, tmp_path, fake_zip, before, after):
    """Stopped by one member only: all stop in the same iteration."""
    run = tmp_path / "run"

    def stopped(team):
        def stop():
            return team.rank == before - 1 and done_in_metrics(run) >= 4

        return jobs.train(CONFIG, run, data=fake_zip, team=team, stop=stop)

    ended = together(before, stopped)
    assert [type(each) for each in ended] == [Interrupted] * before
    assert len({str(each) for each in ended}) == 1
    done = done_in(run)
    assert 4 <= done <= 6
    results = together(
        after, lambda team: jobs.train(CONFIG, run, data=fake_zip, team=team, resume=True)
    )
    assert all(isinstance(each, dict) for each in results), results
    assert same_numbers(run, one)


def done_in_metrics(run):
    file = run / "metrics.jsonl"
    return file.read_text().count('"train"') if file.exists() else 0


def test_a_validation_is_stopped_by_all_or_none(tmp_path, fake_zip, monkeypatch):
    run, scored = tmp_path / "run", []
    score_episode = training.score_episode

    def score(*arguments, **settings):
        scored.append(1)
        return score_episode(*arguments, **settings)

    monkeypatch.setattr(training, "score_episode", score)

    def work(team):
        def stop():
            return team.rank == 1 and len(scored) >= 1

        return jobs.train(CONFIG, run, data=fake_zip, team=team, stop=stop)

    ended = together(2, work)
    assert [str(each).split(";")[0] for each in ended] == ["stopped at iteration 5"] * 2
    assert done_in(run) == 5
    assert [m["kind"] for m in metrics_of(run)] == ["train"] * 5


@pytest.mark.parametrize("task", [0, 1])
def test_all_diverge_at_the_same_task(tmp_path, fake_zip, monkeypatch, task):
    make = training.Training._task

    def poisoned(self, index):
        posed = make(self, index)
        if index == 2 * 3 + task:
            posed = posed._replace(query=Batch(posed.query.frames / 0, posed.query.labels))
        return posed

    def work(team):
        return jobs.train(CONFIG, tmp_path / "run", data=fake_zip, team=team)

    monkeypatch.setattr(training.Training, "_task", poisoned)
    ended = together(2, work)
    assert [type(each) for each in ended] == [DivergenceError] * 2
    assert str(ended[0]) == str(ended[1])
    assert str(ended[0]).startswith(f"iteration 3, task {task}: the query loss is ")
    assert "init.layer0.weight is not finite" in str(ended[0])


def test_evaluation_is_the_same_for_any_number_of_processes(tiny_run):
    """5 episodes over 1, 2 and 3 processes, bit for bit."""
    expected = jobs.evaluate(tiny_run, episodes=5)
    for world in (2, 3):
        found = together(world, lambda team: jobs.evaluate(tiny_run, episodes=5, team=team))
        assert found == [expected] * world


def test_tasks_that_cannot_be_shared_out_are_refused(tmp_path, fake_zip):
    def work(team):
        return jobs.train(CONFIG, tmp_path / "run", data=fake_zip, team=team)

    ended = together(3, work)
    assert isinstance(ended[0], ConfigError)
    for text in ("train.meta_batch is 2", "multiple of 3", "Set train.meta_batch=3"):
        assert text in str(ended[0])
    assert not (tmp_path / "run").exists()


# --- processes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yaml_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "two.yaml"
    file.write_text(yaml.safe_dump(CONFIG.model_dump(mode="json")))
    return file


def launch(*arguments, **environment):
    """Start `torchrun --nproc-per-node 2 -m spikeshot ...`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "spikeshot", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def member(process, rank):
    """Return the process id of a member of torchrun `process`."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if parent == process.pid and f"RANK={rank}".encode() in environment:
                return int(folder.name)
    raise AssertionError(f"no member {rank}")


def test_two_processes_train_as_one(one, tmp_path, yaml_file, fake_zip):
    run = tmp_path / "run"
    process = launch("train", yaml_file, "--data", fake_zip, "--out", run, "--profile")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert same_numbers(run, one)
    assert out.count("before adaptation") == 1
    assert err.count("starts at iteration 0") == 1
    assert err.count("profile of 10 steps") == 1
    assert "reduce" in err


ANSWER_S = 60  # within which a member answers that is there, however busy the machine


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, marks=pytest.mark.slow),
    ],
)
def test_a_member_that_is_gone_silent_or_stopped_ends_the_run_which_can_go_on(
    tmp_path, yaml_file, fake_zip, number
):
    """torchrun sends a SIGINT on to all; the others reach one member only."""
    run = tmp_path / "run"
    settings = ("--set", "train.iterations=2000", "--set", "train.checkpoint_every=10")
    arguments = ("train", yaml_file, "--data", fake_zip, "--out", run, *settings)
    process = launch(*arguments, SPIKESHOT_TIMEOUT=str(ANSWER_S))
    try:
        wait_for(run / STATE, process)
        if number != signal.SIGINT:
            os.kill(member(process, 1), number)
        else:
            process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode != 0
    if number != signal.SIGINT:
        lost = "spikeshot: process 0 of 2 lost another one, or had no answer"
        assert f"{lost} for {ANSWER_S} s (" in err
        assert "start the same command with --resume" in err
    else:
        assert err.count(f"spikeshot: stopped at iteration {done_in(run)}; the checkpoint") == 1
    done, copy = done_in(run), shutil.copytree(run, tmp_path / "copy")
    assert 10 <= done < 2000
    config = load_config(str(copy / "config.yaml"))
    ears = Ears()
    with pytest.raises(Interrupted):
        jobs.train(config, copy, resume=True, listener=ears, stop=lambda: ears.steps >= 3)
    assert done_in(copy) >= done + 3
