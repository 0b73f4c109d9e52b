"""Adaptation as at test: who adapts on what, and the numbers that come out."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax import evaluation, losses
from mtml_jax.config import LossConfig, ModelConfig, TileShape
from mtml_jax.data.episodes import EncodedDialogue, EncodedPersona, Example, pack
from mtml_jax.sharding import persona_mesh

SHAPE = TileShape(rows=2, context=23, response=37, persona=29)
MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, heads=2, width=6, feed_forward=10, activation="gelu"
)
VOCABULARY = 19


@pytest.fixture(scope="module")
def personas(draw_dialogue):
    rng = np.random.default_rng(0)
    return [
        EncodedPersona(
            f"p{p}",
            tuple(
                EncodedDialogue(f"c{p}-{c}", tuple(draw_dialogue(rng, 5, VOCABULARY)))
                for c in range(5)
            ),
        )
        for p in range(3)
    ]


def test_folds_hold_one_conversation_out(personas):
    names = {id(d): d.conversation for p in personas for d in p.dialogues}
    folds = evaluation.choose_folds(personas, shots=3, count=30, seed=0)
    for index, held_out, own, other, others in folds:
        assert other != index
        assert held_out in personas[index].dialogues
        assert held_out.conversation not in [d.conversation for d in own + others]
        assert len({names[id(d)] for d in own}) == 3 == len(others)
        assert all(d in personas[index].dialogues for d in own)
        assert all(d in personas[other].dialogues for d in others)
    assert collections.Counter(f[0] for f in folds) == {0: 10, 1: 10, 2: 10}
    assert evaluation.choose_folds(personas, 3, 30, 0) == folds


def test_the_control_never_holds_the_held_out_conversation():
    """Both sides of a conversation: the other speaker's dialogues hold the same words."""

    def side(conversation, word):
        return EncodedDialogue(conversation, (Example((word,), (word,), ()),))

    both = [
        EncodedPersona("a", tuple(side(c, 6) for c in "xyz")),
        EncodedPersona("b", tuple(side(c, 7) for c in "xyz")),
    ]
    for _, held_out, own, _, others in evaluation.choose_folds(both, 3, 20, 1):
        assert held_out.conversation not in {d.conversation for d in own + others}
        assert len(own) == len(others) == 2  # as long as the own ones


def test_every_epoch_reads_every_turn_once_in_an_order_of_its_own(personas):
    held_out, *rest = personas[0].dialogues
    fold = evaluation.make_folds([(held_out, rest)], SHAPE, epochs=3, seed=0)
    assert fold.batches.persona is None and fold.held_out.persona is None
    want = sorted(len(e.response) for d in rest for e in d.examples)
    orders = []
    for epoch in range(3):
        sizes, batch_turns = [], []
        for batch in range(2):  # 20 turns: 16 and 4
            segment = fold.batches.response.inputs.segment[0, epoch, batch]
            turns = [
                int((segment[n] == s).sum())
                for n in range(segment.shape[0])
                for s in range(1, segment[n].max(initial=0) + 1)
            ]
            sizes += turns
            batch_turns.append(len(turns))
        assert batch_turns == [16, 4]
        assert sorted(sizes) == want
        orders.append(fold.batches.context.ids[0, epoch].tobytes())
    assert len(set(orders)) == 3


def test_curves_equal_a_plain_loop_of_gradient_steps(personas, draw_params, quick_compile):
    config = LossConfig(MODEL)
    params = jax.tree.map(jnp.float32, draw_params(MODEL, VOCABULARY))
    pairs = [(p.dialogues[0], list(p.dialogues[1:])) for p in personas[:2]]
    folds = evaluation.make_folds(pairs, SHAPE, epochs=2, seed=5)
    mesh = persona_mesh(2)
    curves = jax.jit(
        functools.partial(evaluation.adaptation_curves, config=config, mesh=mesh)
    )(params, folds, jnp.float32(0.2)).response
    loss = jax.jit(
        lambda p, e: losses.response_loss(p, e, 1.0, config=config)[0]
    )
    step = jax.jit(
        lambda p, e: jax.tree.map(
            lambda a, g: a - 0.2 * g,
            p,
            jax.grad(lambda p: losses.response_loss(p, e, 1.0, config=config)[0])(p),
        )
    )
    for n, (held_out, _) in enumerate(pairs):
        held = jax.tree.map(lambda x: x[n], folds.held_out)
        tokens = sum(len(e.response) for e in held_out.examples)
        assert curves.tokens[n].tolist() == [tokens] * 3
        adapted, want = params, [loss(params, held)]
        for epoch in range(2):
            for batch in range(folds.batches.context.ids.shape[2]):
                adapted = step(
                    adapted, jax.tree.map(lambda x: x[n, epoch, batch], folds.batches)
                )
            want.append(loss(adapted, held))
        np.testing.assert_allclose(curves.nll[n] / tokens, want, rtol=1e-5)
        assert abs(want[0] - want[-1]) > 1e-3


def test_an_empty_batch_moves_nothing(personas, draw_params, quick_compile):
    config = LossConfig(MODEL)
    params = jax.tree.map(jnp.float32, draw_params(MODEL, VOCABULARY))
    batches = jax.tree.map(lambda x: x[None], pack([], SHAPE, 2))
    adapted = evaluation.adapt_to(params, batches, 0.5, config=config)
    for a, b in zip(jax.tree.leaves(adapted), jax.tree.leaves(params)):
        np.testing.assert_array_equal(a, b)
