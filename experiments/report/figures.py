"""Draw the figures of a report, each as the bytes of a PNG."""

import itertools
from collections.abc import Sequence

import numpy as np

from experiments.plots import BLUE, legend_below, log_where_wide, png
from experiments.report.cells import Study
from experiments.report.details import reconstructions, results_at, turns_seen
from experiments.report.drawing import (
    BARS,
    DRAWN,
    QUIET,
    draw_curve,
    draw_point,
    errors,
    legend,
    name_rows,
    new_panels,
    strategies_and_alphas,
    style_of,
)
from experiments.report.numbers import Numbers
from experiments.report.paper_numbers import PAML_CURVE, PAML_HUMAN_C, PAPER
from experiments.report.scores import reported

_ABLATIONS = (("--", "d"), ("-.", "*"), ((0, (6, 1, 1, 1)), "h"), ((0, (3, 3)), "X"))
_AXES = {
    "ppl": "PPL, exp(nats a token)",
    "nats": "nats a token, own minus other",
    "c": "C own, a reply",
    "c_own_minus_shuffled": "C own minus shuffled,\na reply",
    "facts": "facts, stated minus\ncontradicted (share)",
}


def score_over_ppl(study: Study, numbers: Numbers, name: str, shots: int) -> bytes:
    """Draws a score against PPL along the epochs: strategies above, MTML by alpha below."""
    panels = strategies_and_alphas(study)
    figure, axes = new_panels(len(panels), 3.9)
    for axis, chosen in zip(axes, panels):
        for row in chosen:
            colour, marker = style = style_of(study, row)
            ppl, score = (numbers.curve(row, shots, of) for of in ("ppl", name))
            points = [(p, s) for (at, p), (to, s) in itertools.product(ppl, score) if at == to]
            if points:
                draw_curve(axis, *zip(*points), style, study.label(row))
                if row.startswith("mtml-"):
                    end = [estimate.value for estimate in points[-1]]
                    axis.annotate(
                        row.removeprefix("mtml-"), end, (-5, 5), textcoords="offset points",
                        ha="right", fontsize=8, color=colour,
                    )  # fmt: skip
            theirs = [reported(shots, row, of) for of in ("ppl", name)]
            if None not in theirs:
                axis.plot(*theirs, marker, color=colour, fillstyle="none", markersize=8)
        log_where_wide(axis)
        axis.set(xlabel=f"{_AXES['ppl']} (lower is better)", ylabel=_AXES[name])
        if name == "c" and shots in PAPER:
            axis.plot([], [], "o", color=QUIET, fillstyle="none", label="paper, after adapting")
        legend(axis)
    title = f"{shots}-shot: from the unadapted model (small dot) to epoch {study.last()}"
    axes[0].set_title(title, fontsize=9.5)
    return png(figure)


def over_epochs(study: Study, numbers: Numbers, names: Sequence[str]) -> bytes:
    """Draws persona scores and PPL against the epochs of adaptation."""
    names = [*names, "ppl"]
    figure, axes = new_panels(len(names), 3.0)
    rows = study.group("paper", "control")
    for axis, name in zip(axes, names):
        for row in rows:
            curve = numbers.curve(row, study.shots(), name)
            if not curve:
                continue
            colour, marker = style_of(study, row)
            epochs, values = [stage[2] for stage, _ in curve], [e.value for _, e in curve]
            axis.plot(epochs, values, color=colour, marker=marker, label=study.label(row), **DRAWN)
            ends = [e.low for _, e in curve], [e.high for _, e in curve]
            axis.fill_between(epochs, *ends, color=colour, alpha=0.1, linewidth=0)
        if human := numbers.human(name):
            axis.axhline(human.value, color="black", linewidth=1, label="human replies")
        if name == "c":
            axis.plot(
                list(PAML_CURVE), list(PAML_CURVE.values()), "--D", color=QUIET, markersize=4,
                fillstyle="none", linewidth=1, label="PAML, its authors",
            )  # fmt: skip
            axis.axhline(
                PAML_HUMAN_C, color=QUIET, linestyle=":", linewidth=1.2, label="human, its authors"
            )
        label = f"epochs of adaptation to {study.shots()} dialogues of the speaker"
        axis.set(xlabel=label, ylabel=_AXES[name])
    legend_below(figure)
    return png(figure)


