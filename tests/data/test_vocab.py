"""Words and ids, the persona as text, and GloVe files of every kind."""

import dataclasses

import numpy as np
import pytest

from mtml_jax.data.parlai import find_split, read_parlai
from mtml_jax.data.records import Dialogue, Turn
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
    load_glove,
    persona_text,
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
    ([], ["''", "want the specials '<pad> <unk>"]),
    (["sea", "gull"], ["'sea gull'", "want the specials"]),
    (["<unk>", "<pad>", *SPECIALS[2:], "sea"], ["'<unk> <pad> <start>", "want the specials"]),
    ([*SPECIALS[:5], "sea"], ["<end> sea'", "<silence>"]),
    ([*SPECIALS, "sea", "gull", "sea"], ["'sea'", "word 7", "word 9", "once"]),
    ([*SPECIALS, "sea", "<pad>"], ["'<pad>'", "word 1", "word 8", "once"]),
    ([*SPECIALS, "sea", "", "gull"], ["''", "word 8", "want one word"]),
    ([*SPECIALS, "sea gull"], ["'sea gull'", "word 7", "want one word"]),
    ([*SPECIALS, " sea"], ["' sea'", "word 7", "want one word"]),
])
def test_a_broken_vocabulary_is_refused(lines, parts):
    with pytest.raises(ValueError) as error:
        Vocabulary.from_text("\n".join(lines))
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("statements", "text"), [
    ([], ""),
    (["i sing.", "by day, i bake."], "by day , i bake i sing"),
    (["what a cake!.", "cake? yes; ham,jam."], "cake ? yes ; ham , jam what a cake !"),
    (["dr. no  owns 2.5 boats.", "i don't row."], "dr no owns 2 5 boats i don't row"),
])
def test_persona_text(statements, text):
    assert persona_text(statements) == text
    assert persona_text(reversed(statements)) == text


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
    with pytest.raises(ValueError, match=f"found {2 * len(dialogues)} words .* want more dialog"):
        build_vocabulary(dialogues)


@pytest.fixture
def load(tmp_path, vocabulary):
    def write_and_load(text, seed=3):
        path = tmp_path / "vectors.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_glove(path, vocabulary, seed)

    return write_and_load


@pytest.mark.parametrize("text", [
    "sea 1.5 -2 3e-1\nowl 7 7 7\ncafé 0 0.25 1\n",
    "3 3\nsea 1.5 -2 3e-1 \nowl 7 7 7 \ncafé 0 0.25 1 \n",
    "sea\t1.5\t-2\t3e-1\r\n\r\ncafé 0 0.25 1",
    "sea 1.5 -2 3e-1\nsea 9 9 9\ncafé 0 0.25 1\nsea 8 8 8\n",
    "sea 1.5 -2 3e-1\n. . . 4 5 6\ngull at sea 4 5 6\nsea 1 and 4 5 6\ncafé 0 0.25 1\n",
    b"\xff\xfe 1 2 3\nsea 1.5 -2 3e-1\n\xc2\xa0 4 5 6\ncaf\xc3\xa9 0 0.25 1\n",
], ids=["plain", "header", "tabs", "twice", "blanks in words", "odd bytes"])
def test_glove_rows(load, vocabulary, text):
    vectors, covered = load(text)
    assert vectors.shape == (9, 3) and vectors.dtype == np.float32
    assert covered == 2
    np.testing.assert_array_equal(vectors[vocabulary.index["sea"]], np.float32([1.5, -2, 0.3]))
    np.testing.assert_array_equal(vectors[vocabulary.index["café"]], np.float32([0, 0.25, 1]))


def test_words_without_a_vector_are_small_and_seeded(tmp_path, load):
    words = tuple(f"w{i}" for i in range(997))
    path = tmp_path / "vectors.txt"
    path.write_text("w0" + " 5" * 31 + "\n")
    drawn, covered = load_glove(path, Vocabulary(SPECIALS + words), 11)
    assert covered == 1 and drawn.shape == (1003, 31)
    rest = np.delete(drawn, 6, axis=0)
    assert abs(rest.mean()) < 3 * 0.01 / np.sqrt(rest.size)
    assert abs(rest.std() / 0.01 - 1) < 3 / np.sqrt(2 * rest.size)
    np.testing.assert_array_equal(load("sea 1 2\n", 5)[0], load("sea 1 2\n", 5)[0])
    assert not np.array_equal(load("sea 1 2\n", 5)[0], load("sea 1 2\n", 6)[0])
    # Which words a file covers does not change what the others draw.
    np.testing.assert_array_equal(load("sea 1 2\n")[0][:6], load("gull 1 2\n")[0][:6])


@pytest.mark.parametrize(("text", "line", "parts"), [
    ("sea 1 2 3\nowl 1 2 3\ngull 1 2\n", 3, ["found 2 numbers", "want 3"]),
    ("sea 1 2 3\nowl 1 2 3 4\n", 2, ["found 4 numbers", "want 3"]),
    ("5 4\nsea 1 2 3\n", 2, ["found 3 numbers", "want 4"]),
    ("sea 1 2 3\ngull\n", 2, ["found 0 numbers", "want 3"]),
    ("sea\n", 1, ["found 0 numbers", "want 1"]),
    ("5 0\nsea 1\n", 2, ["found 1 numbers", "want 1"]),
    ("owl 1 2\nsea 1 x2\n", 2, ["'x2'", "want a number"]),
    ("sea 1 nan\n", 1, ["'nan'", "want a number"]),
])
def test_glove_errors_name_file_and_line(load, tmp_path, text, line, parts):
    with pytest.raises(ValueError) as error:
        load(text)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'vectors.txt'}:{line}: found ")
    assert "--glove" in message and "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("text", ["", "owl 1 2\n", "2 2\n"])
def test_glove_must_cover_a_word(load, tmp_path, text):
    with pytest.raises(ValueError, match="found none of the vocabulary's 9 words, .*--glove"):
        load(text)


def test_a_missing_glove_file_is_named(tmp_path, vocabulary):
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            load_glove(path, vocabulary, 0)
        assert str(error.value).startswith(f"{path}: found no such file, want")
        assert "--glove" in str(error.value)


def test_real_vocabulary_and_vectors(shared_data):
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
    path = shared_data / "glove" / "glove.6B.100d.personachat.txt"
    vectors, covered = load_glove(path, vocabulary, 0)
    assert vectors.shape == (10_560, 100) and covered == 10_137
    with path.open(encoding="utf-8") as lines:
        word, *numbers = next(lines).split()
    np.testing.assert_array_equal(vectors[vocabulary.index[word]], np.float32(numbers))
