"""The consistency scorer: labels, calibration, cache, and what it refuses."""

import json
import shutil
import sys

import numpy as np
import pytest

from mtml_jax.nli import scorer as nli
from mtml_jax.nli.dialogue_nli import LabelledPair, read_dialogue_nli
from mtml_jax.nli.scorer import fit_bias, labels_of, load_scorer, log_softmax

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("quick_compile")

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
    """A list that grows by the shape of each batch the scorer computes."""
    shapes, forward = [], scorer._forward
    monkeypatch.setattr(
        scorer, "_forward", lambda params, *rows: (shapes.append(rows[0].shape), forward(params, *rows))[1]
    )  # fmt: skip
    return shapes


def test_scores_are_those_of_single_rows(folder):
    """In every order and company; 70 pairs take a large batch and a small one."""
    from mtml_jax.nli import bert
    from mtml_jax.nli.huggingface import pad, read_classifier, tokenise

    model = read_classifier(folder, "--nli")
    wanted = []
    for tokens in tokenise(model, PAIRS):
        logits = bert.classify(model.params, *pad([tokens], 1, len(tokens[0])), model.config)
        wanted.append(log_softmax(np.asarray(logits, np.float64))[0])
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
    bias = dict(zip(nli.CLASSES, (-100.0, 0.0, 3.0), strict=True))
    (folder / "calibration.json").write_text(json.dumps({"bias": bias}))
    scorer = load_scorer(folder)
    np.testing.assert_array_equal(scorer.labels(PAIRS, calibrated=False), before)
    shifted = scorer.scores(PAIRS) + np.float32([-100, 0, 3])
    np.testing.assert_array_equal(scorer.labels(PAIRS), np.array([1, 0, -1])[shifted.argmax(1)])
    assert 1 in before and 1 not in scorer.labels(PAIRS)
    assert scorer.digest != plain.digest


def test_other_names_and_orders_of_labels(folder, tmp_path, draw_bert):
    """A checkpoint's columns are put in our order by its label names."""
    scores = load_scorer(folder).scores(PAIRS)
    other = draw_bert(tmp_path / "other", labels=("NEUTRAL", "Negative", "positive"))
    np.testing.assert_allclose(load_scorer(other).scores(PAIRS), scores[:, [2, 0, 1]], atol=1e-6)


def test_a_pair_is_scored_once(folder, monkeypatch):
    scorer = load_scorer(folder)
    shapes = count_forwards(scorer, monkeypatch)
    told = []
    scorer.labels([PAIRS[0], PAIRS[1], PAIRS[0]], told.append)
    assert shapes == [(8, 16)] and told == [0, 3]
    scorer.labels(PAIRS, told.append, calibrated=False)
    assert len(shapes) == 3 and sum(told) == 7
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

    (folder / "calibration.json").write_text(json.dumps({"bias": dict.fromkeys(nli.CLASSES, 0.0)}))
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
    (folder / "calibration.json").write_text(json.dumps({"bias": dict.fromkeys(nli.CLASSES, 0.0)}))
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


def test_the_bias_of_least_log_loss():
    """It beats its neighbours, undoes a known shift, and needs all three classes."""
    rng = np.random.default_rng(0)
    truth = np.array([0.7, 0.0, -1.3])
    logits = 2 * rng.standard_normal((20_011, 3))
    chances = np.exp(log_softmax(logits + truth[None]))
    classes = (rng.random((20_011, 1)) > chances.cumsum(1)).sum(1)
    weights = rng.random(20_011)
    bias = fit_bias(log_softmax(logits), classes, weights)
    np.testing.assert_allclose(bias, truth, atol=0.1)
    assert bias[1] == 0

    def log_loss(bias):
        return -weights @ log_softmax(logits + bias[None])[np.arange(20_011), classes]

    for step in (1e-3, -1e-3):
        assert log_loss(bias) < log_loss(bias + [step, 0, 0])
        assert log_loss(bias) < log_loss(bias + [0, 0, step])
    with pytest.raises(ValueError, match="found no pair of class contradiction"):
        fit_bias(log_softmax(logits), np.minimum(classes, 1), weights)


