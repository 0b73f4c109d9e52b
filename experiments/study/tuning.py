"""Which inner rate, reduction and outer rate the study takes: tried on valid personas alone."""

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
from mtml_jax.data.prepare import training_batch, validation_batch
from mtml_jax.eval.quick import own_and_other
from mtml_jax.meta.inner import inner_update
from mtml_jax.meta.objectives import mean_gradient
from mtml_jax.model import losses
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.runs.files import write_json
from mtml_jax.runs.lock import WorkdirLock
from mtml_jax.runs.log import read_log
from mtml_jax.sharding import map_personas, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.loop import rates_at

INNER_RATES = {  # a sum over a dialogue is some ninety times a mean: larger ones end in NaN
    "mean": (0.005, 0.01, 0.05, 0.1, 0.3),
    "sum": (0.005, 0.01, 0.05, 0.1),
}
OUTER_RATES = (0.003, 0.0003)  # section 3.2's, and the reference code's
_PART = 3  # of the study's iterations are tried
_FOLDS = 32
_FAR = 1.1  # times the least PPL so far: larger inner rates of that reduction are not tried


def first_trials(base: TrainConfig) -> list[TrainConfig]:
    """Every inner rate with both reductions, at the preset's outer rate; MTML at alpha 0.8."""
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
    """Other outer rates at the best inner one."""
    return [
        dataclasses.replace(best, outer_lr=rate) for rate in OUTER_RATES if rate != best.outer_lr
    ]


def is_past(config: TrainConfig, found: list[dict[str, Any]]) -> bool:
    """Whether the next smaller inner rate of the same reduction was far too large already."""
    smaller = [
        trial for trial in found
        if trial["reduction"] == config.reduction and trial["inner_lr"] < config.inner_lr
    ]  # fmt: skip
    if not smaller:
        return False
    least = min((ppl for ppl in map(_own_ppl, found) if math.isfinite(ppl)), default=math.inf)
    return not _own_ppl(max(smaller, key=lambda trial: trial["inner_lr"])) <= _FAR * least


def _own_ppl(trial):
    return float(trial.get("own_ppl", "nan"))  # where there was none, its JSON says "nan"


def name_of(config: TrainConfig) -> str:
    return f"{config.reduction}-inner{config.inner_lr:g}-outer{config.outer_lr:g}"


def best_of(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The trial with the least PPL of valid personas adapted to their own dialogues.

    Raises:
      ValueError: none of them ended with a finite one.
    """
    sound = [trial for trial in trials if math.isfinite(_own_ppl(trial))]
    if not sound:
        raise ValueError(
            "found no trial with a finite perplexity, want one; give rates by --inner_lr and "
            "--outer_lr, or a longer --iterations"
        )
    return min(sound, key=_own_ppl)


def run_trial(config: TrainConfig, study, bar) -> dict[str, Any]:
    """Trains one setting for a third of the study's iterations, and scores it on valid.

    Returns:
      Rates, `moved` (|phi' - phi| / |phi| of an inner step, the mean over validation pairs),
      `second_order_share` (|g - g_first| / |g| of the meta-gradient where training ended),
      PPL of valid pairs before and after an inner step, and of valid folds adapted as at test
      to their own and to another's dialogues; "failed" with a sentence in place of numbers.

    Raises:
      ValueError: another process makes it.
      KeyboardInterrupt: it was stopped; the next call goes on.
    """
    begin = time.monotonic()
    told = {
        "strategy": config.strategy,
        "iterations": config.iterations,
        "inner_lr": config.inner_lr,
        "reduction": config.reduction,
        "outer_lr": config.outer_lr,
    }
    data = study.prepared(config)
    workdir = study.folder / "runs" / f"tuning-{name_of(config)}"
    with WorkdirLock(workdir):
        try:
            outcome = train_run(config, data, workdir, study, bar)
        except FloatingPointError as error:
            return {**told, "failed": str(error), "seconds": time.monotonic() - begin}
    params = restore_params(workdir, "best").params
    best = outcome.counters["best_step"]
    valid = next(
        row
        for row in read_log(workdir / "log.jsonl")
        if row["kind"] == "valid" and row["step"] == best
    )
    quick = own_and_other(params, config, data, _FOLDS)
    return {
        **told,
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
    program = _movement(config.loss(), mesh)
    shared = (replicate(params, mesh), replicate(jnp.float32(config.inner_lr), mesh))
    return float(program(shared, episodes).mean())


@functools.lru_cache(maxsize=4)
def _movement(config, mesh):
    def loss(params, examples):
        return losses.response_loss(params, examples, 1.0, config=config)

    def one(shared, episode):
        params, inner_lr = shared
        adapted, _ = inner_update(loss, params, episode.support, inner_lr)
        moved = jax.tree.map(jnp.subtract, adapted, params)
        return optax.tree.norm(moved) / optax.tree.norm(params)

    return jax.jit(map_personas(one, mesh))


def _second_order_share(params, config, data):
    mesh = persona_mesh(config.meta_batch)
    batch = split_personas(training_batch(data, config, config.iterations), mesh)
    params, rates = replicate((params, rates_at(config, config.iterations)), mesh)
    found = []
    for mode in (config.gradient, "first_order"):
        how = dataclasses.replace(config.step(mesh.devices.flat[0].platform), gradient=mode)
        # One after the other: two programs that sum over the same devices can wait for each other.
        found.append(jax.block_until_ready(_gradient(how, mesh)(params, batch, rates)))
    whole, first = found
    difference = jax.tree.map(jnp.subtract, whole, first)
    return float(optax.tree.norm(difference) / optax.tree.norm(whole))


@functools.lru_cache(maxsize=8)
def _gradient(config, mesh):
    (phase,) = STRATEGIES["mtml"].phases
    gradient = functools.partial(mean_gradient, phase=phase, config=config, mesh=mesh)
    return jax.jit(lambda *batch: gradient(*batch)[0])


def write_trial(folder, name: str, trial: dict[str, Any]) -> None:
    (folder / "tuning").mkdir(exist_ok=True)
    write_json(folder / "tuning" / f"{name}.json", trial)
