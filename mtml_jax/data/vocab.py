"""Words and their ids: building a vocabulary, the persona as text, GloVe vectors."""

import collections
import dataclasses
import functools
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mtml_jax.data.records import Dialogue

SPECIALS = ("<pad>", "<unk>", "<start>", "<start_persona>", "<end>", "<silence>")
PAD, UNK, START, START_PERSONA, END, SILENCE = range(len(SPECIALS))

_UNSEEN_STD = 0.01  # standard deviation of rows without a vector


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The words a model knows; a word's id is its position.

    Attributes:
      words: the specials in the order of `SPECIALS`, then words without whitespace,
        none of them twice.
    """

    words: tuple[str, ...]

    def __post_init__(self):
        if self.words[: len(SPECIALS)] != SPECIALS:
            raise ValueError(
                f"found a vocabulary that begins with {' '.join(self.words[:len(SPECIALS)])!r}, "
                f"want the specials {' '.join(SPECIALS)!r}"
            )
        line_of: dict[str, int] = {}
        for line, word in enumerate(self.words, start=1):
            if word.split() != [word]:
                raise ValueError(f"found {word!r} as word {line} of a vocabulary, want one word")
            if word in line_of:
                raise ValueError(
                    f"found {word!r} as word {line_of[word]} and as word {line} of a vocabulary, "
                    "want every word once"
                )
            line_of[word] = line

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Word to id."""
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of blank-separated words; unknown words become `UNK`.

        A word of the text that is spelt like a special is unknown too: only the
        program sets ends and padding. Text without words has no ids.
        """
        ids = (self.index.get(word, UNK) for word in text.split())
        return [i if i >= len(SPECIALS) else UNK for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the words up to the first `END`, without padding and start tokens."""
        words = []
        for i in ids:
            if i == END:
                break
            if i not in (PAD, START, START_PERSONA):
                words.append(self.words[i])
        return " ".join(words)

    def to_text(self) -> str:
        """Returns one word per line."""
        return "".join(word + "\n" for word in self.words)

    @classmethod
    def from_text(cls, text: str) -> "Vocabulary":
        """Reads what `to_text` returns.

        Raises:
          ValueError: the specials are not first, a word stands twice, or a line is
            not one word.
        """
        return cls(tuple(text.splitlines()))


def persona_text(statements: Iterable[str]) -> str:
    """Joins persona statements into the text that is reconstructed from a dialogue.

    Statements are sorted and lose their full stops; commas and the like become words
    of their own, as they are in the dialogues.

    Args:
      statements: one speaker's statements, in any order.

    Returns:
      Blank-separated words; empty without statements.
    """
    text = " ".join(sorted(statements)).replace(".", " ")
    return " ".join(re.sub(r"([,!?;])", r" \1 ", text).split())


def build_vocabulary(dialogues: Iterable[Dialogue], min_count: int = 2) -> Vocabulary:
    """Collects the words of contexts, replies and persona texts.

    Words are counted in every dialogue, so an utterance counts once as a reply and once
    as a context where the corpus has both sides of a conversation.

    Args:
      dialogues: the train split, and nothing else.
      min_count: occurrences a word needs.

    Returns:
      The specials, then the words by falling count, equal counts in alphabetical order.

    Raises:
      ValueError: no word occurs that often.
    """
    counts: collections.Counter[str] = collections.Counter()
    for dialogue in dialogues:
        for turn in dialogue.turns:
            counts.update(turn.context.split())
            counts.update(turn.response.split())
        counts.update(persona_text(dialogue.statements).split())
    for special in SPECIALS:
        del counts[special]
    kept = [word for word, count in counts.items() if count >= min_count]
    if not kept:
        raise ValueError(
            f"found {len(counts)} words and none of them {min_count} times, "
            "want more dialogues or a smaller min_count"
        )
    return Vocabulary(SPECIALS + tuple(sorted(kept, key=lambda word: (-counts[word], word))))


def load_glove(
    path: str | os.PathLike, vocabulary: Vocabulary, rng_seed: int
) -> tuple[np.ndarray, int]:
    """Reads the vectors of a vocabulary's words from a GloVe text file.

    A line is a word and its numbers; the first line, or a header "count width" before
    it, sets the width G. The file is read line by line and only rows of known words
    are kept. Where a word stands twice the first line counts.

    Args:
      path: the file, of any width.
      vocabulary: V words.
      rng_seed: seed of the rows without a vector, N(0, 0.01^2).

    Returns:
      float32 [V, G] and the number of words that the file covers.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line has another width or no numbers, or no word is covered; the
        message names file, line and flag.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: found no such file, want a GloVe text file at --glove")
    ids = {word.encode(): i for word, i in vocabulary.index.items()}
    rows: dict[int, np.ndarray] = {}
    width = None
    # Bytes split at ASCII blanks alone: words with exotic spaces stay whole, and a
    # word that is not UTF-8 cannot stop the reading.
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
            f"{path}: found none of the vocabulary's {len(vocabulary)} words, "
            "want word vectors of the same language at --glove"
        )
    rng = np.random.default_rng(rng_seed)
    vectors = rng.normal(0.0, _UNSEEN_STD, (len(vocabulary), width)).astype(np.float32)
    for i, row in rows.items():
        vectors[i] = row
    return vectors, len(rows)


def _require_width(fields: list[bytes], width: int, where: str) -> None:
    # Some releases hold words with blanks, such as ". . .": more fields than the width
    # are one word as long as the surplus does not read as numbers.
    surplus = fields[1 : len(fields) - width]
    found = len(fields) - 1
    if width < 1 or found < width or (surplus and all(_is_number(f) for f in surplus)):
        raise ValueError(
            f"{where}: found {found} numbers, want {max(width, 1)} as on the lines before; "
            "--glove wants a whole GloVe text file"
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
                f"{where}: found {field.decode(errors='replace')!r}, want a number in every "
                "column of --glove after the first"
            )
    return np.array([float(field) for field in fields], np.float32)
