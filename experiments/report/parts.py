"""What the persona scores of a study are made of: how much is said, and whose it is."""

from typing import NamedTuple

from experiments.report.cells import Study
from experiments.report.drawing import (
    BARS,
    DRAWN,
    QUIET,
    errors,
    legend_below,
    new_figure,
    png,
    strategies_and_alphas,
    style_of,
)
from experiments.report.numbers import Numbers
from experiments.report.page import Block, Figure, Heading, Table, Text
from experiments.report.tables import shots_in_order, show


class Parts(NamedTuple):
    """A persona score's parts, by their names in `mtml_jax.eval.scores`.

    Attributes:
      statistic: that they are counted from.
      right: what the speaker's own statements, or facts, have.
      wrong: what it is weighed against.
      others: shown beside them.
      either: right and wrong together.
      share: right of either.
      meaning: of right, wrong and the share, in the report.
      axes: of the picture, wrong and right.
    """

    statistic: str
    right: str
    wrong: str
    others: tuple[str, ...]
    either: str
    share: str
    meaning: str
    axes: tuple[str, str]


PARTS = (
    Parts(
        "c_shuffled", "c_entailment", "c_shuffled_entailment",
        ("c_contradiction", "c_shuffled_contradiction"), "c_entailed_either", "c_own_share",
        "Whoever says more of themselves has more statements entailed, the speaker's and anyone's, and "
        "C rises by the one as by the other. Entailed and contradicted: shares of the pairs of a "
        "reply and a statement, of the speaker's own and of another persona's. Own share: entailed "
        "own of entailed own and shuffled together; 0.5 is what a model has that does not know its "
        "speaker, however much it says.",
        ("entailed shuffled, share of pairs", "entailed own, share of pairs"),
    ),
    Parts(
        "facts", "stated", "contradicted", (), "facts_either", "facts_true_share",
        "Stated and contradicted: shares of replies with a fact of the speaker, with a wrong one. "
        "True share: stated of both together, whatever the number of replies that say any.",
        ("contradicted, share of replies", "stated, share of replies"),
    ),
)  # fmt: skip
_RAYS = (0.5, 0.7, 0.9)


def parts_in(study: Study) -> list[Parts]:
    """Of the scores that a study has."""
    return [parts for parts in PARTS if study.has(parts.statistic)]


def parts_of_scores(study: Study, numbers: Numbers, file: str) -> list[Block]:
    """Tables of the parts, then their picture."""
    blocks: list[Block] = []
    for parts in parts_in(study):
        blocks.append(Text(parts.meaning))
        for shots in shots_in_order(study):
            blocks.append(Heading(f"{shots}-shot", 3))
            blocks.append(_table(study, numbers, parts, shots))
    if blocks:
        blocks.append(
            Figure(
                file,
                f"What is said rightly against what is said wrongly, {study.shots()}-shot, from the "
                "unadapted model along the epochs, with 95 % intervals at the end; grey: lines of "
                "equal share. Along such a line a model says more; above it, it knows more.",
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
    human = {n: numbers.mean(next(iter(study.rows)), ("human", 0, 0), n) for n in names}
    shown = [_cell(name, found) for name, found in human.items()]
    rows.append(["human replies", "-", *shown, *("-" for _ in compared)])
    return Table(head, rows)


def _cell(name, found):
    """Shares of pairs are small: a reply has several statements, and few are spoken of."""
    return show(found, 4 if name.startswith("c_") and name != "c_own_share" else 3)


def draw_parts(study: Study, numbers: Numbers) -> bytes | None:
    """Right against wrong along the epochs; None where there is no such score.

    For each score a panel of the strategies and, where there are several, one of the alphas.
    """
    panels = [(parts, rows) for parts in parts_in(study) for rows in strategies_and_alphas(study)]
    if not panels:
        return None
    figure, axes = new_figure(len(panels), 4.0)
    for axis, (parts, rows) in zip(axes, panels):
        names = (parts.wrong, parts.right)
        for row in rows:
            curves = [[e for _, e in numbers.curve(row, study.shots(), name)] for name in names]
            if not curves[0]:
                continue
            colour, marker = style_of(study, row)
            x, y = [[estimate.value for estimate in curve] for curve in curves]
            axis.plot(
                x, y, color=colour, marker=marker, label=study.label(row),
                markevery=range(1, len(x)), **DRAWN,
            )  # fmt: skip
            axis.plot(x[:1], y[:1], ".", color=colour, markersize=5)
            ends = {
                f"{place}err": errors(curve[-1:], values[-1:])
                for place, curve, values in zip("xy", curves, (x, y))
            }
            axis.errorbar(x[-1:], y[-1:], fmt="none", ecolor=colour, alpha=0.6, **ends, **BARS)
        human = [numbers.mean(next(iter(study.rows)), ("human", 0, 0), name) for name in names]
        if all(human):
            axis.plot(
                *(estimate.value for estimate in human), "*", color="black", markersize=9,
                label="human replies", clip_on=False, zorder=5,
            )  # fmt: skip
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        _draw_rays(axis)
        axis.set_xlabel(parts.axes[0])
        axis.set_ylabel(parts.axes[1])
    legend_below(figure, axes)
    return png(figure)


def _draw_rays(axis):
    """Lines of equal share, named where they leave the panel."""
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
    axis.set_xlim(0, right)
    axis.set_ylim(0, top)


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
