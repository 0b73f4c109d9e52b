"""Write adapters of a pretrained decoder for others: `transformers`, vLLM, or this library.

    python -m experiments.export --adapted=robin --output=robin-peft
    python -m experiments.export --workdir=runs/x --output=adapters/mine

An adapted speaker becomes a folder in PEFT's layout. A run becomes such a folder with its settings,
from which `adapt` and `chat` begin without training.
"""

import json
import pathlib

from absl import app, flags

from experiments import flags as settings
from experiments import startup
from mtml_jax.config_eval import CHECKPOINTS
from mtml_jax.data.pretrained_files import HUGGING_FACE
from mtml_jax.inference.adapt import load_adapted
from mtml_jax.inference.delta import provenance_of, read_settings
from mtml_jax.runs.folder import load_run
from mtml_jax.runs.peft import DTYPES
from mtml_jax.runs.starts import decoder_of, write_adapters, write_start
from mtml_jax.runs.trained import Trained, load_trained


def define_flags() -> None:
    settings.define_common_flags(
        "folder of a training run (default: the one that --adapted was adapted from)"
    )
    flags.DEFINE_string("adapted", None, "folder of an adapted speaker (default: none; the run itself)")
    flags.DEFINE_string("output", None, "folder of the adapters, which is made (required)")
    flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "checkpoint of the run")
    flags.DEFINE_enum("dtype", "float16", DTYPES, "number format of the file")


def main(argv) -> None:
    startup.start(argv, "--adapted=robin")
    with startup.one_sentence("interrupted; nothing was written"):
        export(flags.FLAGS)


def export(given) -> None:
    """Runs the command; `given` has the flags as attributes."""
    if not given.output or not (given.workdir or given.adapted):
        raise ValueError(
            "expected --output and --workdir or --adapted, got "
            f"--output={given.output}, --workdir={given.workdir}, --adapted={given.adapted}"
        )
    facts = read_settings(given.adapted) if given.adapted else {}
    provenance = provenance_of(given.adapted) if given.adapted else {}
    workdir = given.workdir or provenance.get("workdir")
    model = load_trained(workdir, provenance.get("checkpoint", given.checkpoint))
    if given.adapted:
        params = load_adapted(given.adapted, model)
        write_adapters(
            given.output, params, model.config, card=_card(model, facts), dtype=given.dtype
        )
    else:
        saved, _ = load_run(workdir)
        write_start(
            given.output, model.params, model.config, saved, model.step,
            card=_card(model, {}, saved, workdir), dtype=given.dtype
        )
    size = sum(path.stat().st_size for path in pathlib.Path(given.output).iterdir())
    print(f"wrote {given.output}, {size / 1e6:.2f} MB")


def _card(model: Trained, facts, saved=None, workdir=None) -> str:
    """The text of README.md: what the adapters are, and how they came to be."""
    config = model.config
    base = HUGGING_FACE.get(config.init_from, config.init_from)
    lora = decoder_of(config).lora
    lines = [
        "---", f"base_model: {base}", "library_name: peft", "---", "",
        f"# Adapters of {base}", "",
        f"LoRA of rank {lora.rank}, scale {lora.scale:g}, on {', '.join(lora.targets)} of "
        f"{'all' if lora.layers is None else f'the last {lora.layers}'} layers.",
        f"Meta-trained by `{config.strategy}` for {model.step:,} steps of {config.meta_batch} "
        f"personas (inner rate {config.inner_lr:g}, outer rate {config.outer_lr:g}, "
        f"{config.gradient} gradient).",
    ]  # fmt: skip
    if config.adapters_from:
        lines.append(f"Training began with other adapters: {config.adapters_from}.")
    if facts:
        lines.append(
            f"Adapted to {facts['dialogues']} dialogues of one speaker ({facts['turns']} turns, "
            f"{facts['epochs']} epochs of SGD at {facts['inner_lr']:g})."
        )
    if saved:
        lines.append(f"Dialogues: {saved.get('data')}.")
    report = pathlib.Path(workdir or "") / "eval" / "valid.json"
    if workdir and report.is_file():
        lines += ["", *_scores(json.loads(report.read_text()))]
    lines += [
        "", "The adapters were made with mtml_jax. They carry the licence of the decoder and that of "
        "the dialogues.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _scores(report):
    """A table of PPL for each word on valid personas."""
    lines = [
        f"Word PPL of {report['turns']:,} replies of {report['personas']} valid personas, with 95 % "
        "intervals:", "", "| system | dialogues | epochs | word PPL |", "|---|---|---|---|",
    ]  # fmt: skip
    for row in report["rows"]:
        if score := row["scores"].get("word_ppl"):
            lines.append(
                f"| {row['system']} | {row['shots']} | {row['epoch']} | {score['value']:.2f} "
                f"({score['low']:.2f} to {score['high']:.2f}) |"
            )
    return lines


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
