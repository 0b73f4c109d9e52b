"""The loop: step, log, validate, save, stop; and going on where a run was interrupted."""

import dataclasses
import functools
import math
import signal
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from tqdm import tqdm

from mtml_jax import transformer
from mtml_jax.checkpoint import Checkpoints
from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared, training_batch, validation_batch
from mtml_jax.evaluation import validation_sums
from mtml_jax.metrics import perplexity
from mtml_jax.objectives import STRATEGIES, Metrics
from mtml_jax.outer import init_state, outer_step
from mtml_jax.runlog import RunLog
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.types import MetaState, Rates

_SAVE_SECONDS = 600.0  # at most this much work is lost to a power cut


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      state: MetaState after the last step.
      counters: best_score, best_step, waited (validations since), tokens.
      reason: "finished", "no better score" or "interrupted".
    """

    state: MetaState
    counters: dict
    reason: str


def initial_state(config: TrainConfig, data: Prepared) -> MetaState:
    """The state before iteration 1: parameters drawn from the seed, word vectors put in."""
    key = jax.random.key(config.seed)
    params = transformer.init(key, len(data.vocabulary), config.model, data.embedding)
    return init_state(params)


def rates_at(config: TrainConfig, step: int) -> Rates:
    """Alpha and the learning rates of outer step `step` (from 0), warm-up included."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return Rates(
        jnp.float32(config.alpha),
        jnp.float32(config.inner_lr),
        jnp.float32(config.outer_lr * warm),
    )


def compiled_steps(config: TrainConfig, mesh: Mesh) -> list:
    """One jitted outer step a phase; iteration i runs number i modulo their count."""
    step_config = config.step(mesh.devices.flat[0].platform)
    return [
        jax.jit(
            functools.partial(outer_step, phase=phase, config=step_config, mesh=mesh),
            donate_argnums=0,
        )
        for phase in STRATEGIES[config.strategy]
    ]


def train(
    config: TrainConfig, data: Prepared, log: RunLog, checkpoints: Checkpoints, say=print
) -> Outcome:
    """Meta-trains from the latest checkpoint, or from the start, to the end.

    Every step is a function of the state and of (seed, step), so that an
    interrupted run ends with the same parameters as one that was not.

    Args:
      config: TrainConfig.
      data: from `prepare`.
      log: takes a row a step and a row a validation.
      checkpoints: of this run; the latest is gone on from.
      say: takes lines for the user.

    Returns:
      Outcome.

    Raises:
      FloatingPointError: the loss is no longer finite.
    """
    mesh = persona_mesh(config.meta_batch)
    state = replicate(initial_state(config, data), mesh)
    counters = {"best_score": math.inf, "best_step": 0, "waited": 0, "tokens": 0}
    if (latest := checkpoints.latest_step()) is not None:
        state, counters = checkpoints.restore(latest, state)
        counters["best_score"] = float(counters["best_score"])
    begin = int(state.step)
    steps = compiled_steps(config, mesh)
    validate = _validator(config, data)
    saved_at = time.monotonic()
    reason = "finished"
    newest = {}  # the outer loss of each task; a phase of AMTML computes one of them

    def save(best):
        nonlocal saved_at
        saved_at = time.monotonic()
        stored = {**counters, "best_score": str(counters["best_score"])}
        checkpoints.save(int(state.step), state, stored, best)

    if begin:
        say(f"going on from step {begin:,} of {config.iterations:,}")
    with (
        _Interruption() as interruption,
        tqdm(total=config.iterations, initial=begin, unit="step", disable=None) as bar,
    ):
        batch_at = functools.partial(training_batch, data, config, devices=mesh.size)
        batch = split_personas(batch_at(begin), mesh)
        for step in range(begin, config.iterations):
            if counters["waited"] >= config.patience:
                reason = "no better score"
                break
            if interruption.asked:
                reason = "interrupted"
                break
            clock = time.perf_counter()
            rates = replicate(rates_at(config, step), mesh)
            state, metrics = steps[(step + 1) % len(steps)](state, batch, rates)
            batch = split_personas(batch_at(step + 1), mesh)
            row = _numbers(jax.device_get(metrics))
            row["seconds"] = time.perf_counter() - clock
            row["tokens_per_second"] = row["tokens"] / row["seconds"]
            counters["tokens"] += int(row["tokens"])
            log.row(step + 1, "train", **row)
            for task in ("response", "persona"):
                if (name := f"query_{task}_loss") in row:
                    newest[task] = row[name]
            bar.update()
            bar.set_postfix_str(
                f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s",
                refresh=False,
            )
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(
                    f"the loss of iteration {step + 1} is {row['loss']}; "
                    "lower --outer_lr or --inner_lr, or lengthen --warmup"
                )
            last = step + 1 == config.iterations
            if (step + 1) % config.validate_every == 0 or last:
                scores = validate(state.params)
                better = scores["adapted_response_ppl"] < counters["best_score"]
                if better:
                    counters["best_score"] = scores["adapted_response_ppl"]
                    counters["best_step"] = step + 1
                counters["waited"] = 0 if better else counters["waited"] + 1
                log.row(step + 1, "valid", **scores)
                bar.write(_validation_line(step + 1, newest, scores, better))
                save(best=better)
            elif time.monotonic() - saved_at > _SAVE_SECONDS:
                save(best=False)
    if reason == "interrupted":
        save(best=False)
    checkpoints.wait()
    return Outcome(state, counters, reason)


def _validator(config, data):
    """A function of parameters that scores the fixed pairs of valid personas."""
    episodes = validation_batch(data, config)
    mesh = persona_mesh(config.validation_episodes)
    episodes = split_personas(episodes, mesh)
    inner_lr = jnp.float32(config.inner_lr)
    sums = jax.jit(functools.partial(validation_sums, config=config.loss(), mesh=mesh))

    def validate(params):
        params = replicate(params, mesh)
        initial, adapted = jax.device_get(sums(params, episodes, replicate(inner_lr, mesh)))
        return {
            "initial_response_ppl": perplexity(initial.response.nll, initial.response.tokens),
            "adapted_response_ppl": perplexity(adapted.response.nll, adapted.response.tokens),
        }

    return validate


def _numbers(metrics: Metrics) -> dict[str, float]:
    """Divides the sums: nats per token of each task that was computed."""
    row = {"loss": float(metrics.loss), "tokens": 0.0}
    for name, sums in (("support", metrics.support), ("query", metrics.query)):
        for task in ("response", "persona"):
            counted = getattr(sums, task)
            if counted.tokens:
                row[f"{name}_{task}_loss"] = float(counted.nll / counted.tokens)
                row["tokens"] += float(counted.tokens)
    return row


def _validation_line(step, newest, scores, better):
    training = ", ".join(f"{task} {loss:.2f}" for task, loss in newest.items())
    return (
        f"step {step:,}: training loss {training}; valid response PPL "
        f"{scores['initial_response_ppl']:.1f}, after one inner step "
        f"{scores['adapted_response_ppl']:.1f}{' (best)' if better else ''}"
    )


@dataclasses.dataclass
class _Interruption:
    """Notes SIGTERM and SIGINT, so that the loop ends at a whole step; restores handlers."""

    asked: bool = False

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGTERM, signal.SIGINT):
                self._before[name] = signal.signal(name, self._note)
        return self

    def _note(self, *_):
        self.asked = True

    def __exit__(self, *_):
        for name, handler in self._before.items():
            signal.signal(name, handler)
