"""Decode with the cache of either model: the Transformer, or a pretrained decoder.

Axes: E example, S context token, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp

from mtml_jax.config import ModelConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.model import llama, transformer
from mtml_jax.types import Params, Tokens


def start_cache(
    params: Params, base: Params | None, context: Tokens, length: int,
    config: ModelConfig | LlamaConfig
):
    """Reads one context, and makes room for the tokens that will be decoded.

    Args:
      params: the model's parameters; for a pretrained decoder its adapters.
      base: frozen parameters of a pretrained decoder, or None.
      context: Tokens [S].
      length: greatest number of tokens to decode.
      config: sizes of the model.

    Returns:
      {"memory": what all hypotheses share, "own": what grows with each}, for `decode_step`.
    """
    if isinstance(config, LlamaConfig):
        return llama.start_cache(base, params, context, length, config)
    memory_SD = transformer.encode(params, context, config)
    return transformer.start_cache(params, memory_SD, length, config)


def start_caches(params, base, context, length, config):
    """Reads all contexts, and returns the caches of their decoders.

    The axis of examples leads; only the memory of contexts that are beginnings of one row has
    none.
    """
    if memory_axis(context) == 0:
        return jax.vmap(start_cache, in_axes=(None, None, 0, None, None))(
            params, base, context, length, config
        )
    longest = Tokens(context.ids, jnp.max(context.segment, axis=0), context.position)
    cache = start_cache(params, base, longest, length, config)
    examples = context.segment.shape[0]
    own = jax.tree.map(lambda x: jnp.repeat(x[None], examples, axis=0), cache["own"])
    return {"memory": cache["memory"], "own": own}


def memory_axis(context: Tokens) -> int | None:
    """The axis of examples in what a model remembers of contexts.

    It is 0, and None if the contexts are beginnings of one row: ids [S], segment [E, S].
    """
    return 0 if context.ids.ndim == context.segment.ndim else None


def decode_step(
    params: Params, base: Params | None, cache, segment_S, token, position,
    config: ModelConfig | LlamaConfig
):
    """Reads one more token; see `transformer.decode_step`.

    Returns:
      (hidden_D, new cache).
    """
    if isinstance(config, LlamaConfig):
        return llama.decode_step(base, params, cache, segment_S, token, position, config)
    return transformer.decode_step(params, cache, segment_S, token, position, config)


def output_matrix(
    params: Params, base: Params | None, config: ModelConfig | LlamaConfig
) -> jax.Array:
    """The matrix_VD whose product with a hidden state is its logits."""
    if isinstance(config, LlamaConfig):
        return llama.output_matrix(base, config)
    return transformer.output_matrix(params, config)
