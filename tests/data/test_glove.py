"""Tests the reading of GloVe files of every kind."""

import numpy as np
import pytest

from mtml_jax.data.glove import load_glove
from mtml_jax.data.parlai import find_split, read_parlai
from mtml_jax.data.vocab import SPECIALS, Vocabulary, build_vocabulary


@pytest.fixture
def vocabulary():
    return Vocabulary(SPECIALS + ("gull", "sea", "café"))


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
    ("sea 1 2 3\nowl 1 2 3\ngull 1 2\n", 3, ["numbers", "got 2", "expected 3"]),
    ("sea 1 2 3\nowl 1 2 3 4\n", 2, ["numbers", "got 4", "expected 3"]),
    ("5 4\nsea 1 2 3\n", 2, ["numbers", "got 3", "expected 4"]),
    ("sea 1 2 3\ngull\n", 2, ["numbers", "got 0", "expected 3"]),
    ("sea\n", 1, ["numbers", "got 0", "expected 1"]),
    ("5 0\nsea 1\n", 2, ["numbers", "got 1", "expected 1"]),
    ("owl 1 2\nsea 1 x2\n", 2, ["'x2'", "expected a number"]),
    ("sea 1 nan\n", 1, ["'nan'", "expected a number"]),
])
def test_glove_errors_name_file_and_line(load, tmp_path, text, line, parts):
    with pytest.raises(ValueError) as error:
        load(text)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'vectors.txt'}:{line}: expected ")
    assert "--glove" in message and "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("text", ["", "owl 1 2\n", "2 2\n"])
def test_glove_must_cover_a_word(load, tmp_path, text):
    with pytest.raises(ValueError, match="expected vectors of the vocabulary's 9 words at --glove, got none"):
        load(text)


def test_a_missing_glove_file_is_named(tmp_path, vocabulary):
    for path in (tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            load_glove(path, vocabulary, 0)
        assert str(error.value).startswith(f"{path}: expected a GloVe text file at --glove, got no such file")
        assert "--glove" in str(error.value)


@pytest.mark.long
def test_real_vectors(shared_data):
    dialogues, _ = read_parlai(find_split(shared_data / "personachat", "train"))
    vocabulary = build_vocabulary(dialogues)
    path = shared_data / "glove" / "glove.6B.100d.personachat.txt"
    vectors, covered = load_glove(path, vocabulary, 0)
    assert vectors.shape == (10_560, 100) and covered == 10_137
    with path.open(encoding="utf-8") as lines:
        word, *numbers = next(lines).split()
    np.testing.assert_array_equal(vectors[vocabulary.index[word]], np.float32(numbers))
