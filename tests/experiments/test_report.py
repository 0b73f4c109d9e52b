"""The report of a study, from cells made of known numbers."""

import html
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_study import c, cell, ppl, save_study, stage

from experiments.report import __main__ as report
from experiments.report.cells import read_study
from experiments.report.numbers import Numbers
from experiments.report.paper_numbers import PAPER
from experiments.study.rows import ROWS


def tables_of(text):
    """Heading -> its last table, as row name -> column -> cell."""
    found, heading, head = {}, "", None
    for line in text.splitlines():
        cells = [re.sub(r"\\(.)", r"\1", c).strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if line.startswith("#"):
            heading, head = line.lstrip("# "), None
        elif not line.startswith("|"):
            head = None
        elif head is None:
            head, found[heading] = cells, {}
        elif not cells[0].startswith("---"):
            found[heading][cells[0]] = dict(zip(head[1:], cells[1:], strict=True))
    return found


def numbers_in(cell_text):
    return [float(x) for x in re.findall(r"-?\d+\.\d+", cell_text)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a study with C and facts, and its report."""
    folder = tmp_path_factory.mktemp("study") / "study"
    rows = {"paml": [0, 1], "mtml-0.8": [0, 1], "multitask": [1], "mtml-0.8-first_order": [0, 1]}
    save_study(folder, rows, 2, facts=True)
    report.report(folder, resamples=40)
    return folder


def test_tables_2_and_3_by_hand(whole):
    tables = tables_of((whole / "report.md").read_text())
    for shots, title in ((10, "(the paper's table 2)"), (5, "(the paper's table 3)")):
        table = tables[f"{shots}-shot, after 10 epochs {title}"]
        assert list(table) == ["PAML", "MTML 0.8", "Multi-task 0.8", "human replies"]
        for row, seeds in (("paml", (0, 1)), ("mtml-0.8", (0, 1)), ("multitask", (1,))):
            cells = table[ROWS[row].label]
            found = [stage(whole, row, seed, shots=shots) for seed in seeds]
            value, low, high = numbers_in(cells["PPL"])
            assert value == round(np.mean([ppl(f) for f in found]), 2) and low < value < high
            own, shuffled = (
                np.mean([c(f, name) for f in found]) for name in ("c", "c_shuffled")
            )
            assert numbers_in(cells["C own"])[0] == pytest.approx(own, abs=5e-4)
            assert numbers_in(cells["C shuffled"])[0] == pytest.approx(shuffled, abs=5e-4)
            gap = numbers_in(cells["C own minus shuffled"])[0]
            assert gap == pytest.approx(own - shuffled, abs=5e-4)
            facts = np.mean([(f["facts"][:, 0] - f["facts"][:, 1]).sum() / 260 for f in found])
            assert numbers_in(cells["facts"])[0] == pytest.approx(facts, abs=5e-4)
            repeats = np.mean([f["repeats"].sum() / 260 for f in found])
            assert numbers_in(cells["repeats"])[0] == pytest.approx(repeats, abs=5e-4)
            assert cells["seeds"] == str(len(seeds))
        assert table["MTML 0.8"]["paper PPL"] == f"{PAPER[shots]['mtml-0.8'].ppl:.2f}"
        assert table["PAML"]["paper C own"] == f"{PAPER[shots]['paml'].c:.2f}"
        assert table["Multi-task 0.8"]["paper C own"] == table["human replies"]["PPL"] == "-"


def test_own_against_other_by_hand(whole):
    text = (whole / "report.md").read_text()
    places = [("unadapted", 0, 0), ("own", 10, 10), ("other", 10, 10)]
    found = [[stage(whole, "paml", n, *place) for n in (0, 1)] for place in places]
    means = [np.mean([ppl(f) for f in side]) for side in found]
    facts = [np.mean([(f["facts"] @ [1, -1, 0]).sum() / 260 for f in side]) for side in found]
    (line,) = (
        line for line in text.splitlines() if line.startswith(f"| PAML | 2 | {means[0]:.2f} | ")
        and f"| {means[1]:.2f} | {means[2]:.2f} |" in line
    )  # fmt: skip
    cells = [numbers_in(part)[:1] for part in line.split("|")]
    assert cells[6] == [pytest.approx(means[1] - means[2], abs=5e-3)]
    for place, (one, other) in enumerate(((1, 0), (2, 0), (1, 2)), start=7):
        nats = np.mean([math.log(ppl(a) / ppl(b)) for a, b in zip(found[one], found[other])])
        assert cells[place] == [pytest.approx(nats, abs=5.1e-4)]
    assert cells[14:18] == [
        [pytest.approx(x, abs=5.1e-4)] for x in (*facts, facts[1] - facts[2])
    ]
    assert "PPL: the interval is below zero in every row" in text
    mtml = [[stage(whole, "mtml-0.8", n, *place) for n in (0, 1)] for place in places[1:]]
    each = [
        math.log(ppl(a) / ppl(b)) - math.log(ppl(x) / ppl(y))
        for a, b, x, y in zip(*mtml, *found[1:])
    ]
    cells = tables_of(text)["nats a token, own minus other, 10-shot"]["MTML 0.8"]
    assert numbers_in(cells["minus PAML"])[0] == pytest.approx(np.mean(each), abs=5.1e-4)
    assert [float(cells[f"seed {n}"]) for n in (0, 1)] == pytest.approx(each, abs=5.1e-4)


def test_the_parts_of_the_scores_by_hand(whole):
    """Own and shuffled have as many pairs here; facts are stated as often as statements entailed."""
    text = (whole / "report.md").read_text().split("## What the persona scores are made of")[1]
    by_nli, by_facts = (tables_of(part) for part in text.split("Stated and contradicted:"))
    found = {
        row: [stage(whole, row, seed, shots=5) for seed in (0, 1)] for row in ("paml", "mtml-0.8")
    }
    shares, rates = (
        {row: np.mean([make(*f["facts"].sum(axis=0)[:2]) for f in runs]) for row, runs in found.items()}
        for make in (lambda own, other: own / (own + other), lambda own, other: own + other)
    )
    for table, share, pairs, digits in (
        (by_nli["5-shot"], "own share", 1300, 5e-5), (by_facts["5-shot"], "true share", 260, 5e-4)
    ):  # fmt: skip
        assert list(table) == ["PAML", "MTML 0.8", "Multi-task 0.8", "human replies"]
        paml, mtml = table["PAML"], table["MTML 0.8"]
        value, low, high = numbers_in(mtml[share])
        assert value == pytest.approx(shares["mtml-0.8"], abs=5.1e-4) and low <= value <= high
        gap = shares["mtml-0.8"] - shares["paml"]
        assert numbers_in(mtml[f"{share}, minus PAML"])[0] == pytest.approx(gap, abs=5.1e-4)
        (either,) = (name for name in mtml if name.endswith("minus PAML") and share not in name)
        gap = (rates["mtml-0.8"] - rates["paml"]) / pairs
        assert numbers_in(mtml[either])[0] == pytest.approx(gap, abs=1.02 * digits)
        assert paml[either] == paml[f"{share}, minus PAML"] == "-"
    own = np.mean([f["c"][:, 2].sum() / 1300 for f in found["paml"]])
    assert numbers_in(by_nli["5-shot"]["PAML"]["entailed own"])[0] == pytest.approx(own, abs=5.1e-5)
    assert by_nli["5-shot"]["PAML"]["contradicted own"].startswith("0.0000")


def test_the_endpoint_by_hand(whole):
    gaps = [
        [c(f) - c(f, "c_shuffled") for f in (stage(whole, row, seed) for seed in (0, 1))]
        for row in ("mtml-0.8", "paml")
    ]
    each = np.subtract(*gaps)
    text = (whole / "report.md").read_text()
    assert f"The difference is {each.mean():.3f} (95 % interval" in text
    assert f"{sum(each > 0)} of 2 seeds are above zero" in text
    table = tables_of(text)["The study: preset tiny, data demo"]
    assert [float(table["difference"][f"seed {s}"]) for s in (0, 1)] == [
        pytest.approx(x, abs=5e-4) for x in each
    ]
    table = tables_of(text)["C own minus shuffled, 10-shot"]
    assert numbers_in(table["MTML 0.8"]["minus PAML"])[0] == pytest.approx(each.mean(), abs=5e-4)
    assert table["Multi-task 0.8"]["seed 0"] == "-"  # it has no such seed
    found = [ppl(stage(whole, row, 1)) for row in ("multitask", "paml")]
    table = tables_of(text)["PPL, 10-shot"]
    assert float(table["Multi-task 0.8"]["seed 1"]) == round(np.subtract(*found), 2)
    assert table["MTML 0.8"]["paper"] == f"{43.28 - 41.80:+.2f}"


def test_a_follow_up_takes_its_seeds_alone(tmp_path):
    folder = save_study(tmp_path / "x", {"paml": [0, 1, 2], "mtml-0.7": [0, 1, 2]}, 3)
    told = json.loads((folder / "study.json").read_text())
    added = {"one": "mtml-0.7", "other": "paml", "seeds": [1, 2], "fixed": "after seed 0 was seen"}
    late = {**added, "seeds": [7]}
    (folder / "study.json").write_text(json.dumps({**told, "follow_ups": [added, late]}))
    numbers = Numbers(read_study(folder), seed=0, resamples=40)
    title = "The study: preset tiny, data demo"
    text = report.to_markdown(report.list_blocks(title, numbers.study, numbers, {}))
    gaps = [
        [c(f) - c(f, "c_shuffled") for f in (stage(folder, row, seed) for seed in (1, 2))]
        for row in ("mtml-0.7", "paml")
    ]
    each = np.subtract(*gaps)
    begin = "A follow-up, fixed after seed 0 was seen and with seeds 1 and 2 only, is MTML 0.7 minus"
    (line,) = (x for x in text.splitlines() if x.startswith(begin))
    assert f"The difference is {each.mean():.3f} (95 % interval" in line
    assert "fixed after seed 0 was seen and with seeds 7 only" in text
    assert "It cannot be computed: these seeds have not been run yet." in text
    table = tables_of(text)[title]
    assert list(table["difference"]) == ["seed 1", "seed 2", "mean (95 % interval)"]


def test_the_control_by_hand(whole):
    gaps = [
        c(found) - c(found, "c_shuffled")
        for found in (stage(whole, row, 1) for row in ("mtml-0.8", "multitask"))
    ]
    text = (whole / "report.md").read_text()
    told = f"on 10 dialogues. The difference is {gaps[0] - gaps[1]:.3f} ("
    assert f"MTML 0.8 minus Multi-task 0.8 in C own minus shuffled after 10 epochs {told}" in text
    table = tables_of(text)["Against the control without meta-learning"]
    assert float(table["difference"]["seed 1"]) == pytest.approx(gaps[0] - gaps[1], abs=5e-4)


def test_table_1_has_every_row_before_and_after_adapting(whole):
    table = tables_of((whole / "report.md").read_text())["Context 1"]
    assert list(table) == ["PAML", "MTML 0.8", "Multi-task 0.8"]
    assert list(table["PAML"]) == ["unadapted", "5-shot, own", "10-shot, own", "10-shot, other"]
    assert table["PAML"]["10-shot, other"] == "(nothing)"
    assert table["MTML 0.8"]["10-shot, own"] == "my *dog* is called rex"


def test_missing_cells_are_listed(whole):
    text = (whole / "report.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("Missing cells"))
    assert "Std seed 0, 1" in line and "Multi-task 0.8 seed 0." in line and "AMTML" in line
    assert "PAML" not in line and "MTML 0.8" not in line
    assert set(read_study(whole).missing()) == set(PAPER[10]) - {"paml", "mtml-0.8"} | {"multitask"}


def test_ablations_stand_beside_their_base(whole):
    table = tables_of((whole / "report.md").read_text())["Ablations"]
    cells = table["MTML 0.8, first order"]
    ones = [ppl(stage(whole, "mtml-0.8-first_order", n)) for n in (0, 1)]
    others = [ppl(stage(whole, "mtml-0.8", n)) for n in (0, 1)]
    assert cells["minus"] == "MTML 0.8" and cells["seeds"] == "2"
    assert numbers_in(cells["PPL"])[0] == round(np.mean(ones) - np.mean(others), 2)


def test_tuning_names_the_chosen_rates_and_the_paper_s(whole):
    text = (whole / "report.md").read_text()
    (chosen,) = (line for line in text.splitlines() if line.endswith("| chosen |"))
    assert chosen.startswith("| mtml | 0.1 | mean | 0.01 | 100 | 0.00200 | 0.1000 | 20.00 to 19.00")
    assert "| 12.00 | inf | -inf | chosen |" in chosen


def test_cost_and_reconstruction(whole):
    tables = tables_of((whole / "report.md").read_text())
    cells = tables["Cost"]["PAML"]
    assert cells["best step"] == "255" and cells["training, min"] == "1.0"  # of 250, 260; 61, 62 s
    assert cells["memory, MB"] == "17" and cells["GFLOP a step"] == "1.9"
    # Seven turns stand on 3 of 100 dialogues.
    table = tables["Persona reconstruction"]
    assert table["MTML 0.8"]["turns"] == "6" and numbers_in(table["MTML 0.8"]["PPL"])[0] == 4.09


def test_the_page_needs_nothing_and_runs_nothing(whole):
    page = (whole / "report.html").read_text()
    assert "<script" not in page and html.escape("<script>alert(1)</script>") in page
    assert "a dog &amp; a cat" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(s.startswith(("data:image/png;base64,", "#s")) for s in sources)
    pictures = sorted(path.name for path in whole.glob("*.png"))
    assert page.count("<figure>") == len(pictures) == 11
    text = (whole / "report.md").read_text()
    assert sorted(re.findall(r"\]\((.*?png)\)", text)) == pictures
    assert "<script" not in text and "i sail \\| a lot" in text and "my \\*dog\\*" in text
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in whole.glob("*.png"))


@pytest.mark.long
def test_one_seed_without_nli_and_without_controls(tmp_path):
    save_study(
        tmp_path / "x", ["paml", "mtml-0.8"], 1, score="facts", nli=False, facts=True, shots=(5, 10)
    )
    report.report(tmp_path / "x", resamples=10)
    text = (tmp_path / "x" / "report.md").read_text()
    assert "It rests on one seed and resamples only personas" in text
    table = tables_of(text)["10-shot, after 10 epochs (the paper's table 2)"]
    assert not [name for name in table["PAML"] if "C " in name] and "paper PPL" in table["PAML"]
    found = stage(tmp_path / "x", "paml", 0)["facts"].sum(axis=0)
    value, low, high = numbers_in(table["PAML"]["facts"])
    assert value == pytest.approx((found[0] - found[1]) / 260, abs=5e-4) and low < value < high
    assert "none, so no C-score" in text and "Multi-task 0.8 seed 0" in text
    assert "facts_over_ppl_10_shot.png" in text and "There are no ablation rows." in text


@pytest.mark.parametrize(
    "rows, want",
    [
        ({"paml": [0]}, "It cannot be computed: there is no cell of MTML 0.8."),
        ({"paml": [0], "mtml-0.8": [1]}, "MTML 0.8 and PAML share no seed"),
        ({"std": [0]}, "PAML has no cell"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, rows, want):
    study = read_study(save_study(tmp_path / "x", rows))
    numbers = Numbers(study, seed=0, resamples=5)
    assert want in report.to_markdown(report.list_blocks("x", study, numbers, {}))


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "experiments.report", *map(str, words)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_a_wrong_folder_is_one_sentence(tmp_path):
    ended = run(tmp_path)
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr.strip() == (
        f"error: {tmp_path}: expected a folder written by experiments.study, got no study.json"
    )


@pytest.mark.parametrize(
    "name, text, want",
    [
        ("study.json", "{}", "expected 'preset' as experiments.study writes it, got none"),
        ("study.json", "[", "expected JSON from experiments.study, got"),
        ("study.json", "follow_ups", "expected a follow-up with one, other, seeds.* got {'one': 'mtml-0.7'}"),
        ("cells/paml.0.json", "{", "paml.0.json: expected JSON"),
        ("cells/paml.0.json", json.dumps({"row": "paml"}), "expected 'label'"),
        ("cells/std.0.json", None, "got cells with 5 and 13 personas"),
        ("cells/paml.0.json", "statistics", "expected test statistics with one entry for each persona"),
    ],
)
def test_a_file_that_is_no_study_s(tmp_path, name, text, want):
    folder = save_study(tmp_path / "x", {"paml": [0]})
    if text is None:
        text = json.dumps(cell("std", 0, personas=5))
    elif text == "follow_ups":
        told = json.loads((folder / name).read_text())
        text = json.dumps({**told, text: [{"one": "mtml-0.7"}]})
    elif text == "statistics":
        told = cell("paml", 0)
        told["test"][3]["statistics"]["nll"].pop()
        text = json.dumps(told)
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=want):
        read_study(folder)


def test_no_cells_and_no_matplotlib(tmp_path, monkeypatch):
    folder = save_study(tmp_path / "x", [])
    with pytest.raises(ValueError, match="expected at least one file in the folder cells, got none"):
        read_study(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"expected matplotlib for .* pip install -e '.\[plot\]'"):
        report.report(folder)
