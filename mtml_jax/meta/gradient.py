"""Average the gradient of the objective over personas, spread over chunks and devices."""

import functools

import jax
import jax.numpy as jnp

from mtml_jax.config import StepConfig
from mtml_jax.meta.objectives import (
    Metrics,
    meta_objective,
    supervised_objective,
    supervised_weights,
)
from mtml_jax.sharding import Placement, split_specs, sum_personas
from mtml_jax.strategies import Phase
from mtml_jax.types import Episode, Params, Rates


def mean_gradient(
    params: Params,
    episodes: Episode,
    rates: Rates,
    base=None,
    *,
    phase: Phase,
    config: StepConfig,
    placement: Placement | None = None,
) -> tuple[Params, Metrics]:
    """Returns the gradient of (1/M) sum over personas of the meta-objective (eq. 14).

    Personas are split over the devices. Each device vmaps `config.persona_chunk` of them at a
    time and scans over the chunks, so that the adapted parameters of one chunk are alive at a
    time. Gradients are summed across devices once.

    Args:
      params: the initial parameters phi.
      episodes: Episode with a leading persona axis of length M.
      rates: alpha and inner_lr.
      base: frozen parameters of a pretrained decoder, whole on every device.
      phase: the tasks of both losses.
      config: model sizes, gradient mode, chunk.
      placement: where personas and parameters lie; None for one device.

    Returns:
      (gradient shaped like params, Metrics: loss averaged over personas, sums summed).

    Raises:
      ValueError: the chunk does not divide the personas of a device.
    """
    personas = jax.tree.leaves(episodes)[0].shape[0]
    if phase.inner is None:
        numbers = supervised_weights(episodes, rates.alpha, phase=phase, config=config)
        objective = functools.partial(supervised_objective, phase=phase, config=config)
    else:
        numbers = rates
        objective = functools.partial(meta_objective, phase=phase, config=config)
    total = functools.partial(_summed_gradient, objective, config.persona_chunk)
    if placement is not None and placement.mesh.size > 1:
        specs = split_specs(params, placement.mesh) if placement.split_state else None
        total = sum_personas(total, placement.mesh, specs)
    grads, metrics = total(params, episodes, (numbers, base))
    grads = jax.tree.map(lambda g: g / personas, grads)
    return grads, metrics.replace(loss=metrics.loss / personas)


def _summed_gradient(objective, chunk, params, episodes, shared):
    """Sums gradient and metrics over the personas of one device, chunk by chunk."""
    personas = jax.tree.leaves(episodes)[0].shape[0]
    chunk = min(chunk or personas, personas)
    if personas % chunk:
        raise ValueError(
            f"expected a persona_chunk that divides the {personas} personas of each device, "
            f"got {chunk}; change persona_chunk or meta_batch"
        )

    def chunk_objective(params, episodes):
        if chunk == 1:  # a batch axis of one would make batched products, slower on a CPU
            return objective(params, jax.tree.map(lambda x: x[0], episodes), *shared)
        mapped = jax.vmap(objective, in_axes=(None, 0, None, None))
        loss_P, metrics_P = mapped(params, episodes, *shared)
        return jnp.sum(loss_P), jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics_P)

    @jax.jit  # otherwise traced twice: for its shapes and for the loop
    def chunk_gradient(episodes):
        return jax.grad(chunk_objective, has_aux=True)(params, episodes)

    # A single chunk needs no loop.
    chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), episodes)
    first = jax.tree.map(lambda x: x[0], chunks)
    if chunk == personas:
        return chunk_gradient(first)

    # Add up chunk after chunk, starting from zeros of the gradient's and the metrics' shapes.
    shapes = jax.eval_shape(chunk_gradient, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add_chunk(total, episodes):
        return jax.tree.map(jnp.add, total, chunk_gradient(episodes)), None

    return jax.lax.scan(add_chunk, zeros, chunks)[0]
