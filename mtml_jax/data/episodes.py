"""Dialogues as ids, examples packed into tiles, and episodes as a function of (seed, step)."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from mtml_jax.config import TileShape
from mtml_jax.data.vocab import END, SILENCE, START, START_PERSONA, Vocabulary, persona_text
from mtml_jax.records import Dialogue, Persona
from mtml_jax.types import Episode, Examples, Targets, Tokens


@dataclasses.dataclass(frozen=True)
class Example:
    """One turn as ids.

    Attributes:
      context: what was said so far, both speakers, oldest first.
      response: the reply, end-of-sequence last.
      persona: all statements of the dialogue, end-of-sequence last; empty
        where there are none.
    """

    context: tuple[int, ...]
    response: tuple[int, ...]
    persona: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedDialogue:
    """A dialogue's conversation id and its turns as ids, made when they are asked for."""

    conversation: str
    examples: Sequence[Example]


@dataclasses.dataclass(frozen=True)
class EncodedPersona:
    """A persona's name and its dialogues as ids."""

    name: str
    dialogues: tuple[EncodedDialogue, ...]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How dialogues become ids.

    Attributes:
      vocabulary: words and ids.
      shape: the tile that an example has to fit into.
      persona_in_context: whether statements stand in front of the context (std_p).
    """

    vocabulary: Vocabulary
    shape: TileShape
    persona_in_context: bool = False


class _Examples(Sequence):
    """The examples of a dialogue; as ids they would take more room than as text on disk."""

    __slots__ = ("_dialogue", "_encoding")

    def __init__(self, dialogue: Dialogue, encoding: Encoding):
        self._dialogue, self._encoding = dialogue, encoding

    def _made(self) -> tuple[Example, ...]:
        return encode_dialogue(self._dialogue, self._encoding)[0]

    def __len__(self):
        return len(self._dialogue.turns)

    def __getitem__(self, index):
        return self._made()[index]

    def __iter__(self):
        return iter(self._made())


def encode_personas(
    personas: Iterable[Persona], encoding: Encoding
) -> tuple[list[EncodedPersona], collections.Counter]:
    """Turns personas into ids.

    Returns:
      (encoded personas, how many of "contexts", "responses" and "personas" were
      truncated to fit, beside "examples", the number of all, and "tiles", the number
      that the largest dialogue takes).
    """
    counts: collections.Counter = collections.Counter()
    encoded, tiles = [], 0
    for persona in personas:
        for dialogue in persona.dialogues:
            examples, cut = encode_dialogue(dialogue, encoding)
            counts.update(cut)
            tiles = max(tiles, len(_layout(examples, encoding.shape)))
        late = (EncodedDialogue(d.conversation, _Examples(d, encoding)) for d in persona.dialogues)
        encoded.append(EncodedPersona(persona.name, tuple(late)))
    counts["tiles"] = tiles
    return encoded, counts


def encode_dialogue(
    dialogue: Dialogue, encoding: Encoding
) -> tuple[tuple[Example, ...], collections.Counter]:
    """Turns one dialogue into examples, one a turn; and counts them and what was truncated."""
    vocabulary, shape = encoding.vocabulary, encoding.shape
    statements = vocabulary.encode(persona_text(dialogue.statements))
    persona = statements + [END] if statements else []
    front = statements if encoding.persona_in_context else []
    history: list[int] = []
    examples = []
    counts: collections.Counter = collections.Counter()
    for turn in dialogue.turns:
        history += vocabulary.encode(turn.context)
        response = vocabulary.encode(turn.response)
        said = history or [SILENCE]
        room = max(shape.context - len(front), 1)
        context = (front + said[-room:])[-shape.context :]
        counts["examples"] += 1
        counts["contexts"] += len(context) < len(front) + len(said)
        counts["responses"] += len(response) + 1 > shape.response
        counts["personas"] += len(persona) > shape.persona
        examples.append(
            Example(
                tuple(context),
                tuple(response[: shape.response - 1] + [END]),
                tuple(persona[: shape.persona]),
            )
        )
        history += response
    return tuple(examples), counts


def sample_episodes(
    personas: Sequence[EncodedPersona], meta_batch: int, seed: int, step: int
) -> list[tuple[EncodedPersona, EncodedDialogue, EncodedDialogue]]:
    """Draws distinct personas, and for each two dialogues of distinct conversations.

    A pure function of its arguments: nothing is carried from step to step, so
    that a run resumes anywhere with the same stream.

    Args:
      personas: at least `meta_batch`, each with two conversations or more.
      meta_batch: number of personas M.
      seed: of the run.
      step: of the episode batch, from 0.

    Returns:
      M triples (persona, support dialogue, query dialogue).
    """
    rng = np.random.default_rng([seed, step])
    chosen = rng.choice(len(personas), size=meta_batch, replace=False)
    triples = []
    for index in chosen:
        persona = personas[index]
        conversations = sorted({d.conversation for d in persona.dialogues})
        pair = rng.choice(len(conversations), size=2, replace=False)
        sides = []
        for conversation in (conversations[i] for i in pair):
            here = [d for d in persona.dialogues if d.conversation == conversation]
            sides.append(here[rng.integers(len(here))])
        triples.append((persona, *sides))
    return triples


def stack_episodes(
    triples: Sequence[tuple[EncodedPersona, EncodedDialogue, EncodedDialogue]],
    shape: TileShape,
    tiles: int,
    *,
    distinct_start: bool = False,
) -> Episode:
    """Packs support and query of each triple; fields get a leading persona axis."""
    packed = [
        [pack(d.examples, shape, tiles, distinct_start=distinct_start) for d in sides]
        for _, *sides in triples
    ]
    support, query = (stack(column) for column in zip(*packed))
    return Episode(support, query)


def stack(examples: Sequence[Examples]) -> Examples:
    """Stacks equal shapes along a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def pack(
    examples: Sequence[Example], shape: TileShape, tiles: int, *, distinct_start: bool = False
) -> Examples:
    """Lays examples into tiles, longest context first, each where it fits tightest.

    Args:
      examples: each fits a tile.
      shape: slots of a tile.
      tiles: number of tiles N, at least `tiles_needed`.
      distinct_start: whether the persona task has a start token of its own.

    Returns:
      Examples of int32 arrays; `persona` is None if no example has one.

    Raises:
      ValueError: if they need more than `tiles`.
    """
    layout = _layout(examples, shape)
    if len(layout) > tiles:
        raise ValueError(f"got examples for {len(layout)} tiles, there is room for {tiles}")
    context = np.zeros((3, tiles, shape.rows, shape.context), np.int32)
    response = np.zeros((4, tiles, shape.response), np.int32)
    persona = np.zeros((4, tiles, shape.persona), np.int32)
    persona_start = START_PERSONA if distinct_start else START
    for n, tile in enumerate(layout):
        row_ends = [0] * shape.rows
        response_end = persona_end = 0
        for segment, (row, example) in enumerate(tile, start=1):
            row_ends[row] = _write(
                context[:, n, row], row_ends[row], segment, example.context
            )
            response_end = _write_target(
                response[:, n], response_end, segment, START, example.response
            )
            persona_end = _write_target(
                persona[:, n], persona_end, segment, persona_start, example.persona
            )
    has_persona = any(example.persona for example in examples)
    return Examples(
        context=Tokens(*context),
        response=Targets(Tokens(*response[:3]), response[3]),
        persona=Targets(Tokens(*persona[:3]), persona[3]) if has_persona else None,
    )


