"""The Transformer encoder-decoder as pure functions of (params, one row of tokens).

Vaswani et al. (2017) with layer normalisation before each sub-layer, sinusoidal
positions, one matrix for input embedding and output, no key biases (softmax
cancels them) and no dropout. Functions take ONE packed row without a batch axis:
sequences in a row are kept apart by segment ids, and callers map over rows.

Axes: S context token, T target token, D width, H head, K head width, V vocabulary.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from mtml_jax.config import ModelConfig
from mtml_jax.model.xla import zero_after
from mtml_jax.types import Params, Tokens

_MASKED = -1e9  # finite, so that a row of padding has a gradient of zero and not NaN
_ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}


def init(key: jax.Array, vocab_size: int, config: ModelConfig, embedding=None) -> Params:
    """Draws initial parameters.

    Args:
      key: PRNG key.
      vocab_size: number of words V.
      config: sizes of the model.
      embedding: optional float [V, G] word vectors; where G differs from the
        model's width a learned projection [G, D] is added.

    Returns:
      Nested dict of float32 arrays; `encoder` and `decoder` are lists of layers.
    """
    width, inner = config.width, config.feed_forward
    layers = config.encoder_layers + config.decoder_layers
    keys = iter(jax.random.split(key, 10 * layers + 2))
    matrix = nn.initializers.xavier_uniform()

    def dense(fan_in, fan_out, blocks=1):
        """`blocks` matrices drawn apart and laid side by side, for one fused product."""
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
    """Reads one row of contexts.

    Args:
      params: from `init`.
      context: Tokens [S]; a token sees the tokens of its own segment.
      config: sizes of the model.

    Returns:
      memory_SD in the compute dtype.
    """
    return encode_gated(params, context, config)[0]


def encode_gated(params: Params, context: Tokens, config: ModelConfig, gates=None):
    """`encode` with the gates of its ReLUs in sight.

    Args:
      params, context, config: as for `encode`.
      gates: what another call returned; where given, hidden units are open and shut as
        there, which takes the kinks out of the function. Other activations read none.

    Returns:
      (memory_SD, gates: bool [S, F] a layer, whether a hidden unit is above zero).
    """
    mask_SS = context.segment[:, None] == context.segment[None, :]
    hidden_SD = embed(params, context, config)

    def layer(hidden_SD, weights, gate_SF, mask_SS):
        hidden_SD = _self_attend(weights["self_attention"], hidden_SD, mask_SS, config)
        return _feed_forward(weights["feed_forward"], hidden_SD, config, gate_SF)

    hidden_SD, gates = _over_layers(
        layer, hidden_SD, params["encoder"], gates, (mask_SS,), config
    )
    return _layer_norm(params["encoder_norm"], hidden_SD), gates


def decode(
    params: Params,
    memory_SD: jax.Array,
    memory_segment_S: jax.Array,
    inputs: Tokens,
    config: ModelConfig,
    *,
    task_T=None,
) -> jax.Array:
    """Predicts one row of targets with the true previous tokens as input.

    Args:
      params: from `init`.
      memory_SD: from `encode`.
      memory_segment_S: int32 [S] segments of the context row.
      inputs: Tokens [T]; token t sees its own segment up to t, and the contexts
        of the same segment number.
      config: sizes of the model.
      task_T: optional int [T]; where given, tokens of one segment see each other
        only within one task.

    Returns:
      hidden_TD in the compute dtype, to be multiplied by `output_matrix`.
    """
    return decode_gated(params, memory_SD, memory_segment_S, inputs, config, task_T=task_T)[0]


def decode_gated(
    params: Params,
    memory_SD: jax.Array,
    memory_segment_S: jax.Array,
    inputs: Tokens,
    config: ModelConfig,
    *,
    task_T=None,
    gates=None,
):
    """`decode` with the gates of its ReLUs in sight, as `encode_gated` has them."""
    same_TT = inputs.segment[:, None] == inputs.segment[None, :]
    if task_T is not None:
        same_TT &= task_T[:, None] == task_T[None, :]
    causal_TT = same_TT & (inputs.position[:, None] >= inputs.position[None, :])
    cross_TS = inputs.segment[:, None] == memory_segment_S[None, :]

    def layer(hidden_TD, weights, gate_TF, memory_SD, causal_TT, cross_TS):
        hidden_TD = _self_attend(weights["self_attention"], hidden_TD, causal_TT, config)
        hidden_TD = _cross_attend(
            weights["cross_attention"], hidden_TD, memory_SD, cross_TS, config
        )
        return _feed_forward(weights["feed_forward"], hidden_TD, config, gate_TF)

    seen = (memory_SD, causal_TT, cross_TS)
    hidden_TD, gates = _over_layers(
        layer, embed(params, inputs, config), params["decoder"], gates, seen, config
    )
    return _layer_norm(params["decoder_norm"], hidden_TD), gates


def start_cache(params: Params, memory_SD: jax.Array, length: int, config: ModelConfig):
    """Prepares the decoding of one example: keys and values of its context, and room for its own.

    Args:
      params: from `init`.
      memory_SD: from `encode`.
      length: most tokens that will be decoded.
      config: sizes of the model.

    Returns:
      A pytree for `decode_step`.
    """
    empty = jnp.zeros((length, config.width), memory_SD.dtype)
    memory = [_memory_projections(x["cross_attention"], memory_SD) for x in params["decoder"]]
    return {"memory": memory, "own": [(empty, empty)] * config.decoder_layers}


def decode_step(params: Params, cache, memory_segment_S, token, position, config: ModelConfig):
    """Reads one more token; the same numbers as `decode` without redoing the past.

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
        query_TD, *new = _self_projections(attention, hidden_TD)
        own_key, own_value = (
            jax.lax.dynamic_update_slice_in_dim(past_TD, new_TD, position, axis=0)
            for past_TD, new_TD in zip(past, new)
        )
        mixed_TD = _attention(query_TD, own_key, own_value, own_mask, config)
        hidden_TD += _dense(mixed_TD, attention["output"], attention["output_bias"])
        attention = weights["cross_attention"]
        normal_TD = _layer_norm(attention["norm"], hidden_TD)
        query_TD = _dense(normal_TD, attention["query"], attention["query_bias"])
        mixed_TD = _attention(query_TD, memory_key, memory_value, memory_mask, config)
        hidden_TD += _dense(mixed_TD, attention["output"], attention["output_bias"])
        hidden_TD, _ = _feed_forward(weights["feed_forward"], hidden_TD, config)
        own.append((own_key, own_value))
    return _layer_norm(params["decoder_norm"], hidden_TD)[0], {**cache, "own": own}


