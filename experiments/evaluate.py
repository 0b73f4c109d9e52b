"""Tests a model on personas it never saw: `python -m experiments.evaluate --workdir=W`."""

import collections
import contextlib
import json
import pathlib

import jax
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments.fold_rows import DECODERS, EPOCHS, inner_lr_of, parsed_shots, run_folds
from experiments.fold_scores import effective_shots, statistics_of
from experiments.folds_file import FoldsFile, key
from experiments.score_table import score_table
from experiments.tested import Run, fingerprint, load
from mtml_jax.eval.folds import choose_folds
from mtml_jax.eval.metrics import bleu_signature
from mtml_jax.eval.scores import differences, summarise
from mtml_jax.model import beam, decoding
from mtml_jax.nli.scorer import load_scorer
from mtml_jax.runs.files import WorkdirLock, versions, write_json, write_text


def define_flags() -> None:
    settings.define_common_flags()
    settings.define_data_flags()
    settings.define_process_flags()
    flags.FLAGS.set_default("data", None)  # that of the run
    flags.DEFINE_list("shots", ["0", "5", "10"], "numbers k of dialogues to adapt to")
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "whose personas are tested")
    flags.DEFINE_integer(
        "max_folds", None, "test so many held-out dialogues, spread over the personas (default: "
        "all)", lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "of the run")
    flags.DEFINE_string("output", None, "folder of the results (default: WORKDIR/eval)")
    flags.DEFINE_string(
        "nli", None, "folder of an NLI scorer, from experiments.train_nli; without it no C-score"
    )
    flags.DEFINE_enum("decoder", "beam", list(DECODERS), "how replies are found")
    flags.DEFINE_integer("beams", beam.BEAMS, "hypotheses of beam search", lower_bound=1)
    flags.DEFINE_float("top_p", 0.9, "probability of the nucleus", 1e-6, 1.0)
    flags.DEFINE_float("inner_lr", None, "SGD step of the adaptation (default: the run's)", 0.0)
    flags.DEFINE_boolean(
        "persona_at_test", False, "std_p only: put the statements in front of contexts at test"
    )
    flags.DEFINE_integer("seed", 0, "of folds, shuffles and intervals", lower_bound=0)
    flags.DEFINE_integer("resamples", 1000, "of the bootstrap intervals", lower_bound=1)
    flags.DEFINE_integer(
        "folds_at_once", None, "folds a device takes between two saves (default: 2 on a CPU, "
        "else 16); more is more memory on an accelerator", lower_bound=1,
    )  # fmt: skip


def main(argv) -> None:
    settings.start(argv, "--workdir=runs/x")
    settings.join_processes()
    interrupted = "interrupted; the same command goes on from the last finished fold"
    with settings.all_or_none(), settings.one_sentence(interrupted):
        evaluate(flags.FLAGS)


def evaluate(given) -> dict | None:
    """Runs the whole command; `given` has the flags as attributes.

    Returns:
      The report; None in processes other than the first, which only share its folds.
    """
    if not given.workdir:
        raise ValueError("got no --workdir, want the folder of a training run")
    shots = parsed_shots(given.shots)
    output = pathlib.Path(given.output or pathlib.Path(given.workdir) / "eval")
    with contextlib.ExitStack() as stack:
        run = load(given)
        plans = {
            k: choose_folds(run.encoded, k, given.seed, given.max_folds)
            for k in sorted({0, *shots})
        }
        if jax.process_index():
            return run_folds(given, run, plans, None)
        stack.enter_context(WorkdirLock(output))
        scorer = load_scorer(given.nli, output / "nli.jsonl") if given.nli else None
        _describe(given, run, plans)
        done = stack.enter_context(
            FoldsFile(output / f"{given.split}.folds.jsonl", _settings(given, run))
        )
        run_folds(given, run, plans, done)
        report = score(given, run, plans, done.rows, scorer)
        write_json(output / f"{given.split}.json", report)
        _write_generations(output / f"{given.split}.generations.jsonl", run, plans, done.rows)
    print(score_table(report))
    if not given.nli:
        print(
            "no C-score: give a scorer with --nli=DIR; python -m experiments.train_nli makes one"
        )
    print(f"\nresults in {output}: {given.split}.json, {given.split}.generations.jsonl")
    return report


