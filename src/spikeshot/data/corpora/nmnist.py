"""N-MNIST's published layout as samples: `Train|Test/<digit>/<number>.bin` in a folder or zip."""

import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from spikeshot.data.events import Events
from spikeshot.data.nmnist import CLASSES, MAX_BYTES, SENSOR_SIZE, decode_bin
from spikeshot.data.samples import Collection, Sample
from spikeshot.errors import DataError

_ENTRY = re.compile(r"(?:^|/)(Train|Test)/([0-9])/([0-9]+)\.bin$")
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError)


def list_nmnist(path: Path) -> Collection:
    """List N-MNIST's recordings under `path`, in the order of their names, without reading one.

    A recording's origin is its MNIST image, as `train/00001` (numbers start at 1, as published).
    Raises `DataError` for a missing path, a foreign zip, and two recordings of one image.
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; expected N-MNIST as folder or zip. Check --data."
        )
    found = _in_folder(path) if path.is_dir() else _in_zip(path)
    samples: dict[str, Sample] = {}
    for name in sorted(found):
        match = _ENTRY.search(name)
        if match is None:
            continue
        part, digit, number = match.groups()
        origin = f"{part.lower()}/{int(number):05d}"
        if origin in samples:
            raise DataError(
                f"{path}: {name} and {samples[origin].name} are both recordings of MNIST image "
                f"{origin}; expected one. Remove the copy."
            )
        samples[origin] = Sample(f"{path}: {name}", digit, origin, found[name])
    if not samples:
        raise DataError(
            f"{path}: holds no Train|Test/<digit>/<number>.bin; expected N-MNIST's published "
            "layout. Point --data at the folder or zip that contains Train/ and Test/."
        )
    return Collection(tuple(samples.values()), CLASSES, SENSOR_SIZE)


def _in_folder(path: Path) -> dict[str, Callable[[], Events]]:
    def reader(file: Path) -> Callable[[], Events]:
        name = f"{path}: {file.relative_to(path).as_posix()}"

        def read() -> Events:
            try:
                _check_size(file.stat().st_size, name)
                return decode_bin(file.read_bytes(), name)
            except OSError as error:
                raise DataError(
                    f"{name}: cannot be read ({error.strerror}). Fetch it again."
                ) from error

        return read

    return {file.relative_to(path).as_posix(): reader(file) for file in path.rglob("*.bin")}


def _in_zip(path: Path) -> dict[str, Callable[[], Events]]:
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise DataError(f"{path}: not a readable zip ({error}). Fetch it again.") from error

    def reader(info: zipfile.ZipInfo) -> Callable[[], Events]:
        def read() -> Events:
            name = f"{path}: {info.filename}"
            _check_size(info.file_size, name)
            try:
                raw = archive.read(info)
            except _ZIP_ERRORS as error:
                raise DataError(
                    f"{path}: not a readable zip ({info.filename}: {error}). Fetch it again."
                ) from error
            return decode_bin(raw, name)

        return read

    return {info.filename: reader(info) for info in archive.infolist()}


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{name}: {size} bytes; a recording has at most {MAX_BYTES}. Remove it.")