def over_alpha(study: Study, numbers: Numbers, names: Sequence[str]) -> bytes:
    """Draws persona scores and PPL against alpha; PAML is alpha 1."""
    names = [*names, "ppl"]
    figure, axes = new_panels(len(names), 2.9)
    alphas = {row: float(row.removeprefix("mtml-")) for row in PAPER[10] if row.startswith("mtml-")}
    alphas["paml"] = 1.0
    for axis, name in zip(axes, names):
        for shots, line in zip(study.settings["shots"][::-1], ("-", ":", "-.", "--")):
            stage = ("own", shots, study.last())
            found = {a: numbers.mean(row, stage, name) for row, a in alphas.items()}
            if there := {alpha: estimate for alpha, estimate in found.items() if estimate}:
                values = [e.value for e in there.values()]
                axis.errorbar(
                    list(there), values, yerr=errors(there.values(), values), fmt="o", color=BLUE,
                    linestyle=line, label=f"{shots}-shot", **DRAWN, **BARS,
                )  # fmt: skip
            theirs = {a: reported(shots, row, name) for row, a in alphas.items()}
            if None not in theirs.values():
                axis.plot(
                    list(theirs), list(theirs.values()), "s", linestyle=line, color=QUIET,
                    fillstyle="none", linewidth=1.1, markersize=5, label=f"paper, {shots}-shot",
                )  # fmt: skip
        if name == "ppl":
            log_where_wide(axis, "y")
        axis.set(xlabel="alpha, weight of the response loss (no unit)", ylabel=_AXES[name])
        axis.set_xticks(list(alphas.values()), [*map(str, list(alphas.values())[:-1]), "1\nPAML"])
        axis.set_xlim(min(alphas.values()) - 0.03, 1.03)
    legend_below(figure)
    return png(figure)


def differences(study: Study, numbers: Numbers, names: Sequence[str]) -> bytes:
    """Draws every row minus PAML, with each seed."""
    systems = {**dict.fromkeys([*names, "ppl"], "own"), "nats": "own minus other"}
    rows = [row for row in study.group("paper", "control") if row != "paml"][::-1]
    figure, axes = new_panels(len(systems), 1.1 + 0.27 * len(rows))
    for axis, (name, system) in zip(axes, systems.items()):
        stage = (system, study.shots(), study.last())
        axis.axvline(0, color="black", linewidth=0.9)
        for place, row in enumerate(rows):
            found = numbers.difference((row, stage), ("paml", stage), name)
            if found:
                colour, _ = style = style_of(study, row)
                draw_point(axis, found, place, style)
                each = list(found.seeds.values())
                axis.plot(each, [place + 0.3] * len(each), "|", color=colour, markersize=6)
            theirs = [reported(study.shots(), r, name) for r in (row, "paml")]
            if None not in theirs:
                axis.plot(theirs[0] - theirs[1], place - 0.28, "D", color=QUIET, fillstyle="none",
                          markersize=4.5)  # fmt: skip
        name_rows(axis, [study.label(row) for row in rows])
        axis.locator_params(axis="x", nbins=7)  # room for three decimals
        axis.set_xlabel(f"{_AXES[name]}: minus PAML's".replace("\n", " "))
    axes[0].set_title("mean and interval; small strokes: seeds; hollow: paper", fontsize=9.5)
    return png(figure)


