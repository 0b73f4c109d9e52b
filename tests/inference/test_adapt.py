"""Test adapting to a speaker, saving what was learned, and replying."""

import functools
import hashlib
import io
import json
import math
import shutil

import jax
import numpy as np
import pytest

from experiments import adapt as command
from mtml_jax.data.encode import Encoding, encode_dialogue
from mtml_jax.data.packing import pack, pack_rows
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.text import detokenize
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.inference import adapt as speaker
from mtml_jax.inference import responder
from mtml_jax.inference.adapt import adapt_to_dialogues, load_adapted, save_adapted
from mtml_jax.inference.delta import digest
from mtml_jax.inference.responder import Responder, believed_persona
from mtml_jax.model import beam, decoding, losses
from mtml_jax.runs.folder import save_run
from mtml_jax.runs.trained import load_trained

RATE = 0.03  # a larger one lets rounding grow with every step
EXAMPLE = command.__file__.replace("adapt.py", "examples/five_dialogues.jsonl")


@pytest.fixture(scope="module")
def model(save_tiny_run, tmp_path_factory):
    return load_trained(save_tiny_run(tmp_path_factory.mktemp("run"), distinct_start=True))


def dialogues(sizes, seed=0):
    """Dialogues of so many turns, of words that the tiny model knows and one that it does not."""
    rng = np.random.default_rng(seed)
    words = [*["i", "you", "have", "a", "dog", "cat", ".", ",", "?", "!", "hi"], "zebra"]

    def text():
        return " ".join(rng.choice(words, rng.integers(1, 7)))

    return [
        Dialogue(f"c{n}", "ann", ("i have a cat .",), tuple(Turn(text(), text()) for _ in range(k)))
        for n, k in enumerate(sizes)
    ]


def test_adapting_is_a_plain_loop_of_sgd(model):
    """Batches of 16 in the order of (seed, epoch), all parameters, means over real tokens."""
    some = dialogues((7, 11, 3, 5))
    seen = []
    adapted = adapt_to_dialogues(
        model, some, inner_lr=RATE, epochs=2, seed=5, progress=lambda *now: seen.append(now)
    )
    encoding = Encoding(model.vocabulary, model.config.shape)
    encoded = [encode_dialogue(d, encoding)[0] for d in some]
    turns = [e for examples in encoded[:-1] for e in examples]
    config = model.config.loss()

    @jax.jit
    @jax.value_and_grad
    def slope(params, packed):
        return losses.weighted_loss(params, packed, losses.RESPONSE_ONLY, config=config)[0]

    def loss(params, examples):
        return slope(params, pack(examples, model.config.shape, 17, tasks=("response",)))

    params = model.params
    for epoch in range(2):
        order = np.random.default_rng([5, epoch]).permutation(21)
        for part in (order[:16], order[16:]):
            _, grads = loss(params, [turns[i] for i in part])
            params = jax.tree.map(lambda p, g: p - RATE * g, params, grads)
    for found, want in zip(jax.tree.leaves(adapted.params), jax.tree.leaves(params)):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    before, after = (float(loss(p, encoded[-1])[0]) for p in (model.params, params))
    assert adapted.ppl_before == pytest.approx(math.exp(before), rel=1e-4)
    assert adapted.ppl_after == pytest.approx(math.exp(after), rel=1e-3)
    assert adapted[3:] == (some[-1], 21, 2, RATE, 3)
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_another_speaker_compiles_nothing(model):
    both = speaker._adapt, speaker._score
    for program in both:
        program.clear_cache()
    adapt_to_dialogues(model, dialogues((2, 3)), epochs=1)
    sizes = [program._cache_size() for program in both]
    # More than one call an epoch, and a held-out dialogue of more than one batch.
    large = adapt_to_dialogues(model, dialogues((40, 40, 23), seed=1), epochs=1)
    assert large.turns == 80
    assert [program._cache_size() for program in both] == sizes == [1, 1]


def test_one_dialogue_is_learnt_and_not_measured(model):
    adapted = adapt_to_dialogues(model, dialogues((3,)), epochs=1)
    assert (adapted.ppl_before, adapted.ppl_after, adapted.held_out) == (None, None, None)
    assert adapted.turns == 3 and digest(adapted.params) != digest(model.params)
    still = adapt_to_dialogues(model, dialogues((3, 2)), epochs=0)
    assert still.ppl_after == still.ppl_before and digest(still.params) == digest(model.params)


