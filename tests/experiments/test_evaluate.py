"""Evaluation of a run: rows, a restart after an interruption, wrong inputs, the command."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import evaluate as script
from experiments import flags as settings
from mtml_jax.config import DataConfig, ModelConfig, TileShape, TrainConfig
from mtml_jax.config_eval import EvalConfig
from mtml_jax.data.prepare import prepare
from mtml_jax.eval import evaluate as command
from mtml_jax.eval import protocol
from mtml_jax.eval import run as tested
from mtml_jax.eval.scores import VERDICTS
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.folder import save_run
from mtml_jax.train import resume

CONFIG = TrainConfig(
    model=ModelConfig(
        encoder_layers=1, decoder_layers=1, heads=2, width=6, feed_forward=10, activation="relu"
    ),
    shape=TileShape(rows=2, context=31, response=41, persona=61),
    strategy="paml",
    meta_batch=2,
    inner_lr=0.3,
)


@pytest.fixture(scope="module")
def data():
    return prepare(CONFIG, "demo")


def save(workdir, data, config=CONFIG, **extra):
    settings = {**dataclasses.asdict(config), "data": "demo", "preset": "tiny", **extra}
    save_run(workdir, settings, data.vocabulary.to_text())
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(3, resume.initial_state(config, data), {}, best=True)
        checkpoints.wait()


@pytest.fixture(scope="module")
def workdir(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save(folder, data)
    return folder


CHOSEN = EvalConfig(
    shots=(0, 1, 2), max_folds=3, decoder="greedy", beams=2, resamples=20, folds_at_once=1
)


def evaluated(workdir, output, **changes):
    return command.evaluate(workdir, dataclasses.replace(CHOSEN, **changes), output)


@pytest.fixture(scope="module")
def first(workdir, tmp_path_factory):
    """A whole evaluation: (folder, report)."""
    output = tmp_path_factory.mktemp("eval")
    return output, evaluated(workdir, output)


def test_every_row_is_there(first):
    output, report = first
    names = [(r["system"], r["shots"], r["epoch"]) for r in report["rows"]]
    assert names[:2] == [("human", 0, 0), ("unadapted", 0, 0)]
    assert set(names[2:]) == {
        (system, k, epoch)
        for system in ("own", "other", "own minus other")
        for k in (1, 2)
        for epoch in (1, 3, 5, 7, 10)
    }
    assert len(names) == len(set(names))
    assert json.loads((output / "test.json").read_bytes()) == json.loads(json.dumps(report))
    assert (report["folds"], report["personas"]) == (3, 3)
    assert report["effective_shots"] == {"0": 0.0, "1": 1.0, "2": 2.0}
    by_name = {(r["system"], r["shots"], r["epoch"]): r["scores"] for r in report["rows"]}
    human, plain = by_name["human", 0, 0], by_name["unadapted", 0, 0]
    assert human["bleu"]["value"] == pytest.approx(100)
    assert sum(human[v]["value"] for v in VERDICTS) == pytest.approx(1)
    own, other = by_name["own", 2, 10], by_name["other", 2, 10]
    gain = by_name["own minus other", 2, 10]["ppl"]["value"]
    assert gain == pytest.approx(own["ppl"]["value"] - other["ppl"]["value"])
    assert own["ppl"]["value"] < by_name["own", 2, 1]["ppl"]["value"] < plain["ppl"]["value"]


def test_generations_are_for_reading(first):
    output, report = first
    lines = [json.loads(x) for x in (output / "test.generations.jsonl").read_text().splitlines()]
    assert len(lines) == report["turns"]
    assert all(len(line["replies"]) == 1 + 2 * 2 * 5 for line in lines)
    assert {"context", "gold", "statements", "persona", "turn", "conversation"} <= set(lines[0])
    assert any(line["turn"] == 4 for line in lines)
    for before, line in zip(lines, lines[1:]):
        said = " ".join(text for _, text in line["utterances"])
        assert (said or "<silence>").endswith(line["context"])
        if line["turn"] > 1:  # the next turn goes on from the human reply
            assert ["self", before["gold"]] == line["utterances"][len(before["utterances"])]
            assert line["utterances"][-1][0] == "other"
            assert line["utterances"][: len(before["utterances"])] == before["utterances"]


def test_finished_folds_are_not_done_again(first, workdir, tmp_path, monkeypatch):
    """Killed after some folds, torn in the midst of a line: only the rest is run."""
    output, report = first
    rows = (output / "test.folds.jsonl").read_text().splitlines()
    assert len(rows) == 3 + 2 * 2 * 3
    (tmp_path / "test.settings.json").write_bytes((output / "test.settings.json").read_bytes())
    half = "\n".join(rows[:-1]) + "\n" + rows[-1][:50]
    (tmp_path / "test.folds.jsonl").write_text(half)
    ran = []
    original = protocol._compiled

    def counting(*args):
        at_once, run = original(*args)
        return at_once, lambda folds: ran.append(1) or run(folds)

    monkeypatch.setattr(protocol, "_compiled", counting)
    again = evaluated(workdir, tmp_path)
    assert len(ran) == 1
    assert json.dumps(again["rows"]) == json.dumps(report["rows"])
    evaluated(workdir, tmp_path, shots=(1,))  # what is there serves others
    assert len(ran) == 1


def test_consistency_stands_in_the_report_when_there_is_a_scorer(first, workdir, monkeypatch):
    output, _ = first

    class Scorer:
        digest = "0123"

        def scores(self, pairs, progress=None):
            progress(len(pairs))

        def labels(self, pairs, progress=None, *, calibrated=True):
            return np.full(len(pairs), 1 if calibrated else -1, np.int8)

    run = tested.load_for_test(workdir)
    plans = {0: command.choose_folds(run.encoded, 0, 0, 3)}
    settings = command.fold_settings(CHOSEN, run)
    with command.FoldsFile(output / "test.folds.jsonl", settings) as done:
        report = command.make_report(CHOSEN, run, plans, done.rows, Scorer())
    found = report["rows"][1]["scores"]
    statements = [len(t.statements) for p in plans[0] for t in [protocol._held_out(run, p)]]
    assert report["nli"] == "0123"
    assert found["c"]["value"] == pytest.approx(np.mean(statements), abs=0.5)
    assert found["c_uncalibrated"]["value"] == -found["c"]["value"]
    assert found["c_entailment"]["value"] == 1


def refusal(workdir, output, **changes):
    with pytest.raises((ValueError, OSError)) as caught:
        evaluated(workdir, output, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_wrong_inputs_get_one_sentence(first, workdir, data, tmp_path):
    output, _ = first
    new = tmp_path / "out"
    assert "no config.json" in refusal(workdir=tmp_path / "none", output=new)
    assert "got --shots=-1" in refusal(workdir=workdir, output=new, shots=(-1,))
    assert "lower --shots" in refusal(workdir=workdir, output=new, shots=(99,))
    assert "expected a run of std_p" in refusal(workdir=workdir, output=new, persona_at_test=True)
    assert "another seed (saved 0, now 1)" in refusal(workdir=workdir, output=output, seed=1)
    assert not new.exists()
    other = tmp_path / "other"
    save(other, data)
    text = (other / "vocabulary.txt").read_text()
    (other / "vocabulary.txt").write_text(text + "superfluous\n")
    assert "words in vocabulary.txt" in refusal(workdir=other, output=new)
    empty = tmp_path / "empty"
    save_run(empty, {**dataclasses.asdict(CONFIG), "data": "demo"}, text)
    assert "no best checkpoint" in refusal(workdir=empty, output=new)


def test_statements_stand_in_the_context_where_asked(data, tmp_path):
    workdir = tmp_path / "run"
    save(workdir, data, dataclasses.replace(CONFIG, strategy="std_p"))
    with_, without = (
        tested.load_for_test(workdir, persona_at_test=asked) for asked in (True, False)
    )
    statements = with_.personas[0].dialogues[0].statements
    front = with_.encoding.vocabulary.encode(statements[0].rstrip(" ."))
    first = [run.encoded[0].dialogues[0].examples[0].context for run in (with_, without)]
    assert set(front) <= set(first[0]) and len(first[0]) > len(first[1])
    assert jax.tree.leaves(with_.params)


def test_another_file_is_split_by_the_flags(data, tmp_path, monkeypatch):
    """The seed that the run was split with holds for the run's own file alone."""
    workdir = tmp_path / "run"
    save(workdir, data)
    path = workdir / "config.json"
    own = {"data": "own.jsonl", "split_seed": 5, "skip_bad": True}
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **own}))
    asked, dialogues = set(), tested.load_split("demo", None, "test")

    def read(source, data_dir, split, *, split_seed, skip_bad):
        asked.add((source, split_seed, skip_bad))
        return dialogues

    monkeypatch.setattr(tested, "load_split", read)
    tested.load_for_test(workdir, source=DataConfig(data=None, split_seed=3))
    tested.load_for_test(workdir, source=DataConfig(data="other.jsonl", split_seed=3))
    assert asked == {("own.jsonl", 5, True), ("other.jsonl", 3, False)}


