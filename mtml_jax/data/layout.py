"""Lay examples of either model out in arrays: turns in tiles, windows of dialogues in rows.

A batch of examples has a size, which is a tuple of counts: the number of tiles for the Transformer;
for a pretrained decoder the numbers of slots and of predicted tokens.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import RowShape
from mtml_jax.data.encode import Encoding
from mtml_jax.data.packing import occupied_slots as occupied_tiles
from mtml_jax.data.packing import pack, pack_rows, stack, tiles_of
from mtml_jax.data.rows import RowExamples, pack_row
from mtml_jax.data.strands import RowEncoding
from mtml_jax.data.subwords import Subwords
from mtml_jax.data.vocab import Vocabulary
from mtml_jax.types import Examples, Tokens

Size = tuple[int, ...]

ROWS_A_DECODE = 8  # replies that are decoded in one call


def encoding_of(
    config: TrainConfig, vocabulary: Vocabulary | Subwords, *, persona_in_context: bool = False
) -> Encoding | RowEncoding:
    """How a trained model reads dialogues, each of whose replies is a target."""
    if isinstance(config.shape, RowShape):
        assert isinstance(vocabulary, Subwords)
        return RowEncoding(vocabulary, config.shape, persona_in_context, (("response",),), whole=True)
    assert isinstance(vocabulary, Vocabulary)
    return Encoding(
        vocabulary, config.shape, persona_in_context, distinct_start=config.distinct_start
    )


_ROUNDED = 16  # slots and predicted tokens are multiples of it, so that few programs are compiled


def measure(
    examples: Sequence[Any], encoding: Encoding | RowEncoding, tasks: Sequence[str]
) -> Size:
    """The size of the arrays that these examples need with the targets of these tasks."""
    if isinstance(encoding, Encoding):
        return (max(tiles_of(examples, encoding.shape, tasks), 1),)
    strands = [strand for window in examples for strand in window.strands(tasks)]
    slots, predicted = sum(len(s.ids) for s in strands), sum(len(s.predicted) for s in strands)
    return tuple(-(-max(count, 1) // _ROUNDED) * _ROUNDED for count in (slots, predicted))


def largest(sizes: Iterable[Size]) -> Size:
    """The size that has room for each of these; at least one."""
    return functools.reduce(lambda a, b: tuple(map(max, a, b)), sizes)


def lay_out(
    examples: Sequence[Any], encoding: Encoding | RowEncoding, size: Size, tasks: Sequence[str]
) -> Examples | RowExamples:
    """Lays examples out in arrays of a size, with the targets of these tasks.

    Raises:
      ValueError: they need more room.
    """
    if isinstance(encoding, Encoding):
        (tiles,) = size
        starts = encoding.distinct_start
        return pack(examples, encoding.shape, tiles, tasks=tasks, distinct_start=starts)
    return pack_row([window.strands(tasks) for window in examples], *size)


def lay_out_contexts(
    contexts: Sequence[Sequence[int]], encoding: Encoding | RowEncoding, rows: int,
    slots: int | None = None
) -> Tokens:
    """Lays contexts out in rows to decode replies from, one in each row.

    The last token of what a decoder reads is the first token of `decoding`, so that it is not in
    the row. `slots` are those of a decoder's row; None for as many as its rows may have.
    """
    if isinstance(encoding, Encoding):
        return pack_rows(contexts, encoding.shape.context, rows)
    return pack_rows([c[:-1] for c in contexts], slots or encoding.shape.tokens, rows)


def reply_groups(
    examples: Sequence[Any], encoding: Encoding | RowEncoding
) -> list[list[Sequence[int]]]:
    """The contexts of examples' replies, in groups that are decoded in one call.

    Those of a pretrained decoder's group are beginnings of the last one.
    """
    if isinstance(encoding, Encoding):
        parts = [[example.context for example in examples]]
    else:
        parts = [window.contexts() for window in examples]
    return [
        part[i : i + ROWS_A_DECODE] for part in parts for i in range(0, len(part), ROWS_A_DECODE)
    ]


def measure_replies(examples: Sequence[Any], encoding: Encoding | RowEncoding) -> Size:
    """The number of groups of contexts, and the slots that the longest context needs."""
    groups = reply_groups(examples, encoding)
    if isinstance(encoding, Encoding):
        return len(groups), encoding.shape.context
    longest = max((len(context) for group in groups for context in group), default=1)
    return len(groups), -(-longest // _ROUNDED) * _ROUNDED


def lay_out_replies(
    examples: Sequence[Any], encoding: Encoding | RowEncoding, size: Size
) -> Tokens:
    """Lays the contexts of replies out for decoding, with a leading axis of groups.

    Returns:
      Tokens [group, `ROWS_A_DECODE`, S] of the Transformer; of a pretrained decoder ids and
      position [group, S], and segment [group, `ROWS_A_DECODE`, S], which marks beginnings.
    """
    count, slots = size
    groups = reply_groups(examples, encoding)
    groups = [*groups, *([] for _ in range(count - len(groups)))]
    packed = stack([lay_out_contexts(g, encoding, ROWS_A_DECODE, slots) for g in groups])
    if isinstance(encoding, Encoding):
        return packed
    last = [max(len(group) - 1, 0) for group in groups]
    return Tokens(packed.ids[np.arange(count), last], packed.segment, packed.position[:, 0])


def reply_rows(examples: Sequence[Any], encoding: Encoding | RowEncoding) -> list[int]:
    """The place of each reply among those that are decoded from `lay_out_replies`."""
    groups = enumerate(reply_groups(examples, encoding))
    return [g * ROWS_A_DECODE + i for g, group in groups for i in range(len(group))]


def occupied_slots(examples: Examples | RowExamples) -> np.ndarray:
    """Counts the slots that cost work, for each entry of the leading axis."""
    if isinstance(examples, RowExamples):  # padding costs as much as tokens
        return np.full(examples.row.ids.shape[0], examples.row.ids.shape[-1])
    return occupied_tiles(examples)
