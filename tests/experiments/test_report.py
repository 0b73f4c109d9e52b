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

from experiments.report import __main__ as report
from experiments.report import drawing as report_drawing
from experiments.report import tables as report_tables
from experiments.report.cells import read_study
from experiments.report.numbers import Estimate, Numbers, common_range, passing
from experiments.report.paper_numbers import PAPER
from experiments.study.rows import GROUPS, ROWS
from mtml_jax.eval.metrics import bleu_statistics

EPOCHS = [1, 3, 5, 7, 10]
PERSONAS = 13
# Row -> PPL unadapted and adapted, C own unadapted and adapted.
SHAPES = {
    "std": (11.0, 8.6, 0.00, 0.22), "std_p": (12.5, 9.3, 0.02, 0.25),
    "paml": (12.0, 8.1, 0.01, 0.31), "mtml-0.5": (21.0, 12.6, 0.05, 0.52),
    "mtml-0.6": (18.0, 11.3, 0.04, 0.48), "mtml-0.7": (16.0, 10.2, 0.03, 0.46),
    "mtml-0.8": (14.0, 9.0, 0.03, 0.43), "mtml-0.9": (13.0, 8.4, 0.02, 0.36),
    "amtml": (15.5, 9.8, 0.04, 0.40), "multitask": (13.0, 9.1, 0.02, 0.33),
    "mtml-0.8-first_order": (14.5, 9.2, 0.02, 0.40),
    "mtml-0.8-distinct_start": (13.8, 8.9, 0.02, 0.41),
    "paml-latest": (12.1, 7.9, 0.02, 0.33),
}  # fmt: skip


def statistics(rng, ppl, c, *, nli, facts, personas=PERSONAS, gold=False):
    """Statistics of personas with 20 replies of 30 tokens each, scattered around PPL and C."""
    nll = 600 * (math.log(ppl) + rng.normal(0, 0.05, personas))
    hits = rng.binomial(20, np.clip(c, 0, 1), personas)
    shuffled = rng.binomial(20, 0.05, personas)
    reply = "i have a dog and he is big" if gold else "i have a dog , he is not so big"
    bleu = bleu_statistics([reply], ["i have a dog and he is big"])[0]
    found = {
        "dialogues": np.full(personas, 3), "replies": np.full(personas, 20),
        "words": np.full(personas, 160), "bleu": np.tile(bleu, (personas, 1)),
        "dialogue_bleu": np.full(personas, 2.0), "repeats": rng.binomial(20, 0.05, personas),
        "unigrams": np.full(personas, 160), "bigrams": np.full(personas, 140),
    }  # fmt: skip
    if not gold:
        found |= {"nll": nll, "tokens": np.full(personas, 600), "dialogue_ppl": 3 * np.exp(nll / 600)}
    if nli:
        zeros, pairs = np.zeros(personas, int), np.full(personas, 100)
        found["c"] = np.stack([found["replies"], pairs, hits, zeros], 1)
        found["c_shuffled"] = np.stack([found["replies"], pairs, shuffled, zeros], 1)
    if facts:
        found["facts"] = np.stack([hits, shuffled, 20 - np.minimum(hits + shuffled, 20)], 1)
    return {name: values.tolist() for name, values in found.items()}


