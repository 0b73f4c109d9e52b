"""The two tasks' losses: the only place where logits of the dialogue model meet targets.

All three have one signature, (params, examples, alpha) -> (loss, TaskSums), so
that a strategy is a choice among them.

Axes: N tile, R row, S context token, T target token, D width, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax import transformer
from mtml_jax.config import LossConfig
from mtml_jax.tiles import sum_over_tiles
from mtml_jax.types import Examples, Params, Targets, TaskSums, TokenSums


def response_loss(params: Params, examples: Examples, alpha, *, config: LossConfig):
    """L_res, the negative log-likelihood of the responses given their contexts (eq. 2).

    Args:
      params: the model's parameters.
      examples: Examples of one persona; `persona` is not read.
      alpha: not read.
      config: model sizes, and whether the loss is a mean over tokens or a sum.

    Returns:
      (loss, TaskSums): nats per token or nats; sums in nats without gradient.
    """
    del alpha
    return weighted_loss(
        params,
        examples.replace(persona=None),
        _share(1.0, examples.response, config),
        0.0,
        config=config,
    )


def persona_loss(params: Params, examples: Examples, alpha, *, config: LossConfig):
    """L_rec, the negative log-likelihood of all persona statements given a context (eq. 5).

    Every turn's context must produce all of them. Arguments and results as for
    `response_loss`, with `response` not read.
    """
    del alpha
    return weighted_loss(
        params,
        examples.replace(response=None),
        0.0,
        _share(1.0, examples.persona, config),
        config=config,
    )


def multi_task_loss(params: Params, examples: Examples, alpha, *, config: LossConfig):
    """alpha L_res + (1 - alpha) L_rec (eq. 6), from one pass of the encoder.

    Each loss is divided by its own number of tokens first. Arguments and
    results as for `response_loss`; alpha is a float in [0, 1].
    """
    return weighted_loss(
        params,
        examples,
        _share(alpha, examples.response, config),
        _share(1.0 - alpha, examples.persona, config),
        config=config,
    )


def weighted_loss(
    params: Params,
    examples: Examples,
    response_weight,
    persona_weight,
    *,
    config: LossConfig,
):
    """Sums both tasks' token losses over the tiles, each token times its task's weight.

    Args:
      params: the model's parameters.
      examples: Examples of one persona; a task that is None is not computed.
      response_weight: float scalar, per token of the responses.
      persona_weight: float scalar, per token of the personas.
      config: model sizes.

    Returns:
      (loss, TaskSums): the weighted sum, and the sums in nats without gradient.
    """
    dtype = params["encoder_norm"]["scale"].dtype
    weights = (jnp.asarray(response_weight, dtype), jnp.asarray(persona_weight, dtype))
    occupied = jnp.sum(jnp.any(examples.context.segment > 0, axis=(1, 2)))
    return sum_over_tiles(
        functools.partial(_tile_loss, config.model),
        config.forward_over_reverse,
        (params, weights),
        examples,
        occupied,
    )


def count_tokens(targets: Targets | None) -> jax.Array:
    """Counts the real target tokens, a float scalar."""
    if targets is None:
        return jnp.zeros(())
    return jnp.sum(targets.inputs.segment > 0, dtype=jnp.result_type(float))


def _share(weight, targets, config):
    """The weight of one token, so that `weight` times the mean, or the sum, comes out."""
    if config.reduction == "sum":
        return weight
    return weight / jnp.maximum(count_tokens(targets), 1.0)


def _tile_loss(config, operands, tile):
    params, (response_weight, persona_weight) = operands
    rows = [jax.tree.map(lambda x: x[r], tile.context) for r in range(tile.context.ids.shape[0])]
    memory_SD = jnp.concatenate([transformer.encode(params, row, config) for row in rows])
    segment_S = tile.context.segment.reshape(-1)
    # Both tasks in one stream: one pass of the decoder, one product with the output matrix.
    tasks = [task for task in (tile.response, tile.persona) if task is not None]
    stream = jax.tree.map(lambda *fields: jnp.concatenate(fields), *tasks)
    task_T = np.repeat(np.arange(len(tasks)), [task.ids.shape[0] for task in tasks])
    hidden_TD = transformer.decode(
        params, memory_SD, segment_S, stream.inputs, config, task_T=task_T
    )
    nll_T = _token_losses(params, hidden_TD, stream, config)
    sums, begin = [], 0
    for task in (tile.response, tile.persona):
        end = begin + (0 if task is None else task.ids.shape[0])
        real_T = stream.inputs.segment[begin:end] > 0
        sums.append(TokenSums(jnp.sum(nll_T[begin:end]), jnp.sum(real_T, dtype=nll_T.dtype)))
        begin = end
    loss = response_weight * sums[0].nll + persona_weight * sums[1].nll
    return loss, jax.lax.stop_gradient(TaskSums(*sums))


def _token_losses(params, hidden_TD, targets, config):
    """-log p of each target, in at least float32; 0 where there is none."""
    matrix_VD = transformer.output_matrix(params, config)
    wide = jnp.promote_types(hidden_TD.dtype, jnp.float32)
    logits_TV = (hidden_TD @ matrix_VD.T).astype(wide)
    # The target's logit is a product of its own, because picking it out of logits_TV
    # would cost a pass over all of them a derivative.
    picked_T = jnp.sum(hidden_TD.astype(wide) * matrix_VD[targets.ids].astype(wide), axis=-1)
    nll_T = jax.nn.logsumexp(logits_TV, axis=-1) - picked_T
    return jnp.where(targets.inputs.segment > 0, nll_T, 0.0)
