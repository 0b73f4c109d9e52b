"""Find out for which personas, and in which operation, a skipped step was not finite."""

import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from mtml_jax.config import StepConfig, TrainConfig
from mtml_jax.data.episodes import training_names
from mtml_jax.data.prepare import Prepared
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.meta.outer import is_finite
from mtml_jax.sharding import Placement, fetch, map_personas, own_share
from mtml_jax.strategies import STRATEGIES, Phase
from mtml_jax.types import Episode, Params, Rates

_PACKAGE = Path(__file__).parents[1]


def blamer(
    config: TrainConfig, data: Prepared, placement: Placement, debug_nans: bool, base=None
) -> Callable:
    """Returns a function of (params, batch, rates, step) that explains a skipped step.

    It returns which personas are not finite. With `debug_nans`, it raises FloatingPointError
    with the first operation that made a NaN instead.
    """
    mesh, strategy = placement.mesh, STRATEGIES[config.strategy]
    how = config.step(mesh.devices.flat[0].platform)

    def blame(params, batch, rates, step):
        phase = strategy.phases[strategy.phase_of(step)]
        finite = fetch(
            _finite_personas(params, batch, rates, base, phase=phase, config=how, mesh=mesh)
        )
        names = []
        for process in range(jax.process_count()):
            share, devices = own_share(config.meta_batch, process), len(mesh.local_devices)
            names += training_names(data, config, step, share, devices=devices)
        if debug_nans:
            index = int(finite.argmin())
            episode = jax.tree.map(lambda x: x[index], fetch(batch))
            operation = find_nan(
                fetch(params), episode, rates, base, phase=phase, config=how
            )
            raise FloatingPointError(
                f"iteration {step + 1}, {names[index]}: "
                f"{operation or 'an infinite number, but no operation that makes a NaN'}"
            )
        guilty = [name for name, fine in zip(names, finite, strict=True) if not fine]
        return f"because of {', '.join(guilty)}" if guilty else "though each persona is finite"

    return blame


def finite_personas(
    params: Params, episodes: Episode, rates: Rates, base=None, *, phase: Phase, config: StepConfig,
    mesh: Mesh
) -> jax.Array:
    """Tells which personas have a finite loss and gradient, one persona after the other.

    It costs as much as the step that was skipped, whose arguments it takes: the initial
    parameters phi, episodes with a leading persona axis [P], and devices that share them.

    Returns:
      bool [P].
    """

    def finite(shared, episode):
        params, rates, base = shared
        return is_finite(_gradient(params, episode, rates, base, phase, config)[1])

    return map_personas(finite, mesh)((params, rates, base), episodes)


_finite_personas = jax.jit(finite_personas, static_argnames=("phase", "config", "mesh"))


def find_nan(
    params: Params, episode: Episode, rates: Rates, base=None, *, phase: Phase, config: StepConfig
) -> str | None:
    """Runs the gradient of one persona's episode operation by operation up to the first NaN.

    Returns:
      JAX's message about the operation with the line of this package that called it; None if
      there is no NaN.
    """
    params, episode, rates, base = jax.device_get((params, episode, rates, base))
    try:
        with jax.debug_nans(True), jax.disable_jit():
            _gradient(params, episode, rates, base, phase, config)
    except FloatingPointError as error:
        ours = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if _PACKAGE in Path(frame.filename).parents
        ]
        message = str(error).split("\n")[0].rstrip(".")
        return f"{message} at {Path(ours[-1].filename).name}:{ours[-1].lineno}, {ours[-1].line}"
    return None


def _gradient(params, episode, rates, base, phase, config):
    episodes = jax.tree.map(lambda x: x[None], episode)
    config = dataclasses.replace(config, persona_chunk=None)
    grads, metrics = mean_gradient(params, episodes, rates, base, phase=phase, config=config)
    return grads, metrics.replace(gradient_norm=optax.tree.norm(grads))
