"""Pack examples of different lengths into tiles of fixed shapes."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import jax
import numpy as np

from mtml_jax.config import TileShape
from mtml_jax.data.encode import EncodedDialogue, Example
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.strategies import TASKS
from mtml_jax.types import Examples, Targets, Tiles, Tokens

T = TypeVar("T")

SMALL_TILES = 4  # at most, of the second kind for one dialogue


def pack(
    examples: Sequence[Example],
    shape: TileShape,
    tiles: int,
    *,
    tasks: Sequence[str] = TASKS,
    distinct_start: bool = False,
) -> Examples:
    """Packs examples into tiles, longest context first, each where the least room is left.

    If the shape has a second, small kind of tile, the cheapest mixture of both is chosen.

    Args:
      examples: turns, each of which fits a tile.
      shape: slots of a tile.
      tiles: number of tiles N, at least `tiles_needed`; of the small kind there are
        `SMALL_TILES`.
      tasks: the tasks whose targets are packed; an example without any target is left out.
      distinct_start: whether the persona task has a start token of its own.

    Returns:
      Examples of int32 arrays.

    Raises:
      ValueError: the examples need more tiles.
    """
    layout = _layout(examples, shape, tasks)
    kinds = [(shape, tiles)] + ([(shape.small, SMALL_TILES)] if shape.small else [])
    starts = {"response": START, "persona": START_PERSONA if distinct_start else START}
    packed = []
    for kind, (size, count) in enumerate(kinds):
        mine = [members for n, members in layout if n == kind]
        if len(mine) > count:
            raise ValueError(
                f"expected examples that fit {count} tiles, got some that need {len(mine)}; "
                "pack with more tiles, see tiles_needed"
            )
        context = np.zeros((3, count, size.rows, size.context), np.int32)
        inputs = np.zeros((3, count, _target_slots(size, tasks)), np.int32)
        ids, reads, task_of = np.zeros((3, *inputs.shape[1:]), np.int32)
        for n, members in enumerate(mine):
            row_ends, end, segments = [0] * size.rows, 0, 0
            for number, (row, example) in enumerate(members, start=1):
                row_ends[row] = _write(context[:, n, row], row_ends[row], number, example.context)
                for task in tasks:
                    if not (target := getattr(example, task)):
                        continue
                    begin, segments = end, segments + 1
                    end = _write(inputs[:, n], begin, segments, (starts[task], *target[:-1]))
                    ids[n, begin:end] = target
                    reads[n, begin:end] = number
                    task_of[n, begin:end] = TASKS.index(task)
        packed.append(Tiles(Tokens(*context), Targets(Tokens(*inputs), ids, reads, task_of)))
    return tuple(packed)


def stack(examples: Sequence[T]) -> T:
    """Stacks packed examples, or contexts, of equal shapes along a new leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def pack_rows(contexts: Sequence[Sequence[int]], slots: int, rows: int) -> Tokens:
    """Packs one context per row, for decoding: Tokens [rows, slots] of int32 arrays."""
    ids, segment = np.zeros((2, rows, slots), np.int32)
    for row, context in enumerate(contexts):
        ids[row, : len(context)] = context
        segment[row, : len(context)] = 1
    return Tokens(ids, segment, np.tile(np.arange(slots, dtype=np.int32), (rows, 1)))


def occupied_slots(examples: Examples) -> np.ndarray:
    """Counts the slots of occupied tiles, which cost work, for each entry of the leading axis."""
    slots = 0
    for tiles in examples:
        *_, rows, width = tiles.context.ids.shape
        used = np.any(tiles.context.segment, axis=(-1, -2)).sum(axis=-1)
        slots = slots + used * (rows * width + tiles.targets.ids.shape[-1])
    return slots


def tiles_needed(
    dialogues: Iterable[EncodedDialogue], shape: TileShape, tasks: Sequence[str] = TASKS
) -> int:
    """Returns the largest number of tiles of `shape` that one of the dialogues needs."""
    return max(tiles_of(d.examples, shape, tasks) for d in dialogues)


def tiles_of(examples: Sequence[Example], shape: TileShape, tasks: Sequence[str] = TASKS) -> int:
    """Returns the number of tiles of `shape` that the examples need."""
    return len(_fill(examples, shape, tasks))


def _layout(examples, shape, tasks):
    """Returns tiles as (kind, list of (row, example)): the mixture of kinds with the least work."""
    kinds = (shape, shape.small)
    counts = range(SMALL_TILES + 1 if shape.small else 1)
    return min(
        (_fill(examples, shape, tasks, count) for count in counts),
        key=lambda tiles: sum(_work(kinds[kind], tasks) for kind, _ in tiles),
    )


def _fill(examples, shape, tasks, small=0):
    """Fills up to `small` small tiles, and as many of the other kind as are needed."""
    kinds = (shape, shape.small)
    tiles, room = [], []  # room: free slots of each row, and of the targets

    def open_tile(kind):
        tiles.append((kind, []))
        rows = [kinds[kind].context] * kinds[kind].rows
        room.append((rows, [_target_slots(kinds[kind], tasks)]))

    def size(example):
        return len(example.context), sum(len(getattr(example, task)) for task in tasks)

    for _ in range(small):
        open_tile(1)
    for example in sorted(examples, key=size, reverse=True):
        context, targets = size(example)
        if not targets:
            continue  # there is nothing to learn from it
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
    """Estimates the work of one tile; a target also passes cross-attention and output matrix."""
    return shape.rows * shape.context + 1.4 * _target_slots(shape, tasks)


def _write(slots, begin, segment, ids):
    """Writes ids, segment and position from `begin` on, and returns where they end."""
    end = begin + len(ids)
    slots[0, begin:end] = ids
    slots[1, begin:end] = segment
    slots[2, begin:end] = range(len(ids))
    return end
