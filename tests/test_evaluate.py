"""Evaluation in many threads: the same scores in the same order, and a stop is heard at once."""

import threading
import time

import pytest
import torch

from spikeshot import jobs
from spikeshot.learn.prefetch import prefetch
from spikeshot.learn.scoring import Score
from spikeshot.listener import Silent
from spikeshot.study.evaluate import available_cores, evaluate_episodes


def slower_first(index):
    """Return a score that takes the longer the earlier its episode is."""
    time.sleep(0.002 * (8 - index % 8))
    return Score(index / 100, index / 50, float(index))


class Ears(Silent):
    def __init__(self):
        self.scores = []

    def on_episode(self, score):
        self.scores.append(score)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_scores_come_in_the_order_of_the_episodes(workers):
    heard = []
    found = evaluate_episodes(int, slower_first, range(16), heard.append, workers=workers)
    assert [score.loss for score in heard] == list(range(16))
    assert found.accuracy == pytest.approx(sum(range(16)) / 16 / 50)
    assert found.episodes == 16


def test_a_run_is_scored_the_same_by_any_number_of_workers(tiny_run):
    """Bit for bit, each episode and the whole."""
    ears = {workers: Ears() for workers in (1, 2, 3)}
    found = [
        jobs.evaluate(tiny_run, episodes=12, workers=workers, listener=ears[workers])
        for workers in ears
    ]
    assert found[1] == found[2] == found[0]
    assert ears[1].scores == ears[2].scores == ears[3].scores
    assert len(ears[1].scores) == 12


def test_several_are_scored_at_once_and_made_in_the_background():
    """Four must meet at the barrier before any goes on."""
    barrier, threads = threading.Barrier(4), set()

    def make(index):
        threads.add(threading.current_thread())
        return index

    def score(index):
        barrier.wait(timeout=600)
        return Score(0.0, 0.0, 0.0)

    assert evaluate_episodes(make, score, range(8), workers=4).episodes == 8
    assert len(threads) == 1
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stop_lets_only_the_episodes_under_way_end(workers):
    heard, scored, threads = [], [], threading.active_count()

    def score(index):
        scored.append(index)
        return slower_first(index)

    found = evaluate_episodes(
        int, score, range(100), heard.append, workers=workers, stop=lambda: len(heard) >= 4
    )
    assert found is None
    assert len(heard) == 4
    assert len(scored) <= 5 + 2 * workers
    assert threading.active_count() == threads  # none is left behind


def test_torch_has_one_thread_for_each_worker_and_its_own_back_after_it():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []

        def score(index):
            seen.append(torch.get_num_threads())
            return Score(0.0, 0.0, 0.0)

        evaluate_episodes(int, score, range(6), workers=2)
        assert seen == [1] * 6
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_one_of_the_threads_is_raised():
    def score(index):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate_episodes(int, score, range(6), workers=2)


def test_prefetch_keeps_no_more_than_asked_in_advance():
    made = []
    items = prefetch(made.append, range(100), ahead=3, threads=2)
    next(items)
    items.close()
    assert len(made) <= 4


def test_there_is_a_core():
    assert available_cores() >= 1


def test_workers_are_an_option_of_evaluate(cli, tiny_run):
    one, two = (cli("evaluate", tiny_run, "--episodes", 4, "--workers", n, "--json") for n in "12")
    assert one.code == two.code == 0
    assert one.out == two.out
    assert cli("evaluate", tiny_run, "--workers", 0).code == 2
