"""Scores persona reconstruction against the turns seen: `python -m experiments.reconstruct`."""

import functools
import importlib.util
import pathlib
import types

import jax
import numpy as np
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments.reconstruction_report import draw, sample_text, table
from experiments.tested import Run, load
from mtml_jax.data.encode import EncodedPersona, Encoding
from mtml_jax.data.records import Persona
from mtml_jax.data.text import persona_text
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.eval.folds import choose_folds
from mtml_jax.eval.reconstruction import (
    VARIANTS,
    Scored,
    Subject,
    list_cases,
    reconstruct,
    score_cases,
    summarise_cases,
)
from mtml_jax.model import beam, decoding
from mtml_jax.runs.files import versions, write_json
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES

DECODERS = {"greedy": decoding.greedy, "beam": beam.beam_search}
_LOADED = ("workdir", "checkpoint", "split", "data", "data_dir", "split_seed", "skip_bad")


def define_flags() -> None:
    settings.define_common_flags()
    settings.define_data_flags()
    flags.FLAGS.set_default("data", None)  # that of the run
    flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "whose personas are read")
    flags.DEFINE_integer(
        "max_dialogues", None, "read so many dialogues, spread over the personas (default: all)",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "of the run")
    flags.DEFINE_string("output", None, "folder of the results (default: WORKDIR/eval)")
    flags.DEFINE_enum("decoder", "greedy", list(DECODERS), "how personas are found")
    flags.DEFINE_integer("beams", beam.BEAMS, "hypotheses of beam search", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "of dialogues, baseline and intervals", lower_bound=0)
    flags.DEFINE_integer("resamples", 1000, "of the bootstrap intervals", lower_bound=1)


def main(argv) -> None:
    settings.start(argv, "--workdir=runs/x")
    with settings.one_sentence("interrupted; nothing was written"):
        score(flags.FLAGS)


def score(given) -> dict:
    """Runs the whole command; `given` has the flags as attributes. Returns the report."""
    if not given.workdir:
        raise ValueError("got no --workdir, want the folder of a training run")
    output = pathlib.Path(given.output or pathlib.Path(given.workdir) / "eval")
    chosen = {name: getattr(given, name) for name in _LOADED}
    run = load(types.SimpleNamespace(**chosen, persona_at_test=False))
    output.mkdir(parents=True, exist_ok=True)
    drawable = importlib.util.find_spec("matplotlib") is not None
    if not drawable:
        print("no plot: matplotlib is not installed; pip install -e '.[plot]' brings it")
    subjects, scored, rows = measure_reconstruction(given, run, describe=True)
    report = {
        "rows": rows,
        "settings": _settings(given, run),
        "dialogues": len(subjects),
        "personas": len({subject.persona for subject in subjects}),
        "resamples": given.resamples,
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }
    names = [f"{given.split}.reconstruction.json"]
    write_json(output / names[0], report)
    if drawable:
        names.append(f"{given.split}.reconstruction.png")
        draw(report, output / names[1])
    print(table(report))
    print(sample_text(subjects[0].dialogue, [s for s in scored if s.subject == 0]))
    print(f"\nresults in {output}: {', '.join(names)}")
    return report


def measure_reconstruction(
    given, run: Run, *, describe: bool = False
) -> tuple[list[Subject], list[Scored], list[dict]]:
    """Reconstructs and scores; returns the dialogues, what is made of each, and the rows."""
    subjects = choose_subjects(run, given.split, given.seed, given.max_dialogues)
    if describe:
        _describe(given, run, subjects)
    encoding = Encoding(run.vocabulary, run.config.shape)
    groups, program = _compiled(given, run)
    scored = list(
        tqdm(
            score_cases(
                list_cases(subjects, encoding),
                program,
                encoding,
                groups,
                distinct_start=run.config.distinct_start,
            ),
            desc="reconstructing",
            total=len(VARIANTS) * sum(len(subject.dialogue.turns) for subject in subjects),
            unit="persona",
            disable=None if describe else True,
        )
    )
    rows = summarise_cases(
        subjects, scored, run.vocabulary, seed=given.seed, resamples=given.resamples
    )
    return subjects, scored, rows


