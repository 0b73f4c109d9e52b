"""Decode replies with a key-value cache: greedily or by nucleus sampling.

Each method, `beam.beam_search` included, encodes the context once, takes one token per step
from the cached decoder until every reply has ended, and scores its reply under the unchanged
model. Contexts may also be beginnings of one row, which is then read once for all of them. Padding and the start
tokens are never emitted. They are no candidates but keep their share of the probability, so
that a score is that of teacher forcing. Settings that shape arrays are static: under jit a
call compiles once for each shape of the contexts.

Axes: E example, S context token, T reply token, D width, V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtml_jax.config import ModelConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.vocab import WORDS, Symbols
from mtml_jax.model.cache import decode_step, memory_axis, output_matrix, start_caches
from mtml_jax.types import Params, Tokens

MAX_TOKENS = 20  # of a reply, end-of-sequence included


class Growing(NamedTuple):
    """Replies while they are decoded token by token; a pytree.

    Attributes:
      cache: keys and values of the contexts and of the tokens so far.
      segment: int32 [E, S], segments of the contexts.
      token: int32 [E], the newest token; the start token at first.
      position: int32 scalar, number of tokens so far.
    """

    cache: Any
    segment: jax.Array
    token: jax.Array
    position: jax.Array


class Replies(NamedTuple):
    """Decoded replies, one per example.

    Attributes:
      ids: int32 [E, T], padding after end-of-sequence; without end-of-sequence if T tokens
        were not enough.
      log_prob: float32 [E], or wider if the model computes in more; the sum of
        log p(token | context, previous tokens) over the reply, end-of-sequence included.
    """

    ids: jax.Array
    log_prob: jax.Array


def greedy(
    params: Params,
    context: Tokens,
    start: int,
    *,
    max_tokens: int = MAX_TOKENS,
    config: ModelConfig | LlamaConfig,
    base: Params | None = None,
    symbols: Symbols = WORDS,
) -> Replies:
    """Takes the most likely token at each position; of equal ones the lowest id.

    Args:
      params: the model's parameters.
      context: Tokens [E, S], one example per row, segment 1 where there are tokens; of a
        pretrained decoder also ids and position [S], of which each example reads the beginning
        that `segment` [E, S] marks.
      start: id of the task's start token.
      max_tokens: greatest length of a reply, T.
      config: sizes of the model.
      base: frozen parameters of a pretrained decoder.
      symbols: the tokens that end a reply, fill it up, or are never emitted.

    Returns:
      Replies.

    Raises:
      ValueError: max_tokens is below one.
    """

    return _one_by_one(params, base, context, start, _most_likely, max_tokens, config, symbols)


def sample(
    params: Params,
    context: Tokens,
    start: int,
    key: jax.Array,
    *,
    max_tokens: int = MAX_TOKENS,
    top_p: float = 0.9,
    temperature: float = 1.0,
    config: ModelConfig | LlamaConfig,
    base: Params | None = None,
    symbols: Symbols = WORDS,
) -> Replies:
    """Draws each token from the nucleus of its distribution (Holtzman et al., 2020).

    The logits of the tokens that may be emitted are divided by the temperature. The nucleus
    is the smallest set of most likely tokens whose probabilities reach top_p; the token is
    drawn from it in proportion. Every example has a key of its own, split from `key`. The
    score is that under the whole distribution at temperature one.

    Args:
      params: the model's parameters.
      context: see `greedy`.
      start: id of the task's start token.
      key: PRNG key.
      max_tokens: greatest length of a reply, T.
      top_p: in (0, 1]; not checked if it is traced.
      temperature: above zero; not checked if it is traced.
      config: sizes of the model.
      base: frozen parameters of a pretrained decoder.
      symbols: the tokens that end a reply, fill it up, or are never emitted.

    Returns:
      Replies.

    Raises:
      ValueError: max_tokens is below one, or top_p or temperature out of range.
    """
    choose = _nucleus(key, context.ids.shape[0], top_p, temperature)
    return _one_by_one(params, base, context, start, choose, max_tokens, config, symbols)


def begin_replies(
    params: Params,
    context: Tokens,
    start: int,
    *,
    max_tokens: int,
    config: ModelConfig | LlamaConfig,
    base: Params | None = None,
) -> Growing:
    """Encodes the contexts of replies that `grow_replies` decodes token by token.

    Args:
      params: the model's parameters.
      context: Tokens [E, S], one example per row, segment 1 where there are tokens.
      start: id of the task's start token.
      max_tokens: number of tokens by which the replies may grow.
      config: sizes of the model.
      base: frozen parameters of a pretrained decoder.

    Returns:
      Growing.

    Raises:
      ValueError: max_tokens is below one.
    """
    require_positive("max_tokens", max_tokens)
    token_E = jnp.full((context.ids.shape[0],), start, jnp.int32)
    cache = start_caches(params, base, context, max_tokens, config)
    return Growing(cache, context.segment, token_E, jnp.int32(0))


def grow_replies(
    params: Params,
    growing: Growing,
    key: jax.Array | None = None,
    *,
    top_p: float = 0.9,
    temperature: float = 1.0,
    config: ModelConfig | LlamaConfig,
    base: Params | None = None,
    symbols: Symbols = WORDS,
) -> Growing:
    """Decodes one more token of each reply, like `greedy` or, with a key, like `sample`.

    Args:
      params: the model's parameters.
      growing: from `begin_replies` or the previous call.
      key: PRNG key, the same in all calls for one reply; None takes the most likely token.
      top_p: see `sample`.
      temperature: see `sample`.
      config: sizes of the model.
      base: frozen parameters of a pretrained decoder.
      symbols: the tokens that end a reply, fill it up, or are never emitted.

    Returns:
      Growing; a reply is finished when its token is end-of-sequence.

    Raises:
      ValueError: top_p or temperature is out of range.
    """
    examples = growing.token.shape[0]
    choose = _most_likely if key is None else _nucleus(key, examples, top_p, temperature)
    matrix_VD = output_matrix(params, base, config)
    logits_EV, cache = _advance(params, base, growing, matrix_VD, config)
    token_E = choose(permitted(logits_EV, symbols), growing.position).astype(jnp.int32)
    return Growing(cache, growing.segment, token_E, growing.position + 1)


def _one_by_one(params, base, context, start, choose, max_tokens, config, symbols):
    """Decodes one hypothesis per example.

    choose: (logits_EV of the tokens that may be emitted, position) -> token_E.
    """
    require_positive("max_tokens", max_tokens)
    examples = context.segment.shape[0]
    matrix_VD = output_matrix(params, base, config)

    def unfinished(carry):
        _, _, _, done_E, _, position = carry
        return (position < max_tokens) & ~jnp.all(done_E)

    def step(carry):
        cache, ids_TE, token_E, done_E, score_E, position = carry
        growing = Growing(cache, context.segment, token_E, position)
        logits_EV, cache = _advance(
            params, base, growing, matrix_VD, config, memory_axis(context)
        )
        token_E = choose(permitted(logits_EV, symbols), position).astype(jnp.int32)
        gain_E = jnp.take_along_axis(logits_EV, token_E[:, None], axis=1)[:, 0]
        gain_E -= jax.nn.logsumexp(logits_EV, axis=-1)
        token_E = jnp.where(done_E, symbols.pad, token_E)
        score_E += jnp.where(done_E, 0.0, gain_E)
        done_E |= token_E == symbols.end
        return cache, ids_TE.at[position].set(token_E), token_E, done_E, score_E, position + 1

    begin = (
        start_caches(params, base, context, max_tokens, config),
        jnp.full((max_tokens, examples), symbols.pad, jnp.int32),
        jnp.full((examples,), start, jnp.int32),
        jnp.zeros((examples,), bool),
        jnp.zeros((examples,), widened(matrix_VD.dtype)),
        jnp.int32(0),
    )
    _, ids_TE, _, _, score_E, _ = jax.lax.while_loop(unfinished, step, begin)
    return Replies(ids_TE.T, score_E)


def _advance(params, base, growing, matrix_VD, config, shared_axis=0):
    """Returns the logits after the newest token, and the caches that include it."""
    axes = {"memory": shared_axis, "own": 0}
    advance = jax.vmap(
        decode_step, in_axes=(None, None, axes, 0, 0, None, None), out_axes=(0, axes)
    )
    hidden_ED, cache = advance(
        params, base, growing.cache, growing.segment, growing.token, growing.position, config
    )
    return logits_of(hidden_ED, matrix_VD), cache


def _most_likely(logits_EV, position):
    del position
    return jnp.argmax(logits_EV, axis=-1)


def _nucleus(key, examples, top_p, temperature):
    if not isinstance(top_p, jax.Array) and not 0.0 < top_p <= 1.0:
        raise ValueError(f"expected top_p above 0 and up to 1, got {top_p}")
    if not isinstance(temperature, jax.Array) and not temperature > 0.0:
        raise ValueError(
            f"expected a temperature above 0, got {temperature}; use greedy for its limit"
        )
    keys_E = jax.random.split(key, examples)

    def choose(logits_EV, position):
        now_E = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_E, position)
        return jax.vmap(_draw, in_axes=(0, 0, None))(logits_EV / temperature, now_E, top_p)

    return choose


def _draw(logits_V, key, top_p):
    order_V = jnp.argsort(logits_V, descending=True)  # stable: of equal logits the lowest id
    falling_V = logits_V[order_V]
    share_V = jax.nn.softmax(falling_V)
    before_V = jnp.cumsum(share_V) - share_V
    nucleus_V = (before_V < top_p) | (jnp.arange(share_V.size) == 0)
    return order_V[jax.random.categorical(key, jnp.where(nucleus_V, falling_V, -jnp.inf))]


def logits_of(hidden, matrix_VD):
    """Multiplies hidden states with the output matrix, in at least float32."""
    return jnp.einsum("...d,vd->...v", hidden, matrix_VD).astype(widened(hidden.dtype))


def permitted(logits, symbols):
    """Masks the tokens that are never emitted."""
    return logits.at[..., jnp.array(symbols.never)].set(-jnp.inf)


def widened(dtype):
    """Returns a dtype of at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def require_positive(name, value):
    """Checks a count."""
    if value < 1:
        raise ValueError(f"expected {name} of at least 1, got {value}")
