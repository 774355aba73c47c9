"""Fixtures shared by the tests: a small N-MNIST, a small run, the command line, the real data."""

import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from hypothesis import settings

from fakes import TINY, fake_files, write_zip

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Packs of the tests go into a folder of their own, unless $SPIKESHOT_CACHE names one."""
    with pytest.MonkeyPatch.context() as patch:
        if "SPIKESHOT_CACHE" not in os.environ:
            patch.setenv("SPIKESHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class Ended(NamedTuple):
    """How a command ended: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def fake_zip(tmp_path_factory):
    """A small N-MNIST as a zip in the published layout: 14 recordings of each digit."""
    return write_zip(tmp_path_factory.mktemp("fake") / "N-MNIST-fake.zip", fake_files())


@pytest.fixture(scope="session")
def fake_recordings(fake_zip):
    from spikeshot.data.nmnist import read_nmnist

    return read_nmnist(fake_zip)


@pytest.fixture(scope="session")
def tiny_yaml(tmp_path_factory):
    """A configuration that trains on `fake_zip` in a second."""
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_yaml, fake_zip):
    """A finished run of `tiny_yaml`; tests that change it copy it first."""
    from spikeshot.config import load_config
    from spikeshot.jobs import train

    run = tmp_path_factory.mktemp("run") / "tiny"
    train(load_config(str(tiny_yaml)), run, data=fake_zip)
    return run


@pytest.fixture
def cli(monkeypatch, capsys):
    """The command line in this process: `cli("show", run)` returns how it ended."""
    from spikeshot.cli import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spikeshot", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Ended(int(end.value.code or 0), *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def shared_data():
    """The folder of real recordings; tests that use it carry the mark `data`."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real recordings: {SHARED_DATA} is missing")
    return SHARED_DATA