@pytest.mark.parametrize(
    "some, settings, message",
    [
        ((), {}, "no dialogue"),
        ((3, 2), {"inner_lr": -1}, "--inner_lr=-1"),
        ((3, 2), {"inner_lr": math.nan}, "--inner_lr=nan"),
        ((3, 2), {"epochs": -1}, "--epochs=-1"),
        ((3, 2), {"inner_lr": 1e30, "epochs": 3}, "no longer finite"),
    ],
)
def test_settings_out_of_range_are_named(model, some, settings, message):
    with pytest.raises(ValueError, match=message):
        adapt_to_dialogues(model, dialogues(some), **settings)


@pytest.fixture
def saved(model, tmp_path):
    adapted = adapt_to_dialogues(model, dialogues((3, 2)), epochs=1)
    save_adapted(tmp_path, model, adapted, {"speaker": "ann"})
    return tmp_path


def test_what_is_kept_comes_back_up_to_float16(model, tmp_path):
    first, adapted = (adapt_to_dialogues(model, dialogues((5, 2)), epochs=n) for n in (1, 4))
    save_adapted(tmp_path, model, first, {})
    size = save_adapted(tmp_path, model, adapted, {"speaker": "ann"})
    assert sorted(p.name[:6] for p in tmp_path.iterdir()) == ["adapte", "delta-"]
    found = load_adapted(tmp_path, model)
    for start, want, got in zip(*map(jax.tree.leaves, (model.params, adapted.params, found))):
        largest = np.abs(want - start).max()
        assert largest > 0 and np.abs(got - want).max() <= largest * 2**-11
    record = json.loads((tmp_path / "adapted.json").read_text())
    assert record["provenance"] == {"speaker": "ann"}
    assert (record["turns"], record["dialogues"], record["checkpoint_step"]) == (5, 1, 3)
    assert record["base_sha256"] == digest(model.params) and "jax" in record["versions"]
    assert size == next(tmp_path.glob("delta-*")).stat().st_size
    again = speaker.score_dialogue(model, found, adapted.held_out)
    assert again == pytest.approx(adapted.ppl_after, rel=1e-2)


def refusal(folder, model):
    with pytest.raises((ValueError, OSError)) as caught:
        load_adapted(folder, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_model_is_refused(saved, save_tiny_run, model, tmp_path_factory):
    other = load_trained(save_tiny_run(tmp_path_factory.mktemp("run"), seed=1))
    assert "of another checkpoint" in refusal(saved, other)
    words = model.vocabulary.words
    swapped = type(model.vocabulary)((*words[:-2], words[-1], words[-2]))
    assert "another vocabulary" in refusal(saved, model._replace(vocabulary=swapped))


def rewrite(folder, arrays=None, data=None, **changes):
    """Puts other contents in, with digests that agree."""
    path = next(folder.glob("delta-*"))
    if data is None:
        with np.load(path) as old:
            arrays = {**old, **arrays}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        data = buffer.getvalue()
    path.write_bytes(data)
    record = json.loads((folder / "adapted.json").read_text())
    record |= {"delta_sha256": hashlib.sha256(data).hexdigest(), **changes}
    (folder / "adapted.json").write_text(json.dumps(record))


def test_damaged_files_are_refused(saved, model, tmp_path):
    assert "no adapted.json" in refusal(tmp_path / "none", model)
    path = next(saved.glob("delta-*"))
    whole, settings = path.read_bytes(), (saved / "adapted.json").read_text()
    for damaged in (whole[:-20], b"", whole[:99] + b"\x00" + whole[100:]):
        path.write_bytes(damaged)
        assert "SHA-256" in refusal(saved, model)
    rewrite(saved, data=whole[:-20])
    assert "got a damaged one" in refusal(saved, model)
    path.unlink()
    assert "no such file" in refusal(saved, model)
    for wrong in ("", "[]", "{" * 99999, '{"format": 1}', settings.replace("delta-", "../delta-")):
        (saved / "adapted.json").write_text(wrong)
        assert "cannot be used" in refusal(saved, model)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((3, 5), np.float16), r"embedding is float16[3, 5]"),
        (np.zeros((29, 6), np.float64), "embedding is float64"),
        (np.full((29, 6), np.nan, np.float16), "not finite"),
        (np.array([print], object), "allow_pickle=False"),
        (np.zeros((9999, 999), np.float16), "unpacks to more"),
    ],
)
def test_a_hostile_file_is_refused(saved, model, array, message):
    assert model.params["embedding"].shape == (29, 6)
    rewrite(saved, {"embedding": array})
    assert message in refusal(saved, model)


