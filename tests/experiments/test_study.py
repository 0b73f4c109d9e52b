"""The study: its rows, its choice of rates, its cells that are made once."""

import dataclasses
import json
import math
import types

import numpy as np
import pytest

from experiments.study import __main__ as study
from experiments.study import cell as study_cell
from experiments.study import tuning as study_tuning
from experiments.study.bar import Part, whole_bar
from experiments.study.rows import GROUPS, ROWS, chosen_rows, config_of
from mtml_jax.config import PRESETS, TrainConfig
from mtml_jax.data.demo import demo_corpus
from mtml_jax.runs.lock import InUse

TINY = PRESETS["tiny"]


def given(folder, **changes):
    flags = {
        "data": "demo", "preset": "tiny", "output": str(folder), "rows": ["paml", "mtml-0.8"],
        "seeds": 2, "glove": None, "iterations": None, "split_seed": 0, "skip_bad": False,
        "data_dir": None, "split": "test", "folds_per_persona": 1, "inner_lr": 0.1,
        "outer_lr": None, "reduction": None, "nli": None, "tune_only": False, "minutes": None, "shots": ["5", "10"],
    }  # fmt: skip
    return types.SimpleNamespace(**{**flags, **changes})


def test_rows_differ_from_the_study_in_what_they_are_named_for():
    base = dataclasses.replace(TINY, inner_lr=0.07, reduction="sum")
    wanted = {
        "std": {"strategy": "std"},
        "mtml-0.6": {"strategy": "mtml", "alpha": 0.6},
        "amtml-distinct_start": {"strategy": "amtml", "distinct_start": True},
        "mtml-0.8-first_order": {"strategy": "mtml", "alpha": 0.8, "gradient": "first_order"},
        "mtml-0.8-own_context": {"strategy": "mtml", "alpha": 0.8, "persona_context": "own"},
        "mtml-0.8-3_steps": {"strategy": "mtml", "alpha": 0.8, "inner_steps": 3},
        "mtml-0.8-latest": {"strategy": "mtml", "alpha": 0.8},
        "multitask": {"strategy": "multitask", "alpha": 0.8},
    }
    for name, changes in wanted.items():
        config = config_of(ROWS[name], base, seed=4)
        rest = {"seed": 4, "patience": base.iterations + 1}
        assert config == dataclasses.replace(base, **changes, **rest), name
    assert ROWS["paml-latest"].trained_as == "paml" and ROWS["paml-latest"].checkpoint == "latest"
    assert [r.name for r in ROWS.values() if r.checkpoint == "latest"] == [
        "paml-latest", "mtml-0.8-latest", "amtml-latest",
    ]  # fmt: skip


def test_rows_are_chosen_by_name_and_group_once_each():
    assert [r.name for r in chosen_rows(["paml", "main"])] == [*GROUPS["main"]]
    assert len(chosen_rows(["paper"])) == 10
    names = [r.name for r in chosen_rows(["ablations"], glove="vectors.txt")]
    assert names[-1] == "mtml-0.8-glove" and len(names) == len(GROUPS["ablations"]) - 1
    assert dict(chosen_rows(["mtml-0.8-glove"], "v.txt")[0].changes)["glove"] == "v.txt"
    with pytest.raises(ValueError, match="expected --rows of main.* got --rows=mtml-1"):
        chosen_rows(["mtml-1"])


@pytest.mark.parametrize("base, left_out", [(TINY, "distinct_start"), (TrainConfig(), "shared_start")])
def test_an_ablation_that_the_study_has_made_already_is_in_no_group(base, left_out):
    names = [row.name for row in chosen_rows(["ablations"], base=base)]
    missing = [f"mtml-0.8-{left_out}", f"amtml-{left_out}"]
    assert sorted({*GROUPS["ablations"]} - {*names}) == sorted(missing)
    assert [row.name for row in chosen_rows(missing, base=base)] == missing


