"""Test a model on personas it never saw: `python -m experiments.evaluate --workdir=W`."""

import pathlib

from absl import app, flags

from experiments import flags as settings
from experiments import startup
from experiments.printing import say
from mtml_jax.config import DataConfig
from mtml_jax.config_eval import EvalConfig
from mtml_jax.eval.evaluate import evaluate
from mtml_jax.eval.table import score_table


def define_flags() -> None:
    settings.define_common_flags()
    settings.define_data_flags(data=None)
    settings.define_process_flags()
    settings.define(EvalConfig)
    flags.DEFINE_string("output", None, "folder of the results (default: WORKDIR/eval)")
    flags.DEFINE_boolean("all", False, "print all scores after every epoch, in a wide table")


def main(argv) -> None:
    startup.start(argv, "--workdir=runs/x")
    startup.join_processes()
    interrupted = "interrupted; the same command continues from the last finished fold"
    with startup.all_or_none(), startup.one_sentence(interrupted):
        config = settings.read(EvalConfig, source=settings.read(DataConfig))
        evaluate_and_print(flags.FLAGS.workdir, config, flags.FLAGS.output, flags.FLAGS.all)


def evaluate_and_print(
    workdir: str | None, config: EvalConfig, output: str | None, everything: bool = False
) -> None:
    """Evaluates, and prints the table of scores in the first process."""
    if not workdir:
        raise ValueError("expected the folder of a training run, got no --workdir")
    report = evaluate(workdir, config, output, say=say)
    if report is None:
        return
    print(score_table(report, everything=everything))
    print()
    if not config.nli:
        say("no C-score: give a scorer with --nli=DIR; python -m experiments.train_nli makes one")
    split, folder = config.split, output or pathlib.Path(workdir) / "eval"
    hint = "" if everything else "; --all prints every score after every epoch"
    say(f"results in {folder}: {split}.json, {split}.generations.jsonl{hint}")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
