"""Persona reconstruction: whose words are read, and the scores against the turns seen."""

import dataclasses
import functools
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import flags as settings
from experiments import reconstruct as command
from mtml_jax.config import DataConfig, LossConfig, ModelConfig, TileShape, TrainConfig
from mtml_jax.config_eval import ReconstructionConfig
from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.encode import Encoding, encode_dialogue
from mtml_jax.data.packing import pack_rows
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.vocab import PAD, SILENCE, START, START_PERSONA, UNK, build_vocabulary
from mtml_jax.eval import reconstruction
from mtml_jax.eval.metrics import statement_recall, token_f1
from mtml_jax.eval.reconstruction import (
    BOTH_SIDES,
    CASES_A_GROUP,
    OWN_ONLY,
    VARIANTS,
    Scored,
    Subject,
    list_cases,
    score_cases,
)
from mtml_jax.eval.reconstruction_scores import summarise_cases
from mtml_jax.eval.table import reconstruction_table
from mtml_jax.meta.outer import init_state
from mtml_jax.model import decoding, transformer
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.folder import save_run
from mtml_jax.sharding import persona_mesh
from mtml_jax.types import Tokens

MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, heads=2, width=6, feed_forward=10, activation="gelu"
)
SHAPE = TileShape(rows=3, context=11, response=37, persona=17)
CAT = ("i have a cat.", "tea is good.")
DOG = ("i own two dogs.", "rain, i like it.")


def dialogue(conversation, statements, turns):
    """The other side says "them N" in turn N, the speaker answers "me N"."""
    words = "zero one two three four five six seven".split()
    said = [Turn(f"them {words[n]}" if n else "", f"me {words[n]}") for n in range(turns)]
    return Dialogue(conversation, "", statements, tuple(said))


DIALOGUES = (dialogue("a", CAT, 3), dialogue("b", DOG, 5), dialogue("c", CAT, 5))
VOCABULARY = build_vocabulary(DIALOGUES, min_count=1)
ENCODING = Encoding(VOCABULARY, SHAPE)
SUBJECTS = tuple(
    Subject(persona, DIALOGUES[own], DIALOGUES[other])
    for persona, own, other in ((2, 0, 1), (7, 1, 0), (2, 2, 1))
)


@pytest.fixture(scope="module")
def params(draw_params):
    """A model that writes different things after different contexts."""
    drawn = draw_params(MODEL, len(VOCABULARY), seed=11)
    for layer in drawn["decoder"]:
        layer["cross_attention"] = jax.tree.map(lambda x: 4.0 * x, layer["cross_attention"])
    return jax.tree.map(jnp.float32, drawn)


@functools.cache
def compiled(groups, start, **settings):
    decode = functools.partial(
        decoding.greedy, start=start, max_tokens=SHAPE.persona, config=MODEL
    )
    defaults = {"decode": decode, "config": LossConfig(MODEL), "mesh": persona_mesh(groups)}
    return jax.jit(functools.partial(reconstruction.reconstruct, **defaults | settings))


def run(params, groups=2, distinct_start=False, **settings):
    start = START_PERSONA if distinct_start else START
    program = functools.partial(compiled(groups, start, **settings), params)
    encoding = dataclasses.replace(ENCODING, distinct_start=distinct_start)
    return list(score_cases(list_cases(SUBJECTS, encoding), program, encoding, groups))


@pytest.fixture(scope="module")
def scored(params):
    return run(params)


def forced_nll(params, context, target, start):
    """By `transformer.decode` on one sequence without padding."""
    given = (np.array(ids, np.int32) for ids in (context, [start, *target[:-1]], target))
    return float(_forced_nll(params, *given))


@jax.jit
def _forced_nll(params, context, inputs, target):
    def alone(ids):
        return Tokens(ids, jnp.ones_like(ids), jnp.arange(ids.size))

    memory = transformer.encode(params, alone(context), MODEL)
    segments = jnp.ones_like(context), alone(inputs), jnp.ones_like(inputs)
    hidden = transformer.decode(params, memory, *segments, MODEL)
    log_prob = jax.nn.log_softmax(hidden @ transformer.output_matrix(params, MODEL).T)
    return -log_prob[jnp.arange(target.size), target].sum()


