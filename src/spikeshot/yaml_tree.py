"""YAML text, defaults and `key=value` overrides as one tree of plain values, before any check."""

from typing import Any

import yaml

from spikeshot.errors import ConfigError

Tree = dict[str, Any]


def parse_yaml(text: str, source: str) -> Tree:
    """Return the tree in a YAML text; `source` stands in the message of a `ConfigError`."""
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        why = " ".join(str(error).split())
        raise ConfigError(f"{source}: not valid YAML ({why}).") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: holds a {type(raw).__name__}; expected `key: value` lines.")
    return raw


def complete(raw: Tree, defaults: Tree) -> Tree:
    """Return `raw` with the `defaults` that it leaves open, section by section."""
    sections = {
        key: complete(raw[key], default)
        for key, default in defaults.items()
        if isinstance(default, dict) and isinstance(raw.get(key), dict)
    }
    return defaults | raw | sections


def override(raw: Tree, text: str) -> None:
    """Set one `a.b.c=value` (in a list `a.0.c=value`) in the tree; the value is read as YAML."""
    key, equals, value_text = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: expected key=value, as in train.iterations=500.")
    try:
        value = yaml.safe_load(value_text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"--set {text!r}: the value is not valid YAML.") from None
    *sections, last = key.split(".")
    node: Any = raw
    for section in sections:
        at = _place(node, section, text)
        node = node.setdefault(at, {}) if isinstance(node, dict) else node[at]
    node[_place(node, last, text)] = value


def _place(node: Any, part: str, text: str) -> str | int:
    """Return where `part` of an override's key lies in `node`: a name, or a list's index."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ConfigError(f"--set {text!r}: {part!r} would lie in a value, not in a section.")
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(
            f"--set {text!r}: {part!r} is no entry of the list; expected 0 to {len(node) - 1}."
        )
    return int(part)
