"""Tests the data sheet: counts against hand-made corpora."""

import json

import pytest

from mtml_jax.config import TileShape, TrainConfig
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.sheet import data_sheet, percentile

CONFIG = TrainConfig(shape=TileShape(2, 5, 64, 5), meta_batch=2, min_count=1)


def dialogue(conversation, statements="ab", *turns, speaker=""):
    turns = turns or (("", f"hi {conversation}"),)
    return Dialogue(conversation, speaker, tuple(statements), tuple(Turn(*t) for t in turns))


@pytest.mark.parametrize("percent, want", [(0, 1), (50, 3), (60, 3), (61, 4), (100, 5)])
def test_percentile(percent, want):
    assert percentile([1, 2, 3, 4, 5], percent) == want


def test_counts():
    long = [("", "one two three"), ("four five", "six"), ("seven", "eight")]
    train = [
        dialogue("1", ["i row.", "i dig a hole."], *long),
        dialogue("2", ["i row.", "i dig a hole."]),
        dialogue("2", "xy", ("hi", "ho")),
        dialogue("3", "xy"),
        dialogue("9", "xy", *long),
    ]
    valid = [dialogue("4", "pq", ("one", "hi newcomer")), dialogue("5", "pq", ("a", "b"))]
    valid += [valid[1]]
    sheet = data_sheet({"train": train, "valid": valid}, CONFIG, ["paml", "mtml"])
    numbers = sheet.numbers["splits"]["train"]
    assert {k: v for k, v in numbers.items() if isinstance(v, int)} == {
        "personas": 2, "usable_personas": 2, "conversations": 4, "seen_from_one_side": 3,
        "dialogues": 5, "without_statements": 0, "turns": 9, "reply_tokens": 15,
        "reply_words": 9, "unknown_words": 0, "unknown_tokens": 0, "repeated_dialogues": 0,
        "texts_under_several_ids": 1,
    }  # fmt: skip
    assert sheet.lengths["train"]["context"] == [1, 1, 1, 1, 1, 5, 5, 7, 7]
    assert sheet.lengths["train"]["response"] == [2, 2, 2, 2, 2, 3, 3, 4, 4]
    assert sheet.lengths["train"]["persona"] == [3, 3, 3, 7, 7]
    assert sheet.lengths["train"]["dialogues"] == [2, 3]
    assert numbers["lengths"]["turns"] == {"50": 1, "90": 3, "99": 3, "100": 3}
    assert numbers["cut"] == {"contexts": 2, "responses": 0, "personas": 4}
    second = sheet.numbers["splits"]["valid"]
    assert (second["unknown_words"], second["unknown_tokens"]) == (2, 3)
    assert (second["repeated_dialogues"], second["personas"]) == (1, 1)
    assert sheet.numbers["strategies"] == {"paml": "yes", "mtml": "yes"}
    json.dumps(sheet.numbers)


def test_overlap_is_by_persona_rule_and_by_text():
    said = [("", "one"), ("two", "three")]
    train = [dialogue("1", "abc", *said), dialogue("2", "def")]
    valid = [dialogue("7", "bcz", ("one", "two"), ("three", "four")), dialogue("8", "xyw")]
    test = [dialogue("2", "qrs", ("other", "words"))]
    splits = {"train": train, "valid": valid, "test": test}
    found = data_sheet(splits, CONFIG, []).numbers["overlap"]
    assert found == [
        {"splits": ["train", "valid"], "personas": 1, "dialogues": 1},
        {"splits": ["train", "test"], "personas": 0, "dialogues": 0},
        {"splits": ["valid", "test"], "personas": 0, "dialogues": 0},
    ]


def test_strategies_that_cannot_run_say_why():
    told = [dialogue(str(n), "ab", speaker=name) for n in range(2) for name in ("ann", "bo")]
    untold = [dialogue(str(n), "", speaker="cy") for n in range(2)]

    def answers(splits):
        return data_sheet(splits, CONFIG, ["paml", "mtml"]).numbers["strategies"]

    assert "no valid split" in answers({"train": told})["paml"]
    assert "train has 1 personas" in answers({"train": untold, "valid": told})["paml"]
    mixed = answers({"train": told, "valid": untold})
    assert mixed["paml"] == "yes" and "speaker 'cy'" in mixed["mtml"]