def choose_subjects(run: Run, split: str, seed: int, count: int | None) -> list[Subject]:
    """The dialogues that leave-one-out tests with the same seed hold out, as far as told.

    Raises:
      ValueError: fewer than two personas have statements.
    """
    told, encoded = [], []
    for persona, ids in zip(run.personas, run.encoded):
        places = [n for n, d in enumerate(persona.dialogues) if persona_text(d.statements)]
        if places:
            told.append(Persona(persona.name, tuple(persona.dialogues[n] for n in places)))
            encoded.append(EncodedPersona(ids.name, tuple(ids.dialogues[n] for n in places)))
    if len(told) < 2:
        raise ValueError(
            f"found persona statements of {len(told)} personas in the {split} split, want two "
            "or more: a reconstruction is compared with the speaker's statements and with "
            "another's; name other dialogues with --data or --split"
        )
    subjects = []
    for fold in choose_folds(encoded, 0, seed, count):
        others = told[fold.other].dialogues
        subjects.append(
            Subject(
                fold.persona,
                told[fold.persona].dialogues[fold.dialogue],
                others[fold.dialogue % len(others)],
            )
        )
    return subjects


def _compiled(given, run):
    """(groups at once, function of groups of examples)."""
    devices = jax.devices()
    on_cpu = devices[0].platform == "cpu"
    each = 1 if on_cpu else 16
    mesh = persona_mesh(each * len(devices))
    extra = {"beams": given.beams} if given.decoder == "beam" else {}
    decode = functools.partial(
        DECODERS[given.decoder],
        start=START_PERSONA if run.config.distinct_start else START,
        max_tokens=run.config.shape.persona,  # as many as the training task has room for
        config=run.config.model,
        **extra,
    )
    program = jax.jit(
        functools.partial(
            reconstruct, decode=decode, config=run.config.loss(), mesh=mesh, chunk=each
        )
    )
    params = replicate(run.params, mesh)
    return each * mesh.size, lambda groups: program(params, split_personas(groups, mesh))


def _settings(given, run):
    return {
        "strategy": run.config.strategy,
        "checkpoint": given.checkpoint,
        "step": run.step,
        "split": given.split,
        "max_dialogues": given.max_dialogues,
        "decoder": given.decoder,
        "beams": given.beams if given.decoder == "beam" else None,
        "max_tokens": run.config.shape.persona,
        "distinct_start": run.config.distinct_start,
        "seed": given.seed,
    }


def _describe(given, run, subjects):
    for note in run.notes:
        print(note)
    config = run.config
    dialogues = [d for persona in run.personas for d in persona.dialogues]
    untold = sum(not persona_text(d.statements) for d in dialogues)
    if untold:
        print(f"left out {untold:,} dialogues without statements")
    personas = {subject.persona for subject in subjects}
    words = [len(persona_text(subject.dialogue.statements).split()) for subject in subjects]
    print(
        f"{config.strategy}, {given.checkpoint} checkpoint (step {run.step:,}), not adapted; "
        f"{len(subjects):,} dialogues of {len(personas):,} personas, "
        f"{np.mean(words):.0f} words a persona, {max(words)} at most"
    )
    if max(words) + 1 > config.shape.persona:
        print(
            f"{sum(n + 1 > config.shape.persona for n in words):,} personas are longer than the "
            f"{config.shape.persona} tokens of the training task, which PPL counts up to"
        )
    strategy = STRATEGIES[config.strategy]
    if not strategy.reconstructs(config.alpha):
        alpha = " at alpha 1" if strategy.reads_alpha else ""
        print(
            f"{config.strategy}{alpha} has not trained this task: what follows is what a model "
            "makes of it that only ever learnt to reply"
        )
    elif not config.distinct_start:
        print(
            "both tasks begin with the same token, so it may write a reply instead of a persona, "
            "and PPL says more than F1; a run with --distinct_start tells them apart"
        )
    print("compiling", flush=True)


if __name__ == "__main__":
    define_flags()
    app.run(main)
