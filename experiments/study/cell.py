"""Train and test one cell of the study, a row with a seed, and summarise it as JSON."""

import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np

from experiments.checkout import commit
from experiments.reconstruct import measure_reconstruction
from experiments.study.rows import Row, config_of
from experiments.study.training import train_run
from mtml_jax.config import DataConfig, TrainConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.config_eval import EvalConfig, ReconstructionConfig
from mtml_jax.data.episodes import sample_episodes, training_batch
from mtml_jax.data.prepare import Prepared
from mtml_jax.eval.folds import choose_folds
from mtml_jax.eval.folds_file import FoldsFile
from mtml_jax.eval.protocol import effective_shots, run_folds, statistics_of, systems_of
from mtml_jax.eval.run import fingerprint, load_for_test
from mtml_jax.meta.cost import PRICES, count_step, mode_of
from mtml_jax.meta.cost_decoder import count_decoder_step
from mtml_jax.runs.lock import WorkdirLock
from mtml_jax.runs.log import read_log
from mtml_jax.runs.versions import versions
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.memory_plan import fit_steps
from mtml_jax.train.rates import rates_at
from mtml_jax.train.resume import initial_state, read_base

_META_TRAINING = 1.5  # duration of a second-order training over that of a test, at the presets
_SAMPLES = 4  # contexts whose replies are kept
_POINTS = 120  # of a learning curve
_BITS = ("distinct_unigrams", "distinct_bigrams")  # left out: as long as the replies themselves


def make_cell(row: Row, seed: int, study, bar) -> dict[str, Any]:
    """Trains and tests one row with one seed; the parts that are already done are not repeated.

    The seed is that of initialisation and episode sampling; all seeds share their folds.

    Returns:
      The contents of the cell's JSON file.

    Raises:
      InUse: another process is making the cell.
      KeyboardInterrupt: the user stopped it; the next call resumes.
      FloatingPointError: the gradients of the training are no longer finite.
    """
    config = config_of(row, study.config, seed)
    workdir = study.folder / "runs" / f"{row.trained_as}.{seed}"
    with WorkdirLock(workdir):
        data = study.prepared(config)
        training = _train(config, data, workdir, study, bar)
        tested = _test(row, workdir, study, bar)
    return {
        "row": row.name, "label": row.label, "group": row.group, "base": row.base,
        "strategy": config.strategy,
        "alpha": config.alpha if STRATEGIES[config.strategy].reads_alpha else None,
        "seed": seed, "checkpoint": row.checkpoint, "config": dataclasses.asdict(config),
        "device": jax.devices()[0].device_kind, "devices": jax.device_count(),
        "versions": versions(), "commit": commit(), "training": training, **tested,
    }  # fmt: skip


