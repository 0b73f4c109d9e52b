"""Tests the comparison of persona groupings: the Rand index by hand."""

import pytest

from mtml_jax.data.compare_groupings import adjusted_rand_index, compare_groupings
from mtml_jax.data.records import Dialogue, Turn


def dialogue(conversation, statements):
    return Dialogue(conversation, "", tuple(statements), (Turn("", f"hi {conversation}"),))


def test_rand_index_by_hand():
    # 3 of 10 pairs are together on the left (aaa), 2 on the right (xx, yy), 1 on both
    # (items 0 and 1): expected 3 * 2 / 10 = 0.6, (1 - 0.6) / ((3 + 2) / 2 - 0.6).
    assert adjusted_rand_index("aaabc", "xxyyz") == pytest.approx(0.4 / 1.9, abs=1e-15)
    assert adjusted_rand_index("aabbc", "yyxxz") == 1.0
    assert adjusted_rand_index("abcd", "wxyz") == adjusted_rand_index("aaa", "xxx") == 1.0
    assert adjusted_rand_index("aabb", "xyxy") == pytest.approx(-0.5)


@pytest.mark.parametrize("labels", [("a", "b"), ("aa", "aaa")])
def test_rand_index_wants_pairs(labels):
    with pytest.raises(ValueError, match="expected the same number of labels in both groupings, two or more"):
        adjusted_rand_index(*labels)


def test_groupings_are_compared_over_shared_sets():
    dialogues = [dialogue(str(n), words) for n, words in enumerate(["abc", "abd", "efg", "xyz"])]
    clusters = {"1": [["c.", "a", "b ."], ["A", "b", "d"]], "2": [["e", "f", "g"]], "3": [["q"]]}
    assert compare_groupings(dialogues, clusters) == {
        "sets": 4, "shared": 3, "personas": 2, "clusters": 2, "adjusted_rand_index": 1.0,
    }  # fmt: skip
    assert compare_groupings(dialogues, {"1": [["q"]]})["adjusted_rand_index"] is None
