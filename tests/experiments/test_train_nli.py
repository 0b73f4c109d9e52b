"""Tests the command that builds a consistency scorer, on a tiny BERT and a few pairs."""

import json
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import train_nli
from mtml_jax.nli import build, calibration, huggingface
from mtml_jax.nli import scorer as nli
from mtml_jax.nli.dialogue_nli import CLASSES, read_dialogue_nli
from mtml_jax.nli.huggingface import read_classifier

pytest.importorskip("tokenizers")

LINES = """\
i have two dogs .</s>i have dogs .</s>positive
my car is red .</s>my car is blue .</s>negative
we read books .</s>i have no cats .</s>neutral
"""


@pytest.fixture(autouse=True)
def one_width(monkeypatch):
    """All rows as long as the tiny BERT has positions: one shape to compile."""
    monkeypatch.setattr(huggingface, "WIDTHS", ())


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "nli-train.txt").write_text(LINES * 4)
    (folder / "nli-valid.txt").write_text(LINES)
    return folder


@pytest.fixture
def given(tmp_path, data, draw_bert):
    """Flags of a run of seconds."""
    return types.SimpleNamespace(
        data=str(data), base=str(draw_bert(tmp_path / "base")), output=str(tmp_path / "out"),
        corpus="demo", data_dir=None, epochs=1, unrelated=0.5, batch=6, rate=1e-3, seed=0,
        replies=5,
    )  # fmt: skip


def test_makes_a_calibrated_scorer(given, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_CALIBRATION_REPLIES", 7)
    text = train_nli.train_nli(given)
    scorer = nli.load_scorer(given.output)
    assert f"digest {scorer.digest}" in text
    kept = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert list(scorer.bias) == [kept["bias"][name] for name in CLASSES]
    assert scorer.bias[1] == 0 and np.all(scorer.bias[[0, 2]] != 0)
    before = read_classifier(given.base, "--base")
    after = read_classifier(given.output, "--nli")
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
    assert 1e-4 < max(jax.tree.leaves(moved)) < 1e-1
    pairs = [(p.reply, p.statement) for p in read_dialogue_nli(given.data, "valid")]
    for name, calibrated in (("uncalibrated", False), ("calibrated", True)):
        right = np.sum(scorer.labels(pairs, calibrated=calibrated) == [1, -1, 0])
        assert f"{name}: accuracy {100 * right / 3:.1f} %" in text
    assert len(re.findall(r"human C [+-]\d\.\d{3}, shuffled C [+-]\d\.\d{3}", text)) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "data", "out"]


def test_zero_epochs_calibrate_what_is_there(given, monkeypatch):
    monkeypatch.setattr(calibration, "_CALIBRATION_REPLIES", 7)
    given.epochs = 0
    train_nli.train_nli(given)
    before, after = (read_classifier(f, "") for f in (given.base, given.output))
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)


def test_an_interrupted_run_leaves_nothing(given, tmp_path, monkeypatch, capsys):
    def killed(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    def end(sentence, number):  # the real one ends the process at once
        raise SystemExit(f"{sentence}: {number}")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(train_nli.startup, "end", end)
    monkeypatch.setattr(build, "finetune", killed)
    monkeypatch.setattr(train_nli.startup, "start_jax", lambda: None)
    monkeypatch.setattr(train_nli.flags, "FLAGS", given)
    try:
        with pytest.raises(SystemExit, match="interrupted; .*out was not written: 15"):
            train_nli.main(["train_nli"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "data"]


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"data": None}, "expected the folder of Dialogue NLI as --data, got none"),
        ({"data": "gone"}, "gone: expected nli-train.txt or .* of --data, got no such folder"),
        ({"epochs": -1}, "expected --epochs of 0 or more, got -1"),
        ({"batch": 0}, "expected --batch of 1 or more, got 0"),
        ({"rate": float("nan")}, "expected a finite --rate of 0 or more, got nan"),
        ({"base": "gone"}, "gone: expected the config.json, .* of --base, got no such folder"),
        ({"corpus": "huh"}, "expected --data to be demo.*got --data=huh"),
    ],
)
def test_a_mistake_gets_one_sentence(given, changed, sentence):
    vars(given).update(changed)
    with pytest.raises((ValueError, OSError), match=sentence) as raised:
        train_nli.train_nli(given)
    assert "\n" not in str(raised.value)


def test_a_folder_with_something_in_it_is_left_alone(given, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(ValueError, match="expected a new or empty folder as --output, got another"):
        train_nli.train_nli(given)


def test_without_a_base_the_packaged_one_is_named(given, monkeypatch):
    given.base = None
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"expected the folder of a BERT .*; pip install 'mtml_jax\["):
        train_nli.train_nli(given)


def test_nothing_heavy_is_imported():
    """Not even the NLI libraries, before a model is read."""
    program = (
        "import sys\n"
        "sys.modules['torch'] = None  # TensorBoard's writer takes it where it finds it\n"
        "import experiments.train_nli, mtml_jax.nli.scorer\n"
        "names = {'transformers', 'safetensors', 'tokenizers'}\n"
        "assert not names & {m.split('.')[0] for m in sys.modules}"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)
