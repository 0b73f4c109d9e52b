"""Compute the loss of a persona's dialogues: equations 2, 5 and 6 in one function.

This is the only place where the dialogue model's logits meet their targets. The model is the
Transformer, whose examples are tiles, or a pretrained decoder, whose examples are one row.

Axes: N tile, R row, S context token, T target token, D width, V vocabulary, U token to predict.
"""

import functools

import jax
import jax.numpy as jnp

from mtml_jax.config import LossConfig, ModelConfig
from mtml_jax.data.rows import RowExamples
from mtml_jax.model import llama, transformer
from mtml_jax.model.tiles import scan_over_tiles, sum_over_tiles
from mtml_jax.strategies import TASKS
from mtml_jax.types import Examples, Params, TaskSums, TokenSums

RESPONSE_ONLY, PERSONA_ONLY = (1.0, 0.0), (0.0, 1.0)


def weighted_loss(
    params: Params, examples: Examples | RowExamples, weights, *, config: LossConfig, base=None
):
    """w_response L_res + w_persona L_rec, from one pass over the contexts (eq. 6).

    L_res is the negative log-likelihood of the responses given their contexts (eq. 2).
    L_rec is that of all persona statements, which every turn's context must produce (eq. 5).

    Args:
      params: the model's parameters; for a pretrained decoder its adapters (`lora.init`).
      examples: Examples of one persona; for a pretrained decoder RowExamples.
      weights: two float scalars, of the response and of the persona loss:
        `RESPONSE_ONLY`, `PERSONA_ONLY` or (alpha, 1 - alpha); see `strategies.task_weights`.
      config: model sizes, and whether each task's loss is the mean over its tokens or the sum.
      base: the frozen parameters of a pretrained decoder, from `lora.split_layers`.

    Returns:
      (loss, TaskSums): nats per token, or nats; the sums of each task in nats, without gradient.
    """
    if config.reduction == "mean":
        counts = [jnp.maximum(count_tokens(examples, task), 1.0) for task in TASKS]
        weights = [weight / count for weight, count in zip(weights, counts)]
    if isinstance(examples, RowExamples):
        row, targets, frozen_TD = examples
        nll_U = llama.token_nll(base, params, row, targets, config.model, prefix_TD=frozen_TD)
        return _weigh(nll_U, targets.segment > 0, targets.task, weights)
    dtype = params["encoder_norm"]["scale"].dtype
    operands = params, tuple(jnp.asarray(weight, dtype) for weight in weights)
    kinds = [(tiles, _occupied(tiles)) for tiles in examples]
    total = scan_over_tiles if config.plain else sum_over_tiles
    return total(functools.partial(_tile_loss, config.model), operands, kinds)


def read_frozen(examples: Examples | RowExamples, base, config: LossConfig):
    """Runs the frozen layers of a pretrained decoder once, for several losses of these examples.

    Examples of the Transformer, which has no frozen layers, stay as they are.
    """
    if not isinstance(examples, RowExamples) or "frozen" not in base:
        return examples
    return examples._replace(frozen=llama.prefix(base, examples.row, config.model))


def count_tokens(examples: Examples | RowExamples, task: str) -> jax.Array:
    """Counts the real target tokens of a task, a float scalar."""
    if isinstance(examples, RowExamples):
        kinds = [(examples.targets.segment, examples.targets.task)]
    else:
        kinds = [(tiles.targets.inputs.segment, tiles.targets.task) for tiles in examples]
    real = ((segment > 0) & (number == TASKS.index(task)) for segment, number in kinds)
    return sum((jnp.sum(x, dtype=jnp.result_type(float)) for x in real), jnp.zeros(()))


def _occupied(tiles):
    return jnp.sum(jnp.any(tiles.context.segment > 0, axis=(1, 2)))


def _tile_loss(config: ModelConfig, operands, tile):
    """The weighted sum of one tile's token losses, and its TaskSums."""
    params, weights = operands
    # Rows keep attention short; the decoder reads the memories of all rows at once.
    rows = [jax.tree.map(lambda x: x[r], tile.context) for r in range(tile.context.ids.shape[0])]
    memory_SD = jnp.concatenate([transformer.encode(params, row, config) for row in rows])
    memory_segment_S = tile.context.segment.reshape(-1)
    # Both tasks lie in one stream: one pass of the decoder, one product with the output matrix.
    targets = tile.targets
    hidden_TD = transformer.decode(
        params, memory_SD, memory_segment_S, targets.inputs, targets.reads, config
    )
    nll_T = _token_losses(params, hidden_TD, targets.ids, config)
    return _weigh(nll_T, targets.inputs.segment > 0, targets.task, weights)


def _weigh(nll_T, real_T, task_T, weights):
    """(the weighted sum of token losses, TaskSums)."""
    sums = []
    for number in range(len(TASKS)):
        mine_T = real_T & (task_T == number)
        sums.append(
            TokenSums(jnp.sum(jnp.where(mine_T, nll_T, 0.0)), jnp.sum(mine_T, dtype=nll_T.dtype))
        )
    loss = sum(weight * task.nll for weight, task in zip(weights, sums))
    return loss, jax.lax.stop_gradient(TaskSums(*sums))


def _token_losses(params, hidden_TD, ids_T, config):
    """-log p of each target, in at least float32; meaningless at padding."""
    matrix_VD = transformer.output_matrix(params, config)
    wide = jnp.promote_types(hidden_TD.dtype, jnp.float32)
    logits_TV = (hidden_TD @ matrix_VD.T).astype(wide)
    # The target's logit is a product of its own, because picking it out of logits_TV
    # would cost a pass over all of them in each derivative.
    picked_T = jnp.sum(hidden_TD.astype(wide) * matrix_VD[ids_T].astype(wide), axis=-1)
    return jax.nn.logsumexp(logits_TV, axis=-1) - picked_T
