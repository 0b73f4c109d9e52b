"""Score a model quickly: PPL of a few valid folds, adapted to own and to another's dialogues."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.eval.adaptation import score_stages
from mtml_jax.eval.folds import Fold, FoldPlan, choose_folds, measure_folds, pack_folds
from mtml_jax.eval.metrics import perplexity
from mtml_jax.sharding import local_mesh, replicate, split_personas

SHOTS = 5  # section 3.4
_SEED = 0


class QuickScores(NamedTuple):
    """Response PPL of a few folds, before and after the adaptation of the test protocol."""

    initial: float  # PPL of the unadapted model
    own: float  # PPL after adapting to the persona's own dialogues
    other: float  # PPL after adapting to another persona's, the control
    plans: list[FoldPlan]  # the folds
    folds: Fold  # the folds that adapt to own dialogues, packed


def own_and_other(
    params, config: TrainConfig, data: Prepared, count: int, base=None
) -> QuickScores:
    """Scores initial parameters phi on `count` folds of valid personas, at least two."""
    most = max(len({d.conversation for d in p.dialogues}) for p in data.valid) - 1
    plans = choose_folds(data.valid, min(SHOTS, most), _SEED, count)
    epochs = data.encoding.epochs[-1]
    sizes = measure_folds(plans, data.encoding, epochs=epochs, seed=_SEED)
    own, other = (
        pack_folds(plans, data.encoding, sizes, control=control, epochs=epochs, seed=_SEED)
        for control in (False, True)
    )
    folds = jax.tree.map(lambda *both: np.concatenate(both), own, other)
    mesh = local_mesh(2 * len(plans))
    sums = jax.device_get(
        _before_and_after(
            replicate(params, mesh), split_personas(folds, mesh),
            replicate(jnp.float32(config.inner_lr), mesh), replicate(base, mesh),
            config=config.loss(), mesh=mesh, epochs=epochs
        )
    ).response

    def ppl(rows, stage):
        return perplexity(sums.nll[rows, stage].sum(), sums.tokens[rows, stage].sum())

    first, second = slice(0, len(plans)), slice(len(plans), None)
    return QuickScores(ppl(first, 0), ppl(first, 1), ppl(second, 1), plans, own)


@functools.partial(jax.jit, static_argnames=("config", "mesh", "epochs"))
def _before_and_after(params, folds, inner_lr, base, *, config, mesh, epochs):
    return score_stages(params, folds, inner_lr, base, stages=(0, epochs), config=config, mesh=mesh)