def test_the_command_reads_its_settings_from_flags():
    with flagsaver.flagsaver():
        script.define_flags()
        flags.FLAGS(["evaluate", "--workdir=w", "--shots=5,0", "--data=own.jsonl", "--split=valid"])
        source = settings.read(DataConfig)
        config = settings.read(EvalConfig, source=source)
        assert config == EvalConfig(
            shots=(0, 5), split="valid", source=DataConfig(data="own.jsonl")
        )
        flags.FLAGS(["evaluate", "--shots=five"])
        with pytest.raises(ValueError, match="expected whole numbers .*got --shots=five"):
            settings.read(EvalConfig)
        flags.FLAGS(["evaluate", "--shots=5", "--max_folds=0"])
        with pytest.raises(ValueError, match="1 or more, got --max_folds=0"):
            settings.read(EvalConfig)


def test_the_command_prints_the_table_and_the_files(first, workdir, capsys):
    output, _ = first
    script.evaluate_and_print(str(workdir), CHOSEN, str(output))
    printed = capsys.readouterr().out
    for part in ("best checkpoint (step 3); 3 held-out", "2-shot, own minus other", "no C-score"):
        assert part in printed
    assert "interval, from" in printed and max(map(len, printed.splitlines()[3:])) < 80
    assert f"results in {output}: test.json, test.generations.jsonl" in " ".join(printed.split())
    script.evaluate_and_print(str(workdir), CHOSEN, str(output), everything=True)
    assert "2-shot, own, epoch 1 " in capsys.readouterr().out
    with pytest.raises(ValueError, match="got no --workdir"):
        script.evaluate_and_print(None, CHOSEN, None)