def test_a_run_that_is_not_one_is_refused(save_tiny_run, model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load_trained(tmp_path / "none")
    with pytest.raises(ValueError, match="expected --checkpoint=best or latest"):
        load_trained(model.workdir, "last")
    folder = tmp_path / "run"
    shutil.copytree(model.workdir, folder)
    text = (folder / "vocabulary.txt").read_text()
    (folder / "vocabulary.txt").write_text(text + "superfluous\n")
    with pytest.raises(ValueError, match="words in vocabulary.txt"):
        load_trained(folder)
    settings = json.loads((folder / "config.json").read_text())
    save_run(tmp_path / "empty", settings, text)
    with pytest.raises(FileNotFoundError, match="no best checkpoint"):
        load_trained(tmp_path / "empty")


HISTORY = ["Hi! Who's there?", "I'm a dog.", "What do you like?"]


@pytest.mark.parametrize("decoder", responder.DECODERS)
def test_a_reply_is_that_of_the_decoder(model, decoder):
    """On the context that training would have read, and in pieces the same as whole."""
    said = "hi ! who is there ? i am a dog . what do you like ?"
    context = pack_rows([model.vocabulary.encode(said)], model.config.shape.context, 1)
    decode = {
        "beam": beam.beam_search,
        "greedy": decoding.greedy,
        "nucleus": functools.partial(
            decoding.sample, key=jax.random.fold_in(jax.random.key(3), 0)
        ),
    }[decoder]
    decode = jax.jit(functools.partial(decode, start=START, config=model.config.model))
    want = detokenize(model.vocabulary.decode(np.asarray(decode(model.params, context).ids[0])))
    assert want
    assert Responder(model, decoder, seed=3).reply(model.params, HISTORY) == want
    pieces = list(Responder(model, decoder, seed=3).stream(model.params, HISTORY))
    assert "".join(pieces) == want
    assert len(pieces) > 1


def test_draws_go_on(model):
    drawn = Responder(model, "nucleus", temperature=3.0)
    assert len({drawn.reply(model.params, HISTORY) for _ in range(5)}) > 1


def test_replies_compile_once(model):
    adapted = adapt_to_dialogues(model, dialogues((3,)), epochs=2).params
    for decoder in responder.DECODERS:
        Responder(model, decoder).reply(model.params, HISTORY)
    programs = [responder._beam_search, responder._begin, responder._grow]
    sizes = [program._cache_size() for program in programs]
    for decoder in responder.DECODERS:
        Responder(model, decoder, seed=1, top_p=0.5).reply(adapted, HISTORY * 3)
        list(Responder(model, decoder).stream(adapted, ["hi"]))
    assert [program._cache_size() for program in programs] == sizes
    assert min(sizes) > 0


def test_the_end_of_a_long_conversation_is_read(model):
    respond = Responder(model, "greedy")
    long = ["you have a cat . " * 50, *["i like tea !"] * 3, *HISTORY]
    ids = responder._context(model, long).ids[0]
    turns = (Turn(" ".join(map(responder.tokenize, long)), ""),)
    encoding = Encoding(model.vocabulary, model.config.shape)
    want = encode_dialogue(Dialogue("", "", (), turns), encoding)[0][0].context
    assert tuple(ids) == want and len(want) == model.config.shape.context
    many = responder._context(model, ["hi " * 10**6, *["."] * 10**4, "?"]).ids[0]
    assert model.vocabulary.decode(many) == " ".join(["."] * 30 + ["?"])
    assert respond.reply(model.params, []) == respond.reply(model.params, ["", "\x00\u200b"])


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "\x1b[2J\x07", "\ud83d", "<end> <pad>"]
)
def test_hostile_text_is_text(model, text):
    reply = Responder(model, "greedy").reply(model.params, [text])
    assert reply.isprintable() and "script" not in reply
    tokens = responder.tokenize(text).split()
    assert responder._context(model, ["hi", text, "hi"]).segment.sum() == 2 + len(tokens)


def test_the_believed_persona_has_its_own_start(model):
    said = "hi ! who is there ? i am a dog . what do you like ?"
    context = pack_rows([model.vocabulary.encode(said)], model.config.shape.context, 1)

    greedy = jax.jit(
        functools.partial(
            decoding.greedy, max_tokens=responder.MAX_PERSONA, config=model.config.model
        )
    )

    def decoded(start):
        ids = greedy(model.params, context, start).ids
        return model.vocabulary.decode(np.asarray(ids[0]))

    assert decoded(START) != decoded(START_PERSONA)
    assert believed_persona(model, model.params, HISTORY) == decoded(START_PERSONA)
    turns = (Turn("hi ! who is there ?", "i am a dog ."), Turn("what do you like ?", "tea"))
    same = Dialogue("", "", (), turns)
    assert believed_persona(model, model.params, same) == decoded(START_PERSONA)
    shared = model._replace(config=_changed(model, distinct_start=False))
    assert believed_persona(shared, model.params, HISTORY) == decoded(START)


