"""Compute the C-score: how consistent replies are with persona statements, from NLI labels."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Consistency(NamedTuple):
    """Consistency of replies with persona statements."""

    c: float  # the C-score; NaN without replies
    entailment: float  # share of the pairs (reply, statement) that are entailed; NaN without pairs
    contradiction: float  # share of the pairs that contradict; NaN without pairs


def consistency_statistics(labels: Iterable[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Counts the statistics of consistency.

    Args:
      labels: for each of R replies the NLI labels of its pairs with the statements of the
        dialogue: 1 entailment, 0 neutral, -1 contradiction. Replies may have different
        numbers of statements, and none.

    Returns:
      int64 [R, 4]: replies (always one), pairs, entailments, contradictions.

    Raises:
      ValueError: there is another label.
    """
    rows = []
    for reply, row in enumerate(map(np.asarray, labels)):
        if not np.isin(row, (-1, 0, 1)).all():
            raise ValueError(f"expected labels -1, 0 or 1, got {row.tolist()} for reply {reply}")
        rows.append((1, row.size, np.sum(row == 1), np.sum(row == -1)))
    return np.array(rows, np.int64).reshape(-1, 4)


def consistency(statistics_sum: Sequence[int]) -> Consistency:
    """The C-score: labels summed over a reply's statements, then the mean over replies.

    C(u) = sum over j of NLI(u, p_j), averaged over u (Madotto et al., 2019). It is computed
    from rows of `consistency_statistics` added up, int [4].
    """
    replies, pairs, entailed, contradicted = (float(x) for x in statistics_sum)
    return Consistency(
        (entailed - contradicted) / replies if replies else math.nan,
        entailed / pairs if pairs else math.nan, contradicted / pairs if pairs else math.nan
    )