def test_labels_of_scores():
    scores = np.log([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    assert labels_of(scores).tolist() == [1, 0, -1]
    assert labels_of(scores, np.log([1, 2, 1])).tolist() == [0, 0, -1]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"found no {name}, want .* the folder of --nli"):
        load_scorer(folder)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"model_type": "roberta"}, "found the model type 'roberta', want 'bert' in .* --nli"),
        ({"hidden_act": "gelu_new"}, "found hidden_act 'gelu_new', want 'gelu'"),
        ({"num_attention_heads": 2}, "found width 33, 2 heads and 2 types, want a width"),
        ({"hidden_size": None}, "found hidden_size None, want a whole number"),
        ({"intermediate_size": 41}, r"intermediate.dense.weight of shape \[37, 33\], want \[41"),
        ({"num_hidden_layers": 3}, "found no tensor encoder.layer.2.attention"),
        ({"vocab_size": 28}, r"found 29 words, want .* at most the 28 words|found embeddings"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "found the labels LABEL_0, LABEL_1, want"),
        ({"id2label": None}, "found the labels none, want entailment, neutral and contradiction"),
    ],
)
def test_a_wrong_model_is_refused(tmp_path, draw_bert, changed, sentence):
    with pytest.raises(ValueError, match=sentence) as raised:
        load_scorer(draw_bert(tmp_path / "nli", **changed))
    assert "\n" not in str(raised.value)


def test_a_longer_vocabulary_is_refused(folder):
    with open(folder / "vocab.txt", "a", encoding="utf-8") as words:
        words.write("one\n" * 99)
    with pytest.raises(ValueError, match="words, want a WordPiece vocabulary with .SEP. and at"):
        load_scorer(folder)


def test_a_base_without_classifier_is_refused(folder):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    rest = {name: t for name, t in tensors.items() if not name.startswith("classifier.")}
    save_file(rest, folder / "model.safetensors")
    with pytest.raises(ValueError, match="found no classifier, want a BERT fine-tuned on NLI"):
        load_scorer(folder)


def test_files_that_are_not_what_they_are_called(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="found no safetensors file"):
        load_scorer(tmp_path / "copy")
    (folder / "calibration.json").write_text('{"bias": {"entailment": 1, "neutral": 0}}')
    with pytest.raises(ValueError, match="calibration.json: found no bias of each class"):
        load_scorer(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: found no JSON object"):
        load_scorer(folder)


def test_a_missing_library_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"found no module tokenizers.*install 'mtml_jax\[nli\]'"):
        load_scorer(folder)


def test_dialogue_nli_in_all_its_forms(tmp_path):
    wanted = [LabelledPair("i ski .", "i like snow .", 0), LabelledPair("hi", "i am old .", 2)]
    objects = [
        {"sentence1": "i ski .", "sentence2": "i like snow .", "label": "positive", "id": "1"},
        {"sentence1": "hi", "sentence2": "i am old .", "label": "Contradiction"},
    ]
    text, lines = tmp_path / "nli-valid.txt", tmp_path / "dialogue_nli_dev.jsonl"
    lines.write_text(json.dumps(objects, indent=1))
    assert read_dialogue_nli(tmp_path, "valid") == wanted
    lines.write_text("\n".join(map(json.dumps, objects)) + "\n\n")
    assert read_dialogue_nli(tmp_path, "valid") == wanted
    text.write_text("i ski .</s>i like snow .</s>positive\n\nhi</s>i am old .</s>negative\n")
    lines.unlink()
    assert read_dialogue_nli(tmp_path, "valid") == wanted


@pytest.mark.parametrize(
    "name, text, sentence",
    [
        ("nli-train.txt", "a</s>b</s>neutral\na</s>b\n", r":2: found 'a</s>b' of 2 columns, want"),
        ("nli-train.txt", "a</s>b</s>maybe\n", ":1: found the label 'maybe', want positive, neu"),
        ("nli-train.txt", "a</s> </s>neutral\n", ":1: found an empty text"),
        ("nli-train.txt", "\n", ":1: found an empty file"),
        ("dialogue_nli_train.jsonl", '{"sentence1": "a"}\n', ":1: found .*, want an object with"),
        ("dialogue_nli_train.jsonl", '{"sent\n', ":1: found .*, which is no JSON"),
        ("dialogue_nli_train.jsonl", "[1]", ": entry 1: found '1', want an object"),
        ("dialogue_nli_train.jsonl", "[\n{},\n{", ":3: found no JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name + sentence) as raised:
        read_dialogue_nli(tmp_path, "train")
    assert "\n" not in str(raised.value)