def cell(row, seed, *, nli=True, facts=False, shots=(5, 10), epochs=EPOCHS, personas=PERSONAS):
    """What `experiments.study` keeps of one row and seed."""
    rng = np.random.default_rng([seed, *row.encode()])
    ppl, adapted, c, reached = SHAPES[row]
    reached += rng.normal(0, 0.03)
    known = ROWS[row]
    name = known.base or row
    made = dict(nli=nli, facts=facts, personas=personas)
    gold = np.random.default_rng(7)
    test = [("human", 0, 0, statistics(gold, 2.0, 0.45, gold=True, **made))]
    test.append(("unadapted", 0, 0, statistics(rng, ppl, c, **made)))
    for k in shots:
        for epoch in epochs:
            done = (1 - math.exp(-epoch / 4)) * (1 if k == 10 else 0.8)
            own = statistics(rng, ppl + done * (adapted - ppl), c + done * (reached - c), **made)
            other = statistics(rng, ppl * (1 + 0.03 * done), c + 0.1 * done * (reached - c), **made)
            test += [("own", k, epoch, own), ("other", k, epoch, other)]
    steps = range(0, 301, 10)
    learns = name.startswith(("mtml", "amtml", "multi"))
    persona = [round(1 + 4 * math.exp(-s / 60), 3) if learns else None for s in steps]
    response = [round(math.log(adapted) + 4 * math.exp(-s / 70), 3) for s in steps]
    replies = {"10-shot, other": "", "10-shot, own": "my *dog* is called rex",
               "5-shot, own": "i sail | a lot", "unadapted": "i like <script>alert(1)</script> tea"}
    said = [["other", "hello , how are you ?"], ["self", "i am well ."], ["other", "any pets ?"]]
    return {
        "row": row, "label": known.label, "group": known.group, "base": known.base,
        "strategy": name.split("-")[0], "alpha": float(name[5:]) if name[:4] == "mtml" else None,
        "seed": seed, "checkpoint": known.checkpoint, "config": {},
        "nli": "49cb1dedaec3535d" if nli else None, "device": "cpu", "devices": 2,
        "versions": {"jax": "0.10.2", "python": "3.12.1"}, "commit": "07be9d4", "command": "",
        "personas": personas, "folds": 2 * personas, "turns": 20 * personas,
        "effective_shots": {str(k): float(k) for k in shots},
        "training": {
            "iterations": 300, "reason": "iterations", "best_step": 250 + 10 * seed,
            "best_score": adapted, "seconds": 61.0 + seed, "seconds_a_step": 0.2, "tokens": 812345,
            "parameters": 51234, "temporary_bytes": 17_200_000, "operations": 1.9e9,
            "curve": {
                "train": [list(line) for line in zip(steps, response, persona)],
                "valid": [[s, 9 + 90 * math.exp(-s / 50), 8 + 90 * math.exp(-s / 50)]
                          for s in range(50, 301, 50)],
            },
        },
        "test": [dict(zip(("system", "shots", "epoch", "statistics"), t)) for t in test],
        "test_seconds": 33.0,
        "reconstruction": reconstructed(rng) if learns and "latest" not in row else None,
        "samples": [{"persona": "ann", "statements": ["i sail .", "i have a dog ."],
                     "utterances": said, "gold": "a dog & a cat", "replies": replies}],
    }  # fmt: skip


def reconstructed(rng):
    rows = []
    for variant in ("both_sides", "own_only"):
        for seen in range(1, 8):
            f1 = 0.2 + 0.06 * seen + rng.normal(0, 0.01)
            ppl = 9.0 / (1 + 0.2 * seen)
            values = {"token_f1": f1, "token_f1_shuffled": 0.2, "statement_recall": f1 / 2,
                      "statement_recall_shuffled": 0.05, "ppl": ppl, "ppl_shuffled": 11.0}
            known = {n: {"value": v, "low": v - 0.02, "high": v + 0.02} for n, v in values.items()}
            rows.append({"variant": variant, "turns_seen": seen, "dialogues": 100 if seen < 7 else 3,
                         "personas": 9, "tokens": 900, "scores": known})
    return rows


def save_study(folder, rows, seeds=3, *, score="c_own_minus_shuffled", **made):
    """A folder as a study leaves it; `rows` are names, or name -> seeds."""
    given = rows if isinstance(rows, dict) else {row: range(seeds) for row in rows}
    for name in ("cells", "tuning"):
        (folder / name).mkdir(parents=True)
    chosen = {"inner_lr": 0.1, "reduction": "mean", "outer_lr": 0.01}
    told = {
        "preset": "tiny", "data": "demo", "split": "test", "seeds": seeds, "shots": [5, 10],
        "epochs": EPOCHS, "settings": chosen, "iterations": 300, "folds_per_persona": 2,
        "endpoint": {"score": score, "one": "mtml-0.8", "other": "paml", "shots": 10, "epoch": 10},
        "command": "python -m experiments.study --preset=tiny --data=demo --output=results/demo",
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(told))
    for row, numbers in given.items():
        for seed in numbers:
            path = folder / "cells" / f"{row}.{seed}.json"
            path.write_text(json.dumps(cell(row, seed, **made)))
    for rate in (0.005, 0.1):
        trial = {**chosen, "inner_lr": rate, "iterations": 100, "strategy": "mtml",
                 "moved": rate / 50, "second_order_share": rate, "initial_ppl": 20.0,
                 "adapted_ppl": 19.0, "own_ppl": 12.0, "other_ppl": "inf", "seconds": 30.0}
        (folder / "tuning" / f"mtml-{rate}.json").write_text(json.dumps(trial))
    return folder


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


def stage(folder, row, seed, system="own", shots=10, epoch=10):
    told = json.loads((folder / "cells" / f"{row}.{seed}.json").read_text())
    (found,) = (
        t["statistics"]
        for t in told["test"]
        if (t["system"], t["shots"], t["epoch"]) == (system, shots, epoch)
    )
    return {name: np.array(values, float) for name, values in found.items()}


def ppl(found):
    return math.exp(found["nll"].sum() / found["tokens"].sum())


