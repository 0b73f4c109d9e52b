"""Write the results of a study as a report: `python -m experiments.report DIR`."""

import pathlib
import sys

from absl import app, flags

from experiments import plots, startup
from experiments.report import comparison, details, figures, tables
from experiments.report.cells import GAINS, Study, read_study
from experiments.report.html import to_html
from experiments.report.numbers import Numbers
from experiments.report.page import Block, Figure, Heading, Text, to_markdown
from experiments.report.parts import draw_parts, parts_of_scores
from experiments.report.scores import SCORES, persona_scores, shots_in_order
from mtml_jax.runs.files import write_bytes, write_text

_OF_PAPER = {10: " (the paper's table 2)", 5: " (the paper's table 3)"}


def define_flags() -> None:
    flags.DEFINE_integer("seed", 0, "random seed of the bootstrap intervals", lower_bound=0)
    flags.DEFINE_integer("resamples", 1000, "number of bootstrap resamples of an interval", lower_bound=1)


def main(argv) -> None:
    if len(argv) != 2:
        sys.exit(
            f"error: expected one folder written by experiments.study, got {len(argv) - 1}; use "
            "python -m experiments.report results/demo-tiny"
        )
    with startup.one_sentence("interrupted; the report was not written"):
        report(pathlib.Path(argv[1]), flags.FLAGS.seed, flags.FLAGS.resamples)


def report(folder: pathlib.Path, seed: int = 0, resamples: int = 1000) -> None:
    """Writes report.md, report.html and the figures into a folder written by `experiments.study`.

    Raises:
      ImportError: matplotlib is not installed.
      ValueError: the folder is not that of a study, or a file in it is malformed.
    """
    plots.require_matplotlib("the figures of the report")
    study = read_study(folder)
    print(f"{len(study.cells())} cells of {len(study.rows)} rows; computing intervals", flush=True)
    numbers = Numbers(study, seed=seed, resamples=resamples)
    pictures = draw(study, numbers)
    title = f"The study: preset {study.settings['preset']}, data {study.settings['data']}"
    blocks = list_blocks(title, study, numbers, pictures)
    for name, data in pictures.items():
        write_bytes(folder / name, data)
    write_text(folder / "report.md", to_markdown(blocks))
    write_text(folder / "report.html", to_html(title, blocks, pictures))
    print(f"wrote report.md, report.html and {len(pictures)} figures to {folder}")


def draw(study: Study, numbers: Numbers) -> dict[str, bytes]:
    """Draws all figures; returns them by the names of their files."""
    names = persona_scores(study)
    pictures = {
        "differences.png": figures.differences(study, numbers, names),
        "own_other.png": figures.own_other(study, numbers, names),
    }
    for shots in shots_in_order(study):
        for name in names if shots == study.shots() else names[:1]:
            pictures[_over_ppl(name, shots)] = figures.score_over_ppl(study, numbers, name, shots)
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
    """Lists the blocks of the whole report, with the figures that `draw` has drawn."""
    made_of = parts_of_scores(study, numbers, "parts.png")
    reconstructed = [
        Figure(
            "reconstruction.png",
            "Reconstruction from both sides' utterances against the turns seen, means over seeds; "
            "dashed: ablations; dotted: against another persona.",
        )
    ] if "reconstruction.png" in pictures else []  # fmt: skip
    blocks = [
        Heading(title, 1),
        *comparison.endpoint(study, numbers),
        *details.missing(study),
        Heading("Setting"),
        *details.setting(study),
        Heading("Tuning, on valid personas"),
        *details.tuning(study),
        *_main_tables(study, numbers),
        *_own_and_other(study, numbers),
        *_differences(study, numbers),
    ]
    if "multitask" in study.rows:
        blocks.append(Heading("Against the control without meta-learning"))
        blocks += comparison.control(study, numbers)
    if made_of:
        blocks += [Heading("What the persona scores are made of"), *made_of]
    return [
        *blocks,
        *_over_epochs(study, numbers, pictures),
        Heading("Alpha"),
        Figure(
            "alpha.png",
            f"MTML by alpha after {study.last()} epochs, with 95 % intervals; PAML is alpha 1; grey: "
            "the paper.",
        ),
        Heading("Learning curves"),
        Figure("learning.png", "Training losses and PPL on valid personas, means over seeds."),
        Heading("Persona reconstruction"),
        *details.reconstruction(study),
        *reconstructed,
        Heading("Ablations"),
        *tables.ablations(study, numbers),
        Heading("Table 1: the replies of every row to the same contexts"),
        *details.samples(study),
        Heading("Cost"),
        *details.cost(study),
    ]


