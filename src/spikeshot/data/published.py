"""Files of a published archive, wherever they are: in a zip, unpacked, or in a folder of zips.

The same file may be there twice (Omniglot's archives overlap, and so do a zip and its unpacked
folder): it is read once, and copies that differ are an error.
"""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spikeshot.errors import DataError

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # encrypted, or packed by a method unknown here
    ValueError,  # names and numbers that cannot be
    OSError,
)
_BY_SYSTEMS = re.compile(r"(?:^|/)(?:__MACOSX/|\.)")  # what file systems leave in archives


@dataclass(frozen=True)
class Wanted:
    """Which files are wanted.

    `pattern` is searched in a file's path (forward slashes), and its groups are the file's key;
    `zips` matches the names of archives looked for in a folder; a file has at most `max_bytes`;
    `what` and `remedy` end the messages (`layout ...`, `Fetch ...`).
    """

    pattern: re.Pattern[str]
    zips: re.Pattern[str]
    max_bytes: int
    what: str
    remedy: str


def read_files(path: Path, wanted: Wanted) -> dict[tuple[str, ...], tuple[str, bytes]]:
    """Return {key: (where it was, bytes)} of the wanted files under `path`, in order of key.

    Raises `DataError` where there is none, where one cannot be read or is too large, and where two
    files of one key differ.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected {wanted.what}. {wanted.remedy}")
    found: dict[tuple[str, ...], tuple[str, bytes]] = {}
    for key, name, raw in _all_files(path, wanted):
        if key in found and found[key][1] != raw:
            raise DataError(
                f"{name} and {found[key][0]} are two versions of one file; expected one. Remove "
                "the wrong one."
            )
        found.setdefault(key, (name, raw))
    if not found:
        raise DataError(f"{path}: holds no {wanted.what}. {wanted.remedy}")
    return dict(sorted(found.items()))


def _all_files(path: Path, wanted: Wanted) -> Iterator[tuple[tuple[str, ...], str, bytes]]:
    if not path.is_dir():
        yield from _zipped(path, wanted)
        return
    yield from _unpacked(path, wanted)
    for archive in sorted(path.iterdir()):
        if wanted.zips.fullmatch(archive.name) and archive.is_file():
            yield from _zipped(archive, wanted)


def _unpacked(folder: Path, wanted: Wanted) -> Iterator[tuple[tuple[str, ...], str, bytes]]:
    absolute = folder.absolute()
    for file in sorted(f for f in absolute.rglob("*") if f.is_file()):
        inside = file.relative_to(absolute).as_posix()
        key = _key(inside, wanted, f"{absolute.name}/")
        if key:
            name = f"{folder}: {inside}"
            try:
                _check_size(file.stat().st_size, name, wanted)
                raw = file.read_bytes()
            except OSError as error:
                raise DataError(
                    f"{name}: cannot be read ({error.strerror}). {wanted.remedy}"
                ) from error
            yield key, name, raw


def _zipped(file: Path, wanted: Wanted) -> Iterator[tuple[tuple[str, ...], str, bytes]]:
    try:
        with zipfile.ZipFile(file) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                key = _key(info.filename, wanted)
                if key:
                    name = f"{file}: {info.filename}"
                    _check_size(info.file_size, name, wanted)
                    yield key, name, archive.read(info)
    except _ZIP_ERRORS as error:
        raise DataError(
            f"{file}: not a readable zip ({error}); expected {wanted.what}. {wanted.remedy}"
        ) from error


def _key(name: str, wanted: Wanted, folder: str = "") -> tuple[str, ...]:
    """Return the key of a file, or nothing; the pattern may begin with the `folder` it is in."""
    match = None if _BY_SYSTEMS.search(name) else wanted.pattern.search(folder + name)
    return tuple(match.groups()) if match else ()


def _check_size(size: int, name: str, wanted: Wanted) -> None:
    if size > wanted.max_bytes:
        raise DataError(f"{name}: {size} bytes; expected at most {wanted.max_bytes}. Remove it.")
