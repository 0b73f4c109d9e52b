"""Define the Transformer encoder-decoder as pure functions of parameters and one row of tokens.

The model is that of Vaswani et al. (2017) with layer normalisation before each sub-layer,
sinusoidal positions, one matrix for input embedding and output, no key biases (softmax
cancels them) and no dropout. Functions take ONE packed row without a batch axis: segment
numbers keep the sequences of a row apart, and callers map over rows.

Axes: S context token, T target token, D width, V vocabulary.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtml_jax.config import ModelConfig
from mtml_jax.model.layers import (
    add_attention,
    cross_attend,
    feed_forward,
    layer_norm,
    memory_projections,
    recomputed,
    self_attend,
    self_projections,
    sinusoid,
)
from mtml_jax.types import Params, Tokens


def init(key: jax.Array, vocab_size: int, config: ModelConfig, embedding=None) -> Params:
    """Draws initial parameters.

    Args:
      key: PRNG key.
      vocab_size: number of words V.
      config: sizes of the model.
      embedding: optional float [V, G] word vectors; if G differs from the
        model's width, a learned projection [G, D] is added.

    Returns:
      Nested dict of float32 arrays; `encoder` and `decoder` are lists of layers.
    """
    width, inner = config.width, config.feed_forward
    layers = config.encoder_layers + config.decoder_layers
    keys = iter(jax.random.split(key, 10 * layers + 2))
    matrix = nn.initializers.xavier_uniform()

    def dense(fan_in, fan_out, blocks=1):
        """Draws each of the blocks by itself and fuses them into one matrix."""
        drawn = [matrix(next(keys), (fan_in, fan_out), jnp.float32) for _ in range(blocks)]
        return jnp.concatenate(drawn, axis=1)

    def norm():
        return {"scale": jnp.ones(width, jnp.float32), "bias": jnp.zeros(width, jnp.float32)}

    def bias(size=width):
        return jnp.zeros(size, jnp.float32)

    def self_attention():
        return {
            "norm": norm(),
            "query_key_value": dense(width, width, 3),
            "query_bias": bias(),
            "value_bias": bias(),
            "output": dense(width, width),
            "output_bias": bias(),
        }

    def cross_attention():
        return {
            "norm": norm(),
            "query": dense(width, width),
            "query_bias": bias(),
            "key_value": dense(width, width, 2),
            "value_bias": bias(),
            "output": dense(width, width),
            "output_bias": bias(),
        }

    def feed_forward():
        return {
            "norm": norm(),
            "hidden": dense(width, inner),
            "hidden_bias": bias(inner),
            "output": dense(inner, width),
            "output_bias": bias(),
        }

    params = {
        "encoder": [
            {"self_attention": self_attention(), "feed_forward": feed_forward()}
            for _ in range(config.encoder_layers)
        ],
        "encoder_norm": norm(),
        "decoder": [
            {
                "self_attention": self_attention(),
                "cross_attention": cross_attention(),
                "feed_forward": feed_forward(),
            }
            for _ in range(config.decoder_layers)
        ],
        "decoder_norm": norm(),
    }
    if embedding is None:
        drawn = jax.random.normal(next(keys), (vocab_size, width), jnp.float32)
        params["embedding"] = width**-0.5 * drawn
    else:
        params["embedding"] = jnp.asarray(embedding, jnp.float32)
        if embedding.shape[1] != width:
            params["projection"] = dense(embedding.shape[1], width)
    return params


def encode(params: Params, context: Tokens, config: ModelConfig) -> jax.Array:
    """Encodes one row of contexts.

    Args:
      params: from `init`.
      context: Tokens [S]; a token attends to the tokens of its own segment.
      config: sizes of the model.

    Returns:
      memory_SD in the compute dtype.
    """
    same_SS = context.segment[:, None] == context.segment[None, :]

    def layer(hidden_SD, weights, same_SS):
        hidden_SD = self_attend(weights["self_attention"], hidden_SD, same_SS, config)
        return feed_forward(weights["feed_forward"], hidden_SD, config)

    layer = recomputed(layer) if config.remat else layer
    hidden_SD = embed(params, context, config)
    for weights in params["encoder"]:  # a scan over stacked layers would copy them all
        hidden_SD = layer(hidden_SD, weights, same_SS)
    return layer_norm(params["encoder_norm"], hidden_SD)


def decode(
    params: Params,
    memory_SD: jax.Array,
    memory_segment_S: jax.Array,
    inputs: Tokens,
    reads_T: jax.Array,
    config: ModelConfig,
) -> jax.Array:
    """Decodes one row of targets with the true previous tokens as input.

    Args:
      params: from `init`.
      memory_SD: from `encode`.
      memory_segment_S: int32 [S], segments of the contexts.
      inputs: Tokens [T]; a token attends to the tokens of its own segment up to itself.
      reads_T: int32 [T], the segment of the context that each token attends to.
      config: sizes of the model.

    Returns:
      hidden_TD in the compute dtype, to be multiplied by `output_matrix`.
    """
    same_TT = inputs.segment[:, None] == inputs.segment[None, :]
    causal_TT = same_TT & (inputs.position[:, None] >= inputs.position[None, :])
    cross_TS = reads_T[:, None] == memory_segment_S[None, :]

    def layer(hidden_TD, weights, memory_SD, causal_TT, cross_TS):
        hidden_TD = self_attend(weights["self_attention"], hidden_TD, causal_TT, config)
        attention = weights["cross_attention"]
        memory = memory_projections(attention, memory_SD)
        hidden_TD = cross_attend(attention, hidden_TD, *memory, cross_TS, config)
        return feed_forward(weights["feed_forward"], hidden_TD, config)

    layer = recomputed(layer) if config.remat else layer
    hidden_TD = embed(params, inputs, config)
    for weights in params["decoder"]:
        hidden_TD = layer(hidden_TD, weights, memory_SD, causal_TT, cross_TS)
    return layer_norm(params["decoder_norm"], hidden_TD)


def start_cache(params: Params, memory_SD: jax.Array, length: int, config: ModelConfig):
    """Starts the decoding of one example: keys and values of its context, and an empty cache.

    Args:
      params: from `init`.
      memory_SD: from `encode`.
      length: number of tokens that the cache has room for.
      config: sizes of the model.

    Returns:
      A pytree for `decode_step`.
    """
    empty = jnp.zeros((length, config.width), memory_SD.dtype)
    memory = [memory_projections(x["cross_attention"], memory_SD) for x in params["decoder"]]
    return {"memory": memory, "own": [(empty, empty)] * config.decoder_layers}


def decode_step(params: Params, cache, memory_segment_S, token, position, config: ModelConfig):
    """Decodes one more token: the numbers of `decode`, without computing the past again.

    Args:
      params: from `init`.
      cache: from `start_cache` or the previous step.
      memory_segment_S: int32 [S]; slots of segment 1 are the context.
      token: int32 scalar, the newest input token.
      position: int32 scalar, its position from 0.
      config: sizes of the model.

    Returns:
      (hidden_D, new cache).
    """
    own_mask = (jnp.arange(cache["own"][0][0].shape[0]) <= position)[None, :]
    memory_mask = (memory_segment_S == 1)[None, :]
    one = Tokens(token[None], jnp.ones((1,), jnp.int32), position[None])
    hidden_TD = embed(params, one, config)
    own = []
    for weights, (memory_key, memory_value), past in zip(
        params["decoder"], cache["memory"], cache["own"]
    ):
        attention = weights["self_attention"]
        query_TD, *new = self_projections(attention, hidden_TD)
        key_TD, value_TD = (
            jax.lax.dynamic_update_slice_in_dim(past_TD, new_TD, position, axis=0)
            for past_TD, new_TD in zip(past, new)
        )
        hidden_TD = add_attention(
            attention, hidden_TD, query_TD, key_TD, value_TD, own_mask, config
        )
        hidden_TD = cross_attend(
            weights["cross_attention"], hidden_TD, memory_key, memory_value, memory_mask, config
        )
        hidden_TD = feed_forward(weights["feed_forward"], hidden_TD, config)
        own.append((key_TD, value_TD))
    return layer_norm(params["decoder_norm"], hidden_TD)[0], {**cache, "own": own}


def output_matrix(params: Params, config: ModelConfig) -> jax.Array:
    """Returns the tied embedding as output matrix: logits_TV = hidden_TD @ output_matrix_VD.T."""
    table = params["embedding"].astype(config.dtype)
    if "projection" in params:
        table = table @ params["projection"].astype(config.dtype)
    return table


def embed(params: Params, tokens: Tokens, config: ModelConfig) -> jax.Array:
    """Returns sqrt(D) times each word's embedding plus the sinusoid of its position."""
    vectors_SD = params["embedding"][tokens.ids].astype(config.dtype)
    if "projection" in params:
        vectors_SD = vectors_SD @ params["projection"].astype(config.dtype)
    wide = jnp.promote_types(config.dtype, jnp.float32)
    angles_SD = sinusoid(tokens.position, config.width, wide).astype(config.dtype)
    return math.sqrt(config.width) * vectors_SD + angles_SD
