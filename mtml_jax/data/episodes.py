"""Dialogues as ids, examples packed into tiles, and episodes as a function of (seed, step)."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from mtml_jax.config import TileShape
from mtml_jax.data.records import Dialogue, Persona, Turn
from mtml_jax.data.text import persona_text
from mtml_jax.data.vocab import END, SILENCE, START, START_PERSONA, Vocabulary
from mtml_jax.strategies import TASKS
from mtml_jax.types import Episode, Examples, Targets, Tiles, Tokens

SMALL_TILES = 4  # of the second kind, at most, for one dialogue


@dataclasses.dataclass(frozen=True)
class Example:
    """One turn as ids.

    Attributes:
      context: what was said so far, both speakers, oldest first.
      response: the reply, end-of-sequence last; empty where only the persona is to be learnt.
      persona: all statements of the dialogue, end-of-sequence last; empty where there are
        none, or only the response is to be learnt.
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
      tasks: the sets of tasks that examples will be packed for.
      persona_context: what statements are reconstructed from: what "both" said before a
        reply, or what their "own" speaker said (proposed in section 3.5.2); then a turn
        makes two examples, one a task.
    """

    vocabulary: Vocabulary
    shape: TileShape
    persona_in_context: bool = False
    tasks: tuple[tuple[str, ...], ...] = (TASKS,)
    persona_context: str = "both"


class _Examples(Sequence):
    """The examples of a dialogue; as ids they would take more room than as text on disk."""

    __slots__ = ("_dialogue", "_encoding")

    def __init__(self, dialogue: Dialogue, encoding: Encoding):
        self._dialogue, self._encoding = dialogue, encoding

    def _made(self) -> tuple[Example, ...]:
        return encode_dialogue(self._dialogue, self._encoding)[0]

    def __len__(self):
        return len(self._dialogue.turns) * (2 if self._encoding.persona_context == "own" else 1)

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
      truncated to fit, beside "examples", the number of all, and "tiles", the most
      that a dialogue takes).
    """
    counts: collections.Counter = collections.Counter()
    encoded, tiles = [], 0
    for persona in personas:
        for dialogue in persona.dialogues:
            examples, cut = encode_dialogue(dialogue, encoding)
            counts.update(cut)
            for tasks in encoding.tasks:
                tiles = max(tiles, len(_fill(examples, encoding.shape, tasks)))
        late = (EncodedDialogue(d.conversation, _Examples(d, encoding)) for d in persona.dialogues)
        encoded.append(EncodedPersona(persona.name, tuple(late)))
    counts["tiles"] = tiles
    return encoded, counts


def encode_dialogue(
    dialogue: Dialogue, encoding: Encoding
) -> tuple[tuple[Example, ...], collections.Counter]:
    """Turns one dialogue into examples; and counts the turns and what was truncated."""
    if encoding.persona_context == "own":
        together = dataclasses.replace(encoding, persona_context="both")
        heard, cut = encode_dialogue(dialogue, together)
        alone, _ = encode_dialogue(own_side(dialogue), together)
        return (
            *(dataclasses.replace(e, persona=()) for e in heard),
            *(dataclasses.replace(e, response=()) for e in alone),
        ), cut
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


def own_side(dialogue: Dialogue) -> Dialogue:
    """The dialogue without what the other side says."""
    return dataclasses.replace(dialogue, turns=tuple(Turn("", t.response) for t in dialogue.turns))


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
    tasks: tuple[Sequence[str], Sequence[str]] = (TASKS, TASKS),
    distinct_start: bool = False,
) -> Episode:
    """Packs support and query of each triple, for the tasks of each of the two; fields get a
    leading persona axis."""
    packed = [
        [
            pack(d.examples, shape, tiles, tasks=some, distinct_start=distinct_start)
            for d, some in zip(sides, tasks)
        ]
        for _, *sides in triples
    ]
    support, query = (stack(column) for column in zip(*packed))
    return Episode(support, query)


