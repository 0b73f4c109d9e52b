"""The loop: step, log, validate, save, stop; and going on where a run was interrupted."""

import contextlib
import dataclasses
import functools
import math
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import (
    Prepared,
    training_batch,
    training_names,
    validation_batch,
)
from mtml_jax.eval.adaptation import validation_sums
from mtml_jax.eval.metrics import perplexity
from mtml_jax.meta.objectives import Metrics
from mtml_jax.meta.outer import init_state
from mtml_jax.model import transformer
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.log import RunLog
from mtml_jax.sharding import (
    any_process,
    fetch,
    own_share,
    persona_mesh,
    replicate,
    split_params,
    split_personas,
)
from mtml_jax.train.memory_plan import fit_steps, phases
from mtml_jax.train.nonfinite import find_nan, finite_personas
from mtml_jax.types import MetaState, Rates

_SAVE_SECONDS = 600.0  # at most this much work is lost to a power cut


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      state: MetaState after the last step.
      counters: best_score, best_step, waited (validations since), tokens, skipped
        (steps without a finite gradient), skipped_in_a_row and seconds (of steps).
      reason: "finished", "no better score", "out of minutes" or "interrupted".
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
        np.float32(config.alpha),
        np.float32(config.inner_lr),
        np.float32(config.outer_lr * warm),
    )


def train(
    config: TrainConfig,
    data: Prepared,
    log: RunLog | None,
    checkpoints: Checkpoints,
    say: Callable[[str], None] = print,
    *,
    debug_nans: bool = False,
    shard_params: bool = False,
    minutes: float = math.inf,
    bar: tqdm | None = None,
) -> Outcome:
    """Meta-trains from the latest checkpoint, or from the start, to the end.

    Every step is a function of the state and of (seed, step), so that an
    interrupted run ends with the same parameters as one that was not. Several
    processes call it alike; each packs the episodes of its own devices only.

    Args:
      config: TrainConfig.
      data: from `prepare`.
      log: takes a row a step and a row a validation; None where another process logs.
      checkpoints: of this run; the latest is gone on from.
      say: takes lines for the user.
      debug_nans: whether the first step that is skipped is run again, operation by
        operation, to find the one that made a NaN.
      shard_params: whether parameters and optimiser are split over the devices, instead
        of whole on each.
      minutes: of steps, over all starts of the run; the step that reaches them is the last.
      bar: progress bar of several runs, which a step takes one further; None: of this run.

    Returns:
      Outcome.

    Raises:
      ValueError: a step does not fit the memory.
      FloatingPointError: too many steps in a row had no finite loss or gradient; the
        state before them is saved.
      OSError: the disk is full.
    """
    mesh = persona_mesh(config.meta_batch)
    place = split_params if shard_params else replicate
    state = place(initial_state(config, data), mesh)
    counters = {"best_score": math.inf, "best_step": 0, "waited": 0, "tokens": 0, "seconds": 0.0}
    counters |= {"skipped": 0, "skipped_in_a_row": 0}
    if (latest := checkpoints.latest_step()) is not None:
        state, restored = checkpoints.restore(latest, state)
        counters |= restored
        counters["best_score"] = float(counters["best_score"])
    begin = int(state.step)
    saved_at = time.monotonic()
    reason = "finished"
    newest = {}  # the outer loss of each task; a phase of AMTML computes one of them

    def save(best):
        nonlocal saved_at
        saved_at = time.monotonic()
        stored = {**counters, "best_score": str(counters["best_score"])}
        checkpoints.save(int(state.step), state, stored, best)

    def out_of_time():  # the processes' clocks differ
        return minutes < math.inf and any_process(counters["seconds"] >= 60 * minutes)

    if shard_params:
        leaves = jax.tree.leaves(state.params)
        split = sum(x.size for x in leaves if not x.sharding.is_fully_replicated)
        say(
            f"{split:,} of {sum(x.size for x in leaves):,} parameters are split over {mesh.size} "
            "devices; an array without an axis that they divide stays whole"
        )
    if begin:
        say(f"going on from step {begin:,} of {config.iterations:,}")
    batch_at = functools.partial(
        training_batch,
        data,
        config,
        share=own_share(config.meta_batch),
        devices=len(mesh.local_devices),
    )
    with _Interruption() as interruption, contextlib.ExitStack() as stack:
        bar = bar or stack.enter_context(
            tqdm(total=config.iterations, initial=begin, unit="step", disable=None)
        )
        batch = split_personas(batch_at(begin), mesh)
        if begin < config.iterations and counters["waited"] < config.patience:
            config, steps, told = _fitted(config, mesh, state, batch, batch_at, begin, shard_params)
            say(told)
        validate = _validator(config, data, mesh)
        blame = _blamer(config, data, mesh, debug_nans)
        for step in range(begin, config.iterations):
            if counters["waited"] >= config.patience:
                reason = "no better score"
                break
            if any_process(interruption.asked):
                reason = "interrupted"
                break
            if counters["skipped_in_a_row"] >= config.max_skipped:
                break
            if out_of_time():
                reason = "out of minutes"
                break
            clock = time.perf_counter()
            rates = replicate(rates_at(config, step), mesh)
            state, metrics = steps[(step + 1) % len(steps)](state, batch, rates)
            used, batch = batch, split_personas(batch_at(step + 1), mesh)
            row = _numbers(jax.device_get(metrics))
            row["seconds"] = time.perf_counter() - clock
            row["tokens_per_second"] = row["tokens"] / row["seconds"]
            counters["tokens"] += int(row["tokens"])
            counters["seconds"] += row["seconds"]
            if log:
                log.row(step + 1, "train", **row)
            for task in ("response", "persona"):
                if (name := f"query_{task}_loss") in row:
                    newest[task] = row[name]
            bar.update()
            bar.set_postfix_str(
                f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s",
                refresh=False,
            )
            if math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"]):
                counters["skipped_in_a_row"] = 0
            else:
                counters["skipped"] += 1
                counters["skipped_in_a_row"] += 1
                told = _skipped(row, blame(state.params, used, rates, step))
                if log:
                    log.note(step + 1, told)
                bar.write(f"step {step + 1:,}: {told}")
            last = step + 1 == config.iterations or out_of_time()
            if (step + 1) % config.validate_every == 0 or last:
                scores = validate(state.params)
                better = scores["adapted_response_ppl"] < counters["best_score"]
                if better:
                    counters["best_score"] = scores["adapted_response_ppl"]
                    counters["best_step"] = step + 1
                counters["waited"] = 0 if better else counters["waited"] + 1
                if log:
                    log.row(step + 1, "valid", **scores)
                bar.write(_validation_line(step + 1, newest, scores, better))
                save(best=better)
            elif any_process(time.monotonic() - saved_at > _SAVE_SECONDS):
                save(best=False)
    given_up = counters["skipped_in_a_row"] >= config.max_skipped
    if reason == "interrupted" or given_up:
        save(best=False)
    checkpoints.wait()
    if given_up:
        raise FloatingPointError(
            f"the last {counters['skipped_in_a_row']} steps up to {int(state.step):,} had no finite "
            "loss or gradient, and the state before them is saved; lower --outer_lr or --inner_lr or "
            "lengthen --warmup in another --workdir, find the operation with --debug_nans, or go on "
            "with a larger --max_skipped"
        )
    return Outcome(state, counters, reason)


