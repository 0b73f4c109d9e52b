"""Test a model on personas it never saw: `python -m experiments.evaluate --workdir=W`."""

import pathlib

from absl import app, flags

from experiments import flags as settings
from experiments import startup
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


def main(argv) -> None:
    startup.start(argv, "--workdir=runs/x")
    startup.join_processes()
    interrupted = "interrupted; the same command continues from the last finished fold"
    with startup.all_or_none(), startup.one_sentence(interrupted):
        config = settings.read(EvalConfig, source=settings.read(DataConfig))
        evaluate_and_print(flags.FLAGS.workdir, config, flags.FLAGS.output)


def evaluate_and_print(workdir: str | None, config: EvalConfig, output: str | None) -> None:
    """Evaluates, and prints the table of scores in the first process."""
    if not workdir:
        raise ValueError("expected the folder of a training run, got no --workdir")
    report = evaluate(workdir, config, output, say=lambda line: print(line, flush=True))
    if report is None:
        return
    print(score_table(report))
    if not config.nli:
        print("no C-score: give a scorer with --nli=DIR; python -m experiments.train_nli makes one")
    split, folder = config.split, output or pathlib.Path(workdir) / "eval"
    print(f"\nresults in {folder}: {split}.json, {split}.generations.jsonl")


if __name__ == "__main__":
    define_flags()
    app.run(main)
