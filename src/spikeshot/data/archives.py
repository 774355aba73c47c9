"""Archives: the members of a zip or tar, listed and read within bounds whatever its headers say.

A zip must be stored or deflated: the decoders of the other methods cannot be bounded. A
compressed tar is unpacked once into an unnamed temporary file, within the bounds of `members`.
Files are read by position, so that threads and forked processes can share one archive.
"""

import gzip
import io
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from spikeshot.data.members import (
    Entry,
    check_count,
    check_expansion,
    clean_name,
    follow,
    gather,
    outside,
    special,
)
from spikeshot.errors import DataError

_CHUNK = 1 << 20
_HEADER_BYTES = 64 << 20  # no header of a tar is longer
_END = struct.Struct("<4s4H2LH")  # the zip's end record; [5] is the directory's size
_END64 = struct.Struct("<4sQ2H2L4Q")  # its 64-bit form; [8] is the directory's size


class Positioned(io.RawIOBase):
    """A read-only file with a position of its own, over a descriptor that others may share."""

    def __init__(self, path: Path):
        self._file = path.open("rb", buffering=0)
        self._fd = self._file.fileno()
        self.size = os.fstat(self._fd).st_size
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` from the start, from here or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} before the start of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position."""
        view = memoryview(buffer)
        raw = self.bytes_at(self._at, len(view))
        view[: len(raw)] = raw
        self._at += len(raw)
        return len(raw)

    def bytes_at(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start`, fewer at the end; the position stays."""
        return os.pread(self._fd, min(size, max(0, self.size - start)), start)

    def close(self) -> None:
        """Close the descriptor."""
        if not self.closed:
            self._file.close()
        super().close()

    def __del__(self) -> None:
        self.close()


@contextmanager
def damaged(source: str, kind: str) -> Iterator[None]:
    """Turn what the standard library raises on a damaged archive into one `DataError`."""
    try:
        yield
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        RuntimeError,  # encrypted; RecursionError
        NotImplementedError,  # packed by a method unknown here
        MemoryError,
        ValueError,  # names and numbers that cannot be
        OverflowError,
        IndexError,
        KeyError,
        struct.error,
        OSError,
    ) as error:
        words = str(error)[:300] or type(error).__name__
        reason = "".join(c if c.isprintable() else "?" for c in words)
        raise DataError(
            f"{source}: not a readable {kind} ({reason}); the file is damaged or something else. "
            "Fetch it again."
        ) from error


def list_zip(file: IO[bytes], source: str) -> dict[str, Entry]:
    """Return the members of the zip in `file` by name; `source` stands in messages."""
    with damaged(source, "zip"):
        size = file.seek(0, os.SEEK_END)
        check_count(source, _directory_bytes(file, size) // 46)  # 46: the shortest entry
        archive = zipfile.ZipFile(file)
        infos = archive.infolist()
        check_count(source, len(infos))
        check_expansion(source, sum(info.file_size for info in infos), size)
        folders = {info.filename.rstrip("/") for info in infos if info.is_dir()}
        entries = (_zip_entry(archive, info, source) for info in infos if not info.is_dir())
        return gather((entry for entry in entries if entry), folders, source)


def _directory_bytes(file: IO[bytes], size: int) -> int:
    """Return how long a zip says its directory is, which `ZipFile` would read whole."""
    file.seek(max(0, size - (_END.size + (1 << 16) + 76)))
    tail = file.read()
    at = len(tail) - _END.size
    if at < 0 or tail[at : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise zipfile.BadZipFile("no end record")
    length = int(_END.unpack_from(tail, at)[5])
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":
        file.seek(int.from_bytes(tail[at - 12 : at - 4], "little"))
        end = file.read(_END64.size)
        length = max(length, _END64.unpack(end)[8])
    return min(length, size)


def _zip_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> Entry | None:
    name = clean_name(info.filename, source)
    if name is None:
        return None
    if info.flag_bits & 1:
        raise DataError(
            f"{source}: member {name!r} is encrypted; expected an open archive. "
            "Unpack it with its password and give the folder."
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{source}: member {name!r} is packed by method {info.compress_type}; expected "
            "stored (0) or deflate (8). Unpack the archive and give the folder."
        )

    def read(limit: int) -> bytes:
        with damaged(f"{source}: {name}", "member of a zip"), archive.open(info) as stream:
            return _read_up_to(stream, limit)

    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        target = read(4096).decode("utf-8", "replace")
        return _link(name, follow(name, target), target, source)
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise special(source, name)
    return Entry(name, info.file_size, read)


def _read_up_to(stream: IO[bytes], limit: int) -> bytes:
    """Return at most `limit` bytes, without asking for memory that the data may not fill."""
    parts: list[bytes] = []
    left = limit
    while left and (part := stream.read(min(_CHUNK, left))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _link(name: str, resolved: str | None, target: str, source: str) -> Entry:
    if resolved is None:
        raise outside(source, name, target)
    return Entry(name, 0, lambda limit: b"", link=resolved)


def list_tar(path: Path, source: str) -> dict[str, Entry]:
    """Return the members of a `.tar`, `.tar.gz` or `.tgz` by name; `source` stands in messages."""
    with damaged(source, "tar"):
        file = Positioned(path)
        file.seek(0)
        if file.read(2) == b"\x1f\x8b":
            file = _gunzip(path, source, file.size)
        folders: set[str] = set()
        entries: list[Entry] = []
        for info in _tar_infos(file, source):
            name = clean_name(info.name, source)
            if name is not None and info.isdir():
                folders.add(name)
            elif name is not None:
                entries.append(_tar_entry(file, info, name, source))
        check_expansion(source, sum(entry.size for entry in entries), file.size)
        return gather(entries, folders, source)


def _gunzip(path: Path, source: str, packed: int) -> Positioned:
    """Return the tar inside a gzip, unpacked into a temporary file that has no name any more."""
    handle, name = tempfile.mkstemp(prefix="spikeshot-", suffix=".tar")
    try:
        with gzip.open(path) as stream, open(handle, "wb") as out:
            expanded = 0
            while part := stream.read(_CHUNK):
                expanded += len(part)
                check_expansion(source, expanded, packed)
                out.write(part)
        return Positioned(Path(name))
    finally:
        os.unlink(name)


class _Headers:
    """What `tarfile` reads headers from: no read is longer than a header can be."""

    def __init__(self, file: Positioned):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _tar_infos(file: Positioned, source: str) -> Iterator[tarfile.TarInfo]:
    """Yield the headers; their offsets must grow, or the same ones would come for ever."""
    file.seek(0)
    at, count = 0, 0
    with tarfile.open(fileobj=cast("IO[bytes]", _Headers(file)), mode="r:") as archive:
        while (info := archive.next()) is not None:
            count += 1
            check_count(source, count)
            if info.size < 0 or archive.offset <= at or info.offset_data + info.size > file.size:
                raise tarfile.ReadError(f"member {info.name!a} lies outside of the file")
            at = archive.offset
            cast(Any, archive).members.clear()  # 300,000 headers are much memory
            yield info
        end = archive.offset
    file.seek(end)
    if file.read(512) != b"\0" * 512:
        raise tarfile.ReadError(f"no member and no end at byte {end}")


def _tar_entry(file: Positioned, info: tarfile.TarInfo, name: str, source: str) -> Entry:
    if info.issym():
        return _link(name, follow(name, info.linkname), info.linkname, source)
    if info.islnk():
        return _link(name, follow("", info.linkname), info.linkname, source)
    if not info.isreg() or info.issparse():
        raise special(source, name)
    start, size = info.offset_data, info.size

    def read(limit: int) -> bytes:
        with damaged(f"{source}: {name}", "member of a tar"):
            raw = file.bytes_at(start, min(limit, size))
            if len(raw) < min(limit, size):
                raise EOFError("cut short")
            return raw

    return Entry(name, size, read)


Lister = Callable[[Path, str], dict[str, Entry]]


def _list_zip_file(path: Path, source: str) -> dict[str, Entry]:
    with damaged(source, "zip"):
        return list_zip(cast("IO[bytes]", Positioned(path)), source)


LISTERS: dict[str, Lister] = {
    ".zip": _list_zip_file,
    ".tar": list_tar,
    ".tar.gz": list_tar,
    ".tgz": list_tar,
}
"""Suffix of an archive -> what lists it."""