def pack_rows(contexts: Sequence[Sequence[int]], slots: int, rows: int) -> Tokens:
    """Lays contexts one a row, for decoding: Tokens [rows, slots] of int32 arrays."""
    ids, segment = np.zeros((2, rows, slots), np.int32)
    for row, context in enumerate(contexts):
        ids[row, : len(context)] = context
        segment[row, : len(context)] = 1
    return Tokens(ids, segment, np.tile(np.arange(slots, dtype=np.int32), (rows, 1)))


def tiles_needed(dialogues: Iterable[EncodedDialogue], shape: TileShape) -> int:
    """The largest number of tiles that one of the dialogues takes."""
    return max(len(_layout(dialogue.examples, shape)) for dialogue in dialogues)


def _layout(examples, shape):
    """Tiles as lists of (row, example)."""
    tiles: list = []
    room: list = []  # per tile: [free slots of each row], free response, free persona
    for example in sorted(examples, key=lambda e: -len(e.context)):
        size = len(example.context)
        for n, (rows, response, persona) in enumerate(room):
            fitting = [free for free in rows if free >= size]
            if (
                fitting
                and response >= len(example.response)
                and persona >= len(example.persona)
            ):
                break
        else:
            n = len(tiles)
            tiles.append([])
            room.append([[shape.context] * shape.rows, shape.response, shape.persona])
            fitting = room[n][0]
        row = room[n][0].index(min(fitting))
        room[n][0][row] -= size
        room[n][1] -= len(example.response)
        room[n][2] -= len(example.persona)
        tiles[n].append((row, example))
    return tiles


def _write(slots, begin, segment, ids):
    """Writes ids, segment and position from `begin`; returns where they end."""
    end = begin + len(ids)
    slots[0, begin:end] = ids
    slots[1, begin:end] = segment
    slots[2, begin:end] = range(len(ids))
    return end


def _write_target(slots, begin, segment, start, ids):
    end = _write(slots, begin, segment, (start, *ids[:-1]) if ids else ())
    slots[3, begin:end] = ids
    return end
