"""Decoding with a cache says what a full forward pass says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax import transformer
from mtml_jax.config import ModelConfig
from mtml_jax.data.vocab import END, PAD, START
from mtml_jax.decoding import greedy
from mtml_jax.types import Tokens

CONFIG = ModelConfig(
    encoder_layers=1, decoder_layers=2, heads=2, width=6, feed_forward=10, dtype="float64"
)
VOCABULARY = 13


@pytest.fixture(scope="module")
def params(draw_params, float64):
    return jax.tree.map(lambda x: jnp.asarray(3 * x), draw_params(CONFIG, VOCABULARY))


def contexts(lengths, slots):
    rng = np.random.default_rng(0)
    slot = np.arange(slots)
    segment = (slot[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = rng.integers(6, VOCABULARY, segment.shape).astype(np.int32)
    position = np.broadcast_to(slot, segment.shape).astype(np.int32)
    return jax.tree.map(jnp.asarray, Tokens(ids, segment, position))


@jax.jit
def next_token(params, context, ids, count):
    """The likeliest token after the first `count` ids, by a whole pass of the decoder."""
    memory_SD = transformer.encode(params, context, CONFIG)
    slot = jnp.arange(ids.shape[0], dtype=jnp.int32)
    inputs = Tokens(ids, (slot < count).astype(jnp.int32), slot)
    hidden_TD = transformer.decode(params, memory_SD, context.segment, inputs, CONFIG)
    return jnp.argmax(transformer.output_matrix(params, CONFIG) @ hidden_TD[count - 1])


def uncached(params, context, max_tokens):
    ids = [START]
    while len(ids) <= max_tokens and ids[-1] != END:
        padded = jnp.array(ids + [PAD] * (max_tokens + 1 - len(ids)), jnp.int32)
        ids.append(int(next_token(params, context, padded, len(ids))))
    return ids[1:] + [PAD] * (max_tokens + 1 - len(ids))


def test_each_cached_step_equals_the_whole_pass(params):
    context = jax.tree.map(lambda x: x[0], contexts([5], slots=7))
    tokens = jnp.array([START, 8, 11, 6, 9], jnp.int32)
    memory_SD = transformer.encode(params, context, CONFIG)
    inputs = Tokens(tokens, jnp.ones(5, jnp.int32), jnp.arange(5, dtype=jnp.int32))
    want_TD = transformer.decode(params, memory_SD, context.segment, inputs, CONFIG)
    step = jax.jit(functools.partial(transformer.decode_step, config=CONFIG))
    cache = transformer.start_cache(params, memory_SD, 5, CONFIG)
    for position, token in enumerate(tokens):
        hidden_D, cache = step(params, cache, context.segment, token, jnp.int32(position))
        np.testing.assert_allclose(hidden_D, want_TD[position], rtol=1e-12, atol=1e-12)


def test_greedy_takes_the_likeliest_token_in_a_padded_batch(params):
    batch = contexts([3, 7, 1, 5], slots=7)
    ids = greedy(params, batch, START, max_tokens=9, config=CONFIG)
    for n in range(4):
        one = jax.tree.map(lambda x: x[n], batch)
        assert ids[n].tolist() == uncached(params, one, 9)
    assert len(np.unique(ids, axis=0)) > 1  # the context matters


def test_nothing_follows_the_end(params):
    # With a zero embedding but for the end, every logit but its own is zero or below.
    embedding = np.zeros_like(params["embedding"])
    bias = np.asarray(params["decoder_norm"]["bias"])
    embedding[END] = bias  # whose product with itself is positive
    embedding = jnp.asarray(embedding)
    steady = {
        **params,
        "embedding": embedding,
        "decoder_norm": {"scale": jnp.zeros_like(bias), "bias": jnp.asarray(bias)},
    }
    ids = greedy(steady, contexts([3], 3), START, max_tokens=5, config=CONFIG)
    assert ids[0].tolist() == [END, PAD, PAD, PAD, PAD]
