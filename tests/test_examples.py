"""The example scripts run, with small settings, and show what they say they show."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = {file.stem for file in EXAMPLES.glob("*.py")}


@pytest.fixture
def example(monkeypatch):
    """Import an example as it is imported from its own folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def test_the_examples_are_five_short_scripts_that_are_all_run_here():
    assert len(NAMES) == 5
    here = Path(__file__).read_text()
    for name in NAMES:
        assert f'example("{name}")' in here
        text = (EXAMPLES / f"{name}.py").read_text()
        assert len(text.splitlines()) <= 60
        assert f"python examples/{name}.py" in text


def test_train_small(example, capsys):
    few = ("iterations=2", "validate_every=2", "validation_episodes=2", "test_episodes=2")
    accuracy = example("train_small").main(*(f"train.{setting}" for setting in few))
    assert 0 <= accuracy <= 1
    assert "5-way 1-shot on 20 held-out classes" in capsys.readouterr().out


def test_pretrained_digits(example, capsys):
    """Chance is 0.2; the learner's card says 0.97."""
    assert example("pretrained_digits").main() >= 0.8
    assert "of 20 right" in capsys.readouterr().out


def test_own_surrogate(example):
    before, after = example("own_surrogate").main()
    assert after < before / 2


def test_own_rule(example):
    found = example("own_rule").main()
    assert found["its own rule"] >= 0.8
    assert found["sign of readout"] > 0.3  # chance is 0.2


def test_look_inside(example, tmp_path):
    rates = example("look_inside").main(tmp_path / "spikes.png")
    assert (tmp_path / "spikes.png").read_bytes().startswith(b"\x89PNG")
    assert len(rates) == 3
    assert all(0 < rate < 1 for pair in rates for rate in pair)
    assert all(before != after for before, after in rates)
