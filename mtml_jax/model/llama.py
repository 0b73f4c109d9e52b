"""The Llama family of decoders as pure functions of (base, adapters, one row of tokens).

Touvron et al. (2023) and what later members add, as Hugging Face's `LlamaForCausalLM`,
`Qwen2ForCausalLM` and `Qwen3ForCausalLM` compute it: RMS normalisation before each
sub-layer, rotary positions, grouped-query attention (with biases on query, key and value
in Qwen2.5, with normalised queries and keys in Qwen3), SwiGLU, a tied or untied output.

The base is frozen: it is an argument, never closed over, and no gradient flows into it.
The adapters of `lora` are the parameters. Layers are stacked and scanned. Functions take
ONE row without a batch axis, and callers map over rows.

Axes: T token, S seen token, U predicted token, D width, G key-value head, R query heads
of a key-value head, K head width, L layer, V vocabulary.
"""

import jax
import jax.numpy as jnp

from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.rows import NextTokens, Row
from mtml_jax.model.cross_entropy import CHUNK, cross_entropy
from mtml_jax.model.llama_layers import (
    attend,
    feed_forward,
    projections,
    rms_norm,
    rotation,
)
from mtml_jax.types import Params, Tokens


def visible(row: Tokens) -> jax.Array:
    """Says which slots of a row each token sees.

    A token sees the tokens of its own dialogue up to itself that are on its own branch,
    or on the trunk before the point where its branch left.

    Args:
      row: Row [T], or Tokens [T] for dialogues without branches.

    Returns:
      mask_TS, bool [T, T].
    """

    def pairs(compare, left_T, right_T):
        return compare(left_T[:, None], right_T[None, :])

    past_TS = pairs(jnp.equal, row.segment, row.segment)
    past_TS &= pairs(jnp.greater_equal, row.position, row.position)
    if not isinstance(row, Row):
        return past_TS
    before_fork_TS = pairs(jnp.greater, row.fork, row.position) & (row.branch == 0)[None, :]
    return past_TS & (pairs(jnp.equal, row.branch, row.branch) | before_fork_TS)


def prefix(base: Params, row: Tokens, config: LlamaConfig) -> jax.Array:
    """Computes the layers before the first adapted one; they depend on no adapter.

    Args:
      base: from `lora.split_layers`.
      row: Row [T].
      config: sizes of the decoder.

    Returns:
      hidden_TD in the compute dtype; with all layers adapted, the embeddings alone.
    """
    base = jax.lax.stop_gradient(base)
    hidden_TD = base["embedding"][row.ids].astype(config.dtype)
    if "frozen" not in base:
        return hidden_TD
    return _over_layers(base["frozen"], {}, hidden_TD, row, config)[0]


def decode(
    base: Params, adapters: Params, row: Tokens, config: LlamaConfig, *, prefix_TD=None
) -> jax.Array:
    """Reads a row; the hidden state of a token predicts the token after it.

    Args:
      base: from `lora.split_layers`.
      adapters: as from `lora.init`, or {} for the base alone.
      row: Row [T].
      config: sizes of the decoder.
      prefix_TD: what `prefix` returned for this row; None computes it.

    Returns:
      hidden_TD in the compute dtype, to be multiplied by `output_matrix`.
    """
    base = jax.lax.stop_gradient(base)
    hidden_TD = prefix(base, row, config) if prefix_TD is None else prefix_TD
    hidden_TD, _ = _over_layers(base["layers"], adapters, hidden_TD, row, config)
    return rms_norm(base["norm"], hidden_TD, config)


def token_nll(
    base: Params,
    adapters: Params,
    row: Tokens,
    targets: NextTokens,
    config: LlamaConfig,
    *,
    prefix_TD=None,
    chunk: int = CHUNK,
) -> jax.Array:
    """Computes -log p of each target given the tokens that its slot sees.

    Logits exist for `chunk` targets at a time, in the value and in its first and second
    derivatives.

    Args:
      base: from `lora.split_layers`.
      adapters: as from `lora.init`, or {} for the base alone.
      row: Row [T].
      targets: NextTokens [U].
      config: sizes of the decoder.
      prefix_TD: what `prefix` returned for this row; None computes it.
      chunk: the number of targets whose logits are in memory together.

    Returns:
      nll_U in nats, at least float32; 0 for padding.
    """
    hidden_TD = decode(base, adapters, row, config, prefix_TD=prefix_TD)
    matrix_VD = output_matrix(base, config)
    nll_U = cross_entropy(hidden_TD[targets.slot], matrix_VD, targets.ids, chunk=chunk)
    return jnp.where(targets.segment > 0, nll_U, 0.0)


