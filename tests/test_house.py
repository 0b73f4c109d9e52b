"""Imports go down from room to room, and no room has a circle."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room may import from itself and from the rooms before it; `base` is the package's own files.
ROOMS = "base data model runs meta nli eval train inference".split()


def modules(folder):
    return sorted(p for p in (ROOT / folder).rglob("*.py") if p.name != "__init__.py")


def imports(path):
    """Dotted names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


LIBRARY = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in modules("mtml_jax")
}


def room_of(name):
    """The room of a dotted module name of the library."""
    _, *rest = name.split(".")
    return rest[0] if len(rest) > 1 else "base"


@pytest.mark.parametrize("name", LIBRARY)
def test_imports_go_down(name):
    found = imports(LIBRARY[name])
    rooms = {room_of(other) for other in found & LIBRARY.keys()}
    upward = {room for room in rooms if ROOMS.index(room) > ROOMS.index(room_of(name))}
    assert not upward, f"{name} imports from {upward}, which stand above {room_of(name)}"
    assert not any(n.split(".")[0] == "experiments" for n in found)


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_inside_a_room(room):
    inside = {n: imports(p) & LIBRARY.keys() for n, p in LIBRARY.items() if room_of(n) == room}
    tuple(graphlib.TopologicalSorter(inside).static_order())  # raises CycleError


def test_flags_live_in_experiments_alone():
    for path in modules("mtml_jax"):
        assert not any(n.startswith("absl") for n in imports(path)), path


def test_pytorch_is_imported_by_the_peer_processes_alone():
    peers = {"peer_process", "peer_torch", "peer_torch_decoder"}
    for path in modules("mtml_jax") + modules("experiments"):
        found = imports(path)
        tops = {n.split(".")[0] for n in found}
        if path.stem in peers:
            assert not tops & {"jax", "mtml_jax"}, path
        else:
            assert not found & {f"experiments.benchmark.{name}" for name in peers}, path
            assert not tops & {"torch", "higher", "transformers", "sentence_transformers"}, path


def test_tensorflow_is_never_imported():
    program = (
        "import sys, experiments.train, mtml_jax.data.personachat\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'tensorflow']"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_corpus_readers_and_metrics_need_no_jax():
    program = (
        "import sys, mtml_jax.data.parlai, mtml_jax.data.jsonl, mtml_jax.data.personas\n"
        "import mtml_jax.data.splits, mtml_jax.data.vocab, mtml_jax.eval.metrics\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
