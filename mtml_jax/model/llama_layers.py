"""Computes what a layer of the Llama family consists of, on one row of tokens.

Axes: T token, S seen token, D width, I input, G key-value head, R query heads of a
key-value head, K head width.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.model import lora

_MASKED = -1e9  # finite, so that a row of padding has a gradient of zero and not NaN


def projections(weights, adapter, hidden_TD, angles, config):
    """(query_TGRK, key_TGK, value_TGK) with rotated queries and keys."""
    normal_TD = rms_norm(weights["attention_norm"], hidden_TD, config)
    groups, size = config.key_value_heads, config.head_width

    def project(name):
        outputs = lora.product(normal_TD, weights[name], adapter.get(name), config.lora)
        if f"{name}_bias" in weights:  # Qwen2.5
            outputs += weights[f"{name}_bias"].astype(outputs.dtype)[None]
        return outputs.reshape(outputs.shape[0], groups, -1, size)

    def rotate(name):
        heads = project(name)
        if f"{name}_norm" in weights:  # Qwen3
            heads = rms_norm(weights[f"{name}_norm"], heads, config)
        cos, sin = angles
        first, second = jnp.split(heads, 2, axis=-1)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    return rotate("query"), rotate("key")[:, :, 0], project("value")[:, :, 0]


def rotation(position_T, config):
    """(cos, sin) of Su et al. (2021), [T, 1, 1, K / 2]."""
    half = config.head_width // 2
    rates = config.rope_theta ** (-np.arange(half) / half)
    rates /= np.array(config.rope_factors or 1.0)
    wide = jnp.promote_types(config.dtype, jnp.float32)
    angles = (
        position_T.astype(wide)[:, None, None, None] * jnp.asarray(rates, wide)[None, None, None]
    )
    return jnp.cos(angles).astype(config.dtype), jnp.sin(angles).astype(config.dtype)


def attend(weights, adapter, hidden_TD, query_TGRK, seen, config):
    """hidden + softmax(q k' / sqrt(K)) v W; `seen` holds (key_SGK, value_SGK, mask_TS)."""
    query_TGRK = query_TGRK * config.head_width**-0.5
    scores = []
    for key_SGK, _, mask_TS in seen:
        scores_GRTS = jnp.einsum("tgrk,sgk->grts", query_TGRK, key_SGK)
        scores_GRTS = scores_GRTS.astype(jnp.promote_types(scores_GRTS.dtype, jnp.float32))
        scores.append(jnp.where(mask_TS[None, None], scores_GRTS, _MASKED))
    shares_GRTS = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    mixed_TGRK, begin = 0.0, 0
    for (_, value_SGK, _), part in zip(seen, scores):
        share_GRTS = shares_GRTS[..., begin : begin + part.shape[-1]].astype(value_SGK.dtype)
        mixed_TGRK += jnp.einsum("grts,sgk->tgrk", share_GRTS, value_SGK)
        begin += part.shape[-1]
    mixed_TI = mixed_TGRK.reshape(hidden_TD.shape[0], -1)
    return hidden_TD + lora.product(mixed_TI, weights["output"], adapter.get("output"), config.lora)


def feed_forward(weights, adapter, hidden_TD, config):
    """hidden + (silu(x W_gate) * (x W_up)) W_down (Shazeer, 2020)."""

    def product(name, inputs):
        return lora.product(inputs, weights[name], adapter.get(name), config.lora)

    normal_TD = rms_norm(weights["feed_forward_norm"], hidden_TD, config)
    active = jax.nn.silu(product("gate", normal_TD)) * product("up", normal_TD)
    return hidden_TD + product("down", active)


def rms_norm(scale, hidden, config):
    wide = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
    square = jnp.square(wide).mean(-1, keepdims=True)
    normal = wide * jax.lax.rsqrt(square + config.epsilon)
    return (normal * scale.astype(wide.dtype).reshape(*(1,) * (hidden.ndim - 1), -1)).astype(
        hidden.dtype
    )
