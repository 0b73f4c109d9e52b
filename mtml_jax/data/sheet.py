"""Counts what a corpus contains and what may be wrong with it: the data sheet."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtml_jax.config import TileShape, TrainConfig
from mtml_jax.data.encode import Encoding
from mtml_jax.data.personas import group_personas, require_conversations, require_statements
from mtml_jax.data.prepare import encode_personas
from mtml_jax.data.records import Dialogue, Persona, utterances
from mtml_jax.data.text import persona_text
from mtml_jax.data.vocab import SPECIALS, Vocabulary, build_vocabulary

PERCENTILES = (50, 90, 99, 100)
LENGTHS = {
    "context": "tokens of a context, all utterances before a reply",
    "response": "tokens of a reply, including end-of-sequence",
    "persona": "tokens of a dialogue's statements, including end-of-sequence",
    "turns": "turns of a dialogue",
    "dialogues": "dialogues of a persona",
}


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The data sheet of a corpus.

    Attributes:
      numbers: numbers and texts by name, ready for JSON.
      lengths: split -> quantity of `LENGTHS` -> every value.
    """

    numbers: dict[str, Any]
    lengths: dict[str, dict[str, list[int]]]


def data_sheet(
    splits: Mapping[str, Sequence[Dialogue]], config: TrainConfig, strategies: Iterable[str]
) -> Sheet:
    """Counts what the splits of a corpus contain.

    Unknown words are those outside the vocabulary that training would build from the train
    split, or from the first split if there is no train.

    Args:
      splits: split -> dialogues; at least one.
      config: gives the sizes at which examples are cut, the meta-batch and the minimum count.
      strategies: strategies for which the data are checked.

    Raises:
      ValueError: the dialogues have neither speakers nor statements to form personas.
    """
    vocabulary = build_vocabulary(
        splits["train"] if "train" in splits else next(iter(splits.values())), config.min_count
    )
    personas = {split: group_personas(dialogues) for split, dialogues in splits.items()}
    lengths = {split: _lengths(people) for split, people in personas.items()}
    numbers = {
        "splits": {
            split: _split_numbers(people, vocabulary, config, lengths[split])
            for split, people in personas.items()
        },
        "vocabulary": len(vocabulary),
        "overlap": [
            {"splits": [one, other], **_overlap(splits[one], splits[other])}
            for one, other in itertools.combinations(splits, 2)
        ],
        "strategies": {name: _refusal(personas, name, config) or "yes" for name in strategies},
    }
    return Sheet(numbers, lengths)


def percentile(ordered: Sequence[int], percent: float) -> int:
    """Returns the smallest value that at least `percent` % of the sorted values do not exceed."""
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def _lengths(personas: Sequence[Persona]) -> dict[str, list[int]]:
    lengths: dict[str, list[int]] = {name: [] for name in LENGTHS}
    for persona in personas:
        lengths["dialogues"].append(len(persona.dialogues))
        for dialogue in persona.dialogues:
            lengths["turns"].append(len(dialogue.turns))
            if dialogue.statements:
                words = len(persona_text(dialogue.statements).split())
                lengths["persona"].append(words + 1)
            said = 0
            for turn in dialogue.turns:
                said += len(turn.context.split())
                reply = len(turn.response.split())
                lengths["context"].append(max(said, 1))  # an empty context is one token
                lengths["response"].append(reply + 1)
                said += reply
    return {name: sorted(values) for name, values in lengths.items()}


def _split_numbers(personas, vocabulary: Vocabulary, config: TrainConfig, lengths):
    dialogues = [dialogue for persona in personas for dialogue in persona.dialogues]
    sides = collections.Counter(dialogue.conversation for dialogue in dialogues)
    replies = collections.Counter(
        word for d in dialogues for turn in d.turns for word in turn.response.split()
    )
    unknown = {
        word: n for word, n in replies.items() if vocabulary.index.get(word, 0) < len(SPECIALS)
    }
    assert isinstance(config.shape, TileShape)
    cut = encode_personas(personas, Encoding(vocabulary, config.shape))[1]
    ids_of_text = collections.defaultdict(set)
    for dialogue in dialogues:
        ids_of_text[hash(utterances(dialogue.turns))].add(dialogue.conversation)
    return {
        "personas": len(personas),
        "usable_personas": len(require_conversations(personas)[0]),
        "conversations": len(sides),
        "seen_from_one_side": sum(count == 1 for count in sides.values()),
        "dialogues": len(dialogues),
        "without_statements": sum(not dialogue.statements for dialogue in dialogues),
        "turns": len(lengths["context"]),
        "lengths": {
            name: {str(p): percentile(values, p) for p in PERCENTILES}
            for name, values in lengths.items()
            if values
        },
        "reply_tokens": replies.total(),
        "reply_words": len(replies),
        "unknown_words": len(unknown),
        "unknown_tokens": sum(unknown.values()),
        "repeated_dialogues": len(dialogues)
        - len({(d.speaker, d.statements, d.turns) for d in dialogues}),
        "texts_under_several_ids": sum(len(ids) > 1 for ids in ids_of_text.values()),
        "cut": {name: cut[name] for name in ("contexts", "responses", "personas")},
    }


def _overlap(one: Sequence[Dialogue], other: Sequence[Dialogue]) -> dict[str, int]:
    """Counts personas in both splits, and dialogues of the first that the second repeats."""
    places = collections.defaultdict(set)
    first = {id(dialogue) for dialogue in one}
    for persona in group_personas([*one, *other]):
        for dialogue in persona.dialogues:
            places[persona.name].add(id(dialogue) in first)
    texts = set().union(*map(_texts, other))
    return {
        "personas": sum(len(sides) == 2 for sides in places.values()),
        "dialogues": sum(not texts.isdisjoint(_texts(dialogue)) for dialogue in one),
    }


def _texts(dialogue: Dialogue) -> set[int]:
    """Hashes the utterances, with and without the last one, which the other side may lack."""
    said = utterances(dialogue.turns)
    return {hash(said), hash(said[:-1])} if len(said) > 2 else {hash(said)}


def _refusal(personas: Mapping[str, Sequence[Persona]], strategy: str, config) -> str:
    """Says why the data do not allow a strategy; empty if they do."""
    for split in ("train", "valid"):
        if split not in personas:
            return f"no: there is no {split} split"
        usable = require_conversations(personas[split])[0]
        wanted = config.meta_batch if split == "train" else 1
        if len(usable) < wanted:
            return (
                f"no: {split} has {len(usable)} personas with two conversations, fewer than "
                f"{wanted}" + (" (--meta_batch)" if split == "train" else "")
            )
        try:
            require_statements(usable, strategy)
        except ValueError as error:
            return f"no: {error}"
    return ""
