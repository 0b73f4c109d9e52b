"""Packs dialogues of token ids into one row: each dialogue is a trunk with branches.

A causal decoder predicts all replies of a dialogue in one pass over its trunk. A
branch leaves the trunk after one of its tokens, to ask for the persona there: its
tokens see the trunk up to that token, and themselves.

Axes: T slot of the row, U predicted token.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import struct

from mtml_jax.types import Tokens


@struct.dataclass
class Row(Tokens):
    """Dialogues laid side by side; who sees whom follows from these integers alone.

    Attributes:
      ids: int32 [..., T] token ids.
      segment: int32 [..., T], the number of the dialogue, counted from 1; 0 for padding.
      position: int32 [..., T], counted from 0 in each trunk; a branch continues the
        count of the tokens that it sees.
      branch: int32 [..., T], 0 on the trunk; branches of a dialogue are counted from 1.
      fork: int32 [..., T], the number of trunk tokens that a branch's token sees; 0 on
        the trunk.
    """

    branch: jax.Array
    fork: jax.Array


@struct.dataclass
class NextTokens:
    """Tokens to predict from a row.

    Attributes:
      slot: int32 [..., U], the slot of the row whose hidden state predicts the token.
      ids: int32 [..., U], the token.
      task: int32 [..., U], an index into `strategies.TASKS`.
      segment: int32 [..., U], the number of the dialogue, counted from 1; 0 for padding.
    """

    slot: jax.Array
    ids: jax.Array
    task: jax.Array
    segment: jax.Array


class RowExamples(NamedTuple):
    """The dialogues of one persona, as a causal decoder reads them; a pytree."""

    row: Row  # [..., T]
    targets: NextTokens  # [..., U]
    # [..., T, D] the hidden states after the layers that no adapter changes, where they are known
    frozen: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Strand:
    """The trunk of a dialogue, or one of its branches.

    Attributes:
      ids: token ids.
      predicted: the indices into `ids` of the tokens to predict.
      task: an index into `strategies.TASKS`, the task of the predicted tokens.
      fork: the number of trunk tokens that a branch sees; 0 for the trunk.
    """

    ids: tuple[int, ...]
    predicted: tuple[int, ...] = ()
    task: int = 0
    fork: int = 0


def pack_row(
    dialogues: Sequence[Sequence[Strand]], slots: int, predicted: int
) -> RowExamples:
    """Lays dialogues side by side in one row.

    Args:
      dialogues: the trunk of each dialogue, followed by its branches.
      slots: the number of slots of the row, T.
      predicted: the number of tokens to predict, U.

    Returns:
      RowExamples of numpy arrays; unused slots are padding.

    Raises:
      ValueError: the dialogues do not fit, a branch leaves beyond the end of its trunk,
        or a predicted token has no token before it.
    """
    columns: dict[str, list[int]] = {
        name: [] for name in ("ids", "segment", "position", "branch", "fork")
    }
    targets: dict[str, list[int]] = {name: [] for name in ("slot", "ids", "task", "segment")}
    for segment, strands in enumerate(dialogues, start=1):
        trunk_begin = len(columns["ids"])
        for branch, strand in enumerate(strands):
            fork = strand.fork
            if fork > len(strands[0].ids) or (branch == 0 and fork):
                raise ValueError(
                    f"expected fork 0 for a trunk and at most the {len(strands[0].ids)} tokens of "
                    f"the trunk for a branch, got fork {fork} for strand {branch}"
                )
            begin = len(columns["ids"])
            count = len(strand.ids)
            columns["ids"] += strand.ids
            columns["segment"] += [segment] * count
            columns["position"] += range(fork, fork + count)
            columns["branch"] += [branch] * count
            columns["fork"] += [fork] * count
            for index in strand.predicted:
                if index + fork == 0:
                    raise ValueError(
                        "expected a token before each predicted token, got a prediction of the "
                        f"first token of dialogue {segment}"
                    )
                # The first token of a branch is predicted by the trunk token that it leaves.
                targets["slot"].append(begin + index - 1 if index else trunk_begin + fork - 1)
                targets["ids"].append(strand.ids[index])
                targets["task"].append(strand.task)
                targets["segment"].append(segment)
    for name, values, room in (
        ("slots", columns["ids"], slots),
        ("predicted", targets["ids"], predicted),
    ):
        if len(values) > room:
            raise ValueError(
                f"expected dialogues that fit into a row, got {len(values)} tokens for {name} "
                f"{room}; raise {name} or pack fewer dialogues"
            )
    return RowExamples(Row(**_padded(columns, slots)), NextTokens(**_padded(targets, predicted)))


def _padded(columns, length):
    return {
        name: np.array(values + [0] * (length - len(values)), np.int32)
        for name, values in columns.items()
    }
