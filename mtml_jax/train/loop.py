"""Run the training loop: step, log, validate, save and stop, and resume after an interruption."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from tqdm import tqdm

from mtml_jax.config import TrainConfig
from mtml_jax.data.episodes import training_batch
from mtml_jax.data.prepare import Prepared
from mtml_jax.meta.objectives import Metrics
from mtml_jax.progress import ProgressBar
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.log import RunLog
from mtml_jax.sharding import (
    Placement,
    any_process,
    own_share,
    persona_mesh,
    replicate,
    split_personas,
)
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.memory_plan import fit_steps
from mtml_jax.train.nonfinite import blamer
from mtml_jax.train.rates import rates_at
from mtml_jax.train.resume import read_base, resume_or_start
from mtml_jax.train.stopping import Interruption, Progress, should_stop
from mtml_jax.train.validation import validation_line, validator
from mtml_jax.types import MetaState

_SAVE_SECONDS = 600.0  # at most this much work is lost to a power cut


class Outcome(NamedTuple):
    """How a run ended."""

    state: MetaState  # after the last step
    progress: Progress  # after the last step
    reason: str  # "finished", "no better score", "out of minutes" or "interrupted"
    steps: int  # that this call has taken
    signal: int = 0  # that interrupted this process; 0 if another process was


def train(
    config: TrainConfig, data: Prepared, log: RunLog | None, checkpoints: Checkpoints,
    say: Callable[[str], None] = tqdm.write, *, debug_nans: bool = False, shard_params: bool = False,
    minutes: float = math.inf, bar: tqdm | None = None
) -> Outcome:
    """Meta-trains from the latest checkpoint, or from the start, to the end.

    Every step is a function of the state and of (seed, step), so that an interrupted run ends
    with the same parameters as an uninterrupted one. If there are several processes, each
    calls this function alike and packs only the episodes of its own devices.

    Args:
      config: settings of the run.
      data: from `prepare` with the same settings.
      log: takes one row per step and one per validation; None if another process logs.
      checkpoints: those of this run; training resumes from the latest.
      say: takes lines for the user.
      debug_nans: whether the first skipped step is run again, operation by operation, to find
        the one that made a NaN.
      shard_params: whether parameters and optimiser are split over the devices, instead of
        being whole on each.
      minutes: time for steps, over all starts of the run; the step that reaches it is the last.
      bar: progress bar of several runs, to be advanced by each step; None for one of its own.

    Raises:
      ValueError: a step does not fit the memory.
      FloatingPointError: too many steps in a row had no finite loss or gradient; the state
        before them is saved.
      OSError: the disk is full.
    """
    # Resume from the latest checkpoint, or start.
    placement = Placement(persona_mesh(config.meta_batch), shard_params)
    mesh = placement.mesh
    base = read_base(config)
    state, progress = resume_or_start(config, data, checkpoints, placement, base)
    base = replicate(base, mesh)
    begin = int(state.step)
    if shard_params:
        say(_split_note(state, mesh))
    if begin:
        say(f"going on from step {begin:,} of {config.iterations:,}")

    def batch_at(step):
        share, devices = own_share(config.meta_batch), len(mesh.local_devices)
        return split_personas(training_batch(data, config, step, share, devices=devices), mesh)

    def out_of_time():  # the processes' clocks differ
        return minutes < math.inf and any_process(progress.seconds >= 60 * minutes)

    with Interruption() as interruption, contextlib.ExitStack() as stack:
        bar = bar or stack.enter_context(
            ProgressBar(
                total=config.iterations, initial=begin, unit="step",
                disable=jax.process_index() > 0  # as the first process prints for all
            )
        )
        # Compile, unless the run is already over.
        batch = batch_at(begin)
        if begin < config.iterations and progress.waited < config.patience:
            arguments = _arguments(config, placement, state, batch, batch_at, begin, base)
            say("compiling; the first step takes a minute")
            config, steps, note = fit_steps(config, placement, arguments)
            say(note)
        strategy = STRATEGIES[config.strategy]
        validate = validator(config, data, placement, base)
        blame = blamer(config, data, placement, debug_nans, base)
        saved_at = time.monotonic()
        newest: dict[str, float] = {}  # the query loss of each task; a phase may compute only one

        reason = "finished"
        for step in range(begin, config.iterations):
            # Stop if there is a reason to.
            asked = any_process(interruption.asked > 0)
            if stop := should_stop(progress, config, interrupted=asked, out_of_time=out_of_time()):
                reason = stop
                break

            # Take a step, and pack the next batch while the devices are busy.
            clock = time.perf_counter()
            rates = replicate(rates_at(config, step), mesh)
            state, metrics = steps[strategy.phase_of(step)](state, batch, rates, base)
            used, batch = batch, batch_at(step + 1)
            row = _row(jax.device_get(metrics), clock)
            finite = math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])
            progress = progress.after_step(row["tokens"], row["seconds"], finite)

            # Log the step.
            if log:
                log.row(step + 1, "train", **row)
            for task in ("response", "persona"):
                if (name := f"query_{task}_loss") in row:
                    newest[task] = row[name]
            bar.update()
            bar.set_postfix_str(
                f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s", refresh=False
            )

            # Explain a step that was skipped.
            if not finite:
                note = _skip_note(row, blame(state.params, used, rates, step))
                if log:
                    log.note(step + 1, note)
                say(f"step {step + 1:,}: {note}")

            # Validate now and then and at the end; save the state with each validation.
            last = step + 1 == config.iterations or out_of_time()
            if (step + 1) % config.validate_every == 0 or last:
                scores = validate(state.params)
                progress = progress.after_validation(scores["adapted_response_ppl"], step + 1)
                better = progress.best_step == step + 1
                if log:
                    log.row(step + 1, "valid", **scores)
                say(validation_line(step + 1, newest, scores, better))
                checkpoints.save(step + 1, state, progress.counters(), best=better)
                saved_at = time.monotonic()
            elif any_process(time.monotonic() - saved_at > _SAVE_SECONDS):
                checkpoints.save(step + 1, state, progress.counters(), best=False)
                saved_at = time.monotonic()

    # Save what the loop has not saved yet.
    given_up = progress.skipped_in_a_row >= config.max_skipped
    if reason == "interrupted" or given_up:
        checkpoints.save(int(state.step), state, progress.counters(), best=False)
    checkpoints.wait()
    if given_up:
        raise FloatingPointError(
            f"expected a finite loss and gradient, got none in the last {progress.skipped_in_a_row} "
            f"steps up to {int(state.step):,}, and the state before them is saved; lower --outer_lr "
            "or --inner_lr or lengthen --warmup in another --workdir, find the operation with "
            "--debug_nans, or continue with a larger --max_skipped"
        )
    return Outcome(state, progress, reason, int(state.step) - begin, interruption.asked)


def _arguments(config, placement, state, batch, batch_at, begin, base):
    """Returns (state, batch, rates, base) for each phase; `batch` is the one of step `begin`."""
    strategy = STRATEGIES[config.strategy]
    rates = replicate(rates_at(config, begin), placement.mesh)
    arguments = {strategy.phase_of(begin): (state, batch, rates, base)}
    for step in range(begin + 1, begin + len(strategy.phases)):
        arguments[strategy.phase_of(step)] = (state, batch_at(step), rates, base)
    return [arguments[phase] for phase in sorted(arguments)]


def _row(metrics: Metrics, clock: float) -> dict[str, float]:
    """Divides the sums of a step: nats per token of each task that was computed."""
    row = {"loss": float(metrics.loss), "gradient_norm": float(metrics.gradient_norm), "tokens": 0.0}
    for name, sums in (("support", metrics.support), ("query", metrics.query)):
        for task in ("response", "persona"):
            counted = getattr(sums, task)
            if counted.tokens:
                row[f"{name}_{task}_loss"] = float(counted.nll / counted.tokens)
                row["tokens"] += float(counted.tokens)
    row["seconds"] = time.perf_counter() - clock
    row["tokens_per_second"] = row["tokens"] / row["seconds"]
    return row


def _skip_note(row, who):
    return (
        f"skipped, {who}: loss {row['loss']}, norm of the gradient {row['gradient_norm']}; "
        "parameters and optimiser stay as they were"
    )


def _split_note(state, mesh):
    leaves = jax.tree.leaves(state.params)
    split = sum(x.size for x in leaves if not x.sharding.is_fully_replicated)
    return (
        f"{split:,} of {sum(x.size for x in leaves):,} parameters are split over {mesh.size} "
        "devices; an array without an axis that they divide stays whole"
    )
