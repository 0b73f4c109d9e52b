"""Generates the demo corpus: invented speakers with known facts, from a random seed."""

import functools
import random
from typing import NamedTuple

from mtml_jax.data.demo_speakers import SIZES, Speaker, chance, shuffled, speakers
from mtml_jax.data.demo_talk import Talk, Utterance
from mtml_jax.data.records import Dialogue, both_sides


class _Conversation(NamedTuple):
    """Two speakers, the opener first, and their alternating utterances."""

    name: str
    speakers: tuple[Speaker, Speaker]
    utterances: tuple[Utterance, ...]


def demo_corpus(split: str, seed: int = 0) -> list[Dialogue]:
    """Generates the dialogues of one split; the two sides of a conversation are adjacent.

    Args:
      split: "train", "valid" or "test".
      seed: random seed of speakers and conversations.

    Returns:
      The dialogues; all dialogues of a speaker have the same statements, and any two
      speakers of the whole corpus share at most one statement.

    Raises:
      ValueError: the split is unknown.
    """
    dialogues = []
    for conversation in _conversations(split, seed):
        statements = {speaker.name: speaker.statements for speaker in conversation.speakers}
        names = list(statements) * len(conversation.utterances)
        said = [(name, utterance.text) for name, utterance in zip(names, conversation.utterances)]
        dialogues += both_sides(conversation.name, said, lambda name: (name, statements[name]))
    return dialogues


def demo_facts(split: str, seed: int = 0) -> dict[str, dict[str, str]]:
    """Returns the facts of every speaker of a split; arguments and errors as for `demo_corpus`.

    Returns:
      Speaker id -> slot ("work", "pet", "food", "place", "hobby", "family") -> key word.
    """
    _check_split(split)
    return {speaker.name: dict(speaker.facts) for speaker in speakers(seed)[split]}


def _check_split(split):
    if split not in SIZES:
        raise ValueError(f"expected split {', '.join(SIZES)}, got {split!r}")


@functools.cache
def _conversations(split, seed):
    """Generates the conversations of one split, with the generator's record of each utterance."""
    _check_split(split)
    rng = random.Random(f"demo {split} {seed}")
    conversations = []
    for first, second in _pairs(rng, speakers(seed)[split], SIZES[split]):
        pair = (first, second) if chance(rng, 0.5) else (second, first)
        name = f"demo-{split}-c{len(conversations):04d}"
        conversations.append(_Conversation(name, pair, Talk(rng, pair).run()))
    return tuple(conversations)


def _pairs(rng, speakers, size):
    """Pairs speakers by the circle method, so that no pair meets twice."""
    fixed, *ring = shuffled(rng, speakers)
    for number in range(size.full_rounds + size.partial_rounds):
        row = [fixed, *ring]
        pairs = list(zip(row[:len(row) // 2], reversed(row)))
        if number >= size.full_rounds:
            pairs = shuffled(rng, pairs)[:int(size.share * len(pairs))]
        yield from pairs
        ring = ring[1:] + ring[:1]
