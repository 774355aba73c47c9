"""What the pages say can be typed: commands, options, presets, keys, corpora, learners, names."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml

import spikeshot
from spikeshot.cli import app
from spikeshot.config import config_from_dict, load_config, preset_names
from spikeshot.data.corpora import CORPORA
from spikeshot.stored import PREFIX, pretrained_names

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
CARDS = sorted((PROJECT / "src" / "spikeshot" / "pretrained").glob("*/card.md"))
SWEEPS = PROJECT / "src" / "spikeshot" / "study" / "sweeps"
STUDIES = SWEEPS.with_name("studies")
ROOT = typer.main.get_command(app)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"`(spikeshot [^`]+)`")
CALL = re.compile(r"(?:^|[\s/])spikeshot ((?:data )?[a-z]+(?: .*)?)$")


def commands(text):
    """Yield what follows `spikeshot` in every command of a page: fences, spans, indented lines."""
    text = re.sub(r" *\\\n\s*", " ", text)  # a line that goes on
    shown = [block for language, block in FENCE.findall(text) if language in ("", "bash", "sh")]
    rest = FENCE.sub("", text)
    shown += re.findall(r"^    (.*)$", rest, re.M)
    for line in "\n".join(shown).splitlines():
        if found := CALL.search(line.partition(" #")[0].rstrip()):
            yield found[1]
    for span in SPAN.findall(rest):
        yield span.removeprefix("spikeshot ")


COMMANDS = [
    (str(page.relative_to(PROJECT)), command)
    for page in (*PAGES, *CARDS)
    for command in commands(page.read_text(encoding="utf-8"))
]


def known_keys(tree, at=""):
    """Yield every key of the configuration, sections too, as `train.iterations`."""
    for key, value in tree.items():
        yield at + key
        if isinstance(value, dict):
            yield from known_keys(value, f"{at}{key}.")


KEYS = set(known_keys(load_config("quickstart").model_dump()))


def test_the_pages_hold_commands():
    assert len(COMMANDS) > 40
    assert {page for page, _ in COMMANDS} >= {"README.md", "docs/tutorial.md"}
    verbs = {command.split()[0] for _, command in COMMANDS}
    assert verbs >= {"train", "evaluate", "show", "configs", "pretrained", "data"}


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_on_a_page_exists(page, command):
    words = shlex.split(re.sub(r"[\[\]]|\.\.\.", " ", command).rstrip(",;:."))
    node, rest = ROOT, words
    while hasattr(node, "commands") and rest:
        assert rest[0] in node.commands, f"{page}: no command {rest[0]!r}"
        node, rest = node.commands[rest[0]], rest[1:]
    options = {name: option for option in node.params for name in option.opts}
    for word in rest:
        if word.startswith("-"):
            assert word.partition("=")[0] in {*options, "--help"}, f"{page}: no option {word}"
    for before, word in pairwise(rest):
        if before == "--set" and "key=" not in word:
            key = word.partition("=")[0]
            own = key.startswith("arms.") and words[0] in ("sweep", "study")
            assert own or key in KEYS | sweep_keys(words), f"{page}: no key {key!r}"
    check_first(page, words, rest)


def sweep_keys(words):
    """Return the axes that `--set` of a sweep can change, none for another command."""
    if words[0] != "sweep":
        return set()
    file = SWEEPS / f"{words[1]}.yaml"
    return set(yaml.safe_load(file.read_text(encoding="utf-8"))["axes"])


def check_first(page, words, rest):
    """The preset, learner or corpus that a command names is one of ours, or a placeholder."""
    first = next((word for word in rest if not word.startswith("-")), "")
    if first.startswith(PREFIX):
        assert first.removeprefix(PREFIX) in {*pretrained_names(), "NAME"}, f"{page}: {first}"
    elif words[0] == "train":
        file = first.endswith(".yaml") or first.isupper()
        assert file or first in {"", *preset_names()}, f"{page}: no preset {first!r}"
    elif words[0] == "evaluate" or words[0] == "show":
        assert first.isupper() or first.startswith("runs/"), f"{page}: {first!r} is no run"
    elif words[0] == "sweep":
        assert first.isupper() or (SWEEPS / f"{first}.yaml").exists(), f"{page}: {first!r}"
    elif words[0] == "study":
        own = first.isupper() or first.endswith(".yaml")
        assert own or (STUDIES / f"{first}.yaml").exists(), f"{page}: {first!r}"
    elif words[:2] == ["data", "get"]:
        assert first in {*CORPORA, "NAME"}, f"{page}: no corpus {first!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_what_is_written_as_yaml_is_a_configuration(page):
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "yaml":
            assert config_from_dict(yaml.safe_load(block), str(page)).data


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(PROJECT)))
def test_names_of_the_package_on_a_page_exist(page):
    for name in re.findall(r"\bspikeshot\.([a-zA-Z_]+)\(", page.read_text(encoding="utf-8")):
        assert name in spikeshot.__all__, f"{page}: no spikeshot.{name}"


def test_every_page_is_in_the_navigation():
    site = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert re.search(rf"\s{page.relative_to(PROJECT / 'docs')}$", site, re.M), page


def test_every_pretrained_learner_is_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in pretrained_names() if f"{PREFIX}{name}" not in text] == []
