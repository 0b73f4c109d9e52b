"""Score persona reconstruction by turns seen: `python -m experiments.reconstruct --workdir=W`."""

import functools
import importlib.util
import pathlib

import jax
import numpy as np
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments import startup
from experiments.reconstruction_plot import draw
from mtml_jax.config import DataConfig
from mtml_jax.config_eval import ReconstructionConfig
from mtml_jax.data.encode import EncodedPersona
from mtml_jax.data.records import Persona
from mtml_jax.data.text import persona_text
from mtml_jax.eval.folds import choose_folds
from mtml_jax.eval.protocol import DECODERS, decoding_of
from mtml_jax.eval.reconstruction import (
    VARIANTS,
    Scored,
    Subject,
    list_cases,
    reconstruct,
    score_cases,
)
from mtml_jax.eval.reconstruction_scores import summarise_cases
from mtml_jax.eval.run import Run, load_for_test
from mtml_jax.eval.table import reconstruction_table, sample_text
from mtml_jax.runs.files import write_json
from mtml_jax.runs.versions import versions
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES


def define_flags() -> None:
    settings.define_common_flags()
    settings.define_data_flags(data=None)
    settings.define(ReconstructionConfig)
    flags.DEFINE_string("output", None, "folder of the results (default: WORKDIR/eval)")


def main(argv) -> None:
    startup.start(argv, "--workdir=runs/x")
    with startup.one_sentence("interrupted; nothing was written"):
        config = settings.read(ReconstructionConfig, source=settings.read(DataConfig))
        reconstruct_and_print(flags.FLAGS.workdir, config, flags.FLAGS.output)


def reconstruct_and_print(
    workdir: str | None, config: ReconstructionConfig, output: str | None = None
) -> dict:
    """Scores a run's reconstructions, writes and prints the report, and returns it."""
    if not workdir:
        raise ValueError("expected the folder of a training run, got no --workdir")
    folder = pathlib.Path(output or pathlib.Path(workdir) / "eval")
    run = load_for_test(
        workdir, checkpoint=config.checkpoint, split=config.split, source=config.source
    )
    folder.mkdir(parents=True, exist_ok=True)
    drawable = importlib.util.find_spec("matplotlib") is not None
    if not drawable:
        print("no plot: matplotlib is not installed; pip install -e '.[plot]' installs it")
    subjects, scored, rows = measure_reconstruction(config, run, describe=True)
    report = {
        "rows": rows,
        "settings": _settings(config, run),
        "dialogues": len(subjects),
        "personas": len({subject.persona for subject in subjects}),
        "resamples": config.resamples,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }
    names = [f"{config.split}.reconstruction.json"]
    write_json(folder / names[0], report)
    if drawable:
        names.append(f"{config.split}.reconstruction.png")
        draw(report, folder / names[1])
    print(reconstruction_table(report))
    print(sample_text(subjects[0].dialogue, [s for s in scored if s.subject == 0]))
    print(f"\nresults in {folder}: {', '.join(names)}")
    return report


def measure_reconstruction(
    config: ReconstructionConfig, run: Run, *, describe: bool = False
) -> tuple[list[Subject], list[Scored], list[dict]]:
    """Reconstructs and scores; returns the dialogues, their reconstructions, and the rows."""
    subjects = choose_subjects(run, config.split, config.seed, config.max_dialogues)
    if describe:
        _describe(config, run, subjects)
    groups, program = _compiled(config, run)
    found = score_cases(list_cases(subjects, run.encoding), program, run.encoding, groups)
    total = len(VARIANTS) * sum(len(subject.dialogue.turns) for subject in subjects)
    hidden = None if describe else True
    scored = list(tqdm(found, "reconstructing", total, unit="persona", disable=hidden))
    rows = summarise_cases(
        subjects, scored, run.encoding.as_read, seed=config.seed, resamples=config.resamples
    )
    return subjects, scored, rows