def _fitted(config, mesh, state, batch, batch_at, begin, shard_params):
    """`fit_steps` for a run that goes on from step `begin`, whose batch is `batch`."""
    count = len(phases(config, mesh))
    batches = [batch, *(split_personas(batch_at(begin + n), mesh) for n in range(1, count))]
    rates = replicate(rates_at(config, begin), mesh)
    arguments = [(state, batches[(n - begin - 1) % count], rates) for n in range(count)]
    return fit_steps(config, mesh, arguments, shard_params)


def _validator(config, data, mesh):
    """A function of parameters that scores the fixed pairs of valid personas."""
    padded = -(-config.validation_episodes // mesh.size) * mesh.size
    episodes = split_personas(validation_batch(data, config, padded, own_share(padded)), mesh)
    inner_lr = replicate(jnp.float32(config.inner_lr), mesh)
    sums = _compiled_sums(config.loss(), mesh)

    def validate(params):
        initial, adapted = jax.device_get(sums(params, episodes, inner_lr))
        return {
            "initial_response_ppl": perplexity(initial.response.nll, initial.response.tokens),
            "adapted_response_ppl": perplexity(adapted.response.nll, adapted.response.tokens),
        }

    return validate


@functools.lru_cache(maxsize=16)
def _compiled_sums(config, mesh):
    return jax.jit(functools.partial(validation_sums, config=config, mesh=mesh))


def _blamer(config, data, mesh, debug_nans):
    """A function that says of a step that was skipped for whose sake, and where."""
    computed = phases(config, mesh)
    programs = [
        jax.jit(functools.partial(finite_personas, phase=phase, config=how, mesh=mesh))
        for phase, how in computed
    ]

    def blame(params, batch, rates, step):
        number = (step + 1) % len(computed)
        finite = fetch(programs[number](params, batch, rates))
        names = [
            name
            for process in range(jax.process_count())
            for name in training_names(
                data,
                config,
                step,
                own_share(config.meta_batch, process),
                devices=len(mesh.local_devices),
            )
        ]
        guilty = [name for name, fine in zip(names, finite, strict=True) if not fine]
        if debug_nans:
            index = int(finite.argmin())
            episode = jax.tree.map(lambda x: x[index], fetch(batch))
            phase, how = computed[number]
            found = find_nan(fetch(params), episode, rates, phase=phase, config=how)
            raise FloatingPointError(
                f"iteration {step + 1}, {names[index]}: {found or 'infinite, and nowhere a NaN'}"
            )
        return f"because of {', '.join(guilty)}" if guilty else "though each persona is finite"

    return blame


def _skipped(row, who):
    return (
        f"skipped, {who}: loss {row['loss']}, norm of the gradient {row['gradient_norm']}; "
        "parameters and optimiser stay as they were"
    )


def _numbers(metrics: Metrics) -> dict[str, float]:
    """Divides the sums: nats per token of each task that was computed."""
    row = {"loss": float(metrics.loss), "gradient_norm": float(metrics.gradient_norm), "tokens": 0.0}
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
