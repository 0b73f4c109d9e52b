"""Tests the consistency scorer: labels, cache, digest, and its errors."""

import json
import shutil
import sys

import numpy as np
import pytest
from scipy.special import log_softmax

from mtml_jax.nli import scorer as nli
from mtml_jax.nli.dialogue_nli import CLASSES
from mtml_jax.nli.scorer import load_scorer

pytest.importorskip("tokenizers")

PAIRS = [
    ("i have two dogs .", "i like dogs ."),
    ("my car is red .", "my car is blue ."),
    ("we read books .", "i have no cats ."),
    ("you are at home .", "the car is not my car . " * 2),
]


@pytest.fixture
def folder(tmp_path, draw_bert):
    return draw_bert(tmp_path / "nli")


def count_forwards(scorer, monkeypatch):
    """Returns a list to which the shape of each computed batch is appended."""
    shapes, forward = [], scorer._forward
    monkeypatch.setattr(
        scorer, "_forward", lambda params, *rows: (shapes.append(rows[0].shape), forward(params, *rows))[1]
    )  # fmt: skip
    return shapes


def test_scores_are_those_of_single_rows(folder):
    """Scores do not depend on order or batch; 70 pairs need a large batch and a small one."""
    from mtml_jax.nli import bert
    from mtml_jax.nli.huggingface import encode_pairs, pad, read_classifier

    model = read_classifier(folder, "--nli")
    wanted = []
    for tokens in encode_pairs(model, PAIRS):
        logits = bert.classify(model.params, *pad([tokens], 1, len(tokens[0])), model.config)
        wanted.append(log_softmax(np.asarray(logits, np.float64), axis=-1)[0])
    scores = load_scorer(folder).scores(PAIRS)
    assert scores.shape == (4, 3) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    words = "i you we my dogs cats home books car red the a not".split()
    many = [(f"{a} {b}", c) for a in words for b in words[:3] for c in words[:2]][:70]
    scorer = load_scorer(folder)
    forth, back = scorer.scores(many), load_scorer(folder).scores(many[::-1])[::-1]
    np.testing.assert_allclose(forth, back, atol=1e-5)
    assert len(np.unique(forth[:, 0])) > 60


def test_labels_with_and_without_calibration(folder):
    plain = load_scorer(folder)
    assert plain.bias.tolist() == [0, 0, 0]
    before = plain.labels(PAIRS)
    assert before.dtype == np.int8 and before.shape == (4,)
    bias = dict(zip(CLASSES, (-100.0, 0.0, 3.0), strict=True))
    (folder / "calibration.json").write_text(json.dumps({"bias": bias}))
    scorer = load_scorer(folder)
    np.testing.assert_array_equal(scorer.labels(PAIRS, calibrated=False), before)
    shifted = scorer.scores(PAIRS) + np.float32([-100, 0, 3])
    np.testing.assert_array_equal(scorer.labels(PAIRS), np.array([1, 0, -1])[shifted.argmax(1)])
    assert 1 in before and 1 not in scorer.labels(PAIRS)
    assert scorer.digest != plain.digest


def test_other_names_and_orders_of_labels(folder, tmp_path, draw_bert):
    """The columns of a checkpoint are reordered by its label names."""
    scores = load_scorer(folder).scores(PAIRS)
    other = draw_bert(tmp_path / "other", labels=("NEUTRAL", "Negative", "positive"))
    np.testing.assert_allclose(load_scorer(other).scores(PAIRS), scores[:, [2, 0, 1]], atol=1e-6)


def test_a_pair_is_scored_once(folder, monkeypatch):
    scorer = load_scorer(folder)
    shapes = count_forwards(scorer, monkeypatch)
    counts = []
    scorer.labels([PAIRS[0], PAIRS[1], PAIRS[0]], counts.append)
    assert shapes == [(8, 16)] and counts == [0, 3]
    scorer.labels(PAIRS, counts.append, calibrated=False)
    assert len(shapes) == 3 and sum(counts) == 7
    scorer.scores(PAIRS)
    assert len(shapes) == 3
    assert scorer.labels([]).shape == (0,)


