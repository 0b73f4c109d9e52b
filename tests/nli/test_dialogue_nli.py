"""Tests the readers of Dialogue NLI, and the unrelated pairs."""

import json

import numpy as np
import pytest

from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.personas import group_personas
from mtml_jax.data.records import Dialogue, Persona, Turn
from mtml_jax.nli.dialogue_nli import LabelledPair, read_dialogue_nli, unrelated_pairs


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
        ("nli-train.txt", "a</s>b</s>neutral\na</s>b\n", r":2: expected .*, got 'a</s>b' of 2 columns"),
        ("nli-train.txt", "a</s>b</s>maybe\n", ":1: expected the label positive, neu.*, got 'maybe'"),
        ("nli-train.txt", "a</s> </s>neutral\n", ":1: expected .*, got an empty text"),
        ("nli-train.txt", "\n", ":1: expected .*, got an empty file"),
        ("dialogue_nli_train.jsonl", '{"sentence1": "a"}\n', ":1: expected an object with .*, got "),
        ("dialogue_nli_train.jsonl", '{"sent\n', ":1: expected .*, which is not JSON"),
        ("dialogue_nli_train.jsonl", "[1]", ": entry 1: expected an object .*, got '1'"),
        ("dialogue_nli_train.jsonl", "[\n{},\n{", ":3: expected a JSON list, got no JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name + sentence) as raised:
        read_dialogue_nli(tmp_path, "train")
    assert "\n" not in str(raised.value)


def test_unrelated_pairs_join_strangers():
    personas = group_personas(demo_corpus("train"))
    statements = {p.name: {s for d in p.dialogues for s in d.statements} for p in personas}
    pairs = unrelated_pairs(personas, 41, np.random.default_rng(0))
    assert len(pairs) == 41 and {pair.label for pair in pairs} == {1}
    for reply, statement, _ in pairs:
        sayers = {
            p.name for p in personas for d in p.dialogues for t in d.turns if t.response == reply
        }
        assert any(statement not in statements[name] for name in sayers)
    two_sets = [
        Persona(
            name, tuple(Dialogue(n, "", (name + n,), (Turn("", name),)) for n in ("one", "two"))
        )
        for name in ("ann", "bo")
    ]
    for reply, statement, _ in unrelated_pairs(two_sets, 20, np.random.default_rng(0)):
        assert not statement.startswith(reply)  # not even of another dialogue of theirs
    told = personas[0].dialogues[0]
    same = [Persona(name, (told,)) for name in "ab"]
    with pytest.raises(ValueError, match="expected statements .* for 3 replies, got them for 0"):
        unrelated_pairs(same, 3, np.random.default_rng(0))