def _main_tables(study, numbers):
    blocks = [Heading("Tables 2 and 3"), *tables.legend(study)]
    for shots in shots_in_order(study):
        title = f"{shots}-shot, after {study.last()} epochs{_OF_PAPER.get(shots, '')}"
        blocks += [Heading(title, 3), *tables.main_table(study, numbers, shots)]
    return blocks


def _own_and_other(study, numbers):
    blocks: list[Block] = [
        Heading("Own dialogues against another speaker's"),
        Text(
            "Every model was also adapted for as many steps to k dialogues of another persona. Any "
            "adaptation lowers PPL; own minus other shows whether the persona was learnt. In nats a "
            "token, the logarithm of PPL, own minus other is the sum of what own dialogues gain and "
            "what another speaker's cost; the columns before it show these two separately."
        ),
    ]
    for shots in shots_in_order(study):
        blocks += [Heading(f"{shots}-shot", 3), *tables.own_and_other(study, numbers, shots)]
    caption = (
        f"{study.shots()}-shot, epoch {study.last()}: after adapting to the speaker's own "
        "dialogues (full) and to another speaker's (hollow), with 95 % intervals."
    )
    return [*blocks, Figure("own_other.png", caption)]


def _differences(study, numbers):
    blocks = [
        Heading("Differences to PAML, each seed"),
        Figure(
            "differences.png",
            f"Each row minus PAML, {study.shots()}-shot, epoch {study.last()}: mean with its 95 % "
            "interval, strokes for the seeds, hollow diamonds for the paper's difference if it "
            "reports one. The last panel needs no scorer of replies: it shows how much better the "
            "human replies are predicted after the speaker's dialogues than after another speaker's.",
        ),
    ]
    for shots in shots_in_order(study):
        for name in [*persona_scores(study), "ppl"]:
            blocks.append(Heading(f"{SCORES[name].name}, {shots}-shot", 3))
            blocks += tables.against_paml(study, numbers, shots, name)
        for gain in GAINS:
            blocks.append(Heading(f"nats a token, {gain}, {shots}-shot", 3))
            blocks += tables.against_paml(study, numbers, shots, "nats", gain)
    return blocks


def _over_epochs(study, numbers, pictures):
    blocks: list[Block] = [
        Heading("Persona scores against PPL along the epochs"),
        Text(
            "Fine-tuning alone raises C, so rows are compared at equal PPL. The score of each curve "
            "is interpolated between epochs at five PPL, from the lowest to the highest that both "
            "curves pass; the difference is the mean over these five. If a curve passes a PPL more "
            "than once, the last time counts."
        ),
    ]
    for name in persona_scores(study):
        title = SCORES[name].name
        blocks.append(Heading(title, 3))
        for shots in shots_in_order(study):
            caption = (
                f"{title} against PPL, {shots}-shot, one curve for each strategy from the unadapted "
                "model along the epochs, with 95 % intervals; hollow: the paper's values, if it "
                "reports them."
            )
            if (file := _over_ppl(name, shots)) in pictures:
                blocks.append(Figure(file, caption))
        blocks += comparison.at_equal_ppl(study, numbers, name)
    caption = (
        f"Persona scores and PPL against epochs, {study.shots()}-shot, with 95 % intervals; for "
        "C also the curve of PAML's authors (Madotto et al., 2019)."
    )
    return [*blocks, Figure("epochs.png", caption)]


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