def test_rates_are_those_of_the_least_perplexity_on_own_dialogues():
    trials = [
        {"inner_lr": 0.1, "own_ppl": 30.0, "other_ppl": 20.0},
        {"inner_lr": 0.5, "failed": "no gradient"},
        {"inner_lr": 0.3, "own_ppl": "nan", "other_ppl": "nan"},  # as JSON has it
        {"inner_lr": 0.05, "own_ppl": 20.0, "other_ppl": 21.0},
    ]
    assert study_tuning.best_of(trials)["inner_lr"] == 0.05
    with pytest.raises(ValueError, match="expected a trial with a finite perplexity, got none"):
        study_tuning.best_of(trials[1:3])
    first = study_tuning.first_trials(dataclasses.replace(TINY, inner_lr=0.2))
    assert [(t.reduction, t.inner_lr) for t in first[:6]] == [
        ("mean", rate) for rate in (0.005, 0.01, 0.05, 0.1, 0.2, 0.3)
    ]
    assert {t.iterations for t in first} == {100} and first[10].reduction == "sum"
    assert [t.outer_lr for t in study_tuning.second_trials(first[1])] == [0.003, 0.0003]
    assert len({study_tuning.name_of(t) for t in first}) == 11


def test_rates_beyond_one_far_too_large_are_not_tried():
    def trial(reduction, rate, ppl):
        return {"reduction": reduction, "inner_lr": rate, "own_ppl": ppl}

    def past(reduction, rate):
        config = dataclasses.replace(TINY, reduction=reduction, inner_lr=rate)
        return study_tuning.is_past(config, found)

    found = [trial("mean", 0.005, 40.0), trial("mean", 0.1, 20.0)]
    assert not past("mean", 0.3) and not past("sum", 0.005)
    assert past("mean", 0.05)  # were it asked after a larger one
    found += [trial("mean", 0.3, 21.9), trial("sum", 0.005, 22.1)]
    assert not past("mean", 0.5) and past("sum", 0.01)
    found += [trial("mean", 0.5, "nan")]
    assert past("mean", 0.6) and not past("mean", 0.5)
    found = [{"reduction": "sum", "inner_lr": 0.005, "failed": "no gradient"}]
    assert past("sum", 0.01)


@pytest.fixture
def made(monkeypatch):
    """Cells that were asked for; nothing is trained."""
    asked = []

    def make(row, seed, shared, bar):
        asked.append(f"{row.name}.{seed}")
        if row.name == "amtml":
            raise InUse("found a run in use")
        if row.name == "std":
            raise FloatingPointError("no finite gradient")
        return {"row": row.name, "inner_lr": shared.config.inner_lr}

    monkeypatch.setattr(study, "make_cell", make)
    return asked


def test_cells_are_made_once_with_the_rates_that_were_fixed(made, tmp_path, capsys):
    study.run_study(given(tmp_path))
    assert made == ["paml.0", "mtml-0.8.0", "paml.1", "mtml-0.8.1"]  # all rows of a seed first
    cell = json.loads((tmp_path / "cells" / "mtml-0.8.1.json").read_text())
    assert cell == {"row": "mtml-0.8", "inner_lr": 0.1}
    (tmp_path / "cells" / "paml.1.json").unlink()
    study.run_study(given(tmp_path, inner_lr=None))  # what is fixed stays
    assert made[4:] == ["paml.1"]
    assert "3 of them done already" in capsys.readouterr().out
    settings = json.loads((tmp_path / "study.json").read_text())
    assert settings["settings"] == {"inner_lr": 0.1, "reduction": "mean", "outer_lr": 0.01}
    assert settings["endpoint"]["score"] == "facts" and settings["endpoint"]["one"] == "mtml-0.8"
    for changes in ({"inner_lr": 0.3}, {"iterations": 7}, {"shots": ["4"]}):
        with pytest.raises(ValueError, match=f"expected the study's {next(iter(changes))}"):
            study.run_study(given(tmp_path, **changes))


def test_more_seeds_are_told_to_the_report(made, tmp_path):
    study.run_study(given(tmp_path, rows=["paml"], seeds=1))
    study.run_study(given(tmp_path, rows=["paml"], seeds=3))
    assert made == ["paml.0", "paml.1", "paml.2"]
    assert json.loads((tmp_path / "study.json").read_text())["seeds"] == 3


def test_more_shots_than_there_are_dialogues_are_refused_before_any_training(made, tmp_path):
    for shots in (["5", "99"], ["0", "5"]):
        with pytest.raises(ValueError, match=f"expected --shots of numbers from 1 to .* got --shots={','.join(shots)}"):
            study.run_study(given(tmp_path, shots=shots))
    assert not made