def score(given, run: Run, plans, rows, scorer) -> dict:
    """The report: every row with every score, and what it depends on."""
    statistics = statistics_of(run, plans, rows, scorer)
    how = {"seed": given.seed, "resamples": given.resamples}
    table = []
    show = tqdm(statistics.items(), desc="intervals", unit="row", disable=None, leave=False)
    for (system, k, epoch), counted in show:
        row = {"shots": k, "epoch": epoch}
        table.append({"system": system, **row, "scores": summarise(counted, **how)})
        if system == "other":
            apart = differences(statistics["own", k, epoch], counted, **how)
            table.append({"system": "own minus other", **row, "scores": apart})
    return {
        "rows": table,
        "settings": _settings(given, run),
        "folds": len(plans[0]),
        "personas": len({plan.persona for plan in plans[0]}),
        "turns": sum(len(plan.held_out.examples) for plan in plans[0]),
        "effective_shots": effective_shots(plans),
        "bleu_signature": bleu_signature(),
        "nli": scorer.digest if scorer else None,
        "resamples": given.resamples,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }


def _write_generations(path, run, plans, rows):
    """A line a turn: context, human reply, and the reply of every system, shot and epoch."""
    by_fold = collections.defaultdict(list)
    for row in rows.values():
        by_fold[row["persona"], row["dialogue"]].append(row)
    lines = []
    for plan in plans[0]:
        persona = run.personas[plan.persona]
        dialogue = persona.dialogues[plan.dialogue]
        for turn, (example, said) in enumerate(zip(plan.held_out.examples, dialogue.turns)):
            replies = {
                f"{row['system']}, {row['shots']}-shot, epoch {epoch}": texts[turn]
                for row in sorted(by_fold[plan.persona, plan.dialogue], key=key)
                for epoch, texts in zip(row["epochs"], row["replies"])
            }
            line = {
                "persona": persona.name,
                "statements": list(dialogue.statements),
                "conversation": dialogue.conversation,
                "turn": turn + 1,
                "utterances": _utterances(dialogue, turn),
                "context": run.vocabulary.decode(example.context),
                "gold": said.response,
                "replies": replies,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _utterances(dialogue, turn):
    """What was said before a reply, as [who, text] in order: whole, whatever the model reads."""
    said = []
    for earlier in dialogue.turns[: turn + 1]:
        said += [["other", earlier.context], ["self", earlier.response]]
    return [[who, text] for who, text in said[:-1] if text]


def _settings(given, run: Run) -> dict:
    """All that a fold's result depends on beside the data."""
    return {
        "strategy": run.config.strategy,
        "checkpoint": given.checkpoint,
        "step": run.step,
        "split": given.split,
        "inner_lr": inner_lr_of(given, run),
        "reduction": run.config.reduction,
        "decoder": given.decoder,
        "beams": given.beams if given.decoder == "beam" else None,
        "top_p": given.top_p if given.decoder == "nucleus" else None,
        "max_tokens": decoding.MAX_TOKENS,
        "persona_at_test": given.persona_at_test,
        "seed": given.seed,
        "data": fingerprint(run.personas),
    }


def _describe(given, run, plans):
    for note in run.notes:
        print(note)
    folds = plans[0]
    print(
        f"{run.config.strategy}, {given.checkpoint} checkpoint (step {run.step:,}); "
        f"{len(folds):,} held-out dialogues of {len({p.persona for p in folds}):,} personas; "
        f"{', '.join(f'{k}-shot' for k in plans)}; SGD at {inner_lr_of(given, run)}, scored "
        f"after {', '.join(map(str, EPOCHS))} epochs",
        flush=True,
    )
    for k, some in plans.items():
        short = [len(plan.own) for plan in some if len(plan.own) < k]
        if short:
            print(f"{len(short):,} folds adapt to fewer than {k} dialogues, {min(short)} at least")


if __name__ == "__main__":
    define_flags()
    app.run(main)
