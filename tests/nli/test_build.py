"""Tests that a scorer can be built from Python alone."""

import json

import numpy as np
import pytest

from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.personas import group_personas
from mtml_jax.nli import calibration
from mtml_jax.nli.build import build_scorer
from mtml_jax.nli.dialogue_nli import CLASSES, LabelledPair
from mtml_jax.nli.scorer import load_scorer

pytest.importorskip("tokenizers")

LABELLED = {
    split: [LabelledPair("i like dogs .", "i have dogs .", label) for label in range(3)]
    for split in ("train", "valid")
}


@pytest.fixture(scope="module")
def personas():
    return {split: group_personas(demo_corpus(split)) for split in ("train", "valid")}


def test_a_scorer_is_calibrated_and_frozen_without_flags(
    tmp_path, draw_bert, personas, monkeypatch
):
    monkeypatch.setattr(calibration, "_CALIBRATION_REPLIES", 5)
    base = draw_bert(tmp_path / "base")
    kept, report = build_scorer(
        tmp_path / "made" / "nli", base, LABELLED, personas, epochs=0, replies=3, corpus="demo"
    )
    scorer = load_scorer(tmp_path / "made" / "nli")
    assert list(scorer.bias) == [kept["bias"][name] for name in CLASSES]
    assert json.loads((tmp_path / "made" / "nli" / "report.json").read_text()) == report
    assert (kept["corpus"], kept["seed"], report["settings"]["epochs"]) == ("demo", 0, 0)
    for name, bias in {"uncalibrated": np.zeros(3), "calibrated": scorer.bias}.items():
        column = int(np.argmax(scorer.scores([LABELLED["valid"][0][:2]])[0] + bias))
        confusion = np.zeros((3, 3), int)
        confusion[:, column] = 1
        assert report[name]["confusion"] == confusion.tolist()
        assert report[name]["accuracy"] == pytest.approx(1 / 3)


def test_too_few_personas_are_refused_before_anything_is_read(tmp_path, personas):
    few = personas | {"valid": personas["valid"][:3]}
    with pytest.raises(ValueError, match="expected 4 or more .* in valid of --corpus=x, got 3"):
        build_scorer(tmp_path / "nli", tmp_path / "gone", LABELLED, few, corpus="x")
