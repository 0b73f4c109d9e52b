"""A pretrained decoder through training, resuming, testing, adapting and chatting."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
from absl import flags

from experiments import export
from experiments.reconstruct import measure_reconstruction
from mtml_jax.checks import check_config
from mtml_jax.config import PRESETS, DataConfig
from mtml_jax.config_decoder import LoraConfig, RowShape
from mtml_jax.config_eval import EvalConfig, ReconstructionConfig
from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.prepare import prepare
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.strands import RowEncoding
from mtml_jax.data.subwords import read_subwords
from mtml_jax.eval.evaluate import evaluate
from mtml_jax.eval.folds import choose_folds, prompted
from mtml_jax.eval.run import load_for_test
from mtml_jax.inference.adapt import adapt_to_dialogues, load_adapted, save_adapted, score_dialogue
from mtml_jax.inference.responder import Responder, believed_persona, persona_caveat
from mtml_jax.model.pretrained import with_decoder
from mtml_jax.runs.folder import load_run, restored_config
from mtml_jax.runs.peft import read_peft
from mtml_jax.runs.starts import write_start
from mtml_jax.runs.trained import load_trained
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.resume import initial_state
from mtml_jax.train.run import train_run

LORA = LoraConfig(rank=2, layers=2)


@pytest.fixture(scope="module")
def config_of(tiny_decoder):
    """strategy -> settings of four outer steps with the tiny decoder."""
    base = PRESETS["pretrained"]
    model = dataclasses.replace(base.model, lora=LORA)
    base = with_decoder(dataclasses.replace(base, model=model), str(tiny_decoder))
    return lambda strategy, **changed: dataclasses.replace(
        base,
        **{
            "strategy": strategy, "shape": RowShape(512), "meta_batch": 2, "iterations": 4,
            "validate_every": 2, "validation_episodes": 2, "outer_lr": 0.01, "inner_lr": 0.05,
            "gradient": "first_order",  # compiles in half the time
            **changed,
        },
    )  # fmt: skip


def trained(config, workdir):
    return train_run(config, prepare(config, "demo"), workdir, say=lambda line: None)


@pytest.fixture(scope="module")
def workdir(config_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mtml"
    trained(config_of("mtml"), folder)
    return folder


@pytest.fixture(scope="module")
def model(workdir):
    return load_trained(workdir, "latest")


def differ(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.long if n in ("std_p", "amtml") else pytest.mark.slow)
        for n in STRATEGIES
    ],
)
def test_every_strategy_trains_adapters_alone(config_of, tmp_path, name):
    config = config_of(name, gradient="mixed", iterations=2, meta_batch=1, validation_episodes=1)
    outcome = trained(config, tmp_path / "w")
    assert outcome.reason == "finished" and outcome.progress.skipped == 0
    model = load_trained(tmp_path / "w", "latest")
    assert set(model.params) == {"query", "value"}
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(model.params))  # B has moved
    saved, text = load_run(tmp_path / "w")
    assert text is None and restored_config(saved) == config
    assert not differ(model.params, outcome.state.params)


def test_resuming_gives_the_same_bits(config_of, workdir, model, tmp_path):
    half = config_of("mtml", iterations=2)
    trained(half, tmp_path / "w")
    trained(config_of("mtml"), tmp_path / "w")
    assert not differ(load_trained(tmp_path / "w", "latest").params, model.params)


@pytest.mark.long
def test_training_begins_with_the_adapters_of_a_folder(config_of, workdir, model, tmp_path):
    saved, _ = load_run(workdir)
    write_start(tmp_path / "start", model.params, model.config, saved, 4, dtype="float32")
    config = config_of("std", adapters_from=str(tmp_path / "start"))
    data = prepare(config, "demo")
    assert not differ(initial_state(config, data, model.base).params, model.params)
    wider = dataclasses.replace(config.model, lora=dataclasses.replace(LORA, rank=3))
    with pytest.raises(ValueError, match="expected adapters of the settings .*rank=3.* got .*rank=2"):
        initial_state(dataclasses.replace(config, model=wider), data, model.base)
    # The folder is read once: a run that is continued has its own adapters.
    trained(dataclasses.replace(config, iterations=1), tmp_path / "w")
    shutil.rmtree(tmp_path / "start")
    trained(dataclasses.replace(config, iterations=2), tmp_path / "w")


def test_another_base_is_refused(config_of, workdir, tiny_decoder, tmp_path):
    other = shutil.copytree(tiny_decoder, tmp_path / "other")
    run = shutil.copytree(workdir, tmp_path / "run")
    settings = (run / "config.json").read_text().replace(str(tiny_decoder), str(other))
    (run / "config.json").write_text(settings)
    load_trained(run)
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    with pytest.raises(ValueError, match="expected the decoder that the run began with"):
        load_trained(run)
    config = dataclasses.replace(config_of("mtml"), init_from=str(other))
    with pytest.raises(ValueError, match="a different init_digest"):
        trained(config, run)


def test_other_sizes_are_refused(config_of, tmp_path):
    config = dataclasses.replace(PRESETS["pretrained"], init_from=config_of("std").init_from)
    with pytest.raises(ValueError, match="expected a decoder of the sizes layers 30.* layers 3"):
        trained(config, tmp_path)
    with pytest.raises(ValueError, match="sizes of a decoder with --init_from"):
        check_config(dataclasses.replace(config, init_from=""))


@pytest.mark.long
def test_a_test_scores_every_reply(workdir, tmp_path):
    config = EvalConfig(
        shots=(0, 1), split="valid", max_folds=2, decoder="greedy", resamples=10
    )
    report = evaluate(workdir, config, tmp_path / "eval", say=lambda line: None)
    rows = {(r["system"], r["epoch"]): r["scores"] for r in report["rows"]}
    assert {("unadapted", 0), ("prompt", 0), ("own", 1), ("own", 3), ("other", 3)} <= rows.keys()
    assert report["turns"] == sum(
        len(demo.turns) for demo in held_out(load_for_test(workdir, split="valid"), 2)
    )
    for system in (("unadapted", 0), ("own", 3)):
        scores = rows[system]
        # More subwords than words: the same nats are more for each word.
        assert scores["word_ppl"]["value"] > scores["ppl"]["value"] > 1


def held_out(run, count):
    plans = choose_folds(run.encoded, 0, 0, count)
    return [run.personas[p.persona].dialogues[p.dialogue] for p in plans]


@pytest.mark.long
def test_adapting_lowers_the_loss_and_is_saved(model, tmp_path):
    talk = [d for d in demo_corpus("valid") if d.speaker == demo_corpus("valid")[0].speaker][:3]
    adapted = adapt_to_dialogues(model, talk, inner_lr=0.2)
    assert adapted.epochs == 3 and adapted.turns == sum(len(d.turns) for d in talk[:2])
    for dialogue in talk[:2]:
        assert score_dialogue(model, adapted.params, dialogue) < score_dialogue(
            model, model.params, dialogue
        )
    save_adapted(tmp_path, model, adapted, {})
    read = load_adapted(tmp_path, model)
    assert differ(read, model.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-3), read, adapted.params)


@pytest.mark.parametrize("decoder", ["greedy", "beam", "nucleus"])
def test_replies_stream_as_they_are_written(model, decoder):
    history = ["Hi! Do you have pets?", "Yes.", "Which?"]
    responder = Responder(model, decoder, beams=2, max_tokens=7)
    whole = responder.reply(model.params, history)
    again = Responder(model, decoder, beams=2, max_tokens=7)
    assert whole and "".join(again.stream(model.params, history)) == whole


def test_a_persona_is_asked_for_in_words(model):
    assert persona_caveat(model) == ""
    dialogue = demo_corpus("valid")[0]
    assert believed_persona(model, model.params, dialogue) == believed_persona(
        model, model.params, dialogue
    )
    with pytest.raises(ValueError, match="never learned to reconstruct"):
        config = dataclasses.replace(model.config, strategy="paml")
        believed_persona(model._replace(config=config), model.params, dialogue)


@pytest.mark.long
def test_reconstruction_scores_both_variants(workdir):
    run = load_for_test(workdir, split="valid")
    config = ReconstructionConfig(split="valid", max_dialogues=2, resamples=10)
    _, scored, rows = measure_reconstruction(config, run)
    assert {row["variant"] for row in rows} == {"both_sides", "own_only"}
    assert all(s.nll[0] > 0 and s.tokens > 0 for s in scored)
    dialogue = held_out(run, 1)[0]
    assert max(s.turns_seen for s in scored if s.subject == 0) == len(dialogue.turns)


def test_the_source_of_a_run_is_kept(workdir):
    saved, _ = load_run(workdir)
    assert saved["data"] == DataConfig().data and saved["init_digest"]


def test_a_start_needs_no_checkpoint(workdir, model, tmp_path):
    """It has the run's adapters in float16, which adapt, are saved, and are exported again."""
    command = ["--workdir", str(workdir), "--output", str(tmp_path / "start"), "--checkpoint=latest"]
    export_command(command)
    start = load_trained(tmp_path / "start")
    assert start.step == 4 and start.config == model.config
    check = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(check, start.params, model.params)
    assert "Meta-trained by `mtml` for 4 steps" in (tmp_path / "start" / "README.md").read_text()

    talk = demo_corpus("valid")[:2]
    adapted = adapt_to_dialogues(start, talk, inner_lr=0.2, epochs=1)
    save_adapted(tmp_path / "robin", start, adapted, {"workdir": str(tmp_path / "start")})
    export_command(["--adapted", str(tmp_path / "robin"), "--output", str(tmp_path / "peft")])
    lora, params = read_peft(tmp_path / "peft", model.config.model)
    assert lora == LORA and differ(params, start.params)
    with pytest.raises(ValueError, match="another checkpoint"):
        load_adapted(tmp_path / "robin", model)