def start_cache(base: Params, adapters: Params, context: Tokens, length: int, config: LlamaConfig):
    """Prepares the decoding of one example: reads its context, makes room for its own tokens.

    Args:
      base: from `lora.split_layers`.
      adapters: as from `lora.init`, or {} for the base alone.
      context: Tokens [S] of segment 1, followed by padding; all tokens of the prompt but
        the last one, which is the first token of `decode_step`.
      length: the largest number of tokens that will be decoded.
      config: sizes of the decoder.

    Returns:
      A pytree for `decode_step`: {"memory": keys and values of the context, "own": room}.
    """
    hidden_SD = base["embedding"][context.ids].astype(config.dtype)
    cache: dict[str, dict] = {"memory": {}, "own": {}}
    for part in _parts(base):
        hidden_SD, memory = _over_layers(
            base[part],
            adapters if part == "layers" else {},
            hidden_SD,
            context,
            config,
            keep=True,
        )
        layers, _, heads, size = memory[0].shape
        empty = jnp.zeros((layers, length, heads, size), hidden_SD.dtype)
        cache["memory"][part] = memory
        cache["own"][part] = (empty, empty)
    return cache


def decode_step(
    base: Params,
    adapters: Params,
    cache,
    memory_segment_S,
    token,
    position,
    config: LlamaConfig,
):
    """Reads one more token; the same numbers as `decode` without redoing the past.

    Args:
      base: from `lora.split_layers`.
      adapters: as from `lora.init`, or {} for the base alone.
      cache: from `start_cache` or the previous step.
      memory_segment_S: int32 [S]; slots of segment 1 are the context.
      token: int32 scalar, the newest token.
      position: int32 scalar, the number of tokens after the context and before this one.
      config: sizes of the decoder.

    Returns:
      (hidden_D, new cache).
    """
    known_S = memory_segment_S == 1
    angles = rotation((jnp.sum(known_S) + position)[None], config)
    hidden_TD = base["embedding"][token[None]].astype(config.dtype)
    own_parts = {}

    def layer(hidden_TD, stacked):
        weights, adapter, memory, own = stacked
        query_TGRK, *new = projections(weights, adapter, hidden_TD, angles, config)
        own = tuple(
            jax.lax.dynamic_update_slice_in_dim(past, x, position, axis=0)
            for past, x in zip(own, new)
        )
        written_T = jnp.arange(own[0].shape[0]) <= position
        seen = [(*memory, known_S[None, :]), (*own, written_T[None, :])]
        hidden_TD = attend(weights, adapter, hidden_TD, query_TGRK, seen, config)
        return feed_forward(weights, adapter, hidden_TD, config), own

    for part in _parts(base):
        adapted = adapters if part == "layers" else {}
        stacked = (base[part], adapted, cache["memory"][part], cache["own"][part])
        hidden_TD, own_parts[part] = jax.lax.scan(layer, hidden_TD, stacked)
    return rms_norm(base["norm"], hidden_TD, config)[0], {**cache, "own": own_parts}


def output_matrix(base: Params, config: LlamaConfig) -> jax.Array:
    """The output matrix, tied or not: logits_TV = hidden_TD @ output_matrix_VD.T."""
    return base.get("output", base["embedding"]).astype(config.dtype)


def _parts(base):
    return [part for part in ("frozen", "layers") if part in base]


def _over_layers(stack, adapters, hidden_TD, row, config, keep=False):
    """(hidden_TD after a stack of layers, (key_LTGK, value_LTGK) if they are kept)."""
    angles = rotation(row.position, config)
    mask_TS = visible(row)

    def layer(hidden_TD, weights_and_adapter, angles, mask_TS):
        weights, adapter = weights_and_adapter
        query, key, value = projections(weights, adapter, hidden_TD, angles, config)
        seen = [(key, value, mask_TS)]
        hidden_TD = attend(weights, adapter, hidden_TD, query, seen, config)
        return feed_forward(weights, adapter, hidden_TD, config), (key, value) if keep else None

    if config.remat:
        # A scan's forward and backward passes are loops apart, and XLA merges nothing
        # across them.
        layer = jax.checkpoint(layer, prevent_cse=False)
    return jax.lax.scan(
        lambda hidden_TD, stacked: layer(hidden_TD, stacked, angles, mask_TS),
        hidden_TD,
        (stack, adapters),
    )
