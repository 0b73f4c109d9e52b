"""Define what training minimises for one persona: the meta-objective, or a supervised loss."""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from mtml_jax.config import LossConfig, StepConfig
from mtml_jax.meta.inner import adapt
from mtml_jax.model.losses import count_tokens, read_frozen, weighted_loss
from mtml_jax.strategies import TASKS, Phase, task_weights
from mtml_jax.types import Episode, Params, Rates, TaskSums


@struct.dataclass
class Metrics:
    """Token sums of one outer step over its personas, to be divided on the host.

    Attributes:
      loss: the meta-objective (eq. 14).
      support: TaskSums at the initial parameters.
      query: TaskSums at the adapted parameters.
      gradient_norm: norm of the meta-gradient before it is clipped; None for one persona.
    """

    loss: jax.Array
    support: TaskSums
    query: TaskSums
    gradient_norm: jax.Array | None = None


def meta_objective(
    params: Params, episode: Episode, rates: Rates, base=None, *, phase: Phase, config: StepConfig
) -> tuple[jax.Array, Metrics]:
    """Returns L_query(phi - inner_lr * grad L_support(phi)) of one persona (eq. 12).

    Args:
      params: the initial parameters phi.
      episode: Episode of one persona.
      rates: alpha and inner_lr.
      base: frozen parameters, see `weighted_loss`.
      phase: the tasks of both losses.
      config: model sizes, gradient mode, number of inner steps.

    Returns:
      (loss, Metrics).
    """

    def inner_loss(params, data):
        (examples, alpha), base = data
        weights = task_weights(phase.inner, alpha)
        return weighted_loss(params, examples, weights, config=config.loss(), base=base)

    # Every inner step reads the whole support set.
    support = read_frozen(episode.support, base, config.loss())
    batches = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (config.inner_steps, *jnp.shape(x))),
        (support, rates.alpha),
    )
    adapted, sums = adapt(
        inner_loss, params, batches, rates.inner_lr, gradient=config.gradient, unroll=True, base=base
    )
    sums = jax.tree.map(lambda x: x[0], sums)
    weights = task_weights(phase.outer, rates.alpha)
    loss, query = weighted_loss(adapted, episode.query, weights, config=config.loss(), base=base)
    return loss, Metrics(loss, _of_tasks(sums, phase.inner), _of_tasks(query, phase.outer))


def supervised_objective(
    params: Params, episode: Episode, token_weights, base=None, *, phase: Phase, config: StepConfig
) -> tuple[jax.Array, Metrics]:
    """Returns the loss on both sets of one persona, without adaptation.

    Args:
      params: the model's parameters.
      episode: Episode of one persona.
      token_weights: from `supervised_weights` of the whole meta-batch.
      base: frozen parameters, see `weighted_loss`.
      phase: the tasks of the loss.
      config: model sizes.

    Returns:
      (loss, Metrics).
    """
    summed = LossConfig(config.model, "sum")
    total = functools.partial(weighted_loss, weights=token_weights, config=summed, base=base)
    support_loss, support = total(params, episode.support)
    query_loss, query = total(params, episode.query)
    loss = support_loss + query_loss
    return loss, Metrics(loss, _of_tasks(support, phase.outer), _of_tasks(query, phase.outer))


def supervised_weights(episodes: Episode, alpha, *, phase: Phase, config: StepConfig):
    """Returns each task's weight per token, for `supervised_objective`.

    With these weights the mean over personas of their losses is eq. 6 over all tokens of the
    meta-batch, as if all turns were in one batch.

    Args:
      episodes: Episode with a leading persona axis.
      alpha: weight of the response loss if the phase has both tasks.
      phase: the tasks of the loss.
      config: its reduction.
    """
    weights = task_weights(phase.outer, alpha)
    if config.reduction == "sum":
        return weights
    personas = jax.tree.leaves(episodes)[0].shape[0]
    counts = [
        jnp.maximum(count_tokens(episodes.support, t) + count_tokens(episodes.query, t), 1.0)
        for t in TASKS
    ]
    return tuple(weight * (personas / count) for weight, count in zip(weights, counts))


def _of_tasks(sums, tasks):
    """Drops the sums of the other task, whose targets may lie in the same tiles."""
    pairs = zip(TASKS, (sums.response, sums.persona))
    return TaskSums(*(one if task in tasks else jax.tree.map(jnp.zeros_like, one) for task, one in pairs))
