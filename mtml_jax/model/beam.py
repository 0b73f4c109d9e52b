"""Search for the most likely replies with beam search and a key-value cache.

Axes: E example, B beam, S context token, T reply token, D width, V vocabulary,
K candidates of a beam.
"""

import jax
import jax.numpy as jnp

from mtml_jax.config import ModelConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.vocab import WORDS, Symbols
from mtml_jax.model.cache import decode_step, memory_axis, output_matrix, start_caches
from mtml_jax.model.decoding import (
    MAX_TOKENS,
    Replies,
    logits_of,
    permitted,
    require_positive,
    widened,
)
from mtml_jax.types import Params, Tokens

BEAMS = 5


def beam_search(
    params: Params,
    context: Tokens,
    start: int,
    *,
    max_tokens: int = MAX_TOKENS,
    beams: int = BEAMS,
    config: ModelConfig | LlamaConfig,
    base: Params | None = None,
    symbols: Symbols = WORDS,
) -> Replies:
    """Searches for the most likely reply by keeping the best hypotheses of each length.

    The score of a hypothesis is its log-probability, without a length penalty. A finished
    hypothesis keeps its place and its score while others grow past it. After max_tokens the
    best hypothesis is returned, finished or not. Of equal scores the earlier beam comes first,
    then the lower id. All beams of an example share the keys and values of its context.

    Args:
      params: the model's parameters.
      context: see `decoding.greedy`.
      start: id of the task's start token.
      max_tokens: greatest length of a reply, T.
      beams: number of hypotheses that are kept, B.
      config: sizes of the model.
      base: frozen parameters of a pretrained decoder.
      symbols: the tokens that end a reply, fill it up, or are never emitted.

    Returns:
      Replies.

    Raises:
      ValueError: max_tokens or beams is below one.
    """
    require_positive("max_tokens", max_tokens)
    require_positive("beams", beams)
    examples = context.segment.shape[0]
    matrix_VD = output_matrix(params, base, config)
    width = min(beams, matrix_VD.shape[0])
    cache = start_caches(params, base, context, max_tokens, config)
    memory = cache["memory"]
    own = jax.tree.map(lambda x: jnp.repeat(x[:, None], beams, axis=1), cache["own"])
    axes = {"memory": None, "own": 0}
    advance = jax.vmap(
        jax.vmap(
            decode_step,
            in_axes=(None, None, axes, None, 0, None, None),
            out_axes=(0, axes),
        ),
        in_axes=(None, None, {"memory": memory_axis(context), "own": 0}, 0, 0, None, None),
        out_axes=(0, {"memory": memory_axis(context), "own": 0}),
    )
    reorder = jax.vmap(lambda x_BTD, parent_B: x_BTD[parent_B])

    def unfinished(carry):
        # A best hypothesis that is finished stays the best, because others only lose.
        *_, done_EB, _, position = carry
        return (position < max_tokens) & ~jnp.all(done_EB[:, 0])

    def step(carry):
        own, ids_EBT, token_EB, done_EB, score_EB, position = carry
        hidden_EBD, cache = advance(
            params, base, {"memory": memory, "own": own}, context.segment, token_EB, position, config
        )
        logits_EBV = logits_of(hidden_EBD, matrix_VD)
        best_EBK, word_EBK = jax.lax.top_k(permitted(logits_EBV, symbols), width)
        gain_EBK = best_EBK - jax.nn.logsumexp(logits_EBV, axis=-1, keepdims=True)
        # A finished hypothesis has one continuation: padding, which costs nothing.
        stay_K = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf).astype(gain_EBK.dtype)
        gain_EBK = jnp.where(done_EB[:, :, None], stay_K[None, None], gain_EBK)
        word_EBK = jnp.where(done_EB[:, :, None], symbols.pad, word_EBK)
        score_EB, choice_EB = jax.lax.top_k(
            (score_EB[:, :, None] + gain_EBK).reshape(examples, -1), beams
        )
        parent_EB = choice_EB // width
        token_EB = jnp.take_along_axis(word_EBK.reshape(examples, -1), choice_EB, axis=1)
        ids_EBT = jnp.take_along_axis(ids_EBT, parent_EB[:, :, None], axis=1)
        ids_EBT = ids_EBT.at[:, :, position].set(token_EB)
        done_EB = jnp.take_along_axis(done_EB, parent_EB, axis=1) | (token_EB == symbols.end)
        own = jax.tree.map(lambda x: reorder(x, parent_EB), cache["own"])
        return own, ids_EBT, token_EB, done_EB, score_EB, position + 1

    # Start with one hypothesis; the other beams are empty until it has branched.
    first_B = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf).astype(widened(matrix_VD.dtype))
    begin = (
        own,
        jnp.full((examples, beams, max_tokens), symbols.pad, jnp.int32),
        jnp.full((examples, beams), start, jnp.int32),
        jnp.zeros((examples, beams), bool),
        jnp.broadcast_to(first_B[None], (examples, beams)),
        jnp.int32(0),
    )
    _, ids_EBT, _, _, score_EB, _ = jax.lax.while_loop(unfinished, step, begin)
    return Replies(ids_EBT[:, 0], score_EB[:, 0])  # beams are sorted by score
