"""The two tasks' losses: the only place where logits of the dialogue model meet targets.

All three have one signature, (params, examples, alpha) -> (loss, TaskSums), so
that a strategy is a choice among them. Where `gates_at` gives other parameters,
ReLUs are open and shut as they are there, and the loss has no kinks (see `inner`).

Axes: N tile, R row, S context token, T target token, D width, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp

from mtml_jax.config import LossConfig
from mtml_jax.model import transformer
from mtml_jax.model.tiles import sum_over_tiles
from mtml_jax.strategies import TASKS
from mtml_jax.types import Examples, Params, TaskSums, TokenSums


def response_loss(
    params: Params, examples: Examples, alpha, *, config: LossConfig, gates_at=None
):
    """L_res, the negative log-likelihood of the responses given their contexts (eq. 2).

    Args:
      params: the model's parameters.
      examples: Examples of one persona; targets of the other task count nothing.
      alpha: not read.
      config: model sizes, and whether the loss is a mean over tokens or a sum.

    Returns:
      (loss, TaskSums): nats per token or nats; sums in nats without gradient.
    """
    del alpha
    loss, sums = weighted_loss(
        params,
        examples,
        _share(1.0, examples, "response", config),
        0.0,
        config=config,
        gates_at=gates_at,
    )
    return loss, sums.replace(persona=jax.tree.map(jnp.zeros_like, sums.persona))


def persona_loss(
    params: Params, examples: Examples, alpha, *, config: LossConfig, gates_at=None
):
    """L_rec, the negative log-likelihood of all persona statements given a context (eq. 5).

    Every turn's context must produce all of them. Arguments and results as for
    `response_loss`.
    """
    del alpha
    loss, sums = weighted_loss(
        params,
        examples,
        0.0,
        _share(1.0, examples, "persona", config),
        config=config,
        gates_at=gates_at,
    )
    return loss, sums.replace(response=jax.tree.map(jnp.zeros_like, sums.response))


def multi_task_loss(
    params: Params, examples: Examples, alpha, *, config: LossConfig, gates_at=None
):
    """alpha L_res + (1 - alpha) L_rec (eq. 6), from one pass of the encoder.

    Each loss is divided by its own number of tokens first. Arguments and
    results as for `response_loss`; alpha is a float in [0, 1].
    """
    return weighted_loss(
        params,
        examples,
        _share(alpha, examples, "response", config),
        _share(1.0 - alpha, examples, "persona", config),
        config=config,
        gates_at=gates_at,
    )


def weighted_loss(
    params: Params,
    examples: Examples,
    response_weight,
    persona_weight,
    *,
    config: LossConfig,
    gates_at=None,
):
    """Sums both tasks' token losses over the tiles, each token times its task's weight.

    Args:
      params: the model's parameters.
      examples: Examples of one persona.
      response_weight: float scalar, per token of the responses.
      persona_weight: float scalar, per token of the personas.
      config: model sizes.
      gates_at: optional parameters at which each ReLU is found open or shut.

    Returns:
      (loss, TaskSums): the weighted sum, and the sums in nats without gradient.
    """
    dtype = params["encoder_norm"]["scale"].dtype
    weights = (jnp.asarray(response_weight, dtype), jnp.asarray(persona_weight, dtype))
    kinds = [
        (tiles, jnp.sum(jnp.any(tiles.context.segment > 0, axis=(1, 2)))) for tiles in examples
    ]
    return sum_over_tiles(
        functools.partial(_tile_loss, config.model),
        config.forward_over_reverse,
        (params, weights),
        gates_at,
        kinds,
    )


def count_tokens(examples: Examples, task: str) -> jax.Array:
    """Counts the real target tokens of a task, a float scalar."""
    real = (
        (tiles.targets.inputs.segment > 0) & (tiles.targets.task == TASKS.index(task))
        for tiles in examples
    )
    return sum((jnp.sum(x, dtype=jnp.result_type(float)) for x in real), jnp.zeros(()))


def _share(weight, examples, task, config):
    """The weight of one token, so that `weight` times the mean, or the sum, comes out."""
    if config.reduction == "sum":
        return weight
    return weight / jnp.maximum(count_tokens(examples, task), 1.0)


def _tile_loss(config, operands, gates_at, tile):
    params, weights = operands
    gates = None if gates_at is None else _hidden(gates_at, tile, config)[1]
    hidden_TD, _ = _hidden(params, tile, config, gates)
    nll_T = _token_losses(params, hidden_TD, tile.targets, config)
    real_T = tile.targets.inputs.segment > 0
    sums = []
    for number in range(len(TASKS)):
        mine_T = real_T & (tile.targets.task == number)
        sums.append(
            TokenSums(jnp.sum(jnp.where(mine_T, nll_T, 0.0)), jnp.sum(mine_T, dtype=nll_T.dtype))
        )
    loss = sum(weight * task.nll for weight, task in zip(weights, sums))
    return loss, jax.lax.stop_gradient(TaskSums(*sums))


def _hidden(params, tile, config, gates=None):
    """(hidden_TD of a tile's targets, gates of the encoder row by row and of the decoder)."""
    rows = [jax.tree.map(lambda x: x[r], tile.context) for r in range(tile.context.ids.shape[0])]
    encoder_gates, decoder_gates = gates or ([None] * len(rows), None)
    read = [
        transformer.encode_gated(params, row, config, row_gates)
        for row, row_gates in zip(rows, encoder_gates)
    ]
    memories, encoder_gates = zip(*read)
    # Both tasks in one stream: one pass of the decoder, one product with the output matrix.
    hidden_TD, decoder_gates = transformer.decode_gated(
        params,
        jnp.concatenate(memories),
        tile.context.segment.reshape(-1),
        tile.targets.inputs,
        config,
        task_T=tile.targets.task,
        gates=decoder_gates,
    )
    return hidden_TD, (encoder_gates, decoder_gates)


def _token_losses(params, hidden_TD, targets, config):
    """-log p of each target, in at least float32; nonsense where there is none."""
    matrix_VD = transformer.output_matrix(params, config)
    wide = jnp.promote_types(hidden_TD.dtype, jnp.float32)
    logits_TV = (hidden_TD @ matrix_VD.T).astype(wide)
    # The target's logit is a product of its own, because picking it out of logits_TV
    # would cost a pass over all of them a derivative.
    picked_T = jnp.sum(hidden_TD.astype(wide) * matrix_VD[targets.ids].astype(wide), axis=-1)
    return jax.nn.logsumexp(logits_TV, axis=-1) - picked_T
