"""Defines the units of a corpus: a turn, a dialogue seen from one side, and a persona."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what the other speaker just said, and the reply.

    Attributes:
      context: the other speaker's utterance, blank-separated tokens; empty when
        the speaker opens the dialogue.
      response: the speaker's reply, blank-separated tokens.
      written: (context, response) as they were written, where that is known.
    """

    context: str
    response: str
    written: tuple[str, str] | None = dataclasses.field(default=None, compare=False, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation seen from one of its two sides.

    Attributes:
      conversation: id shared by both sides of the same conversation, so that
        the two sides never meet in one episode.
      speaker: id of the speaker; empty if the corpus has no speaker ids.
      statements: the speaker's persona statements, in corpus order.
      turns: the exchanges in order; those of a large corpus are read from disk on access.
    """

    conversation: str
    speaker: str
    statements: tuple[str, ...]
    turns: Sequence[Turn]


@dataclasses.dataclass(frozen=True)
class Persona:
    """One speaker with all of their dialogues.

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


def utterances(turns: Iterable[Turn]) -> tuple[str, ...]:
    """Returns what both speakers say, in order; an empty context is no utterance."""
    texts = (text for turn in turns for text in (turn.context, turn.response))
    return tuple(text for text in texts if text)


def both_sides(
    conversation: str,
    said: Sequence[tuple[str, str]],
    who: Callable[[str], tuple[str, tuple[str, ...]]],
    written: Sequence[str] | None = None,
) -> list[Dialogue]:
    """Returns a conversation as seen from each of its two sides.

    Args:
      conversation: its id.
      said: alternating (speaker, tokens) pairs of two speakers.
      who: speaker -> (id, persona statements).
      written: the same utterances as they were written, if that is known.

    Returns:
      Dialogues in the order in which the speakers first speak.
    """
    texts = [text for _, text in said]
    as_written = list(zip(["", *written], written)) if written else [None] * len(texts)
    sides = []
    for first, (speaker, _) in enumerate(said[:2]):
        turns = map(Turn, ["", *texts][first::2], texts[first::2], as_written[first::2])
        sides.append(Dialogue(conversation, *who(speaker), tuple(turns)))
    return sides
