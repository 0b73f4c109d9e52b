"""Choose the learning rates and the reduction of the study by trials on valid personas."""

import dataclasses
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.study.training import train_run
from mtml_jax.config import TrainConfig
from mtml_jax.data.episodes import training_batch, validation_batch
from mtml_jax.eval.quick import own_and_other
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.meta.inner import inner_update
from mtml_jax.model import losses
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.runs.lock import WorkdirLock
from mtml_jax.runs.log import read_log
from mtml_jax.sharding import Placement, map_personas, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.rates import rates_at

INNER_RATES = {  # the sum over a dialogue is about 90 times its mean: larger rates end in NaN
    "mean": (0.005, 0.01, 0.05, 0.1, 0.3),
    "sum": (0.005, 0.01, 0.05, 0.1),
}
OUTER_RATES = (0.003, 0.0003)  # section 3.2; the reference code
_PART = 3  # a trial takes a third of the study's iterations
_FOLDS = 32  # valid folds that a trial is scored on
_FAR = 1.1  # a PPL above this factor times the lowest ends the search of larger inner rates


def first_trials(base: TrainConfig) -> list[TrainConfig]:
    """Lists MTML 0.8 with every inner rate and both reductions, at the preset's outer rate."""
    iterations = max(base.iterations // _PART, 1)
    return [
        dataclasses.replace(
            base, strategy="mtml", alpha=0.8, seed=0, iterations=iterations,
            validate_every=min(base.validate_every, iterations), patience=iterations + 1,
            inner_lr=rate, reduction=reduction,
        )
        for reduction, rates in INNER_RATES.items()
        for rate in sorted({*rates, base.inner_lr})
    ]  # fmt: skip


def second_trials(best: TrainConfig) -> list[TrainConfig]:
    """Lists the other outer rates, at the best inner rate."""
    others = [rate for rate in OUTER_RATES if rate != best.outer_lr]
    return [dataclasses.replace(best, outer_lr=rate) for rate in others]


def is_past(config: TrainConfig, found: list[dict[str, Any]]) -> bool:
    """Whether earlier trials found the next smaller inner rate of a reduction far too large."""
    alike = [trial for trial in found if trial["reduction"] == config.reduction]
    smaller = [trial for trial in alike if trial["inner_lr"] < config.inner_lr]
    if not smaller:
        return False
    least = min((ppl for ppl in map(_own_ppl, found) if math.isfinite(ppl)), default=math.inf)
    return not _own_ppl(max(smaller, key=lambda trial: trial["inner_lr"])) <= _FAR * least


def _own_ppl(trial):
    return float(trial.get("own_ppl", "nan"))  # JSON has "nan" for a PPL that is not finite


def name_of(config: TrainConfig) -> str:
    """Returns the name of a trial's files."""
    return f"{config.reduction}-inner{config.inner_lr:g}-outer{config.outer_lr:g}"


def best_of(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Finds the trial with the lowest PPL of valid personas adapted to their own dialogues.

    Raises:
      ValueError: no trial has a finite PPL.
    """
    finite = [trial for trial in trials if math.isfinite(_own_ppl(trial))]
    if not finite:
        raise ValueError(
            "expected a trial with a finite perplexity, got none; set --inner_lr and --outer_lr, or "
            "more --iterations"
        )
    return min(finite, key=_own_ppl)


def run_trial(config: TrainConfig, study, bar) -> dict[str, Any]:
    """Trains with one setting for a third of the study's iterations and scores it on valid folds.

    Returns:
      The rates; `moved`, |phi' - phi| / |phi| of an inner step, the mean over validation pairs;
      `second_order_share`, |g - g_first| / |g| of the meta-gradient at the end of training; PPL
      of validation pairs before and after an inner step; PPL of valid folds adapted as at test
      to their own and to another persona's dialogues. If the training failed, "failed" with a
      sentence instead of these numbers.

    Raises:
      InUse: another process is running the trial.
      KeyboardInterrupt: the user stopped it; the next call resumes.
    """
    begin = time.monotonic()
    names = ("strategy", "iterations", "inner_lr", "reduction", "outer_lr")
    rates = {name: getattr(config, name) for name in names}
    data = study.prepared(config)
    workdir = study.folder / "runs" / f"tuning-{name_of(config)}"
    with WorkdirLock(workdir):
        try:
            outcome = train_run(config, data, workdir, study, bar)
        except FloatingPointError as error:
            return {**rates, "failed": str(error), "seconds": time.monotonic() - begin}
    params = restore_params(workdir, "best").params
    best = outcome.progress.best_step
    rows = read_log(workdir / "log.jsonl")
    valid = next(row for row in rows if row["kind"] == "valid" and row["step"] == best)
    quick = own_and_other(params, config, data, _FOLDS)
    return {
        **rates,
        "moved": _moved(params, config, data),
        "second_order_share": _second_order_share(params, config, data),
        "initial_ppl": valid["initial_response_ppl"],
        "adapted_ppl": valid["adapted_response_ppl"],
        "own_ppl": quick.own,
        "other_ppl": quick.other,
        "seconds": time.monotonic() - begin,
    }


def _moved(params, config, data):
    mesh = persona_mesh(config.validation_episodes)
    episodes = split_personas(validation_batch(data, config), mesh)
    shared = replicate((params, jnp.float32(config.inner_lr)), mesh)
    return float(_movement(shared, episodes, config=config.loss(), mesh=mesh).mean())


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _movement(shared, episodes, *, config, mesh):
    def loss(params, examples):
        return losses.weighted_loss(params, examples, losses.RESPONSE_ONLY, config=config)

    def one(shared, episode):
        params, inner_lr = shared
        adapted, _ = inner_update(loss, params, episode.support, inner_lr)
        moved = jax.tree.map(jnp.subtract, adapted, params)
        return optax.tree.norm(moved) / optax.tree.norm(params)

    return map_personas(one, mesh)(shared, episodes)


def _second_order_share(params, config, data):
    mesh = persona_mesh(config.meta_batch)
    batch = split_personas(training_batch(data, config, config.iterations), mesh)
    params, rates = replicate((params, rates_at(config, config.iterations)), mesh)
    step = config.step(mesh.devices.flat[0].platform)
    gradients = []
    for mode in (config.gradient, "first_order"):
        one = dataclasses.replace(step, gradient=mode)
        gradient = _meta_gradient(params, batch, rates, config=one, mesh=mesh)
        # Wait for the first: two programs that sum over the same devices can block each other.
        gradients.append(jax.block_until_ready(gradient))
    whole, first = gradients
    difference = jax.tree.map(jnp.subtract, whole, first)
    return float(optax.tree.norm(difference) / optax.tree.norm(whole))


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _meta_gradient(params, batch, rates, *, config, mesh):
    (phase,) = STRATEGIES["mtml"].phases
    placement = Placement(mesh)
    return mean_gradient(params, batch, rates, phase=phase, config=config, placement=placement)[0]
