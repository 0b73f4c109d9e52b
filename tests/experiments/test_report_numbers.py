"""Tests the estimates of a report: comparisons, equal PPL, formatting, and the style of rows."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_study import PERSONAS, save_study

from experiments.report import comparison, drawing, scores
from experiments.report.cells import read_study
from experiments.report.numbers import Estimate, Numbers, common_range, passing
from experiments.study.rows import GROUPS

RESULTS = Path(__file__).parents[2] / "results"


def test_sentences_say_what_the_numbers_say():
    def told(low, high, *seeds):
        found = Estimate(float(np.mean(seeds)), low, high, dict(enumerate(seeds)))
        return comparison.sentence(found, "A", "B", "c")

    assert told(0.01, 0.3, 0.1, 0.2) == (
        "The difference is 0.150 (95 % interval 0.010 to 0.300). The interval lies above zero: "
        "A is higher than B. 2 of 2 seeds are above zero."
    )
    assert "lies below zero: A is lower than B. 1 of 2 seeds" in told(-0.3, -0.01, -0.2, 0.1)
    assert "contains zero: these runs do not distinguish the two. 1 of 2" in told(-0.1, 0.3, 0.2, -0.1)
    assert "It rests on one seed" in told(-0.1, 0.3, 0.2)
    assert told(math.nan, math.nan, 0.2).endswith("there is no interval because there are too few personas.")


def test_curves_are_compared_where_both_have_been():
    one, other = [(10, 0.0), (6, 0.4), (4, 0.5)], [(12, 0.1), (8, 0.3), (5, 0.6)]
    assert common_range(one, other) == (5, 10)
    assert common_range(one, [(12, 0.1), (11, 0.2)]) is None
    assert passing(one, 8) == pytest.approx(0.2) and passing(one, 4) == 0.5
    assert math.isnan(passing(one, 10.5))
    # Down to 4 and up to 8 again: at 6 the second time counts.
    assert passing([(10, 0.0), (4, 0.6), (8, 1.0)], 6) == pytest.approx(0.8)
    assert passing([(10, 0.0), (4, 0.6), (8, 1.0)], 6, first=True) == pytest.approx(0.4)
    assert passing([(5, 0.1), (5, 0.2)], 5) == 0.2


@pytest.mark.parametrize("shift, span", [(0.0, (5.0, 8.0)), (20.0, None)])
def test_at_equal_ppl_by_hand(tmp_path, shift, span):
    """Both scores fall on lines over PPL, a tenth apart: so is their difference, anywhere."""
    folder = save_study(tmp_path / "x", ["paml", "mtml-0.8"], 2)
    for row, first, last, above in (("paml", 10, 5, 0.0), ("mtml-0.8", 8 + shift, 4 + shift, 0.1)):
        for seed in (0, 1):
            path = folder / "cells" / f"{row}.{seed}.json"
            told = json.loads(path.read_text())
            for test in told["test"]:
                level = first + (last - first) * test["epoch"] / 10
                found = test["statistics"]
                score = (10 - level) / 10 + above + 0.02 * seed
                found["nll"] = [600 * math.log(level)] * PERSONAS
                found["tokens"] = [600] * PERSONAS
                found["c"] = [[1000, 9999, 1000 * score, 0]] * PERSONAS
            path.write_text(json.dumps(told))
    numbers = Numbers(read_study(folder), seed=0, resamples=20)
    found = numbers.at_equal_ppl("mtml-0.8", "paml", 10, "c")
    if span is None:
        assert found is None
        return
    assert (found.levels[0], found.levels[-1]) == pytest.approx(span)
    assert found.difference[:3] == pytest.approx((0.1, 0.1, 0.1)) and found.without == 0
    assert found.difference.seeds == pytest.approx({0: 0.1, 1: 0.1})
    assert found.other == pytest.approx([(10 - at) / 10 + 0.01 for at in found.levels])


def test_the_first_passing_of_a_ppl_that_rises_again(tmp_path):
    """PAML falls from 10 to 5; MTML from 8 to 4 at epoch 5 and back to 6, 0.3 better than PAML
    there is at the same PPL, where it was 0.1 better on its way down."""
    folder = save_study(tmp_path / "x", ["paml", "mtml-0.8"], 1)
    for row in ("paml", "mtml-0.8"):
        path = folder / "cells" / f"{row}.0.json"
        told = json.loads(path.read_text())
        for test in told["test"]:
            epoch, found = test["epoch"], test["statistics"]
            falling = epoch <= 5
            level = 10 - epoch / 2 if row == "paml" else 8 - 0.8 * epoch if falling else 2 + 0.4 * epoch
            above = 0.0 if row == "paml" else 0.1 if falling else 0.3
            found["nll"], found["tokens"] = [600 * math.log(level)] * PERSONAS, [600] * PERSONAS
            found["c"] = [[1000, 9999, 1000 * ((10 - level) / 10 + above), 0]] * PERSONAS
            found["c_shuffled"] = [[1000, 9999, 0, 0]] * PERSONAS
        path.write_text(json.dumps(told))
    numbers = Numbers(read_study(folder), seed=0, resamples=5)
    # Of the levels 5, 5.75, 6.5, 7.25 and 8 it passes the first two again.
    for first, want in ((False, (2 * 0.3 + 3 * 0.1) / 5), (True, 0.1)):
        found = numbers.at_equal_ppl("mtml-0.8", "paml", 10, "c", first=first)
        assert found.difference[:3] == pytest.approx((want, want, want))
    blocks = comparison.endpoint(read_study(folder), numbers)
    told = "".join(block.text for block in blocks if hasattr(block, "text"))
    assert "difference is 0.180" in told and "the difference is 0.100 (0.100 to 0.100)." in told


def test_seeds_of_a_comparison_at_equal_ppl(tmp_path):
    folder = save_study(tmp_path / "x", {"paml": [0, 1, 2], "mtml-0.7": [0, 1, 2]}, 3)
    alone = save_study(tmp_path / "y", {"paml": [1, 2], "mtml-0.7": [1, 2]}, 3)
    found = [
        Numbers(read_study(place), seed=0, resamples=5).at_equal_ppl("mtml-0.7", "paml", 10, "c", seeds)
        for place, seeds in ((folder, [1, 2]), (alone, None), (folder, None))
    ]
    assert found[0] == found[1] and list(found[2].difference.seeds) == [0, 1, 2]


def test_every_strategy_has_a_colour_and_marker_of_its_own():
    styles = [drawing.STYLES[row] for row in GROUPS["paper"]]
    assert len(set(styles)) == len(styles) == len({marker for _, marker in styles})


def test_rows_of_new_strategies_have_distinct_styles(tmp_path):
    """A row that no table of styles knows, and an ablation of it."""
    folder = save_study(tmp_path / "x", {"paml": [0], "mtml-0.8-first_order": [0]})
    template = json.loads((folder / "cells" / "paml.0.json").read_text())
    new = [f"new-{n}" for n in range(12)]
    for row, base in [*((row, None) for row in new), ("new-3-changed", "new-3")]:
        cell = {**template, "row": row, "label": row, "base": base}
        (folder / "cells" / f"{row}.0.json").write_text(json.dumps(cell))
    study = read_study(folder)
    known = list(drawing.STYLES.values())
    styles = [drawing.style_of(study, row) for row in new]
    assert len({*known, *styles}) == len(known) + len(new)
    assert not {marker for _, marker in known} & {marker for _, marker in styles}
    assert drawing.QUIET not in {colour for colour, _ in styles}
    assert drawing.style_of(study, "new-3-changed") == styles[3]
    assert drawing.style_of(study, "mtml-0.8-first_order") == drawing.STYLES["mtml-0.8"]


def test_no_number_is_a_negative_zero():
    found = Estimate(-0.0002, -0.0004, 0.179, {0: 0.1, 1: -0.0001})
    text = comparison.sentence(found, "A", "B", "c")
    assert text.startswith("The difference is 0.000 (95 % interval 0.000 to 0.179). ")
    assert scores.score_cell(found, "c") == ("0.000", "0.000 to 0.179")
    assert scores.seed_cell(found.seeds, 1, "c") == "0.000"


def test_a_committed_study_gives_the_numbers_of_its_report():
    """Cells of an earlier version of the program; intervals would need all resamples."""
    folder = RESULTS / "demo-tiny-900"
    study = read_study(folder)
    numbers = Numbers(study, seed=0, resamples=2)
    stage = ("own", 10, 10)
    found = numbers.difference(("mtml-0.8", stage), ("paml", stage), "facts")
    text = (folder / "report.md").read_text()
    assert f"The difference is {scores.value_text(found.value, 'facts')} (95 % interval" in text
    seeds = [scores.seed_cell(found.seeds, seed, "facts") for seed in range(3)]
    assert f" | {' | '.join(seeds)} | contains zero |" in text
    for row in study.rows:
        ppl = numbers.mean(row, stage, "ppl").value
        assert f"| {study.label(row)} | 3 | {scores.value_text(ppl, 'ppl')} (" in text