@pytest.mark.long
@pytest.mark.parametrize("distinct_start", [False, True])
def test_ppl_is_that_of_teacher_forcing_at_each_number_of_turns(
    params, distinct_start
):
    start = START_PERSONA if distinct_start else START
    found = run(params, distinct_start=distinct_start)
    rows = summarise_cases(SUBJECTS, found, ENCODING.as_read, seed=0, resamples=10)
    greedy = functools.partial(
        decoding.greedy, params, start=start, max_tokens=SHAPE.persona, config=MODEL
    )
    cases = list(list_cases(SUBJECTS, ENCODING))
    for row in rows:
        if row["turns_seen"] not in (1, 4):
            continue
        own = [c for c in cases if c[1:3] == (row["variant"], row["turns_seen"])]
        targets = [c.example.persona for c in own]
        assert row["tokens"] == sum(map(len, targets))
        for name, contexts in (
            ("ppl", [c.example.context for c in own]),
            ("ppl_shuffled", [c.other.context for c in own]),
        ):
            nll = [forced_nll(params, c, t, start) for c, t in zip(contexts, targets)]
            want = math.exp(sum(nll) / sum(map(len, targets)))
            assert row["scores"][name]["value"] == pytest.approx(want, rel=1e-4)
    contexts = pack_rows([c.example.context for c in cases], SHAPE.context, len(cases))
    assert [s.text for s in found] == [VOCABULARY.decode(ids) for ids in greedy(contexts).ids]
    assert len({s.text for s in found}) > 2


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(params):
    uniform = {**params, "embedding": jnp.zeros_like(params["embedding"])}
    rows = summarise_cases(SUBJECTS, run(uniform), ENCODING.as_read, seed=0, resamples=10)
    ppl = [row["scores"][name]["value"] for row in rows for name in ("ppl", "ppl_shuffled")]
    np.testing.assert_allclose(ppl, len(VOCABULARY), rtol=1e-5)


def test_groups_and_devices_do_not_matter(params, scored):
    again = run(params, 3, chunk=3)  # three groups are for one device, two are for two
    assert [s[:4] for s in again] == [s[:4] for s in scored]
    np.testing.assert_allclose([s.nll for s in again], [s.nll for s in scored], rtol=1e-5)
    assert len(scored) == 26 and len(scored) % (2 * CASES_A_GROUP)  # the last call is filled up


def test_contexts_are_those_of_training_or_the_speakers_own():
    cases = list(list_cases(SUBJECTS, ENCODING))
    for number, subject in enumerate(SUBJECTS):
        trained, _ = encode_dialogue(subject.dialogue, ENCODING)
        both = [c for c in cases if c[:2] == (number, BOTH_SIDES)]
        own = [c for c in cases if c[:2] == (number, OWN_ONLY)]
        assert [c.example for c in both] == list(trained)
        assert [c.turns_seen for c in own] == [c.turns_seen for c in both]
        assert [c.turns_seen for c in both] == list(range(1, len(trained) + 1))
        assert own[0].example.context == (SILENCE,)
        for case in own[1:]:
            before = subject.dialogue.turns[: case.turns_seen - 1]
            said = VOCABULARY.encode(" ".join(turn.response for turn in before))
            assert list(case.example.context) == said[-SHAPE.context :]
            assert case.example.persona == both[0].example.persona
        words = VOCABULARY.decode(own[-1].example.context).split()
        assert "them" not in words and words[-2:] == before[-1].response.split()
    for case in cases:
        # Another dialogue's context after as many turns, or after its last.
        other = 0 if case.subject == 1 else 1
        seen = min(case.turns_seen, len(DIALOGUES[other].turns))
        (want,) = [c for c in cases if c[:3] == (other, case.variant, seen)]
        assert case.other.context == want.example.context


def test_long_histories_of_ones_own_keep_their_end():
    narrow = Encoding(VOCABULARY, dataclasses.replace(SHAPE, context=3))
    last = [c for c in list_cases(SUBJECTS[1:2], narrow) if c.variant == OWN_ONLY][-1]
    assert VOCABULARY.decode(last.example.context) == "two me three"


def perfect(number, subject, variant=BOTH_SIDES):
    text = VOCABULARY.decode(encode_dialogue(subject.dialogue, ENCODING)[0][0].persona)
    size = len(text.split()) + 1
    for seen in range(1, len(subject.dialogue.turns) + 1):
        yield Scored(number, variant, seen, text, (0.0, 2.0 * size), size)


def test_the_true_persona_has_full_scores_and_another_one_has_not():
    found = [case for n, subject in enumerate(SUBJECTS) for case in perfect(n, subject)]
    rows = summarise_cases(SUBJECTS, found, ENCODING.as_read, seed=0, resamples=200)
    for row in rows:
        scores = row["scores"]
        for name in ("token_f1", "statement_recall", "ppl"):
            assert scores[name] == {"value": 1.0, "low": 1.0, "high": 1.0}
        assert scores["token_f1_shuffled"]["value"] < 0.3
        assert scores["statement_recall_shuffled"]["value"] == 0.0
        assert scores["ppl_shuffled"]["value"] == pytest.approx(math.exp(2.0))
        assert scores["token_f1_own_minus_shuffled"]["low"] > 0.7
        assert scores["ppl_own_minus_shuffled"]["high"] < -6.0


