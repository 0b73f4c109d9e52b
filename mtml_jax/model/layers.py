"""Define the Transformer's sub-layers as functions of weights and one row of hidden states.

Axes: S context token, T target token, D width, F feed-forward width, H head, K head width.
"""

import jax
import jax.numpy as jnp

from mtml_jax.model.xla import zero_after

_MASKED = -1e9  # finite, so that a row of padding has a gradient of zero and not NaN
_ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}


def sinusoid(position_S, width, dtype):
    """Vaswani et al., section 3.5; sines in the first half, cosines in the second."""
    rates = 10000.0 ** (-jnp.arange(0, width, 2, dtype=dtype) / width)
    angles = position_S[:, None].astype(dtype) * rates[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[..., :width]


def layer_norm(weights, hidden):
    wide = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
    centred = wide - wide.mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)
    return (normal * weights["scale"][None] + weights["bias"][None]).astype(hidden.dtype)


def dense(inputs, kernel, bias):
    return inputs @ kernel.astype(inputs.dtype) + bias.astype(inputs.dtype)[None]


def self_attend(weights, hidden_TD, mask_TT, config):
    """Adds self-attention under a mask of who attends to whom."""
    query_key_value = self_projections(weights, hidden_TD)
    return add_attention(weights, hidden_TD, *query_key_value, mask_TT, config)


def self_projections(weights, hidden_TD):
    """Projects a row to its queries, keys and values."""
    normal_TD = layer_norm(weights["norm"], hidden_TD)
    fused = normal_TD @ weights["query_key_value"].astype(normal_TD.dtype)
    query_TD, key_TD, value_TD = jnp.split(fused, 3, axis=-1)
    query_TD = query_TD + weights["query_bias"].astype(fused.dtype)[None]
    value_TD = value_TD + weights["value_bias"].astype(fused.dtype)[None]
    return query_TD, key_TD, value_TD


def cross_attend(weights, hidden_TD, key_SD, value_SD, mask_TS, config):
    """Adds attention to the context, whose keys and values come from `memory_projections`."""
    normal_TD = layer_norm(weights["norm"], hidden_TD)
    query_TD = dense(normal_TD, weights["query"], weights["query_bias"])
    return add_attention(weights, hidden_TD, query_TD, key_SD, value_SD, mask_TS, config)


def memory_projections(weights, memory_SD):
    """Projects the encoder's output to keys and values."""
    fused = memory_SD @ weights["key_value"].astype(memory_SD.dtype)
    key_SD, value_SD = jnp.split(fused, 2, axis=-1)
    return key_SD, value_SD + weights["value_bias"].astype(fused.dtype)[None]


def add_attention(weights, hidden_TD, query_TD, key_SD, value_SD, mask_TS, config):
    """hidden + softmax(q k' / sqrt(K)) v W + b, head by head."""
    size = config.width // config.heads

    def split(x):
        return x.reshape(x.shape[0], config.heads, size)

    scores_HTS = jnp.einsum("thk,shk->hts", split(query_TD * size**-0.5), split(key_SD))
    scores_HTS = scores_HTS.astype(jnp.promote_types(scores_HTS.dtype, jnp.float32))
    weights_HTS = jax.nn.softmax(jnp.where(mask_TS[None], scores_HTS, _MASKED), axis=-1)
    mixed_THK = jnp.einsum("hts,shk->thk", weights_HTS.astype(value_SD.dtype), split(value_SD))
    mixed_TD = mixed_THK.reshape(query_TD.shape)
    return hidden_TD + dense(mixed_TD, weights["output"], weights["output_bias"])


def feed_forward(weights, hidden_TD, config):
    """Adds the two-layer network of each token."""
    normal_TD = layer_norm(weights["norm"], hidden_TD)
    inner_TF = dense(normal_TD, weights["hidden"], weights["hidden_bias"])
    active_TF = _ACTIVATIONS[config.activation](inner_TF)
    return hidden_TD + dense(active_TF, weights["output"], weights["output_bias"])


def recomputed(layer):
    """Returns the same layer, computed again in the backward pass instead of being stored.

    `jax.checkpoint` does not save memory on a CPU: see `zero_after`.
    """

    def pull_back(arguments, cotangent):
        hidden, *others = arguments
        hidden += zero_after(cotangent).astype(hidden.dtype)
        return jax.vjp(layer, hidden, *others)[1](cotangent)

    twice = jax.custom_vjp(layer)
    twice.defvjp(lambda *arguments: (layer(*arguments), arguments), pull_back)
    return twice
