"""Downloads that go on where they were cut off, over several mirrors; a checksum only warns."""

import contextlib
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeshot.errors import DataError

TIMEOUT_SECONDS = 60.0  # without a byte
ATTEMPTS = 4  # in a row that bring nothing new, per mirror
PAUSE_SECONDS = 1.0  # before the second attempt; twice as long before each further one
CHUNK = 1 << 18
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # states of a server that may pass
_NETWORK_ERRORS = (OSError, http.client.HTTPException)

Progress = Callable[[str, int, int | None], None]
"""Hears (file name, bytes so far, bytes in all or None)."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file: the name to keep it under, where it is, and its checksum where known.

    `urls`: mirrors, tried in their order; `checksum`: `md5:...` or `sha256:...`, or "".
    """

    name: str
    urls: tuple[str, ...]
    checksum: str = ""


@dataclass(frozen=True)
class Fetched:
    """A file that is here now, and what is to be said of it ("": nothing)."""

    path: Path
    warning: str = ""


class _Broken(Exception):
    """One mirror does not give the file, for the reason in the message."""


def fetch(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Fetched:
    """Bring `file` into `folder`, from the first mirror that gives it.

    A download that was cut off, in this call or an earlier one, goes on where it stopped if the
    mirror can do that and still has the same file. A file that is here already is kept. A checksum
    that does not fit is a warning: publishers pack their archives anew. Raises `DataError` when no
    mirror gives the file or it cannot be written; what has come so far is kept.
    """
    target, reasons = folder / file.name, []
    if target.is_file():
        return Fetched(target, _checksum_warning(file, target))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = _Part(folder / f".{file.name}.part")
        for url in file.urls:
            try:
                _fetch_from(url, part, lambda at, size: progress and progress(file.name, at, size))
                if file.name.endswith(".zip") and not zipfile.is_zipfile(part.path):
                    part.remove()
                    raise _Broken("what it sent is no zip")
            except _Broken as error:
                reasons.append(f"{url}: {error}")
            else:
                part.path.replace(target)
                part.remove()
                return Fetched(target, _checksum_warning(file, target))
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}). Free some space or choose "
            "another folder with --out; what has come so far is kept."
        ) from error
    raise DataError(
        f"{file.name}: no mirror gives it ({'; '.join(reasons) or 'none is known'}). Try again "
        "later, name another mirror with --url, or fetch it by hand."
    )


def _checksum_warning(file: RemoteFile, path: Path) -> str:
    kind, _, expected = file.checksum.partition(":")
    if not expected:
        return ""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, kind).hexdigest()
    if found == expected:
        return ""
    return (
        f"{path}: {kind} is {found}, was {expected}. The publisher has changed the file, or it is "
        "damaged: try `spikeshot data check` on it; to fetch it again, remove it first."
    )


class _Part:
    """What has come of a file: its bytes, and a note of whence they are."""

    def __init__(self, path: Path) -> None:
        self.path, self._note = path, path.with_name(f"{path.name}.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def note(self, url: str) -> dict[str, Any]:
        """Return {"size", "validator"} if the bytes are from `url`, else nothing."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._note.read_text())
            if note["url"] == url and self.path.exists():
                return dict(note)
        return {}

    def begin(self, url: str, size: int | None, headers: http.client.HTTPMessage) -> None:
        """Drop the bytes that are here and note whence those come that follow."""
        tag = headers.get("ETag") or ""
        validator = headers.get("Last-Modified") if tag.startswith("W/") or not tag else tag
        self.path.write_bytes(b"")
        self._note.write_text(json.dumps({"url": url, "size": size, "validator": validator}))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _fetch_from(url: str, part: _Part, progress: Callable[[int, int | None], Any]) -> None:
    """Complete `part` from one mirror; raises `_Broken` when that cannot be, `OSError` for disk."""
    if not re.match("https?://", url):
        raise _Broken("expected an http or https address")
    idle, most = 0, part.size() if part.note(url) else 0
    while True:
        reason = _attempt(url, part, progress)
        if not reason:
            return
        idle = 0 if part.size() > most else idle + 1
        most = max(most, part.size())
        if idle >= ATTEMPTS:
            raise _Broken(reason)
        time.sleep(PAUSE_SECONDS * 2 ** (idle - 1) if idle else 0)


def _attempt(url: str, part: _Part, progress: Callable[[int, int | None], Any]) -> str:
    """Fetch what is missing; return why it was cut off, "" when all is here."""
    note = part.note(url)
    have = part.size() if note else 0
    request = urllib.request.Request(url, headers={"User-Agent": "spikeshot"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if note["validator"]:
            request.add_header("If-Range", note["validator"])
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # nothing is missing, or it is another file by now
                if _total(error.headers.get("Content-Range")) == have:
                    return ""
                part.remove()
                return "the file has changed"
            if error.code in _TRY_AGAIN:
                return f"HTTP status {error.code}"
            raise _Broken(f"HTTP status {error.code}") from error
    except _NETWORK_ERRORS as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    except ValueError as error:
        raise _Broken(str(error)) from error
    with response:
        return _receive(response, url, part, note, have, progress)


def _receive(
    response: http.client.HTTPResponse,
    url: str,
    part: _Part,
    note: Mapping[str, Any],
    have: int,
    progress: Callable[[int, int | None], Any],
) -> str:
    """Write the body of a response to `part`; return why it was cut off, "" when all is here."""
    if response.headers.get_content_type() == "text/html":
        raise _Broken("it sent a web page, not the file")
    if response.status == 206:
        given = response.headers.get("Content-Range", "")
        size = _total(given)
        if not given.startswith(f"bytes {have}-") or size != note["size"]:
            part.remove()
            return "the file has changed"
    else:
        length = response.headers.get("Content-Length", "")
        size, have = int(length) if length.isdecimal() else None, 0
        part.begin(url, size, response.headers)
    with part.path.open("ab") as stream:
        while True:
            try:
                chunk = response.read(CHUNK)
            except _NETWORK_ERRORS as error:
                return str(error) or type(error).__name__
            if not chunk:
                break
            stream.write(chunk)
            have += len(chunk)
            progress(have, size)
    return "" if size is None or have == size else f"it ended after {have} of {size} bytes"


def _total(content_range: str | None) -> int | None:
    """Return N of `bytes a-b/N` or `bytes */N`."""
    match = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", content_range or "")
    return int(match[1]) if match else None
