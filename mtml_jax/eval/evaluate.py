"""Evaluate a run on personas that it never saw, and write the results into a folder."""

import collections
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from mtml_jax.config_eval import EvalConfig
from mtml_jax.config_fields import check_settings
from mtml_jax.eval.folds import choose_folds
from mtml_jax.eval.folds_file import FoldsFile, key
from mtml_jax.eval.metrics import bleu_signature
from mtml_jax.eval.protocol import effective_shots, inner_lr_of, run_folds, statistics_of
from mtml_jax.eval.run import Run, fingerprint, load_for_test
from mtml_jax.eval.statistics import differences, summarise
from mtml_jax.nli.scorer import load_scorer
from mtml_jax.runs.files import write_json, write_text
from mtml_jax.runs.lock import WorkdirLock
from mtml_jax.runs.versions import versions


def evaluate(
    workdir: str | os.PathLike, config: EvalConfig = EvalConfig(),
    output: str | os.PathLike | None = None, say: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """Tests a run on held-out dialogues, from the last finished fold if it was interrupted.

    Args:
      workdir: folder of the run.
      config: settings of the evaluation.
      output: folder of the results; None for WORKDIR/eval.
      say: takes lines for the user.

    Returns:
      The report, as written to OUTPUT/SPLIT.json; None in processes other than the first, which
      only share the folds of the first.

    Raises:
      FileNotFoundError: there is no run, checkpoint or split.
      ValueError: a setting is out of its range, or does not fit the run or the earlier folds.
    """
    check_settings(config)
    check_settings(config.source)
    output = Path(output or Path(workdir) / "eval")
    with contextlib.ExitStack() as stack:
        run = load_for_test(
            workdir, checkpoint=config.checkpoint, split=config.split,
            persona_at_test=config.persona_at_test, source=config.source
        )
        plans = {
            k: choose_folds(run.encoded, k, config.seed, config.max_folds)
            for k in sorted({0, *config.shots})
        }
        if jax.process_index():
            run_folds(config, run, plans, None)
            return None
        stack.enter_context(WorkdirLock(output))
        scorer = load_scorer(config.nli, output / "nli.jsonl") if config.nli else None
        for line in _description(config, run, plans):
            say(line)
        path = output / f"{config.split}.folds.jsonl"
        done = stack.enter_context(FoldsFile(path, fold_settings(config, run)))
        run_folds(config, run, plans, done)
        report = make_report(config, run, plans, done.rows, scorer)
        write_json(output / f"{config.split}.json", report)
        _write_generations(output / f"{config.split}.generations.jsonl", run, plans, done.rows)
    return report


def make_report(config: EvalConfig, run: Run, plans, rows, scorer) -> dict[str, Any]:
    """The report: every row with every score, and the settings that it depends on."""
    statistics = statistics_of(run, plans, rows, scorer)
    resampling = {"seed": config.seed, "resamples": config.resamples}
    table = []
    bar = tqdm(statistics.items(), desc="intervals", unit="row", disable=None, leave=False)
    for (system, k, epoch), counted in bar:
        row = {"shots": k, "epoch": epoch}
        table.append({"system": system, **row, "scores": summarise(counted, **resampling)})
        if system == "other":
            gaps = differences(statistics["own", k, epoch], counted, **resampling)
            table.append({"system": "own minus other", **row, "scores": gaps})
    return {
        "rows": table,
        "settings": fold_settings(config, run),
        "folds": len(plans[0]),
        "personas": len({plan.persona for plan in plans[0]}),
        "turns": sum(plan.held_out.turns for plan in plans[0]),
        "effective_shots": effective_shots(plans),
        "bleu_signature": bleu_signature(),
        "nli": scorer.digest if scorer else None,
        "resamples": config.resamples,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }


def fold_settings(config: EvalConfig, run: Run) -> dict[str, Any]:
    """Everything that the result of a fold depends on, besides the parameters."""
    return {
        "strategy": run.config.strategy,
        "checkpoint": config.checkpoint,
        "step": run.step,
        "split": config.split,
        "inner_lr": inner_lr_of(config, run),
        "reduction": run.config.reduction,
        "decoder": config.decoder,
        "beams": config.beams if config.decoder == "beam" else None,
        "top_p": config.top_p if config.decoder == "nucleus" else None,
        "max_tokens": run.encoding.max_reply,
        "persona_at_test": config.persona_at_test,
        "seed": config.seed,
        "data": fingerprint(run.personas),
    }


def _description(config, run, plans):
    folds = plans[0]
    yield from run.notes
    yield (
        f"{run.config.strategy}, {config.checkpoint} checkpoint (step {run.step:,}); "
        f"{len(folds):,} held-out dialogues of {len({p.persona for p in folds}):,} personas; "
        f"{', '.join(f'{k}-shot' for k in plans)}; SGD at {inner_lr_of(config, run)}, scored "
        f"after {', '.join(map(str, run.encoding.epochs))} epochs"
    )
    for k, some in plans.items():
        short = [len(plan.own) for plan in some if len(plan.own) < k]
        if short:
            yield f"{len(short):,} folds adapt to fewer than {k} dialogues, {min(short)} at least"


def _write_generations(path, run, plans, rows):
    """One line per turn: context, human reply, and the reply of every system, shot and epoch."""
    by_fold = collections.defaultdict(list)
    for row in rows.values():
        by_fold[row["persona"], row["dialogue"]].append(row)
    lines = []
    for plan in plans[0]:
        persona = run.personas[plan.persona]
        dialogue = persona.dialogues[plan.dialogue]
        contexts = plan.held_out.contexts
        for number, (context, turn) in enumerate(zip(contexts, dialogue.turns)):
            replies = {
                f"{row['system']}, {row['shots']}-shot, epoch {epoch}": texts[number]
                for row in sorted(by_fold[plan.persona, plan.dialogue], key=key)
                for epoch, texts in zip(row["epochs"], row["replies"])
            }
            line = {
                "persona": persona.name,
                "statements": list(dialogue.statements),
                "conversation": dialogue.conversation,
                "turn": number + 1,
                "utterances": _utterances(dialogue, number),
                "context": run.encoding.heard(context),
                "gold": turn.response,
                "replies": replies,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _utterances(dialogue, turn):
    """The utterances before a reply as [who, text], in order and not cut to the model's slots."""
    turns = dialogue.turns[: turn + 1]
    said = [pair for t in turns for pair in (["other", t.context], ["self", t.response])]
    return [[who, text] for who, text in said[:-1] if text]
