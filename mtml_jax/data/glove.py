"""Reads GloVe word vectors for the words of a vocabulary."""

import math
import os
from pathlib import Path

import numpy as np

from mtml_jax.data.vocab import Vocabulary

_UNSEEN_STD = 0.01  # standard deviation of rows without a vector


def load_glove(
    path: str | os.PathLike, vocabulary: Vocabulary, rng_seed: int
) -> tuple[np.ndarray, int]:
    """Reads the vectors of a vocabulary's words from a GloVe text file.

    A line holds a word and its numbers. The width G is that of the first line, or of a
    header "count width". The file is read line by line, and only rows of known words are
    kept; of repeated words the first row is kept.

    Args:
      path: the file, of any width.
      vocabulary: V words.
      rng_seed: seed of the rows of words without a vector, drawn from N(0, 0.01^2).

    Returns:
      (float32 [V, G], the number of words that the file covers).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line has another width or contains no numbers, or no word is covered;
        the message names file, line and flag.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a GloVe text file at --glove, got no such file")
    ids = {word.encode(): i for word, i in vocabulary.index.items()}
    rows: dict[int, np.ndarray] = {}
    width = None
    # Bytes are split only at ASCII blanks: words with exotic spaces stay whole, and a
    # word that is not UTF-8 causes no error.
    with open(path, "rb") as lines:
        for line_number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields:
                continue
            if width is None:
                if line_number == 1 and len(fields) == 2 and all(f.isdigit() for f in fields):
                    width = int(fields[1])
                    continue
                width = len(fields) - 1
            where = f"{path}:{line_number}"
            _require_width(fields, width, where)
            i = ids.get(fields[0]) if len(fields) == width + 1 else None
            if i is not None and i not in rows:
                rows[i] = _numbers(fields[1:], where)
    if not rows or width is None:
        raise ValueError(
            f"{path}: expected vectors of the vocabulary's {len(vocabulary)} words at --glove, got "
            "none of these words; give vectors of the same language"
        )
    rng = np.random.default_rng(rng_seed)
    vectors = rng.normal(0.0, _UNSEEN_STD, (len(vocabulary), width)).astype(np.float32)
    for i, row in rows.items():
        vectors[i] = row
    return vectors, len(rows)


def _require_width(fields: list[bytes], width: int, where: str) -> None:
    # Some releases contain words with blanks, such as ". . .": surplus fields belong to
    # the word unless all of them are numbers.
    surplus = fields[1 : len(fields) - width]
    found = len(fields) - 1
    if width < 1 or found < width or (surplus and all(_is_number(f) for f in surplus)):
        raise ValueError(
            f"{where}: expected {max(width, 1)} numbers as on the earlier lines, got {found}; "
            "give a complete GloVe text file as --glove"
        )


def _is_number(field: bytes) -> bool:
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False


def _numbers(fields: list[bytes], where: str) -> np.ndarray:
    for field in fields:
        if not _is_number(field):
            raise ValueError(
                f"{where}: expected a number in every column of --glove after the first, "
                f"got {field.decode(errors='replace')!r}"
            )
    return np.array([float(field) for field in fields], np.float32)
