"""Maps words to ids and back, and builds a vocabulary from the train split."""

import collections
import dataclasses
import functools
from collections.abc import Iterable
from typing import NamedTuple

from mtml_jax.data.records import Dialogue
from mtml_jax.data.text import persona_text

SPECIALS = ("<pad>", "<unk>", "<start>", "<start_persona>", "<end>", "<silence>")
PAD, UNK, START, START_PERSONA, END, SILENCE = range(len(SPECIALS))


class Symbols(NamedTuple):
    """The tokens that decoding treats in a way of their own; static under jit."""

    pad: int  # stands after the end of a reply
    end: int  # ends a reply
    never: tuple[int, ...]  # tokens that are never emitted


WORDS = Symbols(PAD, END, (PAD, START, START_PERSONA))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The words a model knows; a word's id is its position.

    Attributes:
      words: the specials in the order of `SPECIALS`, then distinct words without
        whitespace.
    """

    words: tuple[str, ...]

    def __post_init__(self):
        if self.words[: len(SPECIALS)] != SPECIALS:
            raise ValueError(
                f"expected a vocabulary that begins with the specials {' '.join(SPECIALS)!r}, "
                f"got {' '.join(self.words[:len(SPECIALS)])!r}"
            )
        line_of: dict[str, int] = {}
        for line, word in enumerate(self.words, start=1):
            if word.split() != [word]:
                raise ValueError(f"expected one word as word {line} of a vocabulary, got {word!r}")
            if word in line_of:
                raise ValueError(
                    "expected every word of a vocabulary once, "
                    f"got {word!r} as word {line_of[word]} and as word {line}"
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

        A word that is spelt like a special becomes `UNK` too, so that no text can insert
        an end or padding. Text without words has no ids.
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
        """Returns the words, one per line."""
        return "".join(word + "\n" for word in self.words)

    @classmethod
    def from_text(cls, text: str) -> "Vocabulary":
        """Parses what `to_text` returns.

        Raises:
          ValueError: the specials are not first, a word is repeated, or a line is
            not one word.
        """
        return cls(tuple(text.splitlines()))


def build_vocabulary(dialogues: Iterable[Dialogue], min_count: int = 2) -> Vocabulary:
    """Collects the words of contexts, replies and persona texts.

    Words are counted in every dialogue. If the corpus has both sides of a conversation,
    an utterance therefore counts twice, as a reply and as a context.

    Args:
      dialogues: the train split alone.
      min_count: occurrences that a word needs.

    Returns:
      The specials, then the words by decreasing count; ties are in alphabetical order.

    Raises:
      ValueError: no word occurs `min_count` times.
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
            f"expected words that occur {min_count} times, got none among {len(counts)} words; "
            "add dialogues or lower --min_count"
        )
    return Vocabulary(SPECIALS + tuple(sorted(kept, key=lambda word: (-counts[word], word))))
