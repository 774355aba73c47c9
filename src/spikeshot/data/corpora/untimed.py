"""Strokes of Omniglot without their time, given one: further characters to meta-train on.

The file `strokes_background_matched.npz` holds the strokes of 16,447 drawings of 959 background
characters, simplified and without time. They are Ha's (github.com/hardmaru/sketch-rnn-datasets,
omniglot/omniglot.npz, made from the strokes of Lake et al. 2015); which drawing of Omniglot each
one is was found by matching it with the images, and is right for about 99.6 % of them: enough to
train on, not to score against.

**Place.** The strokes' scale is arbitrary. One factor and a shift bring the middle and the
half-perimeter of their bounding box to those of the pen's way in the image: the ink's bounding box
less `INK_MARGINS`, the medians over the 4,840 drawings that have both. Of the 4,365 that have true
strokes too, the box then lies within 0.65 pixels of the true one (median; 95 %: 2.5).

**Time.** The pen moves at one speed per drawing and pauses between strokes. Logarithms of speed and
pause are normal: their medians and quartiles are those of the timed strokes of the alphabets Greek,
Japanese (katakana), Latin and Sanskrit, the training ones of `omniglot_strokes` (`SPEED`, `PAUSE`).
What a pen does within a stroke (it slows down at corners) is left out.
"""

import hashlib
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.corpora.corpus import Request
from spikeshot.data.corpora.omniglot import list_drawings, read_drawings
from spikeshot.data.corpora.strokes import Writing, pack_writing
from spikeshot.data.published import two_versions
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Original, Originals
from spikeshot.errors import DataError, LayoutError

FILE = "strokes_background_matched.npz"
MAX_BYTES = 64 << 20  # of the file, and of each array in it; the real one has 1 MB and 3 MB
UNTIMED_VERSION = 1  # goes up whenever the same file comes to give other strokes

INK_MARGINS = (1.7, 1.9, 3.1, 2.9)
"""Pixels from the ink's bounding box to the strokes': left, top, right, bottom."""
SPEED = (71.6, 0.520)
"""The pen's speed: median in pixels of the 105 x 105 image per second, and the standard deviation
of the logarithm (quartiles' distance / 1.349). Of 2,780 drawings, length of all strokes over their
duration."""
PAUSE = (0.967, 0.581)
"""The pause between two strokes: median in seconds, and deviation as above. Of 4,904 pauses."""

_NAME = re.compile(r"([^/]+)/(character\d+)/\d+_(\d+)")
_SOURCE = (
    f"{FILE} is expected beside images_background.zip, in the folder of --data. Its strokes come "
    "from github.com/hardmaru/sketch-rnn-datasets (omniglot/omniglot.npz), its labels are this "
    "project's data. To meta-train without it: --set "
    "data.simulated={}."
)


@dataclass(frozen=True)
class Untimed:
    """Drawings as rows of (dx, dy, pen lifted after), y down: drawing `i` is
    `rows[offsets[i]:offsets[i + 1]]`, and `origins[i]` its `<alphabet>/<character>/<drawer>`.
    """

    rows: NDArray[np.float64]  # [m, 3]
    offsets: NDArray[np.int64]  # [n + 1]
    origins: tuple[str, ...]  # n


def read_untimed(file: Path) -> Untimed:
    """Return the drawings of the `.npz`; raises `DataError` for anything else."""
    if not file.is_file():
        raise DataError(f"{file}: no such file. {_SOURCE}")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{file.stat().st_size} bytes, over {MAX_BYTES}")
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.file_size > MAX_BYTES:
                    raise ValueError(f"{member.filename} has {member.file_size} bytes")
        with np.load(file, allow_pickle=False) as arrays:
            rows, offsets, images = (arrays[name] for name in ("stroke3", "offsets", "image"))
        return _checked(rows, offsets, images)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise DataError(f"{file}: cannot be read ({error}). {_SOURCE}") from error


def _checked(rows: NDArray[Any], offsets: NDArray[Any], images: NDArray[Any]) -> Untimed:
    """Return the drawings, or raise `ValueError` with what is wrong."""
    if rows.dtype.kind not in "if" or rows.ndim != 2 or rows.shape[1] != 3:
        raise ValueError(f"stroke3 is {rows.dtype} {rows.shape}; expected rows of 3 numbers")
    if not np.isfinite(rows).all() or (np.abs(rows) > 1e6).any():
        raise ValueError("stroke3 has a number beyond a million, or none")
    if not np.isin(rows[:, 2], (0, 1)).all():
        raise ValueError("the third column of stroke3 is not 0 or 1 throughout")
    if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or images.dtype.kind != "U":
        raise ValueError("offsets are no row of whole numbers, or image no row of names")
    cuts = offsets.astype(np.int64)
    if images.shape != (len(cuts) - 1,) or len(images) == 0:
        raise ValueError(f"{len(cuts)} offsets and names of shape {images.shape} do not fit")
    if cuts[0] != 0 or cuts[-1] != len(rows) or (np.diff(cuts) < 1).any():
        raise ValueError(f"offsets do not cut the {len(rows)} rows of stroke3 into drawings")
    matches = [_NAME.fullmatch(name) for name in images.tolist()]
    for name, match in zip(images.tolist(), matches, strict=True):
        if match is None:
            raise ValueError(f"image {name[:80]!r} is not <alphabet>/character<NN>/<NNNN>_<DD>")
    origins = tuple("/".join(match.groups()) for match in matches if match)
    if len(set(origins)) < len(origins):
        raise ValueError("one drawing is there twice")
    return Untimed(rows.astype(np.float64), cuts, origins)


