"""Score a model on the fixed support/query pairs of valid personas, for early stopping."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from mtml_jax.config import TrainConfig
from mtml_jax.data.episodes import validation_batch
from mtml_jax.data.prepare import Prepared
from mtml_jax.eval.adaptation import validation_sums
from mtml_jax.eval.metrics import perplexity
from mtml_jax.sharding import Placement, own_share, replicate, split_personas
from mtml_jax.types import Params

_sums = jax.jit(validation_sums, static_argnames=("config", "mesh"))


def validator(
    config: TrainConfig, data: Prepared, placement: Placement, base=None
) -> Callable[[Params], dict[str, float]]:
    """Returns a function of parameters that computes the validation scores."""
    mesh = placement.mesh
    padded = -(-config.validation_episodes // mesh.size) * mesh.size
    episodes = split_personas(validation_batch(data, config, padded, own_share(padded)), mesh)
    inner_lr = replicate(jnp.float32(config.inner_lr), mesh)

    def validate(params):
        sums = _sums(params, episodes, inner_lr, base, config=config.loss(), mesh=mesh)
        initial, adapted = jax.device_get(sums)
        return {
            "initial_response_ppl": perplexity(initial.response.nll, initial.response.tokens),
            "adapted_response_ppl": perplexity(adapted.response.nll, adapted.response.tokens),
        }

    return validate


def validation_line(
    step: int, newest: Mapping[str, float], scores: Mapping[str, float], better: bool
) -> str:
    """Describes a validation; `newest` is the most recent training loss of each task."""
    training = ", ".join(f"{task} {loss:.2f}" for task, loss in newest.items())
    return (
        f"step {step:,}: training loss {training}; valid response PPL "
        f"{scores['initial_response_ppl']:.1f}, after one inner step "
        f"{scores['adapted_response_ppl']:.1f}{' (best)' if better else ''}"
    )