def test_a_cell_that_fails_or_is_made_elsewhere_does_not_stop_the_others(made, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1 of 3 cells failed"):
        study.run_study(given(tmp_path, rows=["std", "amtml", "paml"], seeds=1))
    assert made == ["std.0", "paml.0", "amtml.0"]
    assert [p.name for p in (tmp_path / "cells").iterdir()] == ["paml.0.json"]
    told = capsys.readouterr().out
    assert "failed: std.0: no finite gradient" in told
    assert "being made by other processes: amtml.0" in told


def test_statistics_become_lists_without_bits():
    plain = study_cell._plain(
        {
            "nll": np.array([1.23456, 2.0]),
            "facts": np.array([[1.0, 0.0], [2.0, 3.0]]),
            "distinct_bigrams": np.zeros((2, 9), np.uint8),
        }
    )
    assert plain == {"nll": [1.2346, 2], "facts": [[1, 0], [2, 3]]}


def test_parts_fill_a_bar_whatever_they_skip():
    one = Part(whole_bar(3.0), "one", 2.0)
    one.stage("training", 0.25, 10)
    for _ in range(4):
        one.update()
    assert one.done == pytest.approx(2 * 0.25 * 0.4)
    one.stage("testing", 1.0, 3)
    assert one.done == pytest.approx(0.5)
    one.update(2)
    assert one.done == pytest.approx(1.5)
    one.update(9)
    assert one.done == pytest.approx(2.0)
    two = Part(whole_bar(3.0), "two", 1.0)
    two.finish()
    assert two.done == 1.0


@pytest.mark.long
def test_a_study_of_two_rows_from_the_search_to_the_cells(tmp_path, monkeypatch):
    """Two steps each, on a part of the demo corpus: every stage runs, and nothing twice."""
    monkeypatch.setattr("mtml_jax.data.load.demo_corpus", lambda split: demo_corpus(split)[:160])
    model = dataclasses.replace(TINY.model, width=8, feed_forward=16)
    small = dataclasses.replace(TINY, model=model, validation_episodes=4, meta_batch=4)
    monkeypatch.setitem(PRESETS, "tiny", small)
    monkeypatch.setattr(study_tuning, "INNER_RATES", {"mean": (0.1, 0.2)})
    flags = given(
        tmp_path, inner_lr=None, iterations=3, seeds=1, rows=["paml", "multitask"], shots=["1"]
    )
    study.run_study(flags)
    trials = [json.loads(p.read_text()) for p in sorted((tmp_path / "tuning").iterdir())]
    assert len(trials) == 4  # two inner rates, two more outer ones
    fixed = json.loads((tmp_path / "study.json").read_text())["settings"]
    best = study_tuning.best_of(trials)
    assert fixed == {name: best[name] for name in fixed}
    for trial in trials:
        assert trial["iterations"] == 1 and trial["moved"] > 0
        assert 0 < trial["second_order_share"] < 1
    cells = {p.name: json.loads(p.read_text()) for p in (tmp_path / "cells").iterdir()}
    assert set(cells) == {"paml.0.json", "multitask.0.json"}
    for cell in cells.values():
        assert len(cell["test"]) == 2 + 2 * 5  # human, unadapted; own and other by epochs
        tested = cell["test"][2]["statistics"]
        assert len(tested["nll"]) == cell["personas"] > 1 and np.shape(tested["facts"])[1] == 3
        assert cell["training"]["iterations"] == 3 and cell["training"]["temporary_bytes"] > 0
        assert len(cell["training"]["curve"]["valid"]) == 1 and len(cell["samples"]) == 4
    assert cells["paml.0.json"]["reconstruction"] is None
    assert cells["multitask.0.json"]["reconstruction"][0]["turns_seen"] == 1

    (tmp_path / "cells" / "paml.0.json").unlink()
    monkeypatch.setattr("mtml_jax.eval.protocol._compiled", None)  # no fold is done again
    monkeypatch.setattr("mtml_jax.train.loop.training_batch", lambda *_, **__: {"w": np.zeros(4)})
    study.run_study(flags)
    again = json.loads((tmp_path / "cells" / "paml.0.json").read_text())
    for name in ("test", "samples", "config"):
        assert again[name] == cells["paml.0.json"][name]


def test_what_json_has_not_is_kept_for_it_to_name():
    statistics = {"nll": np.array([1.0, np.nan, 2.5]), "counts": np.array([[3, 4]])}
    plain = study_cell._plain(statistics)
    assert plain["nll"][0] == 1 and math.isnan(plain["nll"][1]) and plain["nll"][2] == 2.5
    assert plain["counts"] == [[3, 4]]
