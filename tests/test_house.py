"""Imports go down: never up, and never sideways on one floor."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = [
    "config memory order records types metrics runlog manifest data.demo_phrases data.lines",
    "sharding tiles data.corpus data.jsonl data.personas data.store data.demo data.vocab "
    "data.dialogue_nli data.whatsapp data.telegram transformer bert scores run_folder",
    "data.episodes data.exports data.personachat data.splits losses decoding bert_folder",
    "inner data.sheet data.folds nli finetune",
    "objectives data.prepare",
    "outer checkpoint",
    "evaluation reconstruction delta responder blame fitting",
    "training speaker",
]
FLOOR_OF = {name: n for n, names in enumerate(FLOORS) for name in names.split()}


def modules(folder):
    return sorted(p for p in (ROOT / folder).rglob("*.py") if p.name != "__init__.py")


def imports(path):
    """Dotted names of the package's own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def own(names):
    short = {n.removeprefix("mtml_jax.") for n in names if n.startswith("mtml_jax.")}
    return short & FLOOR_OF.keys()


@pytest.mark.parametrize("path", modules("mtml_jax"), ids=lambda p: p.stem)
def test_imports_go_down(path):
    name = ".".join(path.relative_to(ROOT / "mtml_jax").with_suffix("").parts)
    assert name in FLOOR_OF, f"{name} stands on no floor"
    upward = {other for other in own(imports(path)) if FLOOR_OF[other] >= FLOOR_OF[name]}
    assert not upward, f"{name} imports {upward}, which do not stand below it"
    assert not any(n.split(".")[0] == "experiments" for n in imports(path))


def test_every_floor_name_is_a_module():
    names = {
        ".".join(p.relative_to(ROOT / "mtml_jax").with_suffix("").parts)
        for p in modules("mtml_jax")
    }
    assert names == set(FLOOR_OF)


def test_flags_live_in_experiments_alone():
    for path in modules("mtml_jax"):
        assert not any(n.startswith("absl") for n in imports(path)), path


def test_pytorch_is_imported_by_the_peer_process_alone():
    for path in modules("mtml_jax") + modules("experiments"):
        found = imports(path)
        assert "experiments.benchmark.peer_torch" not in found, path
        if path.stem != "peer_torch":
            tops = {n.split(".")[0] for n in found}
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
