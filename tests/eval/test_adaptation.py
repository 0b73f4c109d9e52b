"""Adaptation as at test: the numbers and replies that come out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.config import LossConfig, ModelConfig, TileShape
from mtml_jax.data.encode import EncodedDialogue, EncodedPersona, Encoding
from mtml_jax.data.packing import pack
from mtml_jax.data.vocab import SPECIALS, START, Vocabulary
from mtml_jax.eval import adaptation as evaluation
from mtml_jax.eval.folds import choose_folds, measure_folds, pack_folds
from mtml_jax.model import decoding, losses
from mtml_jax.sharding import persona_mesh

SHAPE = TileShape(rows=2, context=23, response=37, persona=29)
ENCODING = Encoding(Vocabulary(SPECIALS), SHAPE)
MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, heads=2, width=6, feed_forward=10, activation="gelu"
)
VOCABULARY = 19
CONFIG = LossConfig(MODEL)
GREEDY = functools.partial(decoding.greedy, start=START, max_tokens=4, config=MODEL)


@pytest.fixture(scope="module")
def params(draw_params):
    return jax.tree.map(jnp.float32, draw_params(MODEL, VOCABULARY))


@pytest.fixture(scope="module")
def folds(draw_dialogue):
    """Two folds of 3 shots and 2 epochs; ten turns are held out, more than one decode takes."""
    rng = np.random.default_rng(0)
    personas = [
        EncodedPersona(
            f"p{p}",
            tuple(
                EncodedDialogue(f"c{p}-{c}", tuple(draw_dialogue(rng, 10, VOCABULARY)))
                for c in range(4)
            ),
        )
        for p in range(2)
    ]
    plans = choose_folds(personas, 3, seed=0, count=2)
    sizes = measure_folds(plans, ENCODING, epochs=2, seed=5)
    return pack_folds(plans, ENCODING, sizes, control=False, epochs=2, seed=5)


@functools.cache
def compiled(stages, devices, **settings):
    mesh = persona_mesh(devices)
    score = functools.partial(
        evaluation.score_stages, stages=stages, config=CONFIG, mesh=mesh, **settings
    )
    return jax.jit(score)


def staged(params, folds, stages, devices, **settings):
    return compiled(stages, devices, **settings)(params, folds, jnp.float32(0.2))


@pytest.mark.long
def test_stages_equal_a_plain_loop_of_gradient_steps(params, folds):
    found = staged(params, folds, (0, 1, 2), 2, decode=GREEDY)
    one_chunk = staged(params, folds, (0, 2), 1, chunk=2, decode=GREEDY)
    loss = jax.jit(lambda p, e: losses.weighted_loss(p, e, losses.RESPONSE_ONLY, config=CONFIG)[0])
    slope = jax.jit(jax.grad(lambda p, e: losses.weighted_loss(p, e, losses.RESPONSE_ONLY, config=CONFIG)[0]))
    decode = jax.jit(GREEDY)
    changed = False
    for n in range(2):
        held = jax.tree.map(lambda x, n=n: x[n], folds.held_out)
        contexts = jax.tree.map(lambda x, n=n: x[n].reshape(-1, x.shape[-1])[:10], folds.contexts)
        tokens = int((held[0].targets.inputs.segment > 0).sum())
        assert found.response.tokens[n].tolist() == [tokens] * 3
        adapted, want, replies = params, [loss(params, held)], [decode(params, contexts)]
        for epoch in range(2):
            for batch in range(folds.batches[0].context.ids.shape[2]):
                at = (n, epoch, batch)
                examples = jax.tree.map(lambda x, at=at: x[at], folds.batches)
                grads = slope(adapted, examples)
                adapted = jax.tree.map(lambda a, g: a - 0.2 * g, adapted, grads)
            want.append(loss(adapted, held))
            replies.append(decode(adapted, contexts))
        np.testing.assert_allclose(found.response.nll[n] / tokens, want, rtol=1e-5)
        np.testing.assert_allclose(
            one_chunk.response.nll[n] / tokens, [want[0], want[2]], rtol=1e-5
        )
        for stage, one in enumerate(replies):
            np.testing.assert_array_equal(found.replies.ids[n, stage, :10], one.ids)
            np.testing.assert_allclose(
                found.replies.log_prob[n, stage, :10], one.log_prob, rtol=1e-4
            )
        np.testing.assert_array_equal(one_chunk.replies.ids[n, 1, :10], replies[2].ids)
        changed |= bool((replies[0].ids != replies[2].ids).any())
        assert abs(want[0] - want[-1]) > 1e-3
    assert changed  # else the replies could be those of any stage


@pytest.mark.long
def test_without_adaptation_there_are_the_initial_scores(params, folds):
    initial = staged(params, folds, (0,), 2)
    assert initial.replies is None
    later = staged(params, folds, (0, 1), 2)
    np.testing.assert_allclose(initial.response.nll[:, 0], later.response.nll[:, 0], rtol=1e-6)


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity(params, folds):
    uniform = {**params, "embedding": jnp.zeros_like(params["embedding"])}
    sums = staged(uniform, folds, (0,), 2).response
    np.testing.assert_allclose(np.exp(sums.nll / sums.tokens), VOCABULARY, rtol=1e-5)


def test_an_empty_batch_moves_nothing(params):
    batches = jax.tree.map(lambda x: x[None], pack([], SHAPE, 2))
    adapted = evaluation.adapt_to(params, batches, 0.5, config=CONFIG)
    for a, b in zip(jax.tree.leaves(adapted), jax.tree.leaves(params)):
        np.testing.assert_array_equal(a, b)