def test_the_cache_file_outlives_the_process(folder, tmp_path, monkeypatch):
    cache = tmp_path / "made" / "scores.jsonl"
    scores = load_scorer(folder, cache).scores(PAIRS)
    whole = cache.read_text()
    cache.write_text(whole + whole[:31])  # killed while a line was being written
    again = load_scorer(folder, cache)
    shapes = count_forwards(again, monkeypatch)
    np.testing.assert_array_equal(again.scores(PAIRS), scores)
    assert not shapes and cache.read_text() == whole
    again.scores([("caf\u00e9 \u2028", "one\ntwo")])
    assert len(cache.read_text().splitlines()) == 5

    (folder / "calibration.json").write_text(json.dumps({"bias": dict.fromkeys(CLASSES, 0.0)}))
    other = load_scorer(folder, cache)
    shapes = count_forwards(other, monkeypatch)
    other.scores(PAIRS)
    assert shapes  # of another digest


def test_a_damaged_cache_is_refused(folder, tmp_path):
    cache = tmp_path / "scores.jsonl"
    cache.write_text('["0", "a", "b", 1, 2]\n')
    with pytest.raises(ValueError, match=r"scores.jsonl:1: expected a row of scores, got .*; mend"):
        load_scorer(folder, cache)


def test_the_digest_stands_for_all_files(folder):
    (folder / "calibration.json").write_text(json.dumps({"bias": dict.fromkeys(CLASSES, 0.0)}))
    first = load_scorer(folder).digest
    assert len(first) == 16 and int(first, 16) >= 0
    assert nli.digest(folder) == first
    (folder / "README.md").write_text("changes nothing")
    assert nli.digest(folder) == first
    seen = {first}
    for name in ("config.json", "vocab.txt", "model.safetensors", "calibration.json"):
        with open(folder / name, "ab") as file:
            file.write(b"\n")
        seen.add(nli.digest(folder))
    assert len(seen) == 5


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"expected .* the folder of --nli, got no {name}"):
        load_scorer(folder)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"model_type": "roberta"}, "expected the model type 'bert' in .* --nli, got 'roberta'"),
        ({"hidden_act": "gelu_new"}, "expected hidden_act 'gelu', got 'gelu_new'"),
        ({"num_attention_heads": 2}, "expected a width .*, got width 33, 2 heads and 2 types"),
        ({"hidden_size": None}, "expected a whole number hidden_size, got None"),
        ({"intermediate_size": 41}, r"intermediate.dense.weight of shape \[41, .*, got \[37, 33\]"),
        ({"num_hidden_layers": 3}, "got no tensor encoder.layer.2.attention"),
        ({"vocab_size": 28}, r"at most the 28 words .*, got 29 words|expected embeddings"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "expected the labels .*, got LABEL_0, LABEL_1"),
        ({"id2label": None}, "expected the labels entailment, neutral and contradiction, .*, got none"),
    ],
)
def test_a_wrong_model_is_refused(tmp_path, draw_bert, changed, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        load_scorer(draw_bert(tmp_path / "nli", **changed))
    assert "\n" not in str(raised.value)


def test_a_longer_vocabulary_is_refused(folder):
    with open(folder / "vocab.txt", "a", encoding="utf-8") as words:
        words.write("one\n" * 99)
    with pytest.raises(ValueError, match="expected a WordPiece vocabulary with .SEP. and at .* got 128 words"):
        load_scorer(folder)


def test_a_base_without_classifier_is_refused(folder):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    rest = {name: t for name, t in tensors.items() if not name.startswith("classifier.")}
    save_file(rest, folder / "model.safetensors")
    with pytest.raises(ValueError, match="expected a BERT fine-tuned on NLI .*, got no classifier"):
        load_scorer(folder)


def test_files_that_are_not_what_they_are_called(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="expected a safetensors file, got"):
        load_scorer(tmp_path / "copy")
    (folder / "calibration.json").write_text('{"bias": {"entailment": 1, "neutral": 0}}')
    with pytest.raises(ValueError, match="calibration.json: expected .*, got no finite number for each class"):
        load_scorer(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: expected a JSON object"):
        load_scorer(folder)


def test_a_missing_library_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"expected the module tokenizers.*install 'mtml_jax\[nli\]'"):
        load_scorer(folder)
