"""The scores of single episodes as a file, so that two learners can be compared on each."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from spikeshot.errors import RunError
from spikeshot.learn.scoring import Score

COLUMNS = ("episode", *Score._fields)


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Write one line per episode: its number, accuracy before and after (0..1), query loss,
    and what inner steps wrote where that was counted.

    `.csv` gives CSV with a header, any other name JSON lines. Raises `RunError` where the disk
    refuses; the file is whole or not there.
    """
    rows = [dict(zip(COLUMNS, (i, *score), strict=True)) for i, score in enumerate(scores)]
    unless = Score._field_defaults  # what was not counted
    columns = [c for c in COLUMNS if c not in unless or any(r[c] != unless[c] for r in rows)]
    rows = [{c: row[c] for c in columns} for row in rows]
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        whole = text.getvalue()
    else:
        whole = "".join(json.dumps(row) + "\n" for row in rows)
    write_whole(path, whole)


def read_scores(path: Path) -> list[Score]:
    """Return the scores that `write_scores` wrote; raises `RunError` where they are damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            list(csv.DictReader(io.StringIO(text)))
            if path.suffix == ".csv"
            else [json.loads(line) for line in text.splitlines()]
        )
        kept = [{k: float(v) for k, v in row.items() if k in Score._fields} for row in rows]
        return [Score(**row) for row in kept]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected the scores of an "
            "evaluation. Evaluate again."
        ) from error


def require_writable(path: Path | None) -> None:
    """Raise `RunError` where a file cannot be written, before the work of filling it is done."""
    if path is None:
        return
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "it is a folder" if path.is_dir() else f"{folder} is no folder to write in"
        raise RunError(f"{path} cannot be written ({why}); choose another --scores.")


def both(
    first: Callable[[Score], None], second: Callable[[Score], None]
) -> Callable[[Score], None]:
    """Return a function that tells a score to both."""

    def tell(score: Score) -> None:
        first(score)
        second(score)

    return tell


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, its folder too; raises `RunError` when the disk refuses."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(
            f"{path} cannot be written ({error.strerror}). Make room or choose another folder."
        ) from error
