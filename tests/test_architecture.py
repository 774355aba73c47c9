"""The shape of the package: who may import whom, what the front door costs, what every file has."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import spikeshot

ROOT = Path(spikeshot.__file__).parent
PROJECT = Path(__file__).parents[1]

ALLOWED = {
    "errors": set(),
    "data": {"errors"},
    "snn": {"errors"},
    "learn": {"errors"},
    "study": {"errors", "learn", "snn", "yaml_tree"},
    "yaml_tree": {"errors"},
    "config_errors": {"errors"},
    "config_learn": set(),
    "config_data": {"config_learn"},
    "config": {"errors", "yaml_tree", "config_data", "config_errors", "config_learn"},
    "listener": {"config", "learn", "study"},
    "run_folder": {"errors", "config", "data"},
    "stored": {"errors", "config", "data", "snn", "run_folder"},
    "assemble_network": {"errors", "config", "snn", "study"},
    "assemble_rule": {"errors", "config", "snn", "learn", "study"},
    "assemble_data": {"errors", "config", "data"},
    "assemble": {"config", "data", "snn", "learn", "study", "assemble_data", "assemble_rule"},
    "learner": {
        *("errors", "config", "data", "snn", "learn", "study"),
        *("assemble", "assemble_data", "assemble_network", "overriding", "stored"),
    },
    "starting": {"errors", "data", "learn", "snn", "run_folder", "stored"},
    "overriding": {"errors", "config", "yaml_tree", "learn", "stored"},
    "agreement": {"errors", "config", "learn", "assemble_data", "run_folder"},
    "training": {
        *("version", "errors", "config", "data", "learn", "snn", "study"),
        *("listener", "run_folder", "assemble", "assemble_data", "starting"),
    },
    "opening": {
        *("errors", "config", "data", "learn", "snn", "study"),
        *("assemble", "assemble_data", "assemble_network", "overriding", "stored", "training"),
    },
    "jobs": {
        *("version", "errors", "config", "data", "learn", "study"),
        *("listener", "run_folder", "stored", "assemble", "assemble_data", "assemble_network"),
        *("training", "starting", "opening", "overriding", "agreement"),
    },
    "provenance": {"version", "study"},
    "describing": {"run_folder", "stored"},
    "sweeps": {
        *("version", "errors", "config", "study"),
        *("run_folder", "overriding", "inspecting", "provenance", "jobs"),
    },
    "inspecting": {
        *("errors", "data", "learn", "snn", "study", "assemble", "opening", "stored"),
    },
    "studies": {"version", "errors", "config", "study", "provenance", "sweeps"},
    "stopping": set(),
    "progress": {"config", "learn", "study"},
    "torchrun": {"errors", "learn"},
    "cli_data": {"errors", "data"},
    "cli_study": {"errors", "config", "study", "studies", "sweeps", "stopping"},
    "cli": {
        *("version", "errors", "config", "stored", "describing", "jobs", "progress", "torchrun"),
        *("cli_data", "cli_study", "stopping"),
    },
    "__main__": {"cli"},
    "__init__": set(),
}
"""Room or module -> what it may import of the package, itself apart ("version": the root)."""

MODULES = {
    ".".join(("spikeshot", *f.relative_to(ROOT).with_suffix("").parts)): f
    for f in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(f.read_text(encoding="utf-8")) for name, f in MODULES.items()}


def room(module):
    """Return the room of `spikeshot.<room>...`; the package itself is "version"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "version"


