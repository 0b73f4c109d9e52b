"""The data sheet: counts against hand-made corpora, the Rand index by hand, the page."""

import itertools
import json
import math
import re
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import check_data
from experiments.histogram import histogram_svg
from mtml_jax.config import TileShape, TrainConfig
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.sheet import (
    adjusted_rand_index,
    compare_groupings,
    data_sheet,
    percentile,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIG = TrainConfig(shape=TileShape(2, 5, 64, 5), meta_batch=2, min_count=1)


def dialogue(conversation, statements="ab", *turns, speaker=""):
    turns = turns or (("", f"hi {conversation}"),)
    return Dialogue(conversation, speaker, tuple(statements), tuple(Turn(*t) for t in turns))


def test_rand_index_by_hand():
    # 3 of 10 pairs are together on the left (aaa), 2 on the right (xx, yy), 1 on both
    # (items 0 and 1): expected 3 * 2 / 10 = 0.6, (1 - 0.6) / ((3 + 2) / 2 - 0.6).
    assert adjusted_rand_index("aaabc", "xxyyz") == pytest.approx(0.4 / 1.9, abs=1e-15)
    assert adjusted_rand_index("aabbc", "yyxxz") == 1.0
    assert adjusted_rand_index("abcd", "wxyz") == adjusted_rand_index("aaa", "xxx") == 1.0
    assert adjusted_rand_index("aabb", "xyxy") == pytest.approx(-0.5)


@pytest.mark.parametrize("labels", [("a", "b"), ("aa", "aaa")])
def test_rand_index_wants_pairs(labels):
    with pytest.raises(ValueError, match="want as many in both, two or more"):
        adjusted_rand_index(*labels)


def test_groupings_are_compared_over_shared_sets():
    dialogues = [dialogue(str(n), words) for n, words in enumerate(["abc", "abd", "efg", "xyz"])]
    clusters = {"1": [["c.", "a", "b ."], ["A", "b", "d"]], "2": [["e", "f", "g"]], "3": [["q"]]}
    assert compare_groupings(dialogues, clusters) == {
        "sets": 4, "shared": 3, "personas": 2, "clusters": 2, "adjusted_rand_index": 1.0,
    }  # fmt: skip
    assert compare_groupings(dialogues, {"1": [["q"]]})["adjusted_rand_index"] is None


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


@pytest.mark.parametrize("values", [[0], [3, 3, 5], list(range(1000)), [7] * 12345])
def test_histograms_are_whole_and_self_contained(values):
    text = histogram_svg(values, title="a < b", x_label="tokens & more", y_label="turns", limit=4)
    root = xml.dom.minidom.parseString(text).documentElement
    bars = [r for r in root.getElementsByTagName("rect") if r.getAttribute("fill") == "#0072b2"]
    labels = [b.getElementsByTagName("title")[0].firstChild.data for b in bars]
    counted = [int(label.split(": ")[1].replace(",", "")) for label in labels]
    assert sum(counted) == len(values) and len(bars) <= 40
    heights = [float(bar.getAttribute("height")) for bar in bars]
    for height, count in zip(heights, counted):
        assert height / max(heights) == pytest.approx(count / max(counted), abs=1e-2)
    texts = [t.firstChild.data for t in root.getElementsByTagName("text")]
    assert {"a < b", "tokens & more", "turns"} <= set(texts)
    assert ("cut beyond 4" in texts) == (max(values) >= 4)
    assert all(math.isfinite(float(n)) for n in re.findall(r'="(-?[\d.]+)"', text))
    assert "href" not in text and "url(" not in text


def sheet_of(*paths, **given):
    defaults = {
        "preset": "tiny", "json": False, "html": None, "compare": None, "split_seed": 0,
        "skip_bad": False,
    }  # fmt: skip
    given = SimpleNamespace(**defaults | given)
    return check_data.sheet_of(["check_data", *map(str, paths)], given)


@pytest.fixture
def corpus(tmp_path):
    """Seven speakers, every two in one conversation; one of them is malformed."""
    lines = ["{broken"]
    for one, other in itertools.combinations("abcdefg", 2):
        said = [(one, "Hi!"), (other, f"I know {one}."), (one, "Me too")]
        utterances = [{"speaker": speaker, "text": text} for speaker, text in said]
        lines.append(json.dumps({"conversation": one + other, "utterances": utterances}))
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_the_sheet_of_a_file_is_of_the_splits_that_training_reads(corpus):
    numbers = json.loads(sheet_of(corpus, json=True, skip_bad=True))
    assert [s["personas"] for s in numbers["splits"].values()] == [3, 2, 2]
    assert [o["personas"] for o in numbers["overlap"]] == [0, 0, 0]
    assert "22 conversations, 21 read; 1 skipped (malformed)" in numbers["notes"][0]
    assert "no: train has 3 personas" in numbers["strategies"]["paml"]
    text = sheet_of(corpus, skip_bad=True)
    assert re.search(r"^personas +3 +2 +2$", text, re.MULTILINE)


def test_the_page_needs_nothing_but_itself(corpus, tmp_path):
    sheet_of(corpus, skip_bad=True, html=tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 12  # of four quantities and three splits: nobody has statements
    assert all(xml.dom.minidom.parseString(chart) for chart in charts)
    addresses = set(re.findall(r"""https?://[^"' <]+""", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not fetched
    assert "<script" not in text and "src=" not in text


@pytest.mark.parametrize("paths, given, parts", [
    ([], {}, "0 paths one"),
    (["a", "b"], {}, "2 paths one"),
    (["gone.jsonl"], {}, "gone.jsonl"),
    (["parrots"], {}, "parrots want demo"),
    (["demo"], {"compare": "gone.json"}, "gone.json"),
])  # fmt: skip
def test_mistakes_get_one_sentence(paths, given, parts):
    with pytest.raises(SystemExit) as ended:
        sheet_of(*paths, **given)
    message = str(ended.value)
    assert message.startswith("error: ") and "\n" not in message
    for part in parts.split():
        assert part in message


@pytest.mark.parametrize("text", ["{", "[]", '{"1": ["a"]}', '{"1": [[2]]}', "[" * 100_000])
def test_another_form_of_grouping_is_refused(tmp_path, corpus, text):
    path = tmp_path / "clusters.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="clusters.json: found .* want {label: "):
        sheet_of(corpus, compare=path, skip_bad=True)


def test_the_command_runs():
    line = [sys.executable, "-m", "experiments.check_data", "demo", "--json", "--preset=tiny"]
    done = subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    numbers = json.loads(done.stdout)
    assert [s["personas"] for s in numbers["splits"].values()] == [100, 16, 24]
    assert set(numbers["strategies"].values()) == {"yes"}


def test_the_real_personas_agree_with_other_clusters(shared_data):
    numbers = json.loads(
        sheet_of(
            shared_data / "personachat", json=True,
            compare=shared_data / "persona_maps" / "train.json",
        )
    )  # fmt: skip
    found = numbers["compare"]["train"]
    assert (found["sets"], found["shared"]) == (2836, 2149)
    assert 0.95 < found["adjusted_rand_index"] < 0.96
    assert numbers["splits"]["train"]["lengths"]["context"]["99"] == 203
