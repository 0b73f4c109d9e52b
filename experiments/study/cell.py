"""One cell of the study: a row with a seed, trained, tested and summed up in a JSON file."""

import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np

from experiments.checkout import commit
from experiments.operations import count_step
from experiments.reconstruct import measure_reconstruction
from experiments.study.rows import Row, config_of
from experiments.study.training import train_run
from mtml_jax.config import DataConfig, EvalConfig, ReconstructionConfig, TrainConfig
from mtml_jax.data.episodes import sample_episodes
from mtml_jax.data.prepare import Prepared, training_batch
from mtml_jax.eval.folds import choose_folds
from mtml_jax.eval.folds_file import FoldsFile
from mtml_jax.eval.protocol import effective_shots, run_folds, statistics_of, systems_of
from mtml_jax.eval.run import fingerprint, load_for_test
from mtml_jax.runs.lock import WorkdirLock
from mtml_jax.runs.log import read_log
from mtml_jax.runs.versions import versions
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.loop import initial_state, rates_at
from mtml_jax.train.memory_plan import fit_steps

TRAINING_COST = 1.5  # of a meta-training at the presets' lengths, in tests; for the time left only
_SAMPLES = 4
_POINTS = 120  # of a learning curve
_BITS = ("distinct_unigrams", "distinct_bigrams")  # as long as the replies themselves


def make_cell(row: Row, seed: int, study, bar) -> dict[str, Any]:
    """Trains and tests what is not done yet.

    Args:
      row: of the table.
      seed: of parameters and episodes; folds are the same for all.
      study: `Study`, what its cells share.
      bar: progress, of which this is a part.

    Returns:
      The cell's JSON.

    Raises:
      ValueError: another process makes it.
      KeyboardInterrupt: it was stopped; the next call goes on.
      FloatingPointError: the training has no finite gradient any more.
    """
    config = config_of(row, study.config, seed)
    workdir = study.folder / "runs" / f"{row.trained_as}.{seed}"
    with WorkdirLock(workdir):
        data = study.prepared(config)
        training = _train(config, data, workdir, study, bar)
        tested = _test(row, workdir, study, bar)
    return {
        "row": row.name,
        "label": row.label,
        "group": row.group,
        "base": row.base,
        "strategy": config.strategy,
        "alpha": config.alpha if STRATEGIES[config.strategy].reads_alpha else None,
        "seed": seed,
        "checkpoint": row.checkpoint,
        "config": dataclasses.asdict(config),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "versions": versions(),
        "commit": commit(),
        "training": training,
        **tested,
    }


def _train(config, data, workdir, study, bar):
    cost = study.cost_of(config, data)
    cost_share = TRAINING_COST if STRATEGIES[config.strategy].adapts else TRAINING_COST / 4
    bar.stage("training", cost_share / (1 + cost_share), config.iterations)
    outcome = train_run(config, data, workdir, study, bar)
    rows = read_log(workdir / "log.jsonl")
    steps = [r for r in rows if r["kind"] == "train"]
    seconds = [r["seconds"] for r in steps]
    shown = steps[:: len(steps) // _POINTS | 1]  # odd, so that both phases of AMTML are shown
    return {
        "iterations": int(outcome.state.step),
        "reason": outcome.reason,
        "best_step": outcome.counters["best_step"],
        "best_score": outcome.counters["best_score"],
        "skipped": outcome.counters["skipped"],
        "seconds": sum(seconds),
        "seconds_a_step": statistics.median(seconds),
        "tokens": outcome.counters["tokens"],
        "parameters": sum(x.size for x in jax.tree.leaves(outcome.state.params)),
        **cost,
        "curve": {
            "train": [
                [r["step"], r.get("query_response_loss"), r.get("query_persona_loss")]
                for r in shown
            ],
            "valid": [
                [r["step"], r["initial_response_ppl"], r["adapted_response_ppl"]]
                for r in rows
                if r["kind"] == "valid"
            ],
        },
    }


def step_cost(config: TrainConfig, data: Prepared) -> dict[str, float]:
    """Temporary bytes of the compiled outer step, the most of its phases; its operations, their
    mean, counted on the first real batches."""
    mesh = persona_mesh(config.meta_batch)
    kinds = STRATEGIES[config.strategy].phases
    shared = replicate(initial_state(config, data), mesh), replicate(rates_at(config, 0), mesh)
    arguments, operations = [], []
    for number, kind in enumerate(kinds):
        first = (number - 1) % len(kinds)  # iteration i runs phase i modulo their count
        batch = split_personas(
            training_batch(data, config, first, devices=len(mesh.local_devices)), mesh
        )
        arguments.append((shared[0], batch, shared[1]))
        counted = count_step(
            sample_episodes(data.train, config.meta_batch, config.seed, first),
            kind,
            config.model,
            len(data.vocabulary),
        )
        operations.append(counted.operations(config.gradient if kind[0] else "supervised"))
    steps = fit_steps(config, mesh, arguments).steps  # those that the training takes
    memory = max(step.memory_analysis().temp_size_in_bytes for step in steps)
    return {"temporary_bytes": memory, "operations": statistics.mean(operations)}


def _test(row, workdir, study, bar):
    begin = time.monotonic()
    evaluation = EvalConfig(split=study.split, checkpoint=row.checkpoint)
    run = load_for_test(
        workdir,
        checkpoint=row.checkpoint,
        split=study.split,
        source=DataConfig(data=None, data_dir=study.data_dir),
    )
    count = study.folds_per_persona * len(run.personas)
    plans = {k: choose_folds(run.encoded, k, evaluation.seed, count) for k in (0, *study.shots)}
    settings = {
        "checkpoint": row.checkpoint,
        "step": run.step,
        "split": study.split,
        "inner_lr": run.config.inner_lr,
        "data": fingerprint(run.personas),
    }
    bar.stage("testing", 1.0, sum(len(plans[k]) for _, k in systems_of(plans)))
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
    """Lists, one entry a persona; whole numbers as such and the others to four digits."""

    def number(x):
        return int(x) if float(x).is_integer() else round(float(x), 4)

    return {
        name: [[number(x) for x in row] if np.ndim(row) else number(row) for row in values]
        for name, values in statistics.items()
        if name not in _BITS
    }


def _samples(run, plans, rows):
    """A turn of each of the first few folds, as every system and shot answers it at the end."""
    samples = []
    for plan in plans[0][:_SAMPLES]:
        persona = run.personas[plan.persona]
        dialogue = persona.dialogues[plan.dialogue]
        turn = len(dialogue.turns) // 2
        said = [(t.context, t.response) for t in dialogue.turns[: turn + 1]]
        utterances = [[who, text] for pair in said for who, text in zip(("other", "self"), pair)]
        replies = {}
        for system, k in systems_of(plans):
            name = f"{k}-shot, {system}" if k else system
            replies[name] = rows[system, k, plan.persona, plan.dialogue]["replies"][-1][turn]
        samples.append(
            {
                "persona": persona.name,
                "statements": list(dialogue.statements),
                "utterances": [u for u in utterances[-4:-1] if u[1]],
                "gold": dialogue.turns[turn].response,
                "replies": replies,
            }
        )
    return samples


def _reconstruction(row, run, split):
    """Scores by turns seen, if the run was trained on the persona task; otherwise None."""
    if not STRATEGIES[run.config.strategy].reconstructs(run.config.alpha):
        return None
    config = ReconstructionConfig(
        split=split, checkpoint=row.checkpoint, max_dialogues=len(run.personas), resamples=200
    )
    return measure_reconstruction(config, run)[2]
