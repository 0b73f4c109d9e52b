"""Tests the vocabulary: ids, round trips, and its construction from a corpus."""

import dataclasses

import numpy as np
import pytest

from mtml_jax.data.parlai import find_split, read_parlai
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.text import persona_text
from mtml_jax.data.vocab import (
    END,
    PAD,
    SILENCE,
    SPECIALS,
    START,
    START_PERSONA,
    UNK,
    Vocabulary,
    build_vocabulary,
)


@pytest.fixture
def vocabulary():
    return Vocabulary(SPECIALS + ("gull", "sea", "café"))


def test_specials_come_first(vocabulary):
    assert (PAD, UNK, START, START_PERSONA, END, SILENCE) == (0, 1, 2, 3, 4, 5)
    assert vocabulary.words[:6] == (
        "<pad>", "<unk>", "<start>", "<start_persona>", "<end>", "<silence>",
    )
    assert len(vocabulary) == 9
    assert vocabulary.index is vocabulary.index
    assert [vocabulary.index[word] for word in vocabulary.words] == list(range(9))
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.words = ()


def test_encode(vocabulary):
    assert vocabulary.encode(" sea\tgull crab  café") == [7, 6, UNK, 8]
    assert vocabulary.encode("") == []


def test_text_cannot_bring_in_specials(vocabulary):
    assert vocabulary.encode("sea <end> <pad> <silence> <unk>") == [7, UNK, UNK, UNK, UNK]


def test_decode_stops_at_the_end_and_skips_what_is_no_word(vocabulary):
    ids = np.array([START, 7, PAD, UNK, START_PERSONA, 8, END, 6], np.int32)
    assert vocabulary.decode(ids) == "sea <unk> café"
    assert vocabulary.decode([START, 6, 6]) == "gull gull"
    assert vocabulary.decode([]) == ""


def test_text_round_trip(vocabulary):
    text = vocabulary.to_text()
    assert text.splitlines() == list(vocabulary.words) and text.endswith("\n")
    assert Vocabulary.from_text(text) == vocabulary
    assert Vocabulary.from_text(text.replace("\n", "\r\n").rstrip()) == vocabulary


@pytest.mark.parametrize(("lines", "parts"), [
    ([], ["''", "the specials '<pad> <unk>"]),
    (["sea", "gull"], ["'sea gull'", "expected a vocabulary that begins with the specials"]),
    (["<unk>", "<pad>", *SPECIALS[2:], "sea"], ["'<unk> <pad> <start>", "expected a vocabulary that begins with the specials"]),
    ([*SPECIALS[:5], "sea"], ["<end> sea'", "<silence>"]),
    ([*SPECIALS, "sea", "gull", "sea"], ["'sea'", "word 7", "word 9", "once"]),
    ([*SPECIALS, "sea", "<pad>"], ["'<pad>'", "word 1", "word 8", "once"]),
    ([*SPECIALS, "sea", "", "gull"], ["''", "word 8", "expected one word"]),
    ([*SPECIALS, "sea gull"], ["'sea gull'", "word 7", "expected one word"]),
    ([*SPECIALS, " sea"], ["' sea'", "word 7", "expected one word"]),
])
def test_a_broken_vocabulary_is_refused(lines, parts):
    with pytest.raises(ValueError) as error:
        Vocabulary.from_text("\n".join(lines))
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def _dialogue(*utterances, statements=()):
    turns = zip(utterances[::2], utterances[1::2], strict=True)
    return Dialogue("c", "", tuple(statements), tuple(Turn(*turn) for turn in turns))


def test_words_are_ordered_by_count_then_alphabet():
    dialogues = [
        _dialogue("", "tea , tea", "rum", "ale ale", statements=["rum, jam.", "zest."]),
        _dialogue("jam", "tea once", statements=["tea."]),
    ]
    words = build_vocabulary(iter(dialogues)).words
    assert words == (*SPECIALS, "tea", ",", "ale", "jam", "rum")
    words = build_vocabulary(dialogues, min_count=1).words
    assert words == (*SPECIALS, "tea", ",", "ale", "jam", "rum", "once", "zest")
    assert build_vocabulary(dialogues, min_count=4).words == (*SPECIALS, "tea")


def test_specials_in_a_corpus_are_not_words():
    assert build_vocabulary([_dialogue("<unk> sea", "<unk> sea")]).words == (*SPECIALS, "sea")


@pytest.mark.parametrize("dialogues", [[], [_dialogue("sea", "gull")]])
def test_a_corpus_without_frequent_words_is_refused(dialogues):
    with pytest.raises(ValueError, match=f"got none among {2 * len(dialogues)} words; add dialog"):
        build_vocabulary(dialogues)


def test_the_real_vocabulary(shared_data):
    folder = shared_data / "personachat"
    dialogues = {split: read_parlai(find_split(folder, split))[0] for split in ("train", "valid")}
    vocabulary = build_vocabulary(dialogues["train"])
    assert len(vocabulary) == 10_560
    assert Vocabulary.from_text(vocabulary.to_text()) == vocabulary
    assert not [word for word in vocabulary.words if len(word) > 1 and set(word) & set(".,!?;")]
    for split, unknown, total in (("train", 38, 133_528), ("valid", 1_613, 60_158)):
        texts = (persona_text(d.statements) for d in dialogues[split])
        ids = [i for text in texts for i in vocabulary.encode(text)]
        assert (ids.count(UNK), len(ids)) == (unknown, total)