def c(found, name="c"):
    replies, _, entailed, contradicted = found[name].sum(axis=0)
    return (entailed - contradicted) / replies


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
    report.report(folder, resamples=40)
    gaps = [
        [c(f) - c(f, "c_shuffled") for f in (stage(folder, row, seed) for seed in (1, 2))]
        for row in ("mtml-0.7", "paml")
    ]
    each = np.subtract(*gaps)
    text = (folder / "report.md").read_text()
    begin = "A follow-up, fixed after seed 0 was seen and of seeds 1 and 2 alone, is MTML 0.7 minus"
    (line,) = (x for x in text.splitlines() if x.startswith(begin))
    assert f"The difference is {each.mean():.3f} (95 % interval" in line
    assert "fixed after seed 0 was seen and of seeds 7 alone" in text
    assert "It cannot be given: these seeds are not there yet." in text
    table = tables_of(text)["The study: preset tiny, data demo"]
    assert list(table["difference"]) == ["seed 1", "seed 2", "mean (95 % interval)"]
    alone = save_study(tmp_path / "y", {"paml": [1, 2], "mtml-0.7": [1, 2]}, 3)
    found = [
        Numbers(read_study(place), seed=0, resamples=5).at_equal_ppl("mtml-0.7", "paml", 10, "c", seeds)
        for place, seeds in ((folder, [1, 2]), (alone, None), (folder, None))
    ]
    assert found[0] == found[1] and list(found[2].difference.seeds) == [0, 1, 2]


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
    (line,) = (line for line in text.splitlines() if line.startswith("Cells that are not there"))
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


def test_one_seed_without_nli_and_without_controls(tmp_path):
    save_study(
        tmp_path / "x", ["paml", "mtml-0.8"], 1, score="facts", nli=False, facts=True, shots=(5, 10)
    )
    report.report(tmp_path / "x", resamples=10)
    text = (tmp_path / "x" / "report.md").read_text()
    assert "It stands on one seed and resamples personas alone" in text
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
        ({"paml": [0]}, "It cannot be given: there is no cell of MTML 0.8."),
        ({"paml": [0], "mtml-0.8": [1]}, "MTML 0.8 and PAML share no seed"),
        ({"std": [0]}, "PAML has no cell"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, rows, want):
    study = read_study(save_study(tmp_path / "x", rows))
    numbers = Numbers(study, seed=0, resamples=5)
    assert want in report.to_markdown(report.list_blocks("x", study, numbers, {}))


def test_sentences_say_what_the_numbers_say():
    def told(low, high, *seeds):
        found = Estimate(float(np.mean(seeds)), low, high, dict(enumerate(seeds)))
        return report_tables.sentence(found, "A", "B", "c")

    assert told(0.01, 0.3, 0.1, 0.2) == (
        "The difference is 0.150 (95 % interval 0.010 to 0.300). The interval lies above zero: "
        "A is higher than B. 2 of 2 seeds are above zero."
    )
    assert "lies below zero: A is lower than B. 1 of 2 seeds" in told(-0.3, -0.01, -0.2, 0.1)
    assert "holds zero: these runs do not tell the two apart. 1 of 2" in told(-0.1, 0.3, 0.2, -0.1)
    assert "It stands on one seed" in told(-0.1, 0.3, 0.2)
    assert told(math.nan, math.nan, 0.2).endswith("there is no interval, for want of personas.")


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
    blocks = report_tables.endpoint(read_study(folder), numbers)
    told = "".join(block.text for block in blocks if hasattr(block, "text"))
    assert "difference is 0.180" in told and "rises again, it is 0.100 (0.100 to 0.100)." in told


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "experiments.report", *map(str, words)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_a_wrong_folder_is_one_sentence(tmp_path):
    ended = run(tmp_path)
    assert ended.returncode == 1 and not ended.stdout
    assert ended.stderr.strip() == (
        f"error: {tmp_path}: found no study.json, want a folder that experiments.study has written"
    )


@pytest.mark.parametrize(
    "name, text, want",
    [
        ("study.json", "{}", "found no 'preset'"),
        ("study.json", "[", "found no JSON"),
        ("study.json", "follow_ups", "found a follow-up {'one': 'mtml-0.7'}, want one, other, seeds"),
        ("cells/paml.0.json", "{", "paml.0.json: found no JSON"),
        ("cells/paml.0.json", json.dumps({"row": "paml"}), "found no 'label'"),
        ("cells/std.0.json", None, "found cells of 5 and 13 personas"),
        ("cells/paml.0.json", "statistics", "a test that cannot be read"),
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
    with pytest.raises(ValueError, match="found no cells"):
        read_study(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"found no matplotlib, want .* pip install -e '.\[plot\]'"):
        report.report(folder)


def test_every_strategy_has_a_colour_and_marker_of_its_own():
    styles = [report_drawing.STYLES[row] for row in GROUPS["paper"]]
    assert len(set(styles)) == len(styles) == len({marker for _, marker in styles})
