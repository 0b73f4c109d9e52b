"""Take outer steps: Adam on the mean meta-gradient, from state to state."""

import jax
import jax.numpy as jnp
import optax

from mtml_jax.config import StepConfig
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.meta.objectives import Metrics
from mtml_jax.sharding import Placement
from mtml_jax.strategies import Phase
from mtml_jax.types import Episode, MetaState, Params, Rates

# Adam's constants are those of Kingma and Ba; the clip is the reference code's.
_CLIP = optax.clip_by_global_norm(2.0)
_ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


def init_state(params: Params) -> MetaState:
    """Returns the state before the first iteration."""
    return MetaState(params, optax.chain(_CLIP, _ADAM).init(params), jnp.zeros((), jnp.int32))


def outer_step(
    state: MetaState,
    episodes: Episode,
    rates: Rates,
    base=None,
    *,
    phase: Phase,
    config: StepConfig,
    placement: Placement | None = None,
) -> tuple[MetaState, Metrics]:
    """Updates the initial parameters once (eq. 14, with Adam as section 3.2 says).

    If the loss or the gradient is not finite, parameters and optimiser stay as they are. The
    step counts nevertheless, so that the next one reads other episodes.

    Args:
      state: MetaState.
      episodes: Episode with a leading persona axis of length M.
      rates: alpha, inner_lr and outer_lr.
      base: frozen parameters of a pretrained decoder, see `mean_gradient`.
      phase: the tasks of both losses, from `strategies.STRATEGIES`.
      config: StepConfig.
      placement: where personas and state lie; None for one device.

    Returns:
      (new state, Metrics of this step).
    """
    grads, metrics = mean_gradient(
        state.params, episodes, rates, base, phase=phase, config=config, placement=placement
    )
    metrics = metrics.replace(gradient_norm=optax.tree.norm(grads))

    clip_state, adam_state = state.opt_state
    # Clip outside the branch, because a split state needs its norm summed over devices.
    grads, clip_state = _CLIP.update(grads, clip_state)

    def update(params, adam_state, grads):
        updates, adam_state = _ADAM.update(grads, adam_state)
        return jax.tree.map(lambda p, u: p - rates.outer_lr * u, params, updates), adam_state

    # A branch instead of a choice between results updates arrays in place.
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
    """Tells whether loss and gradient are finite, a bool scalar; `outer_step` updates only then."""
    return jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.gradient_norm)
