"""Test that a run and an adaptation of version 0.1, as first released, still open.

Their folders are in `old/`; they were written by

    python -m experiments.train --workdir=run --strategy=mtml --gradient=first_order --preset=tiny --width=4 \
        --heads=2 --feed_forward=6 --meta_batch=2 --validation_episodes=2 --distinct_start --min_count=60 \
        --iterations=2 --validate_every=2 --seed=3
    python -m experiments.adapt --workdir=run --output=adapted --epochs=10 --inner_lr=2 \
        --dialogues=experiments/examples/five_dialogues.jsonl

at the commit before the modules moved into rooms, as were the digests and replies below.
Left out are TensorBoard's files, the platform's name and the folder's own path.
"""

import dataclasses
import shutil
from pathlib import Path

import jax
import pytest

from mtml_jax.data.exports import choose_speaker, read_chat
from mtml_jax.data.prepare import prepare
from mtml_jax.inference.adapt import load_adapted, score_dialogue
from mtml_jax.inference.delta import digest, read_settings
from mtml_jax.inference.responder import Responder, believed_persona
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.folder import load_run, restored_config, save_run
from mtml_jax.runs.log import RunLog, read_log
from mtml_jax.runs.trained import load_trained
from mtml_jax.train.loop import train

RUN, ADAPTED = (Path(__file__).parent / "old" / name for name in ("run", "adapted"))
EXAMPLE = Path(__file__).resolve().parents[2] / "experiments" / "examples" / "five_dialogues.jsonl"
HISTORY = ["Hi! Do you have pets?"]


def test_the_checkpoint_has_the_same_bits():
    for which in ("best", "latest"):
        model = load_trained(RUN, which)
        assert model.step == 2 and len(model.vocabulary) == 347
        assert digest(model.params) == (
            "70262a6b778c5cdf66cc848f5be4dd6c02f5a325796db2448f25ed4c196fa501"
        )
    steps = [(row["step"], row["kind"]) for row in read_log(RUN / "log.jsonl")]
    assert steps == [(0, "note"), (0, "note"), (1, "train"), (2, "train"), (2, "valid")]


def test_the_adaptation_opens_on_its_run_and_replies_the_same():
    model = load_trained(RUN)
    adapted = load_adapted(ADAPTED, model)
    assert read_settings(ADAPTED)["provenance"]["speaker"] == "Robin"
    assert digest(adapted) == "5fff5f264935410f29d619b8cb796e7e0fe4241c4606c0d34670e88fdc479f23"
    reply = Responder(model, "greedy", max_tokens=9).reply
    assert reply(model.params, HISTORY) == "Hey getting hello hello hello hello hello hello when"
    assert reply(adapted, HISTORY) == "I I"
    assert believed_persona(model, adapted, HISTORY) == ""
    dialogues, _ = read_chat(EXAMPLE)
    robin, _ = choose_speaker(dialogues, "Robin")
    for params, when in ((model.params, "before"), (adapted, "after")):
        ppl = score_dialogue(model, params, robin[-1])
        assert ppl == pytest.approx(read_settings(ADAPTED)[f"ppl_{when}"], rel=1e-3)


@pytest.mark.long
def test_training_continues_from_its_step(tmp_path):
    workdir = shutil.copytree(RUN, tmp_path / "run")
    saved, _ = load_run(workdir)
    config = dataclasses.replace(restored_config(saved), iterations=3)
    data = prepare(config, saved["data"])
    settings = {**saved, **dataclasses.asdict(config)}
    save_run(workdir, settings, data.vocabulary.to_text())  # refuses other settings or words
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.notes == [] and checkpoints.latest_step() == 2
        with RunLog(workdir, 2) as log:
            train(config, data, log, checkpoints, lambda _: None)
    rows = read_log(workdir / "log.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3]
    assert rows[:5] == read_log(RUN / "log.jsonl")
    model = load_trained(workdir, "latest")
    assert model.step == 3 and digest(model.params) != digest(load_trained(RUN).params)
    change = jax.tree.map(lambda a, b: abs(a - b).max(), model.params, load_trained(RUN).params)
    assert 0 < max(jax.tree.leaves(change)) < 0.01  # one step of Adam's warm-up