def test_what_the_decoder_returns_is_what_is_scored(params):
    """A decoder that knows the persona of the first dialogue, whatever it reads."""
    cat = list(next(list_cases(SUBJECTS, ENCODING)).example.persona)

    def knows(params, context, base):
        del params, base
        ids = jnp.array(cat + [PAD] * (SHAPE.persona - len(cat)), jnp.int32)
        many = jnp.broadcast_to(ids[None], (context.ids.shape[0], SHAPE.persona))
        return decoding.Replies(many, jnp.zeros(context.ids.shape[0]))

    found = run(params, decode=knows)
    first = [s for s in found if s.subject == 0]
    for row in summarise_cases(SUBJECTS[:1], first, ENCODING.as_read, seed=0):
        assert row["scores"]["token_f1"]["value"] == 1.0
        assert row["scores"]["statement_recall"]["value"] == 1.0
        assert row["scores"]["token_f1_shuffled"]["value"] < 0.3


def test_an_unknown_word_does_not_make_a_statement_impossible():
    vocabulary = build_vocabulary(DIALOGUES, min_count=2)
    told = dataclasses.replace(DIALOGUES[0], statements=("i have a zebra.", "rain, i like it."))
    text = vocabulary.decode(vocabulary.encode("i have a zebra rain , i like it"))
    assert VOCABULARY.words[UNK] in text and statement_recall(text, told.statements) < 1.0
    as_read = Encoding(vocabulary, SHAPE).as_read
    found = [Scored(0, OWN_ONLY, 1, text, (1.0, 1.0), 9)]
    (row,) = summarise_cases([Subject(0, told, DIALOGUES[0])], found, as_read, seed=0)
    assert row["scores"]["token_f1"]["value"] == row["scores"]["statement_recall"]["value"] == 1.0


def test_dialogues_count_where_they_have_so_many_turns(scored):
    rows = summarise_cases(SUBJECTS, scored, ENCODING.as_read, seed=0, resamples=50)
    assert [(row["variant"], row["turns_seen"]) for row in rows] == [
        (variant, seen) for variant in VARIANTS for seen in range(1, 6)
    ]
    for row in rows:
        # Two dialogues of one persona, one of another; the first ends after three turns.
        assert row["dialogues"] == (3 if row["turns_seen"] <= 3 else 2)
        assert row["personas"] == 2
        some = [s for s in scored if s[1:3] == (row["variant"], row["turns_seen"])]
        assert row["tokens"] == sum(s.tokens for s in some)
        texts = [(s.text, VOCABULARY.decode(_persona(s.subject))) for s in some]
        want = np.mean([token_f1(text, gold) for text, gold in texts])
        assert row["scores"]["token_f1"]["value"] == pytest.approx(want)


def test_intervals_resample_personas():
    """Persona 2 has two dialogues, one right and one wrong; 7 has one, right."""
    texts = ("", "i own two dogs rain , i like it", "i have a cat tea is good")
    found = [Scored(n, BOTH_SIDES, 1, text, (1.0, 1.0), 9) for n, text in enumerate(texts)]
    (row,) = summarise_cases(SUBJECTS, found, ENCODING.as_read, seed=0, resamples=500)
    assert row["scores"]["statement_recall"] == {
        "value": pytest.approx(2 / 3), "low": 0.5, "high": 1.0,
    }  # fmt: skip


def _persona(number):
    return encode_dialogue(SUBJECTS[number].dialogue, ENCODING)[0][0].persona


CONFIG = TrainConfig(
    model=MODEL, shape=TileShape(rows=2, context=31, response=41, persona=61), strategy="paml"
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, draw_params):
    """A run that was never trained."""
    folder = tmp_path_factory.mktemp("run")
    vocabulary = build_vocabulary(demo_corpus("train"))
    state = init_state(jax.tree.map(jnp.float32, draw_params(MODEL, len(vocabulary))))
    save_run(folder, {**dataclasses.asdict(CONFIG), "data": "demo"}, vocabulary.to_text())
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(3, state, {}, best=True)
    return folder


CHOSEN = ReconstructionConfig(max_dialogues=3, beams=2, seed=5, resamples=20)


