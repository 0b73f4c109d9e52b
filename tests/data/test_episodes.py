"""Encoding, packing and sampling: nothing lost, nothing shared between the sets."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from mtml_jax.config import TileShape
from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.encode import EncodedDialogue, EncodedPersona, Encoding, Example, encode_dialogue
from mtml_jax.data.episodes import sample_episodes
from mtml_jax.data.packing import occupied_slots, pack, stack, tiles_needed
from mtml_jax.data.personas import group_personas
from mtml_jax.data.prepare import encode_personas
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.vocab import (
    END,
    SILENCE,
    START,
    START_PERSONA,
    UNK,
    build_vocabulary,
)

WIDE = TileShape(rows=2, context=64, response=32, persona=32)


@pytest.fixture(scope="module")
def demo():
    dialogues = demo_corpus("valid")
    encoding = Encoding(build_vocabulary(dialogues), TileShape(2, 128, 64, 128))
    return encode_personas(group_personas(dialogues), encoding)[0]


def small_dialogue():
    return Dialogue(
        "c1",
        "ann",
        ("i sail .", "cats rule ."),
        (
            Turn("", "hello there"),
            Turn("hi , who is it ?", "it is ann"),
            Turn("ann who ?", "ann of the sea"),
        ),
    )


def encoded(shape=WIDE, in_context=False, persona_context="both"):
    dialogue = small_dialogue()
    vocabulary = build_vocabulary([dialogue], min_count=1)
    encoding = Encoding(vocabulary, shape, in_context, persona_context=persona_context)
    examples, counts = encode_dialogue(dialogue, encoding)
    return EncodedDialogue(dialogue.conversation, examples), vocabulary, counts


def test_contexts_hold_all_earlier_utterances_and_the_current_one():
    dialogue, vocabulary, counts = encoded()
    texts = [vocabulary.decode(e.context) for e in dialogue.examples]
    assert texts == [
        "<silence>",
        "hello there hi , who is it ?",
        "hello there hi , who is it ? it is ann ann who ?",
    ]
    assert dialogue.examples[0].context == (SILENCE,)
    assert counts == {"examples": 3, "contexts": 0, "responses": 0, "personas": 0}


def test_no_reply_stands_in_its_own_context():
    dialogue, vocabulary, _ = encoded()
    for example in dialogue.examples:
        reply = vocabulary.decode(example.response)
        assert reply not in vocabulary.decode(example.context)


def test_the_persona_is_all_statements_sorted_without_full_stops():
    dialogue, vocabulary, _ = encoded()
    for example in dialogue.examples:
        assert vocabulary.decode(example.persona) == "cats rule i sail"
        assert example.persona[-1] == END


def test_long_contexts_keep_their_end_and_are_counted():
    dialogue, vocabulary, counts = encoded(dataclasses.replace(WIDE, context=5))
    assert vocabulary.decode(dialogue.examples[2].context) == "is ann ann who ?"
    assert counts["contexts"] == 2


def test_long_responses_and_personas_are_cut_and_counted():
    dialogue, vocabulary, counts = encoded(TileShape(1, 64, 4, 3))
    assert vocabulary.decode(dialogue.examples[2].response) == "ann of the"
    assert dialogue.examples[2].response[-1] == END
    assert counts["responses"] == 1 and counts["personas"] == 3


def test_std_p_puts_the_persona_in_front_and_cuts_the_context_behind_it():
    dialogue, vocabulary, _ = encoded(dataclasses.replace(WIDE, context=8), in_context=True)
    texts = [vocabulary.decode(e.context) for e in dialogue.examples]
    assert texts[0] == "cats rule i sail <silence>"
    assert texts[2] == "cats rule i sail ann ann who ?"


def test_statements_are_reconstructed_from_what_their_speaker_said():
    """Every turn makes two examples: the reply after both sides, the persona after its own."""
    whole, vocabulary, _ = encoded(WIDE)
    apart, _, counts = encoded(WIDE, persona_context="own")
    turns = len(whole.examples)
    assert len(apart.examples) == 2 * turns and counts["examples"] == turns
    replies, personas = apart.examples[:turns], apart.examples[turns:]
    assert [(e.context, e.response) for e in replies] == [
        (e.context, e.response) for e in whole.examples
    ]
    assert [e.persona for e in personas] == [e.persona for e in whole.examples]
    assert not any(e.persona for e in replies) and not any(e.response for e in personas)
    said = " ".join(vocabulary.decode(e.response) for e in replies[:2])
    assert [vocabulary.decode(e.context) for e in (personas[0], personas[2])] == ["<silence>", said]
    learnt = pack(apart.examples, WIDE, 9, tasks=("persona",))
    assert sorted(e[0] for e in unpack(learnt[0])) == sorted(e.context for e in personas)


def unpack(examples):
    """Reads the examples back from tiles of one kind, as (context, response, persona)."""
    found = []
    for n in range(examples.context.ids.shape[0]):
        segments = examples.context.segment[n]
        for segment in range(1, segments.max(initial=0) + 1):
            row = int(np.argmax((segments == segment).any(axis=1)))
            place = segments[row] == segment
            assert not (np.delete(segments, row, axis=0) == segment).any()
            position = examples.context.position[n, row][place]
            assert (position == np.arange(place.sum())).all()
            assert (np.diff(np.flatnonzero(place)) == 1).all()
            parts = [tuple(examples.context.ids[n, row][place].tolist())]
            targets = examples.targets
            for task in range(2):
                here = (targets.reads[n] == segment) & (targets.task[n] == task)
                assert len(np.unique(targets.inputs.segment[n][here])) == here.any()
                inputs, ids = targets.inputs.ids[n][here], targets.ids[n][here]
                assert (targets.inputs.position[n][here] == np.arange(here.sum())).all()
                assert (inputs[1:] == ids[:-1]).all()
                parts.append(tuple(ids.tolist()))
            found.append(tuple(parts))
    return found


def random_examples(rng, count):
    def draw(low, high):
        return tuple(rng.integers(6, 97, rng.integers(low, high)).tolist())

    return [Example(draw(1, 38), draw(1, 12), draw(1, 14)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(7))
def test_packing_loses_nothing(seed):
    rng = np.random.default_rng(seed)
    examples = random_examples(rng, 11)
    shape = TileShape(rows=3, context=37, response=23, persona=29)
    dialogue = EncodedDialogue("c", tuple(examples))
    needed = tiles_needed([dialogue], shape)
    (packed,) = pack(examples, shape, needed + 2)
    want = collections.Counter((e.context, e.response, e.persona) for e in examples)
    assert collections.Counter(unpack(packed)) == want
    occupied = packed.context.segment.max(axis=(1, 2)) > 0
    assert occupied.tolist() == [True] * needed + [False] * 2


@pytest.mark.parametrize("tasks", [("response",), ("persona",), ("response", "persona")])
def test_two_kinds_of_tiles_hold_all_with_less_work(tasks):
    rng = np.random.default_rng(3)
    large = TileShape(rows=1, context=37, response=15, persona=17)
    shape = dataclasses.replace(large, small=TileShape(1, 19, 11, 13))
    saved = 0
    for _ in range(20):
        examples = random_examples(rng, 7)
        kinds = pack(examples, shape, 7, tasks=tasks)
        (alone,) = pack(examples, large, 7, tasks=tasks)
        kept = [dataclasses.replace(e, **{t: () for t in ("response", "persona") if t not in tasks})
                for e in examples]  # fmt: skip
        want = collections.Counter((e.context, e.response, e.persona) for e in kept)
        assert collections.Counter(itertools.chain(*map(unpack, kinds))) == want
        both, one = occupied_slots(stack([kinds])), occupied_slots(stack([(alone,)]))
        assert (both <= 1.1 * one).all()  # in slots; what is made least weighs those of targets more
        saved += int(both.sum() < one.sum())
    assert saved > 10


def test_start_tokens_of_the_two_tasks():
    example = Example((7,), (8, END), (9, END))
    for distinct, start in ((False, START), (True, START_PERSONA)):
        (packed,) = pack([example], WIDE, 1, distinct_start=distinct)
        assert packed.targets.inputs.ids[0, :4].tolist() == [START, 8, start, 9]
        assert packed.targets.task[0, :4].tolist() == [0, 0, 1, 1]


def test_too_few_tiles_are_refused():
    examples = [Example(tuple(range(6, 70)), (8, END), ())] * 3
    with pytest.raises(ValueError, match="fit 1 tiles, got some that need 2"):
        pack(examples, WIDE, 1)


def test_episodes_are_a_function_of_seed_and_step(demo):
    one = sample_episodes(demo, 5, seed=3, step=11)
    assert one == sample_episodes(demo, 5, seed=3, step=11)
    assert one != sample_episodes(demo, 5, seed=3, step=12)
    assert one != sample_episodes(demo, 5, seed=4, step=11)


def test_personas_are_distinct_and_uniformly_drawn(demo):
    counts = collections.Counter()
    for step in range(400):
        names = [p.name for p, _, _ in sample_episodes(demo, 5, seed=0, step=step)]
        assert len(set(names)) == 5
        counts.update(names)
    expected = 400 * 5 / len(demo)
    assert set(counts) == {p.name for p in demo}
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < 38  # chi2, 15 df, 0.1 %


def test_support_and_query_never_share_a_conversation(demo):
    for step in range(200):
        for persona, support, query in sample_episodes(demo, 7, seed=1, step=step):
            assert support.conversation != query.conversation
            assert support in persona.dialogues and query in persona.dialogues


def test_both_sides_of_one_conversation_never_meet():
    sides = tuple(
        EncodedDialogue(c, (Example((i,), (END,), ()),)) for i, c in enumerate("aabbcc", start=6)
    )
    persona = EncodedPersona("both", sides)
    seen = set()
    for step in range(60):
        ((_, support, query),) = sample_episodes([persona], 1, seed=0, step=step)
        assert support.conversation != query.conversation
        seen |= {support.examples, query.examples}
    assert len(seen) == 6  # every side is drawn


def test_unknown_words_are_read_as_unknown():
    _, vocabulary, _ = encoded()
    other = Dialogue("c2", "bob", (), (Turn("quux", "hello"),))
    examples, _ = encode_dialogue(other, Encoding(vocabulary, WIDE))
    assert examples[0].context == (UNK,)
    assert examples[0].persona == ()
