"""What a corpus holds and what may be wrong with it, as numbers: the data sheet."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import Encoding
from mtml_jax.data.personas import group_personas, require_conversations, require_statements
from mtml_jax.data.prepare import encode_personas
from mtml_jax.data.records import Dialogue, Persona
from mtml_jax.data.vocab import SPECIALS, Vocabulary, build_vocabulary, persona_text

PERCENTILES = (50, 90, 99, 100)
LENGTHS = {
    "context": "tokens of a context, all that was said before a reply",
    "response": "tokens of a reply, its end included",
    "persona": "tokens of a dialogue's statements, their end included",
    "turns": "turns of a dialogue",
    "dialogues": "dialogues of a persona",
}


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The data sheet of a corpus.

    Attributes:
      numbers: plain numbers and texts by name, fit for JSON.
      lengths: split -> quantity of `LENGTHS` -> every value.
    """

    numbers: dict[str, Any]
    lengths: dict[str, dict[str, list[int]]]


def data_sheet(
    splits: Mapping[str, Sequence[Dialogue]], config: TrainConfig, strategies: Iterable[str]
) -> Sheet:
    """Counts what the splits of a corpus hold.

    Unknown words are those outside the vocabulary that training would build from train
    (from the first split where there is no train).

    Args:
      splits: split -> dialogues; at least one.
      config: whose tiles cut what is too long, and whose meta-batch and minimum count hold.
      strategies: names to try the data on.

    Raises:
      ValueError: personas cannot be told.
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


def adjusted_rand_index(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """The agreement of two groupings of the same items, 1 for equal and about 0 for chance.

    (together - expected) / ((pairs of one + pairs of the other) / 2 - expected), where
    `together` counts the pairs of items that both put together (Hubert and Arabie 1985).

    Args:
      first: a label for every item.
      second: labels of the same items in the same order.

    Raises:
      ValueError: the lengths differ or are below two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"got {len(first)} and {len(second)} labels, want as many in both, two or more"
        )
    together, one, other = (
        sum(math.comb(count, 2) for count in collections.Counter(labels).values())
        for labels in (zip(first, second), first, second)
    )
    expected = one * other / math.comb(len(first), 2)
    largest = (one + other) / 2
    # Where both put all together, or all apart, there is nothing to disagree on.
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def compare_groupings(
    dialogues: Sequence[Dialogue], clusters: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, float | int | None]:
    """Compares which statement sets are one persona with another grouping of them.

    Args:
      dialogues: of one split.
      clusters: label -> statement sets; full stops and spacing do not matter.

    Returns:
      "sets" of the dialogues, how many of them are "shared" with the other grouping, the
      number of groups on either side among those ("personas", "clusters"), and the
      "adjusted_rand_index" over them, None below two.
    """
    theirs: dict[tuple[str, ...], str] = {}
    for label, sets in clusters.items():
        for statements in sets:
            theirs.setdefault(_set_key(statements), label)
    ours: dict[tuple[str, ...], str] = {}
    for persona in group_personas(dialogues):
        for dialogue in persona.dialogues:
            if dialogue.statements:
                ours.setdefault(_set_key(dialogue.statements), persona.name)
    shared = [key for key in ours if key in theirs]
    one, other = [ours[key] for key in shared], [theirs[key] for key in shared]
    return {
        "sets": len(ours),
        "shared": len(shared),
        "personas": len(set(one)),
        "clusters": len(set(other)),
        "adjusted_rand_index": adjusted_rand_index(one, other) if len(shared) > 1 else None,
    }


def percentile(ordered: Sequence[int], percent: float) -> int:
    """The smallest value that at least so many percent do not exceed; `ordered` is sorted."""
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def _set_key(statements: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({persona_text([statement.lower()]) for statement in statements}))


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
                lengths["context"].append(max(said, 1))  # silence is one token
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
    cut = encode_personas(personas, Encoding(vocabulary, config.shape))[1]
    ids_of_text = collections.defaultdict(set)
    for dialogue in dialogues:
        ids_of_text[hash(_utterances(dialogue))].add(dialogue.conversation)
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
        "cut": {
            "contexts": cut["contexts"],
            "responses": cut["responses"],
            "personas": cut["personas"],
        },
    }


def _overlap(one: Sequence[Dialogue], other: Sequence[Dialogue]) -> dict[str, int]:
    """Personas by the corpus's own rule; dialogues of the first whose text the second has too."""
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


def _utterances(dialogue: Dialogue) -> tuple[str, ...]:
    said = (text for turn in dialogue.turns for text in (turn.context, turn.response))
    return tuple(text for text in said if text)


def _texts(dialogue: Dialogue) -> set[int]:
    """Hashes of what is said, whole and without the end: the other side may lack that."""
    said = _utterances(dialogue)
    return {hash(said), hash(said[:-1])} if len(said) > 2 else {hash(said)}


def _refusal(personas: Mapping[str, Sequence[Persona]], strategy: str, config) -> str:
    """Why the data do not allow a strategy; empty where they do."""
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