def choose_subjects(run: Run, split: str, seed: int, count: int | None) -> list[Subject]:
    """The dialogues that leave-one-out tests with the same seed hold out, if they have statements.

    Raises:
      ValueError: fewer than two personas have statements.
    """
    personas, encoded = [], []
    for persona, ids in zip(run.personas, run.encoded):
        places = [n for n, d in enumerate(persona.dialogues) if persona_text(d.statements)]
        if places:
            personas.append(Persona(persona.name, tuple(persona.dialogues[n] for n in places)))
            encoded.append(EncodedPersona(ids.name, tuple(ids.dialogues[n] for n in places)))
    if len(personas) < 2:
        raise ValueError(
            "expected persona statements of two personas or more, to compare a reconstruction with "
            f"the speaker's and with another's, got {len(personas)} in the {split} split; name "
            "other dialogues with --data or --split"
        )
    subjects = []
    for fold in choose_folds(encoded, 0, seed, count):
        own, others = (personas[p].dialogues for p in (fold.persona, fold.other))
        other = others[fold.dialogue % len(others)]
        subjects.append(Subject(fold.persona, own[fold.dialogue], other))
    return subjects


def _compiled(config, run):
    """(groups at once, function of groups of examples)."""
    devices = jax.devices()
    each = 1 if devices[0].platform == "cpu" else 16
    mesh = persona_mesh(each * len(devices))
    extra = {"beams": config.beams} if config.decoder == "beam" else {}
    decode = functools.partial(
        DECODERS[config.decoder],
        config=run.config.model,
        **{**dict(decoding_of(run.encoding, "persona")), **extra},
    )
    program = jax.jit(
        functools.partial(
            reconstruct, decode=decode, config=run.config.loss(), mesh=mesh, chunk=each
        )
    )
    params, base = replicate((run.params, run.base), mesh)
    return each * mesh.size, lambda groups: program(params, split_personas(groups, mesh), base)


def _settings(config, run):
    return {
        "strategy": run.config.strategy,
        "checkpoint": config.checkpoint,
        "step": run.step,
        "split": config.split,
        "max_dialogues": config.max_dialogues,
        "decoder": config.decoder,
        "beams": config.beams if config.decoder == "beam" else None,
        "max_tokens": run.encoding.max_persona,
        "distinct_start": run.config.distinct_start,
        "seed": config.seed,
    }


def _describe(config, run, subjects):
    for note in run.notes:
        print(note)
    dialogues = [d for persona in run.personas for d in persona.dialogues]
    without = sum(not persona_text(d.statements) for d in dialogues)
    if without:
        print(f"left out {without:,} dialogues without statements")
    speakers = {subject.persona for subject in subjects}
    words = [len(persona_text(subject.dialogue.statements).split()) for subject in subjects]
    print(
        f"{run.config.strategy}, {config.checkpoint} checkpoint (step {run.step:,}), not adapted; "
        f"{len(subjects):,} dialogues of {len(speakers):,} personas, "
        f"{np.mean(words):.0f} words a persona, {max(words)} at most"
    )
    most = run.encoding.max_persona
    if max(words) + 1 > most:
        print(
            f"{sum(n + 1 > most for n in words):,} personas are longer than the {most} tokens of the "
            "training task, and PPL counts only those"
        )
    strategy = STRATEGIES[run.config.strategy]
    if not strategy.reconstructs(run.config.alpha):
        alpha = " at alpha 1" if strategy.reads_alpha else ""
        print(
            f"{run.config.strategy}{alpha} has not trained this task: the scores below are those of "
            "a model that only learnt to reply"
        )
    elif not (run.config.init_from or run.config.distinct_start):
        print(
            "both tasks begin with the same token, so it may write a reply instead of a persona, "
            "and PPL says more than F1; a run with --distinct_start has a token for each"
        )
    print("compiling", flush=True)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
