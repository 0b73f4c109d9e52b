"""Leave-one-out folds: nothing of the held-out conversation is ever adapted to."""

import numpy as np
import pytest

from mtml_jax.config import TileShape
from mtml_jax.data.encode import EncodedDialogue, EncodedPersona, Encoding, Example
from mtml_jax.data.layout import ROWS_A_DECODE
from mtml_jax.data.vocab import SPECIALS, Vocabulary
from mtml_jax.eval.folds import choose_folds, measure_folds, pack_folds

SHAPE = TileShape(rows=2, context=23, response=37, persona=29)
ENCODING = Encoding(Vocabulary(SPECIALS), SHAPE)


@pytest.fixture(scope="module")
def personas(draw_dialogue):
    rng = np.random.default_rng(0)
    return [
        EncodedPersona(
            f"p{p}",
            tuple(
                EncodedDialogue(f"c{p}-{c}", tuple(draw_dialogue(rng, 5, 19)))
                for c in range(5 + p)
            ),
        )
        for p in range(3)
    ]


def side(conversation, word):
    return EncodedDialogue(conversation, (Example((word,), (word,), (word,)),))


def packed(plans, *, control=False, epochs=3, seed=0):
    sizes = measure_folds(plans, ENCODING, epochs=epochs, seed=seed)
    return pack_folds(plans, ENCODING, sizes, control=control, epochs=epochs, seed=seed)


def test_every_dialogue_is_held_out_once_and_no_conversation_is_on_two_sides(personas):
    folds = choose_folds(personas, 3, seed=0)
    assert {(f.persona, f.dialogue) for f in folds} == {
        (p, d) for p in range(3) for d in range(5 + p)
    }
    assert len(folds) == 5 + 6 + 7
    for fold in folds:
        own = {d.conversation for d in fold.own}
        others = {d.conversation for d in fold.others}
        assert fold.held_out is personas[fold.persona].dialogues[fold.dialogue]
        assert len(own) == len(others) == 3
        assert own < {d.conversation for d in personas[fold.persona].dialogues}
        assert others < {d.conversation for d in personas[fold.other].dialogues}
        assert fold.other != fold.persona
        assert fold.held_out.conversation not in own | others


def test_a_subset_is_spread_and_has_the_folds_of_the_whole(personas):
    whole = choose_folds(personas, 3, seed=4)
    some = choose_folds(personas, 3, seed=4, count=6)
    assert some == whole[:6]
    assert sorted(f.persona for f in some) == [0, 0, 1, 1, 2, 2]
    assert choose_folds(personas, 3, seed=5) != whole


def test_fewer_shots_are_the_first_of_more(personas):
    for few, many in zip(choose_folds(personas, 2, 1), choose_folds(personas, 4, 1)):
        assert few[:3] == many[:3] and few.other == many.other
        assert few.own == many.own[:2] and few.others == many.others[:2]


def test_the_control_is_as_long_and_never_holds_the_held_out_conversation():
    """Both sides of a conversation: the other speaker's dialogues hold the same words."""
    both = [
        EncodedPersona("a", tuple(side(c, 6) for c in "xyz")),
        EncodedPersona("b", tuple(side(c, 7) for c in "vwxyz")),
    ]
    for fold in choose_folds(both, 3, seed=1):
        assert fold.held_out.conversation not in {d.conversation for d in fold.own + fold.others}
        if fold.persona == 0:
            assert len(fold.others) == len(fold.own) == 2
    assert {len(f.own) for f in choose_folds(both, 3, seed=1)} == {2, 3}  # effective k


def test_the_held_out_words_and_the_statements_are_never_in_a_batch():
    """Every conversation has a word of its own, so that a leak would be seen."""
    people = [
        EncodedPersona(f"p{p}", tuple(side(f"c{p}{c}", 10 + 5 * p + c) for c in range(4)))
        for p in range(3)
    ]
    for control in (False, True):
        for fold in choose_folds(people, 3, seed=2):
            arrays = packed([fold], control=control)
            word = fold.held_out.examples[0].response[0]
            (batches,), (held_out,) = arrays.batches, arrays.held_out
            assert not batches.targets.task.any() and not held_out.targets.task.any()
            adapted_to = {*batches.context.ids.flat, *batches.targets.ids.flat}
            whose = fold.others if control else fold.own
            assert adapted_to == {0} | {d.examples[0].response[0] for d in whose}
            assert word not in adapted_to
            assert word in held_out.targets.ids and word in arrays.contexts.ids


def test_every_epoch_reads_every_turn_once_in_an_order_of_its_own(personas):
    fold = next(f for f in choose_folds(personas, 4, seed=0) if f.persona == 0)
    (batches,) = packed([fold]).batches
    want = sorted(len(e.response) for d in fold.own for e in d.examples)
    orders = []
    for epoch in range(3):
        sizes, batch_turns = [], []
        for batch in range(2):  # 20 turns: 16 and 4
            segment = batches.targets.inputs.segment[0, epoch, batch]
            turns = [
                int((segment[n] == s).sum())
                for n in range(segment.shape[0])
                for s in range(1, segment[n].max(initial=0) + 1)
            ]
            sizes += turns
            batch_turns.append(len(turns))
        assert batch_turns == [16, 4]
        assert sorted(sizes) == want
        orders.append(batches.context.ids[0, epoch].tobytes())
    assert len(set(orders)) == 3


def test_contexts_stand_one_a_row(personas):
    [fold] = choose_folds(personas, 2, seed=0, count=1)
    contexts = packed([fold]).contexts
    assert contexts.ids.shape == (1, 1, ROWS_A_DECODE, SHAPE.context)
    for row, example in enumerate(fold.held_out.examples):
        size = len(example.context)
        assert tuple(contexts.ids[0, 0, row, :size]) == example.context
        assert contexts.segment[0, 0, row].tolist() == [1] * size + [0] * (SHAPE.context - size)
    assert not contexts.segment[0, 0, 5:].any()


def test_folds_that_cannot_be_made_are_refused(personas):
    with pytest.raises(ValueError, match="expected at most 6 dialogues.*got 7; lower --shots to 6"):
        choose_folds(personas, 7, seed=0)
    with pytest.raises(ValueError, match="expected two or more personas.*got 1;"):
        choose_folds(personas[:1], 2, seed=0)