def _train(config, data, workdir, study, bar):
    cost = study.cost_of(config, data)
    share = training_cost(config)
    bar.stage("training", share / (1 + share), config.iterations)
    outcome = train_run(config, data, workdir, study, bar)
    rows = read_log(workdir / "log.jsonl")
    steps, valid = ([r for r in rows if r["kind"] == kind] for kind in ("train", "valid"))
    seconds = [r["seconds"] for r in steps]
    shown = steps[:: len(steps) // _POINTS | 1]  # an odd stride shows both phases of AMTML
    progress = outcome.progress

    def curve(rows, *names):
        return [[r.get(name) for name in ("step", *names)] for r in rows]

    return {
        "iterations": int(outcome.state.step), "reason": outcome.reason,
        "best_step": progress.best_step, "best_score": progress.best_score,
        "skipped": progress.skipped, "seconds": sum(seconds),
        "seconds_a_step": statistics.median(seconds), "tokens": progress.tokens,
        "parameters": sum(x.size for x in jax.tree.leaves(outcome.state.params)),
        **cost,
        "curve": {
            "train": curve(shown, "query_response_loss", "query_persona_loss"),
            "valid": curve(valid, "initial_response_ppl", "adapted_response_ppl"),
        },
    }  # fmt: skip


def training_cost(config: TrainConfig) -> float:
    """Estimates the duration of a training relative to that of a test, for the progress bar."""
    return _META_TRAINING * sum(PRICES[mode_of(config)]) / sum(PRICES["mixed"])


def step_cost(config: TrainConfig, data: Prepared) -> dict[str, float]:
    """Counts what the outer step of a configuration takes.

    Returns:
      "temporary_bytes", of the compiled step, the largest of its phases; "operations", counted
      on the first real batches, the mean of its phases.
    """
    mesh = persona_mesh(config.meta_batch)
    phases = STRATEGIES[config.strategy].phases
    base = read_base(config)
    state, rates, base = replicate(
        (initial_state(config, data, base), rates_at(config, 0), base), mesh
    )
    arguments, operations = [], []
    for number, phase in enumerate(phases):
        first = (number - 1) % len(phases)  # the first step that runs this phase
        batch = training_batch(data, config, first, devices=len(mesh.local_devices))
        arguments.append((state, split_personas(batch, mesh), rates, base))
        triples = sample_episodes(data.train, config.meta_batch, config.seed, first)
        if isinstance(config.model, LlamaConfig):
            count = count_decoder_step(triples, phase, config.model)
        else:
            count = count_step(triples, phase, config.model, len(data.vocabulary))
        operations.append(count.operations(mode_of(config)))
    steps = fit_steps(config, Placement(mesh), arguments).steps  # as in training
    memory = max(step.memory_analysis().temp_size_in_bytes for step in steps)
    return {"temporary_bytes": memory, "operations": statistics.mean(operations)}


def _test(row, workdir, study, bar):
    begin = time.monotonic()
    evaluation = EvalConfig(split=study.split, checkpoint=row.checkpoint)
    source = DataConfig(data=None, data_dir=study.data_dir)
    run = load_for_test(workdir, checkpoint=row.checkpoint, split=study.split, source=source)
    count = study.folds_per_persona * len(run.personas)
    plans = {k: choose_folds(run.encoded, k, evaluation.seed, count) for k in (0, *study.shots)}
    settings = {
        "checkpoint": row.checkpoint, "step": run.step, "split": study.split,
        "inner_lr": run.config.inner_lr, "data": fingerprint(run.personas),
    }  # fmt: skip
    bar.stage("testing", 1.0, sum(len(plans[k]) for _, k in systems_of(plans, run)))
    path = workdir / f"test-{row.checkpoint}" / f"{study.split}.folds.jsonl"
    with FoldsFile(path, settings) as done:
        run_folds(evaluation, run, plans, done, bar)
        found = statistics_of(run, plans, done.rows, study.scorer)
        samples = _samples(run, plans, done.rows)
    return {
        "personas": len({plan.persona for plan in plans[0]}),
        "folds": len(plans[0]),
        "turns": sum(len(plan.held_out.examples) for plan in plans[0]),
        "effective_shots": effective_shots(plans),
        "nli": study.scorer.digest if study.scorer else None,
        "test": [
            {"system": system, "shots": k, "epoch": epoch, "statistics": _plain(statistics)}
            for (system, k, epoch), statistics in found.items()
        ],
        "samples": samples,
        "reconstruction": _reconstruction(row, run, study.split),
        "test_seconds": time.monotonic() - begin,
    }


def _plain(statistics):
    """Turns arrays into lists with an entry for each persona, rounded to four digits."""

    def number(x):
        return int(x) if float(x).is_integer() else round(float(x), 4)

    return {
        name: [[number(x) for x in row] if np.ndim(row) else number(row) for row in values]
        for name, values in statistics.items()
        if name not in _BITS
    }


def _samples(run, plans, rows):
    """Collects the replies of every system to one context of each of the first few folds."""
    samples = []
    for plan in plans[0][:_SAMPLES]:
        persona = run.personas[plan.persona]
        dialogue = persona.dialogues[plan.dialogue]
        turn = len(dialogue.turns) // 2
        pairs = [(t.context, t.response) for t in dialogue.turns[: turn + 1]]
        utterances = [[who, text] for pair in pairs for who, text in zip(("other", "self"), pair)]
        replies = {}
        for system, k in systems_of(plans, run):
            name = f"{k}-shot, {system}" if k else system
            replies[name] = rows[system, k, plan.persona, plan.dialogue]["replies"][-1][turn]
        samples.append({
            "persona": persona.name, "statements": list(dialogue.statements),
            "utterances": [u for u in utterances[-4:-1] if u[1]],
            "gold": dialogue.turns[turn].response, "replies": replies,
        })  # fmt: skip
    return samples


def _reconstruction(row, run, split):
    """Scores the reconstruction by turns seen; None if the persona task was not trained."""
    if not STRATEGIES[run.config.strategy].reconstructs(run.config.alpha):
        return None
    config = ReconstructionConfig(
        split=split, checkpoint=row.checkpoint, max_dialogues=len(run.personas), resamples=200
    )
    return measure_reconstruction(config, run)[2]