def own_other(study: Study, numbers: Numbers, names: Sequence[str]) -> bytes:
    """Draws scores adapted to the speaker's dialogues (full) and to another speaker's (hollow)."""
    names = [*names, "ppl"]
    rows = study.group("paper", "control")[::-1]
    figure, axes = new_panels(len(names), 1.1 + 0.27 * len(rows))
    for axis, name in zip(axes, names):
        for place, row in enumerate(rows):
            for system, fill, shift in (("own", "full", 0.12), ("other", "none", -0.12)):
                if found := numbers.mean(row, (system, study.shots(), study.last()), name):
                    draw_point(axis, found, place + shift, style_of(study, row), fill)
        name_rows(axis, [study.label(row) for row in rows])
        axis.set_xlabel(_AXES[name].replace("\n", " "))
        if name == "ppl":
            log_where_wide(axis)
    title = f"{study.shots()}-shot; full: the speaker's dialogues, hollow: another speaker's"
    axes[0].set_title(title, fontsize=9.5)
    return png(figure)


def learning(study: Study) -> bytes:
    """Draws training losses and valid PPL against outer steps, means over seeds."""
    panels = (
        ("train", 1, "response loss, nats a token"),
        ("train", 2, "persona loss, nats a token"),
        ("valid", 2, "valid PPL after one inner step,\nexp(nats a token)"),
    )
    figure, axes = new_panels(len(panels), 2.8)
    for axis, (kind, column, label) in zip(axes, panels):
        for number, row in enumerate(study.group("paper", "control")):
            by_step: dict[int, list[float]] = {}
            for cell in study.rows[row].values():
                for line in cell.record["training"]["curve"][kind]:
                    if line[column] is not None:
                        by_step.setdefault(line[0], []).append(float(line[column]))
            # Only the steps that all seeds reached: the mean would jump where a seed stops.
            most = max(map(len, by_step.values()), default=0)
            points = {s: np.mean(v) for s, v in sorted(by_step.items()) if len(v) == most}
            if points:
                colour, marker = style_of(study, row)
                some = 1 if len(points) < 12 else (0.015 * number, 0.16)  # markers side by side
                axis.plot(
                    list(points), list(points.values()), color=colour, marker=marker,
                    label=study.label(row), markevery=some, **DRAWN,
                )  # fmt: skip
        if kind == "valid":
            log_where_wide(axis, "y")
        axis.set(xlabel="outer steps", ylabel=label)
    legend_below(figure)
    return png(figure)


def reconstruction(study: Study) -> bytes | None:
    """Draws reconstruction against the turns seen; returns None if no row was tested for it."""
    panels = {"token_f1": "token F1", "statement_recall": "statement recall, share",
              "ppl": "persona PPL, exp(nats a token)"}  # fmt: skip
    figure, axes = new_panels(len(panels), 3.0)
    drawn, ablations = False, iter(_ABLATIONS)
    for row, seeds in study.rows.items():
        found = reconstructions(seeds)
        shown = [rows for rows in found if any(r["variant"] == "both_sides" for r in rows)]
        if not shown:
            continue
        drawn = True
        turns = turns_seen(shown, "both_sides")
        colour, marker = style_of(study, row)
        dashes = "-"
        if study.base(row):
            dashes, marker = next(ablations, ("--", "."))
        for axis, name in zip(axes, panels):
            for suffix, line, mark in (("", dashes, marker), ("_shuffled", ":", None)):
                results = (results_at(shown, "both_sides", seen) for seen in turns)
                means = [
                    np.mean([float(r["scores"][name + suffix]["value"]) for r in at])
                    for at in results
                ]
                axis.plot(turns, means, color=colour, linestyle=line, marker=mark, linewidth=1.3,
                          label=None if suffix else study.label(row), markersize=4)  # fmt: skip
    if not drawn:
        return None
    for axis, (name, label) in zip(axes, panels.items()):
        axis.set(xlabel="turns seen", ylabel=label)
        if name == "ppl":
            log_where_wide(axis, "y")
    axes[0].plot([], [], color=QUIET, linestyle=":", label="against another persona")
    legend_below(figure)
    return png(figure)
