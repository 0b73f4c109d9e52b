"""The outer step: Adam on the mean meta-gradient, from state to state."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mtml_jax.config import StepConfig
from mtml_jax.meta.objectives import Metrics, mean_gradient
from mtml_jax.strategies import Phase
from mtml_jax.types import Episode, MetaState, Params, Rates

# Adam's constants are those of Kingma and Ba; the clip is the reference code's.
_CLIP = optax.clip_by_global_norm(2.0)
_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


def init_state(params: Params) -> MetaState:
    """The state before the first iteration."""
    return MetaState(params, optax.chain(_CLIP, _ADAM).init(params), jnp.zeros((), jnp.int32))


def outer_step(
    state: MetaState,
    episodes: Episode,
    rates: Rates,
    *,
    phase: Phase,
    config: StepConfig,
    mesh: Mesh | None = None,
    shard_params: bool = False,
) -> tuple[MetaState, Metrics]:
    """One outer update of the initial parameters (eq. 14, with Adam as section 3.2 says).

    Where loss or gradient is not finite, parameters and optimiser stay as they are and
    the step counts nevertheless, so that the next one reads other episodes.

    Args:
      state: MetaState.
      episodes: Episode with a leading persona axis of length M.
      rates: alpha, inner_lr and outer_lr.
      phase: the tasks of both losses, from `strategies.STRATEGIES`.
      config: StepConfig.
      mesh: devices that share the personas; None for one.
      shard_params: whether the state is split over them too (`sharding.split_specs`).

    Returns:
      (new state, Metrics of this step).
    """
    grads, metrics = mean_gradient(
        state.params,
        episodes,
        rates,
        phase=phase,
        config=config,
        mesh=mesh,
        shard_params=shard_params,
    )
    metrics = metrics.replace(gradient_norm=optax.tree.norm(grads))

    clip_state, adam_state = state.opt_state
    # Here, because it needs the norm, a sum over devices where the state is split.
    grads, clip_state = _CLIP.update(grads, clip_state)

    def update(params, adam_state, grads):
        updates, adam_state = _ADAM.update(grads, adam_state)
        return jax.tree.map(lambda p, u: p - rates.outer_lr * u, params, updates), adam_state

    # A branch and not a choice between results, so that arrays are updated in place.
    params, adam_state = jax.lax.cond(
        is_finite(metrics),
        update,
        lambda params, adam_state, grads: (params, adam_state),
        state.params,
        adam_state,
        grads,
    )
    return MetaState(params, (clip_state, adam_state), state.step + 1), metrics


def is_finite(metrics: Metrics) -> jax.Array:
    """Whether loss and gradient are, a bool scalar: `outer_step` updates only then."""
    return jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.gradient_norm)
