"""One safe view of a folder, zip or tar: its files by name, and the bytes of one.

Refused, each with the member and the remedy: names that lead out of the folder, links that do,
archives that expand by too much (bounds in `members`), encrypted or damaged ones, two members of
one name, devices and pipes. Nothing is ever written under a member's name.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spikeshot.data.archives import LISTERS
from spikeshot.data.members import (
    MAX_MEMBER_BYTES,
    Entry,
    clean_name,
    gather,
    outside,
    read_bounded,
    special,
)
from spikeshot.errors import DataError


@dataclass(frozen=True)
class Tree:
    """The files below `path`: `entries` by name, in the order of names, with forward slashes."""

    path: Path
    entries: dict[str, Entry]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield (name, size in bytes) of each file, by name."""
        return ((entry.name, entry.size) for entry in self.entries.values())

    def read(self, name: str, limit: int = MAX_MEMBER_BYTES) -> bytes:
        """Return the bytes of file `name`, of at most `limit` bytes; `DataError` otherwise."""
        if name not in self.entries:
            raise DataError(f"{self.path}: holds no {name!r}. Check the name.")
        return read_bounded(self.entries[name], str(self.path), limit)

    def shown(self, name: str) -> str:
        """Return how file `name` is called in messages."""
        return f"{self.path}: {name}"


def open_tree(path: Path) -> Tree:
    """Return the files of the folder, zip, `.tar`, `.tar.gz` or `.tgz` at `path`.

    Raises `DataError` as told above, and for a path that is missing or of another kind.
    """
    if path.is_dir():
        return Tree(path, _list_folder(path))
    if not path.is_file():
        raise DataError(
            f"{path}: no such file or folder; expected recordings as folder, zip or tar. "
            "Check --data."
        )
    kind = next((suffix for suffix in LISTERS if path.name.lower().endswith(suffix)), None)
    kind = kind or _kind_by_content(path)
    if kind is not None:
        return Tree(path, LISTERS[kind](path, str(path)))
    raise DataError(
        f"{path}: neither a folder nor an archive; expected {', '.join(LISTERS)}. "
        "Unpack it and give the folder."
    )


def _kind_by_content(path: Path) -> str | None:
    """Return the suffix that an archive of another name should have."""
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise _unreadable(path, path.name, error) from error
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return ".zip"
    return ".tar" if start[257:262] == b"ustar" else None


def _list_folder(path: Path) -> dict[str, Entry]:
    root = path.resolve()
    entries: list[Entry] = []

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{path}: {error.filename}: cannot be listed ({error.strerror}). Check its permissions."
        ) from error

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        for name in (*links, *files):
            file = Path(folder) / name
            relative = file.relative_to(root).as_posix()
            if clean_name(relative.replace("\\", ""), str(path)) is None:
                continue
            entry = _file_entry(file, relative, root, path)
            if entry is not None:
                entries.append(entry)
    return gather(entries, set(), str(path))


def _file_entry(file: Path, name: str, root: Path, path: Path) -> Entry | None:
    if file.is_symlink():
        try:
            target = file.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # leads nowhere, or in a circle
            raise DataError(
                f"{path}: link {name!r} leads nowhere; expected a file. Remove the link."
            ) from error
        if not target.is_relative_to(root):
            raise outside(str(path), name, os.readlink(file))
        if target.is_dir():
            return None  # its files are listed under their own names
    try:
        status = file.stat()
    except OSError as error:
        raise _unreadable(path, name, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise special(str(path), name)

    def read(limit: int) -> bytes:
        try:
            with file.open("rb") as stream:
                return stream.read(min(limit, os.fstat(stream.fileno()).st_size + 1))
        except OSError as error:
            raise _unreadable(path, name, error) from error

    return Entry(name, status.st_size, read)


def _unreadable(path: Path, name: str, error: OSError) -> DataError:
    return DataError(f"{path}: {name}: cannot be read ({error.strerror}). Fetch it again.")