def test_the_command_writes_scores_and_a_plot(workdir, capsys):
    report = command.reconstruct_and_print(workdir, CHOSEN)
    written = json.loads((workdir / "eval" / "test.reconstruction.json").read_text())
    assert written["settings"] == report["settings"] and written["settings"]["seed"] == 5
    assert written["settings"]["step"] == 3 and "jax" in written["versions"]
    assert {row["variant"] for row in written["rows"]} == set(VARIANTS)
    assert written["rows"][0]["dialogues"] == written["dialogues"] == 3
    assert (workdir / "eval" / "test.reconstruction.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((workdir / "eval").iterdir())) == 2
    said = capsys.readouterr().out
    assert said.count("paml has not trained this task") == 1
    every = max(row["turns_seen"] for row in report["rows"])
    for words in ("true persona", "after 1 of", "own utterances only", f"\n{every:>5}  "):
        assert words in said


def test_without_matplotlib_there_are_the_scores(workdir, tmp_path, capsys, monkeypatch):
    found = command.importlib.util.find_spec

    def find_spec(name):
        return None if name == "matplotlib" else found(name)

    def nothing(cases, *args, **kwargs):
        return (Scored(*case[:3], "", (1.0, 1.0), 2) for case in cases)

    monkeypatch.setattr(command.importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(command, "score_cases", nothing)
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command.reconstruct_and_print(workdir, CHOSEN, str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["test.reconstruction.json"]
    assert "pip install -e '.[plot]'" in capsys.readouterr().out


def test_the_dialogues_are_a_function_of_the_seed(workdir):
    run = command.load_for_test(workdir)
    subjects = command.choose_subjects(run, "test", 5, 30)
    assert subjects == command.choose_subjects(run, "test", 5, None)[:30]
    assert subjects != command.choose_subjects(run, "test", 6, 30)
    assert len({subject.persona for subject in subjects}) == len(run.personas)
    for subject in subjects:
        persona = run.personas[subject.persona]
        assert subject.dialogue in persona.dialogues
        assert any(subject.other in p.dialogues for p in run.personas if p is not persona)


def test_dialogues_without_statements_are_left_out(workdir, tmp_path, capsys):
    run = command.load_for_test(workdir)
    first = run.personas[0]
    without = dataclasses.replace(
        first, dialogues=tuple(dataclasses.replace(d, statements=()) for d in first.dialogues)
    )
    half = run._replace(personas=[without, *run.personas[1:]])
    subjects = command.choose_subjects(half, "test", 0, None)
    assert len(subjects) == sum(len(p.dialogues) for p in run.personas[1:])
    assert {t.dialogue.speaker for t in subjects} == {p.name for p in run.personas[1:]}
    command._describe(CHOSEN, half, subjects)
    assert f"left out {len(first.dialogues)} dialogues" in capsys.readouterr().out


@pytest.fixture
def refusal(monkeypatch):
    """(flags) -> the one sentence that the command ends with."""
    monkeypatch.setattr(command.startup, "start_jax", lambda: None)

    def run(*arguments):
        with flagsaver.flagsaver():
            command.define_flags()
            flags.FLAGS(["reconstruct", *arguments])
            with pytest.raises(SystemExit) as ended:
                command.main(["reconstruct"])
        message = str(ended.value)
        assert message.startswith("error: ") and "\n" not in message
        return message

    return run


def test_wrong_inputs_get_one_sentence(workdir, tmp_path, refusal):
    assert "got no --workdir" in refusal()
    assert "no config.json" in refusal(f"--workdir={tmp_path}")
    assert "1 or more, got --beams=0" in refusal(f"--workdir={workdir}", "--beams=0")
    without = tmp_path / "without"
    without.mkdir()
    said = [{"speaker": "s0", "text": "hi"}, {"speaker": "s1", "text": "hello"}]
    lines = [{"conversation": f"c{n}", "utterances": said} for n in range(2)]
    for split in ("train", "test"):
        (without / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    message = refusal(f"--workdir={workdir}", f"--data={without}")
    assert "persona statements of two personas" in message and "got 0 in the test" in message
    assert not (tmp_path / "eval").exists()
    with pytest.raises(SystemExit, match="flags only"):
        command.main(["reconstruct", "runs/x"])


def test_the_command_has_its_flags():
    with flagsaver.flagsaver():
        command.define_flags()
        flags.FLAGS(["reconstruct", "--workdir=w"])
        config = settings.read(ReconstructionConfig, source=settings.read(DataConfig))
        assert config == ReconstructionConfig()
        assert flags.FLAGS.workdir == "w" and flags.FLAGS.output is None


def test_intervals_stand_at_turns_that_half_the_dialogues_have(scored):
    rows = summarise_cases(SUBJECTS, scored, ENCODING.as_read, seed=0, resamples=20)
    text = reconstruction_table({"rows": rows, "dialogues": 5})
    assert text.count("own minus shuffled after 3 turns: F1 ") == 2