def stack(examples: Sequence[Examples]) -> Examples:
    """Stacks equal shapes along a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def pack(
    examples: Sequence[Example],
    shape: TileShape,
    tiles: int,
    *,
    tasks: Sequence[str] = TASKS,
    distinct_start: bool = False,
) -> Examples:
    """Lays examples into tiles, longest context first, each where it fits tightest.

    Where the shape has a second, small kind of tile, the cheapest mixture of both is taken.

    Args:
      examples: each fits a tile.
      shape: slots of a tile.
      tiles: number of tiles N, at least `tiles_needed`; there are `SMALL_TILES` small ones.
      tasks: whose targets are laid in; an example without any is left out.
      distinct_start: whether the persona task has a start token of its own.

    Returns:
      Examples of int32 arrays.

    Raises:
      ValueError: if they need more than `tiles`.
    """
    layout = _layout(examples, shape, tasks)
    kinds = [(shape, tiles)] + ([(shape.small, SMALL_TILES)] if shape.small else [])
    starts = {"response": START, "persona": START_PERSONA if distinct_start else START}
    packed = []
    for kind, (size, count) in enumerate(kinds):
        mine = [members for n, members in layout if n == kind]
        if len(mine) > count:
            raise ValueError(f"got examples for {len(mine)} tiles, there is room for {count}")
        context = np.zeros((3, count, size.rows, size.context), np.int32)
        targets = np.zeros((5, count, _target_slots(size, tasks)), np.int32)
        for n, members in enumerate(mine):
            row_ends, end = [0] * size.rows, 0
            for segment, (row, example) in enumerate(members, start=1):
                row_ends[row] = _write(context[:, n, row], row_ends[row], segment, example.context)
                for task in tasks:
                    ids, begin = getattr(example, task), end
                    end = _write_target(targets[:, n], begin, segment, starts[task], ids)
                    targets[4, n, begin:end] = TASKS.index(task)
        packed.append(
            Tiles(Tokens(*context), Targets(Tokens(*targets[:3]), targets[3], targets[4]))
        )
    return tuple(packed)


def occupied_slots(examples: Examples) -> np.ndarray:
    """Slots of tiles in use, for each entry of the leading axis: what is worked on."""
    slots = 0
    for tiles in examples:
        *_, rows, width = tiles.context.ids.shape
        used = np.any(tiles.context.segment, axis=(-1, -2)).sum(axis=-1)
        slots = slots + used * (rows * width + tiles.targets.ids.shape[-1])
    return slots


def pack_rows(contexts: Sequence[Sequence[int]], slots: int, rows: int) -> Tokens:
    """Lays contexts one a row, for decoding: Tokens [rows, slots] of int32 arrays."""
    ids, segment = np.zeros((2, rows, slots), np.int32)
    for row, context in enumerate(contexts):
        ids[row, : len(context)] = context
        segment[row, : len(context)] = 1
    return Tokens(ids, segment, np.tile(np.arange(slots, dtype=np.int32), (rows, 1)))


def tiles_needed(
    dialogues: Iterable[EncodedDialogue], shape: TileShape, tasks: Sequence[str] = TASKS
) -> int:
    """The largest number of tiles of `shape` that one of the dialogues takes."""
    return max(len(_fill(d.examples, shape, tasks)) for d in dialogues)


def _layout(examples, shape, tasks):
    """Tiles as (kind, list of (row, example)): the mixture of both kinds of the least work."""
    kinds = (shape, shape.small)
    counts = range(SMALL_TILES + 1 if shape.small else 1)
    return min(
        (_fill(examples, shape, tasks, count) for count in counts),
        key=lambda tiles: sum(_work(kinds[kind], tasks) for kind, _ in tiles),
    )


def _fill(examples, shape, tasks, small=0):
    """Fills up to `small` small tiles, and as many of the other kind as it takes."""
    kinds = (shape, shape.small)
    tiles, room = [], []  # room: free slots of each row, and of the targets

    def open_tile(kind):
        tiles.append((kind, []))
        rows = [kinds[kind].context] * kinds[kind].rows
        room.append((rows, [_target_slots(kinds[kind], tasks)]))

    def wanted(example):
        return len(example.context), sum(len(getattr(example, task)) for task in tasks)

    for _ in range(small):
        open_tile(1)
    for example in sorted(examples, key=wanted, reverse=True):
        context, targets = wanted(example)
        if not targets:
            continue  # nothing is learnt from it
        fitting = [
            (free, sum(rows) + left[0], n, row)
            for n, (rows, left) in enumerate(room)
            for row, free in enumerate(rows)
            if free >= context and left[0] >= targets
        ]
        if fitting:
            *_, n, row = min(fitting)
        else:
            n, row = len(tiles), 0
            open_tile(0)
        rows, left = room[n]
        rows[row] -= context
        left[0] -= targets
        tiles[n][1].append((row, example))
    return [tile for tile in tiles if tile[1]]


def _target_slots(shape, tasks):
    return sum(getattr(shape, task) for task in tasks)


def _work(shape, tasks):
    """Of one tile; a target passes cross-attention and the output matrix beside the rest."""
    return shape.rows * shape.context + 1.4 * _target_slots(shape, tasks)


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
