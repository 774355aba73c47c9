"""Members: the files inside a folder or archive, with the checks on names, links and sizes."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from spikeshot.errors import DataError

MAX_MEMBERS = 300_000
"""Most members of one archive; the largest published one (ASL-DVS) has 100,800."""
MAX_MEMBER_BYTES = 256 << 20
"""Largest member that is read: 256 MiB."""
MAX_TOTAL_BYTES = 64 << 30
"""Most that an archive may expand to: 64 GiB; the largest published one expands to about 10."""
MAX_RATIO = 250
"""Most that an archive may expand by, over `RATIO_SLACK_BYTES`; recordings shrink 1 to 10 times."""
RATIO_SLACK_BYTES = 16 << 20
MAX_NAME = 500
"""Longest name with its folders, in characters: it stands in messages."""

_DRIVE = re.compile(r"^[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_JUNK = {".DS_Store", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Entry:
    """One entry of a folder or archive, before links are followed.

    `read(limit)` returns its bytes, at most `limit` of them; `link`: the name it points to, as a
    path from the root, when it is a link.
    """

    name: str
    size: int
    read: Callable[[int], bytes]
    link: str | None = None


def clean_name(name: str, source: str) -> str | None:
    """Return a member's name with forward slashes, or None for what an operating system drops.

    Raises `DataError` for a name that leaves the folder or that cannot be shown.
    """
    slashed = name.replace("\\", "/")
    shown = f"{source}: member {name[:200]!a}"
    if len(name) > MAX_NAME:
        raise DataError(
            f"{shown}... has a name of {len(name)} characters; expected at most {MAX_NAME}. "
            "Rename the file and pack it again."
        )
    if _CONTROL.search(name) or not _is_text(name):
        raise DataError(
            f"{shown} has bytes in its name that are no text; expected a Unicode name. "
            "Rename the file and pack it again."
        )
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if slashed.startswith("/") or _DRIVE.match(slashed) or ".." in parts:
        raise DataError(
            f"{shown} leads out of its folder; expected names below it. "
            "Do not trust this archive; fetch it from its publisher."
        )
    if not parts or "__MACOSX" in parts or parts[-1] in _JUNK or parts[-1].startswith("._"):
        return None
    return "/".join(parts)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # undecodable bytes, kept as surrogates
        return False
    return True


def follow(start: str, target: str) -> str | None:
    """Return where link `start` with `target` leads, from the root; None when outside of it."""
    if target.startswith("/") or _DRIVE.match(target):
        return None
    parts: list[str] = []
    for part in (*PurePosixPath(start).parent.parts, *PurePosixPath(target).parts):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def gather(entries: Iterable[Entry], folders: set[str], source: str) -> dict[str, Entry]:
    """Return entries by name, sorted, links replaced by what they lead to.

    A link to a folder is left out: its files are there under their own names. Raises `DataError`
    for two entries of one name and for a link that leads nowhere.
    """
    found: dict[str, Entry] = {}
    spellings: dict[str, str] = {}
    for entry in entries:
        spelling = unicodedata.normalize("NFC", entry.name)
        if spelling in spellings:
            raise DataError(
                f"{source}: two members are called {entry.name!r}; expected one. "
                "Remove one of them, or pack the folder again."
            )
        spellings[spelling] = entry.name
        found[entry.name] = entry
    if any(entry.link is not None for entry in found.values()):
        folders = folders | {str(p) for name in found for p in PurePosixPath(name).parents}
    resolved = {}
    for name in sorted(found):
        entry = found[name]
        for _ in range(8):
            if entry.link is None or entry.link not in found:
                break
            entry = found[entry.link]
        if entry.link is None:
            resolved[name] = entry if entry.name == name else replace(entry, name=name)
        elif entry.link not in folders:
            raise DataError(
                f"{source}: link {name!r} leads to {entry.link[:200]!r}, which is not in it; "
                "expected files. Put the file itself in the link's place."
            )
    return resolved


def outside(source: str, name: str, target: str) -> DataError:
    """Return the error of a link that leads out of the folder or archive."""
    return DataError(
        f"{source}: link {name!r} leads to {target[:200]!r}, outside of it; expected files inside. "
        "Put the file itself in the link's place."
    )


def special(source: str, name: str) -> DataError:
    """Return the error of a device, pipe or socket among the files."""
    return DataError(
        f"{source}: member {name!r} is a device, pipe or socket; expected files and folders. "
        "Remove it."
    )


def check_expansion(source: str, expanded: int, packed: int) -> None:
    """Raise `DataError` for an archive that expands by too much; sizes in bytes."""
    if expanded > MAX_TOTAL_BYTES:
        raise DataError(
            f"{source}: expands to {expanded} bytes; expected at most {MAX_TOTAL_BYTES}. "
            "Unpack it yourself if you trust it, and give the folder."
        )
    if expanded > RATIO_SLACK_BYTES + MAX_RATIO * packed:
        raise DataError(
            f"{source}: {packed} bytes expand to {expanded}, over {MAX_RATIO} times as many: "
            "this looks like an archive bomb. Unpack it yourself if you trust it, and give the "
            "folder."
        )


def check_count(source: str, count: int) -> None:
    """Raise `DataError` for an archive of too many members."""
    if count > MAX_MEMBERS:
        raise DataError(
            f"{source}: more than {MAX_MEMBERS} members; expected fewer. "
            "Unpack it yourself if you trust it, and give the folder."
        )


def read_bounded(entry: Entry, source: str, limit: int) -> bytes:
    """Return the bytes of an entry; `DataError` when it has, or turns out to have, over `limit`."""
    size = entry.size
    if size <= limit:
        raw = entry.read(limit + 1)
        if len(raw) <= limit:
            return raw
        size = len(raw)  # it grew, or its header lies
    raise DataError(
        f"{source}: {entry.name}: {size} bytes; expected at most {limit}. "
        "Cut the recording into shorter ones, or remove it."
    )
