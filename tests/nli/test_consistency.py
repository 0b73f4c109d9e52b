"""The C-score against values worked out by hand."""

import math

import numpy as np
import pytest

from mtml_jax.nli.consistency import consistency, consistency_statistics


def test_consistency_by_hand():
    labels = [[1, 0, -1, 1], [0, -1], [], np.array([1, 1, 0])]
    rows = consistency_statistics(labels)
    assert rows.tolist() == [[1, 4, 2, 1], [1, 2, 0, 1], [1, 0, 0, 0], [1, 3, 2, 0]]
    # Sums over statements 1, -1, 0 and 2, then the mean over four replies.
    assert consistency(rows.sum(axis=0)) == (2 / 4, 4 / 9, 2 / 9)
    assert consistency(rows[1]) == (-1.0, 0.0, 1 / 2)


def test_consistency_of_nothing_is_not_a_number():
    no_reply = consistency(consistency_statistics([]).sum(axis=0))
    assert all(math.isnan(x) for x in no_reply)
    no_pair = consistency(consistency_statistics([[]]).sum(axis=0))
    assert no_pair.c == 0.0 and math.isnan(no_pair.entailment + no_pair.contradiction)


def test_an_unknown_label_is_named():
    with pytest.raises(ValueError, match=r"expected labels -1, 0 or 1, got \[0, 2\] for reply 1"):
        consistency_statistics([[1], [0, 2]])