def time_strokes(untimed: Untimed, ink: dict[str, tuple[int, int, int, int]], seed: int) -> Writing:
    """Return the drawings placed and timed, in order of their origins.

    `ink`: the bounding box of each origin's image (left, top, right, bottom, in pixels). A drawing
    depends on nothing but its rows, box, origin and `seed`.
    """
    order = sorted(range(len(untimed.origins)), key=untimed.origins.__getitem__)
    strokes = []
    for i in order:
        origin = untimed.origins[i]
        stream = hashlib.blake2b(f"{seed}\0{origin}".encode(), digest_size=8).digest()
        rows = untimed.rows[untimed.offsets[i] : untimed.offsets[i + 1]]
        places = _place(np.cumsum(rows[:, :2], axis=0), ink[origin])
        ends = np.flatnonzero(rows[:-1, 2]) + 1
        rng = np.random.default_rng(int.from_bytes(stream, "little"))
        strokes.append(_time(np.split(places, ends), rng))
    origins = tuple(untimed.origins[i] for i in order)
    return Writing(tuple(strokes), tuple(o.rsplit("/", 1)[0] for o in origins), origins)


def _place(points: NDArray[np.float64], box: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Return the points [n, 2] in pixels of the image."""
    left, top, right, bottom = np.asarray(box) + np.asarray(INK_MARGINS) * (1, 1, -1, -1)
    low, high = points.min(axis=0), points.max(axis=0)
    half_perimeter = max(right - left, 0.0) + max(bottom - top, 0.0)
    scale = half_perimeter / max(float((high - low).sum()), 1e-9)
    middle = np.array([left + right, top + bottom]) / 2
    placed: NDArray[np.float64] = (points - (low + high) / 2) * scale + middle
    return placed


def _time(
    strokes: list[NDArray[np.float64]], rng: np.random.Generator
) -> tuple[NDArray[np.float64], ...]:
    """Return strokes [points, 3] with t in microseconds, from points [n, 2] in pixels."""
    speed = math.exp(rng.normal(math.log(SPEED[0]), SPEED[1]))
    timed: list[NDArray[np.float64]] = []
    now = 0.0
    for stroke in strokes:
        if timed:
            now += math.exp(rng.normal(math.log(PAUSE[0]), PAUSE[1]))
        way = np.cumsum([0.0, *np.hypot(*np.diff(stroke, axis=0).T)])
        seconds = now + way / speed
        timed.append(np.column_stack([stroke, 1e6 * seconds]))
        now = float(seconds[-1])
    return tuple(timed)


def read_writing(path: Path, seed: int) -> Writing:
    """Return the timed drawings at `path`: the folder of the `.npz` and the images' zip, or the
    `.npz` itself with the zip beside it. Raises `DataError` where either is missing.
    """
    file = _file(path)
    untimed = read_untimed(file)
    drawings = read_drawings(file.parent)
    boxes = {}
    for origin, image in zip(drawings.origins, drawings.images, strict=True):
        columns, rows = np.flatnonzero(image.any(axis=0)), np.flatnonzero(image.any(axis=1))
        if len(columns):
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            boxes[origin] = (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
    missing = [origin for origin in untimed.origins if origin not in boxes]
    if missing:
        raise DataError(
            f"{file}: the image of {missing[0]} ({len(missing)} in all) is missing, or empty, in "
            f"{file.parent}; expected images_background.zip whole there. {_SOURCE}"
        )
    return time_strokes(untimed, boxes, seed)


def list_untimed(path: Path) -> Originals:
    """List the drawings at `path` one by one, for a check; else as `read_writing`.

    A drawing is bad where its image is missing, bad or empty: it could not be placed. Raises
    `LayoutError` where `path` has no such file, `DataError` for a damaged one and without images.
    """
    file = _file(path)
    if not _holds_strokes(file):
        raise LayoutError(f"{path}: holds no {FILE} (the strokes of drawings). {_SOURCE}")
    untimed = read_untimed(file)
    try:
        images = list_drawings(file.parent)
    except DataError as error:
        raise DataError(f"{file}: without the images of its drawings. {error}") from error
    by_origin: dict[str, list[Original]] = {}
    for image in images.items:
        by_origin.setdefault("/".join(image.key), []).append(image)

    def item(i: int, origin: str) -> Original:
        name, rows = (
            f"{file}: drawing {i} ({origin})",
            untimed.rows[slice(*untimed.offsets[i:][:2])],
        )

        def content() -> bytes:
            _require_image(name, by_origin.get(origin, []), file.parent)
            return rows.tobytes()

        return Original(name, (origin,), content)

    items = tuple(item(i, origin) for i, origin in enumerate(untimed.origins))
    return Originals("drawing", items, images.problems)


def _require_image(name: str, images: list[Original], place: Path) -> None:
    """Raise `DataError` unless there is an image with ink, alike wherever it lies."""
    if not images:
        raise DataError(
            f"{name}: its image is missing in {place}; expected images_background.zip whole there."
        )
    first = images[0].read()
    for other in images[1:]:
        if other.read() != first:
            raise two_versions(other.name, images[0].name)


def _file(path: Path) -> Path:
    return path if path.suffix == ".npz" else path / FILE


def _holds_strokes(file: Path) -> bool:
    """Return whether `file` is meant to be this one: by its name, or by an array in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return file.name == FILE or "stroke3.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return file.name == FILE and file.is_file()


def load_untimed(request: Request) -> Recordings:
    """Return the recordings of the drawings at `request.path`."""
    assert request.path is not None  # load_corpus has checked
    writing = read_writing(request.path, request.seed)
    return pack_writing("omniglot-untimed", writing, request)
