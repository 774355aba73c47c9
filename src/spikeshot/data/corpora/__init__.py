"""Corpora by name: where recordings come from.

A corpus is one entry of `CORPORA`; `load_corpus` is the only way in. Beside those, `tonic:NAME`
takes any data set of the package tonic (`tonic_bridge.py`).
"""

import re
from dataclasses import replace
from pathlib import Path

from spikeshot.data.corpora import facts
from spikeshot.data.corpora.corpus import (
    NMNIST_CROP,
    READING,
    Corpus,
    Facts,
    Request,
    layout_corpus,
)
from spikeshot.data.corpora.digits import digit_images, load_digits
from spikeshot.data.corpora.omniglot import list_drawings, load_omniglot
from spikeshot.data.corpora.signs import list_photographs, load_signs
from spikeshot.data.corpora.strokes import list_writing, load_omniglot_strokes
from spikeshot.data.corpora.tonic_bridge import PREFIX, tonic_corpus
from spikeshot.data.corpora.untimed import list_untimed, load_untimed
from spikeshot.data.layouts.asl_dvs import list_asl_dvs
from spikeshot.data.layouts.folder import list_folder
from spikeshot.data.layouts.n_omniglot import CROP as N_OMNIGLOT_CROP
from spikeshot.data.layouts.n_omniglot import list_n_omniglot
from spikeshot.data.layouts.nmnist import list_nmnist
from spikeshot.data.readers import ReadOptions
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Collection
from spikeshot.data.store import cache_folder
from spikeshot.errors import ConfigError, DataError, nearest_hint

__all__ = [
    "CORPORA",
    "READING",
    "Corpus",
    "Facts",
    "Request",
    "digit_images",
    "download_folder",
    "fetched_folder",
    "get_corpus",
    "load_corpus",
]


def _list_own(
    path: Path,
    *,
    sensor_size: tuple[int, int] | None = None,
    time_unit: str = "us",
    columns: str | None = None,
    sort: bool = False,
) -> Collection:
    options = ReadOptions(time_unit, columns, sort)
    return list_folder(path, sensor_size=sensor_size, options=options)


CORPORA = {
    c.name: c
    for c in (
        Corpus(
            "digits",
            "5,000 MNIST digits through the camera model",
            False,
            load_digits,
            facts.DIGITS,
            crop=NMNIST_CROP,
        ),
        layout_corpus(
            "nmnist",
            "N-MNIST's real recordings, folder or zip",
            facts.NMNIST,
            list_nmnist,
            crop=NMNIST_CROP,
        ),
        Corpus(
            "omniglot",
            "Omniglot's drawings through saccades",
            True,
            load_omniglot,
            facts.OMNIGLOT,
            turns=True,
            crop=NMNIST_CROP,
            list_originals=list_drawings,
        ),
        Corpus(
            "omniglot-strokes",
            "Omniglot's timed strokes, written before the camera",
            True,
            load_omniglot_strokes,
            facts.OMNIGLOT_STROKES,
            turns=True,
            list_originals=list_writing,
        ),
        Corpus(
            "omniglot-untimed",
            "more of Omniglot's strokes, with made-up times, to meta-train on",
            True,
            load_untimed,
            facts.OMNIGLOT_UNTIMED,
            turns=True,
            list_originals=list_untimed,
        ),
        Corpus(
            "signs",
            "photographs of hand signs 0 to 9 through saccades",
            True,
            load_signs,
            facts.SIGNS,
            crop=NMNIST_CROP,
            list_originals=list_photographs,
        ),
        layout_corpus(
            "asl-dvs",
            "ASL-DVS's real recordings of hand-sign letters (reader verified on made files only)",
            facts.ASL_DVS,
            list_asl_dvs,
            takes=("sort",),
        ),
        layout_corpus(
            "n-omniglot",
            "N-Omniglot's real recordings, AEDAT4 or .npy (reader verified on made files only)",
            facts.N_OMNIGLOT,
            list_n_omniglot,
            takes=("sort",),
            crop=N_OMNIGLOT_CROP,
        ),
        layout_corpus(
            "folder",
            "your own recordings, a folder for each class",
            facts.FOLDER,
            _list_own,
            takes=READING,
        ),
    )
}


def get_corpus(name: str) -> Corpus:
    """Return corpus `name`; raises `ConfigError` for an unknown one."""
    if name.startswith(PREFIX):
        return tonic_corpus(name)
    if name not in CORPORA:
        raise ConfigError(
            f"corpus {name!r} is unknown{nearest_hint(name, CORPORA)}; expected one of "
            f"{', '.join(CORPORA)}, or {PREFIX}NAME."
        )
    return CORPORA[name]


def download_folder(name: str) -> Path:
    """Return where `spikeshot data get` puts the files of corpus `name`."""
    return cache_folder() / "downloads" / re.sub("[^A-Za-z0-9_-]+", "-", name)


def fetched_folder(name: str) -> Path:
    """Return where the fetched files of corpus `name` are.

    Raises `DataError` where there are none, or not yet all of them.
    """
    folder, published = download_folder(name), get_corpus(name).facts
    if not folder.is_dir():
        fetch = f" or fetch it: `spikeshot data get {name}`" if published.files else ""
        raise DataError(
            f"corpus {name!r} reads your data; give its place with --data PATH{fetch}. "
            f"{published.obtain}"
        )
    files = [file.name for file in published.files]
    missing = [file for file in files if not (folder / file).exists()]
    if list(folder.glob(".*.part")) or 0 < len(missing) < len(files):
        raise DataError(
            f"{folder}: the files of corpus {name!r} have not all been fetched. Run "
            f"`spikeshot data get {name}` again, or give the place of your copy with --data PATH."
        )
    return folder


def load_corpus(name: str, request: Request) -> Recordings:
    """Return the recordings of corpus `name`.

    A corpus that needs a path and is given none reads what `spikeshot data get` has fetched.
    Raises `ConfigError` for an unknown name and `DataError` where data is missing, or given to a
    corpus that reads none.
    """
    corpus = get_corpus(name)
    if corpus.needs_path and request.path is None:
        request = replace(request, path=fetched_folder(name))
    for key, value in request.reading().items():
        if key not in corpus.takes:
            raise ConfigError(
                f"data.{key} is {value!r}, but corpus {name!r} has its own. Leave data.{key} out; "
                "it is for files that do not say it (data.corpus=folder)."
            )
    if request.turned and not corpus.turns:
        raise ConfigError(
            f"corpus {name!r} has no turned classes. Set data.turns=false; data.augment.symmetry "
            "turns the frames of any corpus."
        )
    if request.path is not None and not (corpus.needs_path or corpus.optional_path):
        raise DataError(
            f"corpus {name!r} is simulated and reads no data, but --data {request.path} was given. "
            "Leave it out, or choose a corpus that reads data, as data.corpus=nmnist."
        )
    return corpus.load(request)
