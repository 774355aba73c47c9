"""A YAML file that ships or is one's own, and its values, checked one by one."""

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from spikeshot.errors import ConfigError, nearest_hint
from spikeshot.yaml_tree import override, parse_yaml


def shipped_names(folder: str) -> list[str]:
    """Return the names of the files that ship in `study/FOLDER`."""
    there = resources.files("spikeshot") / "study" / folder
    return sorted(f.name.removesuffix(".yaml") for f in there.iterdir() if f.name[-5:] == ".yaml")


def read_source(source: str, folder: str, kind: str) -> dict[str, Any]:
    """Return the tree of a YAML file, or of a name that ships in `study/FOLDER`.

    `kind` says in a message what it is, as "sweep".
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            return parse_yaml(path.read_text(encoding="utf-8"), source)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{source}: cannot be read ({error}); expected a YAML file."
            ) from None
    names = shipped_names(folder)
    if source not in names:
        raise ConfigError(
            f"{kind} {source!r} is unknown{nearest_hint(source, names)}; expected one of "
            f"{', '.join(names)}, or a YAML file."
        )
    file = resources.files("spikeshot") / "study" / folder / f"{source}.yaml"
    return parse_yaml(file.read_text(encoding="utf-8"), source)


def require_known(name: Any, known: Iterable[str], what: str) -> None:
    """Raise `ConfigError`, with the nearest known name, where `name` is not known."""
    names = [str(k) for k in known]
    if str(name) not in names:
        raise ConfigError(
            f"{what} {str(name)!r} is unknown{nearest_hint(str(name), names)}; expected one of "
            f"{', '.join(names)}."
        )


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping, empty for nothing; raises `ConfigError` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; expected `key: value` lines.")
    return value


def plain(value: Any) -> str:
    """Return a value as the name of a place on an axis."""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(text: str) -> Any:
    """Return the value in a `key=value` text."""
    tree: dict[str, Any] = {}
    override(tree, f"value={text.partition('=')[2]}")
    return tree["value"]


def seeds_of(raw: Any, where: str) -> tuple[int, ...]:
    """Return seeds without repetition; raises `ConfigError` unless they are whole numbers."""
    if not isinstance(raw, list) or not raw or not all(type(s) is int and s >= 0 for s in raw):
        raise ConfigError(f"{where}: seeds is {raw!r}; expected a list of whole numbers.")
    return tuple(dict.fromkeys(raw))
