"""The table of strategies, the meta-objective of one persona, and its gradient over many."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from mtml_jax.config import StepConfig
from mtml_jax.meta.inner import adapt
from mtml_jax.model import losses
from mtml_jax.sharding import split_specs, sum_personas
from mtml_jax.strategies import TASKS, Phase
from mtml_jax.types import Episode, Params, Rates, TaskSums

_LOSSES: dict[tuple[str, ...] | None, Callable | None] = {
    None: None,
    ("response",): losses.response_loss,
    ("persona",): losses.persona_loss,
    TASKS: losses.multi_task_loss,
}


def _loss_of(tasks):
    """The loss of a phase's tasks; a function, as tests have toy losses, is one already."""
    return tasks if callable(tasks) else _LOSSES[tasks]


@struct.dataclass
class Metrics:
    """Token sums of one outer step, over its personas; divided on the host.

    Attributes:
      loss: the meta-objective (eq. 14).
      support: TaskSums at the initial parameters.
      query: TaskSums at the adapted parameters.
      gradient_norm: of the meta-gradient, before it is clipped; None for a persona's.
    """

    loss: jax.Array
    support: TaskSums
    query: TaskSums
    gradient_norm: jax.Array | None = None


def meta_objective(
    params: Params, episode: Episode, rates: Rates, *, phase: Phase, config: StepConfig
) -> tuple[jax.Array, Metrics]:
    """L_query(phi - inner_lr * grad L_support(phi)) of one persona (eq. 12).

    Args:
      params: the initial parameters phi.
      episode: Episode of one persona.
      rates: alpha and inner_lr.
      phase: the tasks of both losses.
      config: model sizes, gradient mode, number of inner steps.

    Returns:
      (loss, Metrics).
    """
    loss_config = config.loss()

    def inner_loss(params, data, **gates_at):  # which finite differences alone give
        examples, alpha = data
        return _loss_of(phase.inner)(params, examples, alpha, config=loss_config, **gates_at)

    steps = config.inner_steps
    batches = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (steps, *jnp.shape(x))), (episode.support, rates.alpha)
    )
    adapted, support = adapt(
        inner_loss, params, batches, rates.inner_lr, gradient=config.gradient, unroll=True
    )
    support = jax.tree.map(lambda x: x[0], support)
    loss, query = _loss_of(phase.outer)(adapted, episode.query, rates.alpha, config=loss_config)
    return loss, Metrics(loss, support, query)


def supervised_objective(
    params: Params, episode: Episode, token_weights, *, config: StepConfig
) -> tuple[jax.Array, Metrics]:
    """The loss on both sets of one persona, without adaptation.

    Args:
      params: the model's parameters.
      episode: Episode of one persona.
      token_weights: float scalars of a response's token and of a persona's, from
        `_token_weights` of the whole meta-batch.
      config: model sizes.

    Returns:
      (loss, Metrics).
    """
    sums = [
        losses.weighted_loss(params, examples, *token_weights, config=config.loss())
        for examples in (episode.support, episode.query)
    ]
    loss = sums[0][0] + sums[1][0]
    return loss, Metrics(loss, sums[0][1], sums[1][1])


def mean_gradient(
    params: Params,
    episodes: Episode,
    rates: Rates,
    *,
    phase: Phase,
    config: StepConfig,
    mesh: Mesh | None = None,
    shard_params: bool = False,
) -> tuple[Params, Metrics]:
    """The gradient of (1/M) sum over personas of the meta-objective (eq. 14).

    Personas are split over the mesh; on each device they are vmapped
    `config.persona_chunk` at a time and the chunks scanned, so that only one
    chunk's adapted parameters are alive. Gradients add up, across devices once.

    Args:
      params: the initial parameters phi.
      episodes: Episode with a leading persona axis of length M.
      rates: alpha and inner_lr.
      phase: the tasks of both losses.
      config: model sizes, gradient mode, chunk.
      mesh: from `sharding.persona_mesh`; None for one device.
      shard_params: whether parameters are split over it (`sharding.split_specs`).

    Returns:
      (gradient shaped like params, Metrics: loss averaged over personas, sums summed).

    Raises:
      ValueError: if the chunk does not divide the personas of a device.
    """
    personas = jax.tree.leaves(episodes)[0].shape[0]
    if phase.inner is None:
        alpha = rates.alpha if phase.outer == TASKS else jnp.ones(())
        shared = _token_weights(episodes, alpha, config.reduction)
        objective = functools.partial(supervised_objective, config=config)
    else:
        shared = rates
        objective = functools.partial(meta_objective, phase=phase, config=config)
    total = functools.partial(_summed_gradient, objective, config.persona_chunk)
    if mesh is not None and mesh.size > 1:
        total = sum_personas(total, mesh, split_specs(params, mesh) if shard_params else None)
    grads, metrics = total(params, episodes, shared)
    grads = jax.tree.map(lambda g: g / personas, grads)
    return grads, metrics.replace(loss=metrics.loss / personas)


def _token_weights(episodes, alpha, reduction):
    """With them, the mean over personas of their sums is eq. 6 over all the meta-batch's tokens."""
    shares = dict(zip(TASKS, (alpha, 1.0 - alpha)))
    if reduction == "sum":
        return tuple(shares.values())
    personas = jax.tree.leaves(episodes)[0].shape[0]
    examples = episodes.support + episodes.query
    return tuple(
        share * (personas / jnp.maximum(losses.count_tokens(examples, task), 1.0))
        for task, share in shares.items()
    )


def _summed_gradient(objective, chunk, params, episodes, shared):
    """Sums gradient and metrics over the personas of one device, chunk by chunk."""
    personas = jax.tree.leaves(episodes)[0].shape[0]
    chunk = min(chunk or personas, personas)
    if personas % chunk:
        raise ValueError(
            f"got {personas} personas a device in chunks of {chunk}; "
            "persona_chunk has to divide meta_batch over devices"
        )

    def chunk_objective(params, episodes):
        if chunk == 1:  # a batch axis of one would make batched products, slower on a CPU
            return objective(params, jax.tree.map(lambda x: x[0], episodes), shared)
        loss_P, metrics_P = jax.vmap(objective, in_axes=(None, 0, None))(params, episodes, shared)
        return jnp.sum(loss_P), jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics_P)

    @jax.jit  # traced once for its shapes and once for the loop otherwise
    def chunk_gradient(episodes):
        return jax.grad(chunk_objective, has_aux=True)(params, episodes)

    chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), episodes)
    if chunk == personas:
        return chunk_gradient(jax.tree.map(lambda x: x[0], chunks))
    shapes = jax.eval_shape(chunk_gradient, jax.tree.map(lambda x: x[0], chunks))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add_chunk(total, episodes):
        return jax.tree.map(jnp.add, total, chunk_gradient(episodes)), None

    return jax.lax.scan(add_chunk, zeros, chunks)[0]
