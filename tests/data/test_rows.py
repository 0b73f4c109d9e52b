"""Rows of dialogues: where tokens come to lie, what predicts what, what does not fit."""

import numpy as np
import pytest

from mtml_jax.data.rows import Strand, pack_row

FIRST = (Strand((11, 12, 13, 14), predicted=(1, 3)), Strand((21, 22), (0, 1), task=1, fork=2))
SECOND = (Strand((31, 32, 33), predicted=(2,)), Strand((41,), (0,), task=1, fork=3))


def test_dialogues_lie_side_by_side():
    row, targets, _ = pack_row([FIRST, SECOND], slots=12, predicted=7)
    wanted = {
        "ids": [11, 12, 13, 14, 21, 22, 31, 32, 33, 41, 0, 0],
        "segment": [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0],
        "position": [0, 1, 2, 3, 2, 3, 0, 1, 2, 3, 0, 0],
        "branch": [0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0],
        "fork": [0, 0, 0, 0, 2, 2, 0, 0, 0, 3, 0, 0],
    }
    for name, values in wanted.items():
        np.testing.assert_array_equal(getattr(row, name), values, name)
        assert getattr(row, name).dtype == np.int32
    wanted = {
        "slot": [0, 2, 1, 4, 7, 8, 0],  # a branch's first token is predicted by the trunk
        "ids": [12, 14, 21, 22, 33, 41, 0],
        "task": [0, 0, 1, 1, 0, 1, 0],
        "segment": [1, 1, 1, 1, 2, 2, 0],
    }
    for name, values in wanted.items():
        np.testing.assert_array_equal(getattr(targets, name), values, name)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="got 10 tokens for slots 9; raise slots or"):
        pack_row([FIRST, SECOND], slots=9, predicted=7)
    with pytest.raises(ValueError, match="got 6 tokens for predicted 5; raise predicted"):
        pack_row([FIRST, SECOND], slots=10, predicted=5)
    with pytest.raises(
        ValueError, match="at most the 4 tokens of the trunk.*got fork 5 for strand 1"
    ):
        pack_row([(FIRST[0], Strand((1,), fork=5))], 12, 7)
    with pytest.raises(ValueError, match="got fork 1 for strand 0"):
        pack_row([(Strand((1, 2), fork=1),)], 12, 7)
    with pytest.raises(ValueError, match="prediction of the first token of dialogue 2"):
        pack_row([FIRST, (Strand((1, 2), predicted=(0,)),)], 12, 7)
