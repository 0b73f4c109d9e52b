"""Take the persona scores of a study apart: how much is said, and how much of it is right."""

from typing import NamedTuple

from experiments.plots import legend_below, png
from experiments.report.cells import Study
from experiments.report.drawing import (
    QUIET,
    draw_curve,
    new_panels,
    strategies_and_alphas,
    style_of,
)
from experiments.report.numbers import Numbers
from experiments.report.page import Block, Figure, Heading, Table, Text
from experiments.report.scores import estimate_cell, shots_in_order


class Parts(NamedTuple):
    """The parts of a persona score, by their names in `mtml_jax.eval.scores`."""

    statistic: str  # the statistic that they are computed from
    right: str  # the score of what fits the speaker
    wrong: str  # the score of what does not
    others: tuple[str, ...]  # further scores that the table shows
    either: str  # right and wrong together
    share: str  # right as a share of either
    meaning: str  # explanation of right, wrong and the share in the report
    axes: tuple[str, str]  # labels of the figure's axes, for wrong and for right


PARTS = (
    Parts(
        "c_shuffled", "c_entailment", "c_shuffled_entailment",
        ("c_contradiction", "c_shuffled_contradiction"), "c_entailed_either", "c_own_share",
        "A model that makes more personal statements entails more of anyone's statements, and C "
        "rises in either case. Entailed and contradicted: shares of the pairs of a reply and a "
        "statement, with the speaker's own statements and with another persona's (shuffled). Own "
        "share: entailed own as a share of entailed own and shuffled together; a model that does not "
        "know its speaker has 0.5, however much it says.",
        ("entailed shuffled, share of pairs", "entailed own, share of pairs"),
    ),
    Parts(
        "facts", "stated", "contradicted", (), "facts_either", "facts_true_share",
        "Stated and contradicted: shares of replies with a true fact of the speaker and with a wrong "
        "one. True share: stated as a share of both together, however many replies state a fact.",
        ("contradicted, share of replies", "stated, share of replies"),
    ),
)  # fmt: skip
_RAYS = (0.5, 0.7, 0.9)  # shares whose lines the figure shows


def parts_in(study: Study) -> list[Parts]:
    """Lists the parts of the scores that a study has."""
    return [parts for parts in PARTS if study.has(parts.statistic)]


def parts_of_scores(study: Study, numbers: Numbers, file: str) -> list[Block]:
    """Shows tables of the parts and their figure."""
    blocks: list[Block] = []
    for parts in parts_in(study):
        blocks.append(Text(parts.meaning))
        for shots in shots_in_order(study):
            blocks += [Heading(f"{shots}-shot", 3), _table(study, numbers, parts, shots)]
    if blocks:
        blocks.append(
            Figure(
                file,
                f"Right statements against wrong ones, {study.shots()}-shot, from the unadapted "
                "model along the epochs, with 95 % intervals at the end; grey: lines of equal share. "
                "Along such a line a model says more; above it, it knows more.",
            )
        )
    return blocks


def _table(study, numbers, parts, shots):
    stage = ("own", shots, study.last())
    names = [parts.right, parts.wrong, *parts.others, parts.share]
    compared = [parts.either, parts.share]
    head = ["", "seeds", *(_TITLES[name] for name in names)]
    head += [f"{_TITLES[name]}, minus PAML" for name in compared]
    rows = []
    for row in study.group("paper", "control"):
        line = [study.label(row), str(len(study.rows[row]))]
        line += [_cell(name, numbers.mean(row, stage, name)) for name in names]
        for name in compared:
            found = numbers.difference((row, stage), ("paml", stage), name)
            line.append(_cell(name, None if row == "paml" else found))
        rows.append(line)
    shown = [_cell(name, numbers.human(name)) for name in names]
    rows.append(["human replies", "-", *shown, *("-" for _ in compared)])
    return Table(head, rows)


def _cell(name, found):
    """Formats a part; shares of pairs are small, since a reply is paired with many statements."""
    return estimate_cell(found, 4 if name.startswith("c_") and name != "c_own_share" else 3)


def draw_parts(study: Study, numbers: Numbers) -> bytes | None:
    """Draws right against wrong along the epochs; returns None if the study has no such score.

    Each score has a panel of the strategies and, if MTML has several alphas, one of the alphas.
    """
    panels = [(parts, rows) for parts in parts_in(study) for rows in strategies_and_alphas(study)]
    if not panels:
        return None
    figure, axes = new_panels(len(panels), 4.0)
    for axis, (parts, rows) in zip(axes, panels):
        names = (parts.wrong, parts.right)
        for row in rows:
            curves = [[e for _, e in numbers.curve(row, study.shots(), name)] for name in names]
            if curves[0]:
                style = style_of(study, row)
                draw_curve(axis, *curves, style, study.label(row), ends_only=True)
        human = [numbers.human(name) for name in names]
        if all(human):
            axis.plot(
                *(estimate.value for estimate in human), "*", color="black", markersize=9,
                label="human replies", clip_on=False, zorder=5,
            )  # fmt: skip
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        _draw_rays(axis)
        axis.set(xlabel=parts.axes[0], ylabel=parts.axes[1])
    legend_below(figure)
    return png(figure)


def _draw_rays(axis):
    """Draws lines of equal share, labelled where they leave the panel."""
    (_, right), (_, top) = axis.get_xlim(), axis.get_ylim()
    for share in _RAYS:
        slope = share / (1 - share)
        end = min(right, top / slope)
        axis.plot([0, end], [0, end * slope], ":", color=QUIET, linewidth=1, zorder=0)
        side, shift = ("left", 6) if end < 0.25 * right else ("right", -14)
        axis.annotate(
            f"share {share}", (end, end * slope), (shift, -3), textcoords="offset points",
            ha=side, va="top", fontsize=8, color=QUIET,
        )  # fmt: skip
    axis.set(xlim=(0, right), ylim=(0, top))


_TITLES = {
    "c_entailment": "entailed own",
    "c_shuffled_entailment": "entailed shuffled",
    "c_contradiction": "contradicted own",
    "c_shuffled_contradiction": "contradicted shuffled",
    "c_entailed_either": "entailed, both",
    "c_own_share": "own share",
    "stated": "stated",
    "contradicted": "contradicted",
    "facts_either": "stated or contradicted",
    "facts_true_share": "true share",
}
