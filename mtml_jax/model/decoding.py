"""Replies from a model: greedy, beam search and nucleus sampling, with a key-value cache.

All three read the context once, take one token per step from the cached decoder,
and score what they return under the model as it is. Padding and the start tokens
are never emitted: they are no candidates, but keep their share of the probability,
so that a score is what teacher forcing gives. Settings that shape arrays are static;
under jit a call compiles once for each shape of the contexts.

Axes: E example, B beam, S context token, T reply token, L layer, D width, V vocabulary,
K candidates of a beam.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtml_jax.config import ModelConfig
from mtml_jax.data.vocab import END, PAD, START, START_PERSONA
from mtml_jax.model import transformer
from mtml_jax.types import Params, Tokens

MAX_TOKENS = 20  # of a reply, end-of-sequence included
BEAMS = 5
_NEVER_EMITTED = (PAD, START, START_PERSONA)


class Growing(NamedTuple):
    """Replies while they are decoded token by token; a pytree.

    Attributes:
      cache: keys and values of the contexts and of the tokens so far.
      segment: int32 [E, S], of the contexts.
      token: int32 [E], the newest token; the start token at first.
      position: int32 scalar, tokens so far.
    """

    cache: Any
    segment: jax.Array
    token: jax.Array
    position: jax.Array


class Replies(NamedTuple):
    """What a model answers, one reply per example.

    Attributes:
      ids: int32 [E, T], padding after end-of-sequence; without end-of-sequence where
        T tokens were not enough.
      log_prob: float32 [E], or wider where the model computes in more; the sum of
        log p(token | context, tokens before) over the reply, end-of-sequence included.
    """

    ids: jax.Array
    log_prob: jax.Array


def greedy(
    params: Params,
    context: Tokens,
    start: int,
    *,
    max_tokens: int = MAX_TOKENS,
    config: ModelConfig,
) -> Replies:
    """Takes the likeliest token at each position; of equal ones the lowest id.

    Args:
      params: the model's parameters.
      context: Tokens [E, S], one example a row, segment 1 where there are tokens.
      start: id of the start token of the task.
      max_tokens: most tokens of a reply, T.
      config: sizes of the model.

    Returns:
      Replies.

    Raises:
      ValueError: max_tokens is below one.
    """

    return _one_by_one(params, context, start, _likeliest, max_tokens, config)


def sample(
    params: Params,
    context: Tokens,
    start: int,
    key: jax.Array,
    *,
    max_tokens: int = MAX_TOKENS,
    top_p: float = 0.9,
    temperature: float = 1.0,
    config: ModelConfig,
) -> Replies:
    """Draws each token from the nucleus of its distribution (Holtzman et al., 2020).

    The logits of the tokens that may be emitted are divided by the temperature; the
    nucleus is the smallest set of likeliest tokens whose probabilities reach top_p, and
    the token is drawn from it in proportion. Every example has a key of its own, split
    from `key`. The score is under the whole distribution at temperature one.

    Args:
      params: the model's parameters.
      context: Tokens [E, S], one example a row, segment 1 where there are tokens.
      start: id of the start token of the task.
      key: PRNG key.
      max_tokens: most tokens of a reply, T.
      top_p: in (0, 1]; may be traced, and is not checked then.
      temperature: above zero; may be traced, and is not checked then.
      config: sizes of the model.

    Returns:
      Replies.

    Raises:
      ValueError: max_tokens is below one, or top_p or temperature out of range.
    """
    choose = _nucleus(key, context.ids.shape[0], top_p, temperature)
    return _one_by_one(params, context, start, choose, max_tokens, config)


def begin_replies(
    params: Params, context: Tokens, start: int, *, max_tokens: int, config: ModelConfig
) -> Growing:
    """Reads the contexts, for replies that `grow_replies` decodes a token at a time.

    Args:
      params: the model's parameters.
      context: Tokens [E, S], one example a row, segment 1 where there are tokens.
      start: id of the start token of the task.
      max_tokens: how often the replies may grow.
      config: sizes of the model.

    Returns:
      Growing.

    Raises:
      ValueError: max_tokens is below one.
    """
    _require_positive("max_tokens", max_tokens)
    token_E = jnp.full((context.ids.shape[0],), start, jnp.int32)
    cache = _read(params, context, max_tokens, config)
    return Growing(cache, context.segment, token_E, jnp.int32(0))


def grow_replies(
    params: Params,
    growing: Growing,
    key: jax.Array | None = None,
    *,
    top_p: float = 0.9,
    temperature: float = 1.0,
    config: ModelConfig,
) -> Growing:
    """Decodes one more token of each reply: that of `greedy`, or with a key that of `sample`.

    Args:
      params: the model's parameters.
      growing: from `begin_replies` or the call before.
      key: PRNG key, the same in all calls for one reply; None takes the likeliest token.
      top_p: see `sample`.
      temperature: see `sample`.
      config: sizes of the model.

    Returns:
      Growing; a reply is finished when its token is end-of-sequence.

    Raises:
      ValueError: top_p or temperature is out of range.
    """
    examples = growing.token.shape[0]
    choose = _likeliest if key is None else _nucleus(key, examples, top_p, temperature)
    matrix_VD = transformer.output_matrix(params, config)
    logits_EV, cache = _advance(params, growing, matrix_VD, config)
    token_E = choose(_permitted(logits_EV), growing.position).astype(jnp.int32)
    return Growing(cache, growing.segment, token_E, growing.position + 1)


def beam_search(
    params: Params,
    context: Tokens,
    start: int,
    *,
    max_tokens: int = MAX_TOKENS,
    beams: int = BEAMS,
    config: ModelConfig,
) -> Replies:
    """Looks for the likeliest reply, keeping the best hypotheses of each length.

    The score of a hypothesis is its log-probability, without a length penalty. A finished
    one keeps its place and its score while others grow past it; after max_tokens the best
    is returned, finished or not. Equal scores go to the earlier beam, then the lower id.
    The keys and values of a context are held once for all its beams.

    Args:
      params: the model's parameters.
      context: Tokens [E, S], one example a row, segment 1 where there are tokens.
      start: id of the start token of the task.
      max_tokens: most tokens of a reply, T.
      beams: hypotheses kept, B.
      config: sizes of the model.

    Returns:
      Replies.

    Raises:
      ValueError: max_tokens or beams is below one.
    """
    _require_positive("max_tokens", max_tokens)
    _require_positive("beams", beams)
    examples = context.ids.shape[0]
    matrix_VD = transformer.output_matrix(params, config)
    width = min(beams, matrix_VD.shape[0])
    cache = _read(params, context, max_tokens, config)
    memory = cache["memory"]
    own = jax.tree.map(lambda x: jnp.repeat(x[:, None], beams, axis=1), cache["own"])
    axes = {"memory": None, "own": 0}
    advance = jax.vmap(
        jax.vmap(
            transformer.decode_step,
            in_axes=(None, axes, None, 0, None, None),
            out_axes=(0, axes),
        ),
        in_axes=(None, 0, 0, 0, None, None),
    )
    reorder = jax.vmap(lambda x_BTD, parent_B: x_BTD[parent_B])

    def step(carry, position):
        own, ids_EBT, token_EB, done_EB, score_EB = carry
        hidden_EBD, cache = advance(
            params, {"memory": memory, "own": own}, context.segment, token_EB, position, config
        )
        logits_EBV = _logits(hidden_EBD, matrix_VD)
        best_EBK, word_EBK = jax.lax.top_k(_permitted(logits_EBV), width)
        gain_EBK = best_EBK - jax.nn.logsumexp(logits_EBV, axis=-1, keepdims=True)
        # A finished hypothesis has one continuation: padding, which costs nothing.
        stay_K = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf).astype(gain_EBK.dtype)
        gain_EBK = jnp.where(done_EB[:, :, None], stay_K[None, None], gain_EBK)
        word_EBK = jnp.where(done_EB[:, :, None], PAD, word_EBK)
        score_EB, choice_EB = jax.lax.top_k(
            (score_EB[:, :, None] + gain_EBK).reshape(examples, -1), beams
        )
        parent_EB = choice_EB // width
        token_EB = jnp.take_along_axis(word_EBK.reshape(examples, -1), choice_EB, axis=1)
        ids_EBT = jnp.take_along_axis(ids_EBT, parent_EB[:, :, None], axis=1)
        ids_EBT = ids_EBT.at[:, :, position].set(token_EB)
        done_EB = jnp.take_along_axis(done_EB, parent_EB, axis=1) | (token_EB == END)
        own = jax.tree.map(lambda x: reorder(x, parent_EB), cache["own"])
        return (own, ids_EBT, token_EB, done_EB, score_EB), None

    # One hypothesis to begin with; the other beams hold nothing until it has branched.
    first_B = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf).astype(_wide(matrix_VD.dtype))
    begin = (
        own,
        jnp.full((examples, beams, max_tokens), PAD, jnp.int32),
        jnp.full((examples, beams), start, jnp.int32),
        jnp.zeros((examples, beams), bool),
        jnp.broadcast_to(first_B[None], (examples, beams)),
    )
    positions = jnp.arange(max_tokens, dtype=jnp.int32)
    (_, ids_EBT, _, _, score_EB), _ = jax.lax.scan(step, begin, positions)
    return Replies(ids_EBT[:, 0], score_EB[:, 0])  # beams stand in the order of their scores


def _one_by_one(params, context, start, choose, max_tokens, config):
    """One hypothesis an example; choose: (logits_EV of what may come, position) -> token_E."""
    _require_positive("max_tokens", max_tokens)
    examples = context.ids.shape[0]
    matrix_VD = transformer.output_matrix(params, config)

    def step(carry, position):
        cache, token_E, done_E, score_E = carry
        growing = Growing(cache, context.segment, token_E, position)
        logits_EV, cache = _advance(params, growing, matrix_VD, config)
        token_E = choose(_permitted(logits_EV), position).astype(jnp.int32)
        gain_E = jnp.take_along_axis(logits_EV, token_E[:, None], axis=1)[:, 0]
        gain_E -= jax.nn.logsumexp(logits_EV, axis=-1)
        token_E = jnp.where(done_E, PAD, token_E)
        score_E += jnp.where(done_E, 0.0, gain_E)
        return (cache, token_E, done_E | (token_E == END), score_E), token_E

    begin = (
        _read(params, context, max_tokens, config),
        jnp.full((examples,), start, jnp.int32),
        jnp.zeros((examples,), bool),
        jnp.zeros((examples,), _wide(matrix_VD.dtype)),
    )
    positions = jnp.arange(max_tokens, dtype=jnp.int32)
    (_, _, _, score_E), ids_TE = jax.lax.scan(step, begin, positions)
    return Replies(ids_TE.T, score_E)


def _read(params, context, length, config):
    """The caches of all examples."""
    memory_ESD = jax.vmap(transformer.encode, in_axes=(None, 0, None))(params, context, config)
    return jax.vmap(transformer.start_cache, in_axes=(None, 0, None, None))(
        params, memory_ESD, length, config
    )


def _advance(params, growing, matrix_VD, config):
    """Logits after the newest token, and the caches with it."""
    advance = jax.vmap(transformer.decode_step, in_axes=(None, 0, 0, 0, None, None))
    hidden_ED, cache = advance(
        params, growing.cache, growing.segment, growing.token, growing.position, config
    )
    return _logits(hidden_ED, matrix_VD), cache


def _likeliest(logits_EV, position):
    del position
    return jnp.argmax(logits_EV, axis=-1)


def _nucleus(key, examples, top_p, temperature):
    if not isinstance(top_p, jax.Array) and not 0.0 < top_p <= 1.0:
        raise ValueError(f"found top_p {top_p}, want a probability above 0 and up to 1")
    if not isinstance(temperature, jax.Array) and not temperature > 0.0:
        raise ValueError(
            f"found temperature {temperature}, want a number above 0; greedy is the limit"
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


def _logits(hidden, matrix_VD):
    return jnp.einsum("...d,vd->...v", hidden, matrix_VD).astype(_wide(hidden.dtype))


def _permitted(logits):
    return logits.at[..., jnp.array(_NEVER_EMITTED)].set(-jnp.inf)


def _wide(dtype):
    return jnp.promote_types(dtype, jnp.float32)


def _require_positive(name, value):
    if value < 1:
        raise ValueError(f"found {name} {value}, want at least 1")
