"""Replies from a model: greedy decoding with a key-value cache.

Axes: E example, S context token, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp

from mtml_jax import transformer
from mtml_jax.config import ModelConfig
from mtml_jax.data.vocab import END, PAD
from mtml_jax.types import Params, Tokens


def greedy(
    params: Params, context: Tokens, start: int, *, max_tokens: int, config: ModelConfig
) -> jax.Array:
    """Decodes the likeliest token at each position, until end-of-sequence.

    Args:
      params: the model's parameters.
      context: Tokens [E, S], one example a row, segment 1 where there are tokens.
      start: id of the start token of the task.
      max_tokens: most tokens decoded.
      config: sizes of the model.

    Returns:
      int32 [E, max_tokens], padding after end-of-sequence.
    """
    matrix_VD = transformer.output_matrix(params, config)

    def one(context):
        memory_SD = transformer.encode(params, context, config)
        cache = transformer.start_cache(params, memory_SD, max_tokens, config)

        def step(carry, position):
            cache, token, done = carry
            hidden_D, cache = transformer.decode_step(
                params, cache, context.segment, token, position, config
            )
            best = jnp.argmax(matrix_VD @ hidden_D).astype(jnp.int32)
            out = jnp.where(done, PAD, best)
            return (cache, best, done | (best == END)), out

        begin = (cache, jnp.int32(start), jnp.asarray(False))
        _, ids = jax.lax.scan(step, begin, jnp.arange(max_tokens))
        return ids

    return jax.vmap(one)(context)
