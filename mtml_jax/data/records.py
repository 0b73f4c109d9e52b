"""Corpus units as plain Python records: what a reader yields and a grouping collects."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what the other side just said, and what the speaker replied.

    Attributes:
      context: the other speaker's utterance, blank-separated tokens; empty when
        the speaker opens the dialogue.
      response: the speaker's reply, blank-separated tokens.
    """

    context: str
    response: str


@dataclasses.dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation seen from one of its two sides.

    Attributes:
      conversation: id shared by both sides of the same conversation, so that
        they can be kept out of each other's episodes.
      speaker: id of the speaker where the corpus has one, else empty.
      statements: the speaker's persona statements, in corpus order.
      turns: the exchanges in order; of a large corpus they are read when asked for.
    """

    conversation: str
    speaker: str
    statements: tuple[str, ...]
    turns: Sequence[Turn]


@dataclasses.dataclass(frozen=True)
class Persona:
    """One speaker: everything the corpus holds of them.

    Attributes:
      name: a stable, readable id.
      dialogues: the speaker's dialogues, in corpus order.
    """

    name: str
    dialogues: tuple[Dialogue, ...]

    @property
    def conversations(self) -> tuple[str, ...]:
        """Distinct conversation ids, in order of first appearance."""
        return tuple(dict.fromkeys(d.conversation for d in self.dialogues))
