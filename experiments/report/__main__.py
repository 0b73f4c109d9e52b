"""What a study found, as a page: `python -m experiments.report DIR`."""

import importlib.util
import pathlib
import sys

from absl import app, flags

from experiments.report import details, figures, tables
from experiments.report.cells import GAINS, Study, read_study
from experiments.report.html import to_html
from experiments.report.numbers import Numbers
from experiments.report.page import Block, Figure, Heading, Text, to_markdown
from experiments.report.parts import draw_parts, parts_of_scores
from mtml_jax.runs.files import write_bytes, write_text


def define_flags() -> None:
    flags.DEFINE_integer("seed", 0, "random seed of the bootstrap intervals", lower_bound=0)
    flags.DEFINE_integer("resamples", 1000, "number of bootstrap resamples of an interval", lower_bound=1)


def main(argv) -> None:
    if len(argv) != 2:
        sys.exit(
            f"error: got {len(argv) - 1} folders, want the one that experiments.study wrote, as in "
            "python -m experiments.report results/demo"
        )
    try:
        report(pathlib.Path(argv[1]), flags.FLAGS.seed, flags.FLAGS.resamples)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def report(folder: pathlib.Path, seed: int = 0, resamples: int = 1000) -> None:
    """Writes report.md, report.html and the pictures into a study's folder."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "found no matplotlib, want it for the figures; pip install -e '.[plot]' brings it"
        )
    study = read_study(folder)
    print(f"{len(study.cells())} cells of {len(study.rows)} rows; estimating", flush=True)
    numbers = Numbers(study, seed=seed, resamples=resamples)
    pictures = draw(study, numbers)
    title = f"The study: preset {study.settings['preset']}, data {study.settings['data']}"
    blocks = list_blocks(title, study, numbers, pictures)
    for name, data in pictures.items():
        write_bytes(folder / name, data)
    write_text(folder / "report.md", to_markdown(blocks))
    write_text(folder / "report.html", to_html(title, blocks, pictures))
    print(f"report.md, report.html and {len(pictures)} pictures in {folder}")


def draw(study: Study, numbers: Numbers) -> dict[str, bytes]:
    """All pictures, by the names of their files."""
    names = tables.persona_scores(study)
    pictures = {
        "differences.png": figures.differences(study, numbers, names),
        "own_other.png": figures.own_other(study, numbers, names),
    }
    for shots in tables.shots_in_order(study):
        for name in names if shots == study.shots() else names[:1]:
            picture = figures.score_over_ppl(study, numbers, name, shots)
            pictures[_over_ppl(name, shots)] = picture
    pictures |= {
        "epochs.png": figures.over_epochs(study, numbers, names),
        "alpha.png": figures.over_alpha(study, numbers, names),
        "learning.png": figures.learning(study),
    }
    if (parts := draw_parts(study, numbers)) is not None:
        pictures["parts.png"] = parts
    if (reconstruction := figures.reconstruction(study)) is not None:
        pictures["reconstruction.png"] = reconstruction
    return pictures


def _over_ppl(name, shots):
    return f"{name}_over_ppl_{shots}_shot.png"


def list_blocks(title: str, study: Study, numbers: Numbers, pictures) -> list[Block]:
    """The whole report."""
    names, order = tables.persona_scores(study), tables.shots_in_order(study)
    last = study.last()
    blocks: list[Block] = [
        Heading(title, 1),
        *tables.endpoint(study, numbers),
        *details.missing(study),
        Heading("Setting"),
        *details.setting(study),
        Heading("Tuning, on valid personas"),
        *details.tuning(study),
        Heading("Tables 2 and 3"),
        *tables.legend(study),
    ]
    for shots in order:
        blocks.append(Heading(f"{shots}-shot, after {last} epochs{_OF_PAPER.get(shots, '')}", 3))
        blocks += tables.main_table(study, numbers, shots)
    blocks += [
        Heading("Own dialogues against another speaker's"),
        Text(
            "Every model adapted as long to k dialogues of another persona. Any adapting lowers "
            "PPL; own minus other tells whether the persona was learnt. In nats a token, the "
            "logarithm of PPL, own minus other is what own dialogues gain and what another's cost, "
            "together; the columns before it tell them apart."
        ),
    ]
    for shots in order:
        blocks.append(Heading(f"{shots}-shot", 3))
        blocks += tables.own_and_other(study, numbers, shots)
    blocks += [
        Figure(
            "own_other.png",
            f"{study.shots()}-shot, epoch {last}: after adapting to the speaker's own dialogues "
            "(full) and to another speaker's (hollow), with 95 % intervals.",
        ),
        Heading("Differences to PAML, every seed"),
        Figure(
            "differences.png",
            f"Each row minus PAML, {study.shots()}-shot, epoch {last}: mean with its 95 % interval, "
            "strokes for the seeds, hollow diamonds for the paper's difference where it has one. The "
            "last panel needs no judge of replies: how much better the human ones are predicted "
            "after the speaker's dialogues than after another's.",
        ),
    ]
    for shots in order:
        for name in [*names, "ppl"]:
            blocks.append(Heading(f"{tables.SCORES[name].name}, {shots}-shot", 3))
            blocks += tables.against_paml(study, numbers, shots, name)
        for gain in GAINS:
            blocks.append(Heading(f"nats a token, {gain}, {shots}-shot", 3))
            blocks += tables.against_paml(study, numbers, shots, "nats", gain)
    if "multitask" in study.rows:
        blocks += [
            Heading("Against the control without meta-learning"),
            *tables.control(study, numbers),
        ]
    if made_of := parts_of_scores(study, numbers, "parts.png"):
        blocks += [Heading("What the persona scores are made of"), *made_of]
    blocks += [
        Heading("Persona scores against PPL along the epochs"),
        Text(
            "Fine-tuning alone raises C, so rows are compared at equal PPL: of each curve's scores, "
            "interpolated between epochs, at five PPL from the lowest to the highest that both "
            "curves pass, the mean difference. Where a curve passes a PPL more than once, its last "
            "time counts."
        ),
    ]
    for name in names:
        blocks.append(Heading(f"{tables.SCORES[name].name}", 3))
        blocks += [
            Figure(
                _over_ppl(name, shots),
                f"{tables.SCORES[name].name} against PPL, {shots}-shot, one curve a strategy from "
                "the unadapted model along the epochs, with 95 % intervals; hollow: the paper's "
                "values, where it has them.",
            )
            for shots in order
            if _over_ppl(name, shots) in pictures
        ]
        blocks += tables.at_equal_ppl(study, numbers, name)
    blocks += [
        Figure(
            "epochs.png",
            f"Persona scores and PPL against epochs, {study.shots()}-shot, with 95 % intervals; for "
            "C PAML's own plot (Madotto et al., 2019).",
        ),
        Heading("Alpha"),
        Figure(
            "alpha.png",
            f"MTML by alpha after {last} epochs, with 95 % intervals; PAML is alpha 1; grey: paper.",
        ),
        Heading("Learning curves"),
        Figure("learning.png", "Losses in training and PPL on valid personas, means over seeds."),
        Heading("Persona reconstruction"),
        *details.reconstruction(study),
    ]
    if "reconstruction.png" in pictures:
        blocks.append(
            Figure(
                "reconstruction.png",
                "Reconstruction from both sides' utterances against the turns seen, means over "
                "seeds; dashed: ablations; dotted: against another persona.",
            )
        )
    return blocks + [
        Heading("Ablations"),
        *tables.ablations(study, numbers),
        Heading("Table 1: the same contexts answered by every row"),
        *details.samples(study),
        Heading("Cost"),
        *details.cost(study),
    ]


_OF_PAPER = {10: " (the paper's table 2)", 5: " (the paper's table 3)"}


if __name__ == "__main__":
    define_flags()
    app.run(main)