def _changed(model, **settings):
    return model.config.__class__(**{**vars(model.config), **settings})


def test_a_persona_that_was_never_learnt_is_not_told(model):
    paml = model._replace(config=_changed(model, strategy="paml"))
    with pytest.raises(ValueError, match="never learned"):
        believed_persona(paml, model.params, HISTORY)
    assert "never learned" in responder.persona_caveat(paml)
    one_task = model._replace(config=_changed(model, strategy="mtml", alpha=1.0))
    assert "at alpha 1 never learned" in responder.persona_caveat(one_task)
    multitask = model._replace(config=_changed(model, strategy="multitask"))
    assert responder.persona_caveat(multitask) == ""
    assert isinstance(believed_persona(multitask, model.params, HISTORY), str)
    shared = model._replace(config=_changed(model, distinct_start=False))
    assert "same token" in responder.persona_caveat(shared)
    assert responder.persona_caveat(model) == ""


@pytest.mark.parametrize(
    "settings",
    [{"decoder": "best"}, {"beams": 0}, {"top_p": 0.0}, {"temperature": 0.0}, {"max_tokens": 0}],
)
def test_a_wrong_decoder_is_refused(model, settings):
    with pytest.raises(ValueError, match="expected"):
        Responder(model, **settings)


@pytest.mark.parametrize(
    "tokens, text",
    [
        ("", ""),
        ("hi ! i am ann 's cat , and i like tea .", "Hi! I am ann's cat, and I like tea."),
        ("no way ! what ? 12 % of it ( all ) .", "No way! What? 12% of it (all)."),
        ("i <unk> it . . .", "I (?) it..."),
    ],
)
def test_tokens_are_written_as_a_person_would(tokens, text):
    assert detokenize(tokens) == text


def test_unknown_words_are_counted(model):
    some = [Dialogue("", "", (), (Turn("zebra", "i have a zebra"),))]
    assert responder.unknown_share(model, some) == 0.25
    assert responder.unknown_share(model, []) == 0


class Flags:
    def __init__(self, **changes):
        defaults = {
            "dialogues": EXAMPLE, "speaker": None, "shots": None, "epochs": 1, "inner_lr": None,
            "checkpoint": "best", "pause_hours": 6.0, "max_turns": 15, "seed": 0,
        }  # fmt: skip
        vars(self).update(defaults | changes)


def test_the_command_learns_the_example_and_saves_it(model, tmp_path, capsys):
    adapted = command.adapt(Flags(workdir=model.workdir, output=str(tmp_path)))
    shown = " ".join(capsys.readouterr().out.split())  # lines are folded, by the length of paths
    assert (adapted.dialogues, adapted.turns) == (4, 31)
    for part in ("5 conversations, 5 read", "Robin: 5 dialogues, 38 turns", "that is a large share",
                 "adapted to 4 dialogues of Robin", "(the control)", "reconstructed persona",
                 f"--adapted={tmp_path}"):  # fmt: skip
        assert part in shown
    record = json.loads((tmp_path / "adapted.json").read_text())["provenance"]
    assert record["speaker"] == "Robin"
    # The control reads none of the speaker's own dialogues but the held-out one.
    read, _ = command.read_chat(EXAMPLE)
    mine, others = command.choose_speaker(read, None)
    control = adapt_to_dialogues(model, [*others[:4], mine[-1]], epochs=1)
    assert record["ppl_after_another_speaker"] == control.ppl_after
    load_adapted(tmp_path, model)


def test_a_multitask_run_reconstructs_a_persona(save_tiny_run, tmp_path, capsys):
    """Its strategy trains the persona task, without adapting in training."""
    run = save_tiny_run(tmp_path / "run", strategy="multitask", distinct_start=True)
    command.adapt(Flags(workdir=str(run), output=str(tmp_path / "adapted")))
    shown = capsys.readouterr().out
    assert "reconstructed persona: " in shown and "never learned" not in shown
    assert "same token" not in shown


def test_the_command_says_what_it_wants(model, tmp_path):
    def refused(**changes):
        with pytest.raises((ValueError, OSError)) as caught:
            command.adapt(Flags(**{"workdir": model.workdir, "output": str(tmp_path), **changes}))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no --workdir" in refused(workdir=None)
    assert "no --dialogues" in refused(dialogues=None)
    assert "no --output" in refused(output=None)
    assert "expected a folder" in refused(output=EXAMPLE)
    assert "no such file" in refused(dialogues="none.jsonl")
    assert "'Robin' (5)" in refused(speaker="Nobody")
    assert "of 4 or less" in refused(shots=5)
    assert not list(tmp_path.iterdir())