def imports(nodes):
    """Yield the module of every import statement among `nodes`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they go"
            if node.module == "spikeshot":  # `from spikeshot import jobs`
                yield from (f"spikeshot.{alias.name}" for alias in node.names)
            else:
                yield node.module


def inner(module):
    """Return every import of the package in `module`, wherever in the file it stands."""
    found = imports(ast.walk(TREES[module]))
    return {name for name in found if name.split(".")[0] == "spikeshot"}


# --- imports -------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module):
    home = room(module)
    assert home in ALLOWED, f"{module} has no room: give it one in ALLOWED"
    assert {room(name) for name in inner(module)} - {home} <= ALLOWED[home]


def test_the_table_is_the_design():
    """DESIGN: data and snn know nothing of each other or of what is above; nothing imports cli."""
    assert len(MODULES) > 20
    assert ALLOWED["data"] == ALLOWED["snn"] == ALLOWED["learn"] == {"errors"}
    assert [home for home, allowed in ALLOWED.items() if "cli" in allowed] == ["__main__"]
    assert {room(module) for module in MODULES} == set(ALLOWED)
    used = {home: set() for home in ALLOWED}
    for module in MODULES:
        used[room(module)] |= {room(name) for name in inner(module)} - {room(module)}
    assert used == ALLOWED  # nothing is allowed that is not needed


def test_no_import_goes_in_a_circle():
    def top_level(module):
        body = [node for node in TREES[module].body if not isinstance(node, ast.If)]
        return {name for name in imports(body) if name in MODULES}

    graph = {module: top_level(module) for module in MODULES}
    assert sum(map(len, graph.values())) > 50
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_only_declared_dependencies_are_imported():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["events"]]
    names = {"".join(c if c.isalnum() else " " for c in line).split()[0] for line in declared}
    names = {{"pyyaml": "yaml", "pillow": "PIL"}.get(name, name) for name in names}
    used = {name.split(".")[0] for tree in TREES.values() for name in imports(ast.walk(tree))}
    assert used - {"spikeshot"} - set(sys.stdlib_module_names) == names


def test_optional_packages_are_imported_by_the_reading_process_alone():
    """They run native code on untrusted bytes: never in the process of the user."""
    users = {
        m
        for m in MODULES
        if {"scipy", "h5py", "aedat"} & {n.split(".")[0] for n in imports(ast.walk(TREES[m]))}
    }
    assert users == {"spikeshot.data.readers.worker"}
    assert not [n for n in imports(TREES["spikeshot.data.readers.worker"].body) if "spikes" in n]


def test_only_the_command_line_prints_or_reads_arguments():
    for module, tree in TREES.items():
        calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
        prints = any(isinstance(f, ast.Name) and f.id in ("print", "input") for f in calls)
        reads = any(isinstance(n, ast.Attribute) and n.attr == "argv" for n in ast.walk(tree))
        assert not (prints or reads) or module.startswith("spikeshot.cli"), module


# --- the front door ------------------------------------------------------------------------------


def test_every_name_of_the_front_door_leads_somewhere():
    assert 10 < len(spikeshot.__all__) <= 40
    assert len(set(spikeshot.__all__)) == len(spikeshot.__all__)
    for name in spikeshot.__all__:
        assert getattr(spikeshot, name) is not None
        assert name in dir(spikeshot)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        spikeshot.nonsense  # noqa: B018


HEAVY = ("torch", "numba", "numpy", "matplotlib", "pydantic")


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import spikeshot", HEAVY),
        ("sys.argv = ['spikeshot', '--help']; from spikeshot.cli import main; main()", HEAVY),
        ("sys.argv = ['spikeshot', 'configs']; from spikeshot.cli import main; main()", HEAVY[:4]),
        ("import spikeshot.config", HEAVY[:4]),
        ("import spikeshot.data.layouts.folder", ("torch", "numba", "scipy", "h5py", "aedat")),
        ("import spikeshot.snn.network", ("matplotlib", "pydantic", "typer")),
        ("import spikeshot.learn.meta_train", ("matplotlib", "pydantic", "typer", "numba")),
    ],
)
def test_what_is_quick_loads_nothing_heavy(code, heavy):
    report = f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    program = f"import atexit, sys; atexit.register(lambda: {report}); {code}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "[]\n")


# --- every file ----------------------------------------------------------------------------------


def public(body, at):
    """Yield (name, node) of every public function, class and method."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{at}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{at}.{node.name}")


def test_everything_public_says_what_it_is():
    nodes = list(TREES.items())
    nodes += [found for m, tree in TREES.items() for found in public(tree.body, m)]
    assert len(nodes) > 150
    assert [name for name, node in nodes if not ast.get_docstring(node)] == []


LONGER = {"spikeshot.snn.fused_kernels": 400}
"""Numba's cache looks at a kernel's own file only, so kernels that call each other share one."""


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_short(module):
    assert len(MODULES[module].read_text().splitlines()) <= LONGER.get(module, 350)
