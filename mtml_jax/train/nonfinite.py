"""For whom, and in which operation, a step that was skipped was not finite."""

import dataclasses
import traceback
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from mtml_jax.config import StepConfig
from mtml_jax.meta.objectives import mean_gradient
from mtml_jax.meta.outer import is_finite
from mtml_jax.sharding import map_personas
from mtml_jax.strategies import Phase
from mtml_jax.types import Episode, Params, Rates

_PACKAGE = Path(__file__).parents[1]


def finite_personas(
    params: Params, episodes: Episode, rates: Rates, *, phase: Phase, config: StepConfig, mesh: Mesh
) -> jax.Array:
    """Tells whose loss and gradient are finite, one persona after the other.

    Costs as much as a step, so it is for a step that was skipped.

    Args:
      params: the initial parameters phi, as the step found them.
      episodes: Episode with a leading persona axis of length P.
      rates: of the step.
      phase: of the step.
      config: of the step.
      mesh: devices that share the personas.

    Returns:
      bool [P].
    """

    def finite(shared, episode):
        params, rates = shared
        return is_finite(_gradient(params, episode, rates, phase, config)[1])

    return map_personas(finite, mesh)((params, rates), episodes)


def find_nan(
    params: Params, episode: Episode, rates: Rates, *, phase: Phase, config: StepConfig
) -> str | None:
    """Runs one persona's gradient operation by operation up to the first NaN.

    Args:
      params: as for `finite_personas`.
      episode: of one persona, without the axis.
      rates: of the step.
      phase: of the step.
      config: of the step.

    Returns:
      What JAX says of the operation, and our line that asked for it; None without a NaN.
    """
    params, episode, rates = jax.device_get((params, episode, rates))
    try:
        with jax.debug_nans(True), jax.disable_jit():
            _gradient(params, episode, rates, phase, config)
    except FloatingPointError as error:
        ours = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if _PACKAGE in Path(frame.filename).parents
        ]
        said = str(error).split("\n")[0].rstrip(".")
        return f"{said} at {Path(ours[-1].filename).name}:{ours[-1].lineno}, {ours[-1].line}"
    return None


def _gradient(params, episode, rates, phase, config):
    episodes = jax.tree.map(lambda x: x[None], episode)
    config = dataclasses.replace(config, persona_chunk=None)
    grads, metrics = mean_gradient(params, episodes, rates, phase=phase, config=config)
    return grads, metrics.replace(gradient_norm=optax.tree.norm(grads))