def export_command(arguments):
    """Runs `experiments.export` with these arguments."""
    values = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.flags, "FLAGS", values)
        for name in ("workdir", "adapted", "output"):
            flags.DEFINE_string(name, None, "", flag_values=values)
        for name, default in (("checkpoint", "best"), ("dtype", "float16")):
            flags.DEFINE_string(name, default, "", flag_values=values)
        values(["export", *arguments])
        export.export(values)


def test_a_start_that_was_changed_is_refused(workdir, model, tmp_path):
    saved, _ = load_run(workdir)
    write_start(tmp_path, model.params, model.config, saved, model.step)
    text = (tmp_path / "start.json").read_text()
    (tmp_path / "start.json").write_text(text.replace('"rank": 2', '"rank": 3'))
    with pytest.raises(ValueError, match="expected adapters of the sizes"):
        load_trained(tmp_path)


def test_a_prompt_holds_the_own_dialogues(workdir):
    """The held-out dialogue stands behind them, and only its replies are predicted."""
    run = load_for_test(workdir, split="valid")
    plan = choose_folds(run.encoded, 2, 0, 1)[0]
    read = [i for d in plan.own for w in d.examples for i in w.trunk.ids]
    assert len(read) > 100
    held_out = zip(prompted(plan).held_out.examples, plan.held_out.examples, strict=True)
    for window, plain in held_out:
        assert window.trunk.ids == (*read, *plain.trunk.ids)
        assert window.turns == plain.turns and window.spoken() == plain.spoken()
        shifted = tuple(len(read) + i for i in plain.trunk.predicted)
        assert window.trunk.predicted == shifted


def test_a_transformer_has_no_adapters_to_export(save_tiny_run, tmp_path):
    run = save_tiny_run(tmp_path / "run")
    with pytest.raises(ValueError, match="expected a run with --init_from, got one of a Transf"):
        export_command(["--workdir", str(run), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_long_persona_fits_behind_a_long_dialogue(tiny_decoder):
    """What stands behind another dialogue takes no more than a row."""
    subwords = read_subwords(tiny_decoder)
    encoding = RowEncoding(subwords, RowShape(256))
    turns = tuple(Turn("what is new", "nothing at all") for _ in range(9))
    long, short = (
        encoding.by_turns_seen(Dialogue("c", "s", said, turns))[-1]
        for said in (("i sail " * 9,), ("i sail",))
    )
    (branch,) = encoding.elsewhere(long, short).branches
    behind = encoding.elsewhere(long, short)
    assert len(behind.trunk.ids) + len(branch.ids) <= 256
    assert behind.trunk.ids == short.trunk.ids[-branch.fork :]
    assert len(short.trunk.ids) + len(branch.ids) > 256  # and would not have fitted whole
