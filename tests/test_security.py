"""Test that nothing a user supplies is executed: neither by a call in the code nor by a file."""

import ast
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from mtml_jax.config import TrainConfig
from mtml_jax.meta.outer import init_state
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.folder import restored_config
from mtml_jax.runs.trained import load_trained

_ROOT = Path(__file__).resolve().parents[1]
_CODE = sorted(p for folder in ("mtml_jax", "experiments") for p in (_ROOT / folder).rglob("*.py"))
_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml",
    "torch", "code", "codeop", "runpy",
}  # fmt: skip
_BUILTINS = {"eval", "exec", "compile", "__import__"}
_CALLS = {"os.system", "os.popen", "torch.load", "yaml.load", "pickle.load", "pickle.loads"}


def _name(node):
    """A dotted name such as np.load; None for what is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _name(node.value)):
        return f"{before}.{node.attr}"
    return None


def risks(code):
    """What in a program could execute what it reads, as "line: what"."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(node, a.name) for a in node.names if a.name.split(".")[0] in _MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [(node, node.module)] if (node.module or "").split(".")[0] in _MODULES else []
        elif isinstance(node, ast.Call):
            name = _name(node.func) or ""
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in _BUILTINS | _CALLS or given.get("shell", "False") != "False":
                found.append((node, name))
            if (
                name in ("np.load", "numpy.load", "jnp.load")
                and given.get("allow_pickle") != "False"
            ):
                found.append((node, f"{name} without allow_pickle=False"))
            if name.endswith((".extract", ".extractall")) and given.get("filter") != "'data'":
                found.append((node, f"{name} without filter='data'"))
    return [f"{node.lineno}: {what}" for node, what in found]


@pytest.mark.parametrize("path", _CODE, ids=lambda p: p.stem)
def test_no_code_executes_what_it_reads(path):
    found = risks(path.read_text())
    if path.stem.startswith("peer_"):  # the peers are PyTorch; they load nothing by it
        assert "torch.load" not in path.read_text()
        found = [risk for risk in found if risk.split(": ")[1].split(".")[0] != "torch"]
    assert found == []


@pytest.mark.parametrize("code", [
    "import pickle", "from pickle import load", "import torch.nn", "from yaml import load",
    "eval(text)", "exec(text)", "__import__(name)", "np.load(f)", "np.load(f, allow_pickle=True)",
    "os.system(line)", "subprocess.run(line, shell=True)", "tar.extractall(f)",
    "tar.extract(m, f, filter='tar')", "x = lambda: [eval(t) for t in y]",
])  # fmt: skip
def test_what_would_be_found(code):
    assert len(risks(code)) == 1
    assert (
        risks("re.compile(p); np.load(f, allow_pickle=False); tar.extract(m, filter='data')") == []
    )


class _Harm:
    """What writes a file when it is unpickled."""

    def __init__(self, mark):
        self._mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self._mark,)


def test_a_pickle_in_a_checkpoint_is_never_opened(tmp_path):
    mark, workdir = tmp_path / "harm", tmp_path / "run"
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(2, init_state({"w": jnp.ones((3, 5))}), {"at": 2}, best=True)
    folder = workdir / "checkpoints" / "2"
    harm = pickle.dumps(_Harm(mark))
    names = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file()]
    names += ["state/checkpoint", "state/checkpoint.pkl", "params.npy", "state/model.pt"]
    program = (
        "import contextlib, sys\n"
        "from mtml_jax.runs.checkpoint import *\n"
        "from mtml_jax.runs.checkpoint import ASIDE\n"
        "from mtml_jax.runs.integrity import write_manifest\n"
        "from mtml_jax.meta.outer import init_state\n"
        "import jax.numpy as jnp, pathlib\n"
        "run, harm, *names = sys.argv[1:]\n"
        "folder = pathlib.Path(run) / 'checkpoints' / '2'\n"
        "for name in names:\n"
        "    path = folder / name\n"
        "    before = path.read_bytes() if path.exists() else None\n"
        "    path.write_bytes(bytes.fromhex(harm))\n"
        "    write_manifest(folder, ASIDE)\n"  # as an attacker would
        "    with contextlib.suppress(Exception):\n"  # whatever it says: it must not run it
        "        restore_params(run, 'best')\n"
        "    with contextlib.suppress(Exception), Checkpoints(run) as checkpoints:\n"
        "        checkpoints.restore(2, init_state({'w': jnp.ones((3, 5))}))\n"
        "    path.unlink() if before is None else path.write_bytes(before)\n"
        "write_manifest(folder, ASIDE)\n"
        "assert restore_params(run, 'best').step == 2\n"
    )
    # In a process of its own: Orbax leaves much behind where it cannot read.
    command = [sys.executable, "-c", program, str(workdir), harm.hex(), *names]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, timeout=300)
    assert not mark.exists()
    pickle.loads(harm)
    assert mark.exists()  # it would have worked


@pytest.mark.parametrize("name, value", [
    ("strategy", {"__reduce__": ["os.system", ["touch harm"]]}),
    ("model", {"py/object": "os.system"}),
    ("alpha", "__import__('os').mkdir('harm')"),
    ("meta_batch", "16"), ("meta_batch", True), ("inner_lr", None), ("shape", [2, 3, 5, 7]),
    ("persona_chunk", 1.5), ("glove", 3), ("distinct_start", 1),
])  # fmt: skip
def test_settings_of_another_type_are_refused(save_tiny_run, tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    save_tiny_run(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ValueError, match="config.json that does not fit this version .*train again"):
        load_trained(tmp_path / "run")
    assert not (tmp_path / "harm").exists()


def test_settings_of_the_right_type_are_taken():
    config = dataclasses.replace(TrainConfig(), alpha=1, persona_chunk=2)
    assert restored_config(json.loads(json.dumps(dataclasses.asdict(config)))) == config