def output_matrix(params: Params, config: ModelConfig) -> jax.Array:
    """The tied embedding as the output matrix: logits_TV = hidden_TD @ output_matrix_VD.T."""
    table = params["embedding"].astype(config.dtype)
    if "projection" in params:
        table = table @ params["projection"].astype(config.dtype)
    return table


def embed(params: Params, tokens: Tokens, config: ModelConfig) -> jax.Array:
    """sqrt(D) times the word's embedding plus the sinusoid of its position."""
    vectors = params["embedding"][tokens.ids].astype(config.dtype)
    if "projection" in params:
        vectors = vectors @ params["projection"].astype(config.dtype)
    wide = jnp.promote_types(config.dtype, jnp.float32)
    angles = _sinusoid(tokens.position, config.width, wide).astype(config.dtype)
    return math.sqrt(config.width) * vectors + angles


def _sinusoid(position_S, width, dtype):
    """Vaswani et al., section 3.5; sines in the first half, cosines in the second."""
    rates = 10000.0 ** (-jnp.arange(0, width, 2, dtype=dtype) / width)
    angles = position_S[:, None].astype(dtype) * rates[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[..., :width]


def _over_layers(layer, hidden, layers, gates, seen, config):
    """One layer after the other; a scan over stacked layers would copy weights and residuals."""
    if config.remat:
        layer = _recomputed(layer)
    found = []
    for weights, gate in zip(layers, gates or [None] * len(layers)):
        hidden, gate = layer(hidden, weights, gate, *seen)
        found.append(gate)
    return hidden, found


def _recomputed(layer):
    """The same layer, done again in the backward pass instead of being remembered.

    `jax.checkpoint` does not save memory on a CPU: see `zero_after`.
    """

    def pull_back(arguments, cotangents):
        hidden, *others = arguments
        hidden += zero_after(cotangents[0]).astype(hidden.dtype)
        return jax.vjp(layer, hidden, *others)[1](cotangents)

    recomputed = jax.custom_vjp(layer)
    recomputed.defvjp(lambda *arguments: (layer(*arguments), arguments), pull_back)
    return recomputed


def _layer_norm(weights, hidden):
    wide = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
    centred = wide - wide.mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
    return (normal * weights["scale"][None] + weights["bias"][None]).astype(hidden.dtype)


def _dense(inputs, kernel, bias):
    return inputs @ kernel.astype(inputs.dtype) + bias.astype(inputs.dtype)[None]


def _attention(query_TD, key_SD, value_SD, mask_TS, config):
    """softmax(q k' / sqrt(K)) v, head by head."""
    size = config.width // config.heads

    def split(x):
        return x.reshape(x.shape[0], config.heads, size)

    scores_HTS = jnp.einsum("thk,shk->hts", split(query_TD * size**-0.5), split(key_SD))
    scores_HTS = scores_HTS.astype(jnp.promote_types(scores_HTS.dtype, jnp.float32))
    weights_HTS = jax.nn.softmax(jnp.where(mask_TS[None], scores_HTS, _MASKED), axis=-1)
    mixed_THK = jnp.einsum("hts,shk->thk", weights_HTS.astype(value_SD.dtype), split(value_SD))
    return mixed_THK.reshape(query_TD.shape)


def _self_projections(weights, hidden_TD):
    normal_TD = _layer_norm(weights["norm"], hidden_TD)
    fused = normal_TD @ weights["query_key_value"].astype(normal_TD.dtype)
    query_TD, key_TD, value_TD = jnp.split(fused, 3, axis=-1)
    query_TD = query_TD + weights["query_bias"].astype(fused.dtype)[None]
    value_TD = value_TD + weights["value_bias"].astype(fused.dtype)[None]
    return query_TD, key_TD, value_TD


def _self_attend(weights, hidden_TD, mask_TT, config):
    query_TD, key_TD, value_TD = _self_projections(weights, hidden_TD)
    mixed_TD = _attention(query_TD, key_TD, value_TD, mask_TT, config)
    return hidden_TD + _dense(mixed_TD, weights["output"], weights["output_bias"])


def _cross_attend(weights, hidden_TD, memory_SD, mask_TS, config):
    normal_TD = _layer_norm(weights["norm"], hidden_TD)
    query_TD = _dense(normal_TD, weights["query"], weights["query_bias"])
    key_SD, value_SD = _memory_projections(weights, memory_SD)
    mixed_TD = _attention(query_TD, key_SD, value_SD, mask_TS, config)
    return hidden_TD + _dense(mixed_TD, weights["output"], weights["output_bias"])


def _memory_projections(weights, memory_SD):
    fused = memory_SD @ weights["key_value"].astype(memory_SD.dtype)
    key_SD, value_SD = jnp.split(fused, 2, axis=-1)
    return key_SD, value_SD + weights["value_bias"].astype(fused.dtype)[None]


def _feed_forward(weights, hidden_TD, config, gate_TF=None):
    normal_TD = _layer_norm(weights["norm"], hidden_TD)
    inner_TF = _dense(normal_TD, weights["hidden"], weights["hidden_bias"])
    if gate_TF is None or config.activation != "relu":
        active_TF = _ACTIVATIONS[config.activation](inner_TF)
    else:
        active_TF = jnp.where(gate_TF, inner_TF, 0)
    output_TD = _dense(active_TF, weights["output"], weights["output_bias"])
    return hidden_TD + output_TD, inner_TF > 0
