"""Test data never leak into training or adaptation, on generated and on real dialogues."""

import dataclasses

import jax
import numpy as np
import pytest

from mtml_jax.config import TileShape
from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.encode import Encoding, encode_dialogue
from mtml_jax.data.episodes import sample_episodes
from mtml_jax.data.parlai import find_split, read_parlai
from mtml_jax.data.personas import group_personas, require_conversations
from mtml_jax.data.prepare import encode_personas
from mtml_jax.data.vocab import SPECIALS, Vocabulary, build_vocabulary
from mtml_jax.eval.folds import choose_folds, measure_folds, pack_folds
from mtml_jax.eval.run import load_for_test

SHAPE = TileShape(rows=2, context=96, response=64, persona=128)


@pytest.fixture(scope="module", params=["demo", "personachat"])
def corpus(request):
    """split -> dialogues, of the generated and of the real corpus."""
    if request.param == "demo":
        return demo_corpus
    folder = request.getfixturevalue("shared_data") / "personachat"
    return lambda split: read_parlai(find_split(folder, split))[0]


def _usable(dialogues):
    return require_conversations(group_personas(dialogues))[0]


def _said(dialogue):
    return tuple(text for turn in dialogue.turns for text in (turn.context, turn.response))


def _words_of_either_side(dialogue):
    """The utterances of a conversation, the same for both sides."""
    return tuple(sorted(filter(None, _said(dialogue))))


def test_no_query_dialogue_is_in_its_support_set(corpus):
    personas = _usable(corpus("valid"))
    encoding = Encoding(build_vocabulary(corpus("valid"), 2), SHAPE)
    encoded = encode_personas(personas, encoding)[0]
    text = {
        (p.name, d.conversation): _words_of_either_side(d) for p in personas for d in p.dialogues
    }
    for step in range(40):
        for persona, support, query in sample_episodes(encoded, 16, 3, step):
            assert support.conversation != query.conversation
            sides = [text[persona.name, side.conversation] for side in (support, query)]
            assert sides[0] != sides[1], (persona.name, support.conversation)


def test_no_held_out_dialogue_is_adapted_to(corpus):
    personas = _usable(corpus("test"))
    encoded = encode_personas(personas, Encoding(build_vocabulary(corpus("test"), 2), SHAPE))[0]
    text = {id(e): _words_of_either_side(d) for p, q in zip(personas, encoded)
            for d, e in zip(p.dialogues, q.dialogues)}  # fmt: skip
    folds = choose_folds(encoded, 10, seed=0)
    assert len(folds) == sum(len(p.dialogues) for p in personas)
    for fold in folds:
        read = [text[id(side)] for side in (*fold.own, *fold.others)]
        assert read and text[id(fold.held_out)] not in read


def test_no_test_persona_is_trained_on(corpus):
    splits = {split: corpus(split) for split in ("train", "valid", "test")}
    for one, other in [("train", "valid"), ("train", "test"), ("valid", "test")]:
        texts = [{_words_of_either_side(d) for d in splits[split]} for split in (one, other)]
        assert not texts[0] & texts[1]
        everyone = [{frozenset(d.statements) for d in splits[split]} for split in (one, other)]
        assert not everyone[0] & everyone[1]
        if splits[one][0].speaker:  # the demo's: PersonaChat names nobody
            assert not {d.speaker for d in splits[one]} & {d.speaker for d in splits[other]}


def test_no_gold_reply_is_in_its_own_context(corpus):
    """Each reply becomes a word of its own, which may then occur in later contexts only."""
    marks = [f"mark{n}" for n in range(40)]
    vocabulary = Vocabulary(SPECIALS + tuple(marks))
    encoding = Encoding(vocabulary, dataclasses.replace(SHAPE, context=10_000))
    for dialogue in corpus("valid"):
        turns = [dataclasses.replace(t, response=m) for t, m in zip(dialogue.turns, marks)]
        examples, _ = encode_dialogue(dataclasses.replace(dialogue, turns=tuple(turns)), encoding)
        for n, example in enumerate(examples):
            found = [word for word in vocabulary.decode(example.context).split() if word in marks]
            assert found == marks[:n]
            assert vocabulary.decode(example.response[:-1]) == marks[n]


@pytest.fixture(scope="module")
def folds_of(save_tiny_run, tmp_path_factory):
    """(strategy, statements, persona_at_test) -> the arrays that `evaluate` would read."""

    def make(strategy, statements, persona_at_test=False):
        folder = tmp_path_factory.mktemp(strategy)
        save_tiny_run(folder, strategy=strategy)

        def corpus_of(split, seed=0):
            dialogues = demo_corpus(split)[:160]
            return [dataclasses.replace(d, statements=statements) for d in dialogues]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mtml_jax.data.load.demo_corpus", corpus_of)
            run = load_for_test(folder, persona_at_test=persona_at_test)
        plans = choose_folds(run.encoded, 5, 0, 4)
        sizes = measure_folds(plans, run.encoding, epochs=2, seed=0)
        return [
            pack_folds(plans, run.encoding, sizes, control=control, epochs=2, seed=0)
            for control in (False, True)
        ]

    return make


@pytest.mark.parametrize("strategy", ["std", "multitask", "paml", "mtml", "amtml", "std_p"])
def test_no_statement_is_in_the_evaluation(folds_of, strategy):
    dogs, cats = [folds_of(strategy, (f"i have a {pet}",)) for pet in ("dog", "cat")]
    for fold in (*dogs, *cats):
        for tiles in (*fold.batches, *fold.held_out):
            assert tiles.targets.ids.any() and not tiles.targets.task.any()  # responses alone
    for a, b in zip(jax.tree.leaves(dogs), jax.tree.leaves(cats), strict=True):
        np.testing.assert_array_equal(a, b)
    if strategy == "std_p":  # where they are asked for they are there
        asked = folds_of(strategy, ("i have a cat",), persona_at_test=True)
        assert any(
            a.shape != b.shape or np.any(a != b)
            for a, b in zip(jax.tree.leaves(asked), jax.tree.leaves(cats))
        )
