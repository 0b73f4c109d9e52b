"""Compare two rows of a study: the endpoint, its follow-ups, and rows at equal PPL."""

import math

import numpy as np

from experiments.report.cells import Study
from experiments.report.numbers import Estimate, Numbers
from experiments.report.page import Block, Table, Text
from experiments.report.scores import (
    SCORES,
    interval_text,
    persona_scores,
    score_cell,
    seed_cell,
    shots_in_order,
    side_cell,
    title_of,
    value_text,
)


def endpoint(study: Study, numbers: Numbers) -> list[Block]:
    """Reports the comparison that was fixed beforehand, and those that were added later."""
    blocks = _comparison(
        study, numbers, study.settings["endpoint"],
        "The primary endpoint, fixed before any test persona was used, is",
    )  # fmt: skip
    for added in study.settings.get("follow_ups", []):
        seeds = " and ".join(map(str, added["seeds"]))
        blocks += _comparison(
            study, numbers, {**study.settings["endpoint"], **added},
            f"A follow-up, fixed {added['fixed']} and with seeds {seeds} only, is",
        )  # fmt: skip
    return blocks


def control(study: Study, numbers: Numbers) -> list[Block]:
    """Compares the endpoint's row with the row that has the second task and no inner step."""
    return _comparison(
        study, numbers, {**study.settings["endpoint"], "other": "multitask"},
        "Does the second task help, or learning to adapt with it? The exploratory comparison is",
    )  # fmt: skip


def _comparison(study, numbers, chosen, introduction):
    one, other, name, among = (chosen.get(key) for key in ("one", "other", "score", "seeds"))
    stage = ("own", chosen["shots"], chosen["epoch"])
    labels = study.label(one), study.label(other)
    found = numbers.difference((one, stage), (other, stage), name, among)
    what = (
        f"{introduction} {labels[0]} minus {labels[1]} in {title_of(name)} after "
        f"{chosen['epoch']} epochs on {chosen['shots']} dialogues."
    )
    if found is None:
        reason = _why_missing(study, one, other, among)
        return [Text(f"{what} It cannot be computed: {reason}.")]
    lines: list[tuple[str, Estimate]] = [("difference", found)]
    if among is None:  # otherwise the means of the rows would include other seeds
        means = [numbers.mean(row, stage, name) for row in (one, other)]
        lines = [line for line in zip(labels, means) if line[1]] + lines
    seeds = sorted({seed for _, estimate in lines for seed in estimate.seeds})
    rows = [
        [label, *(seed_cell(e.seeds, seed, name) for seed in seeds), score_cell(e, name)]
        for label, e in lines
    ]
    head = [title_of(name), *(f"seed {seed}" for seed in seeds), "mean (95 % interval)"]
    return [
        Text(f"{what} {sentence(found, *labels, name)}"),
        Table(head, rows),
        *_comparison_at_equal_ppl(study, numbers, chosen, labels),
    ]


def sentence(found: Estimate, one: str, other: str, name: str) -> str:
    """Puts a difference into words: its interval, its direction and the seeds it rests on."""
    value = value_text(found.value, name)
    if math.isnan(found.low):
        return f"The difference is {value}; there is no interval because there are too few personas."
    verdict = {
        1: f"The interval lies above zero: {one} is higher than {other}.",
        -1: f"The interval lies below zero: {one} is lower than {other}.",
        0: "The interval contains zero: these runs do not distinguish the two.",
    }[found.side()]
    count = len(found.seeds)
    seeds = f"{sum(x > 0 for x in found.seeds.values())} of {count} seeds are above zero."
    if count == 1:
        seeds = "It rests on one seed and resamples only personas, so it does not show what another "
        seeds += "seed would give."
    interval = interval_text(found, name)
    return f"The difference is {value} (95 % interval {interval}). {verdict} {seeds}"


def _comparison_at_equal_ppl(study, numbers, chosen, labels):
    one, other, name, among = (chosen.get(key) for key in ("one", "other", "score", "seeds"))
    if name not in persona_scores(study):
        return []
    found = numbers.at_equal_ppl(one, other, chosen["shots"], name, among)
    if found is None:
        return [Text(
            f"At equal PPL: the curves of {labels[0]} and {labels[1]} along the epochs have no "
            "PPL in common, so the comparison above cannot be separated from a difference in PPL."
        )]  # fmt: skip
    text = sentence(found.difference, *labels, name)
    early = numbers.at_equal_ppl(one, other, chosen["shots"], name, among, first=True).difference
    if early.value != found.difference.value:
        text += (
            " If a curve passes a PPL several times and the first time counts instead of the last, "
            f"the difference is {value_text(early.value, name)} ({interval_text(early, name)})."
        )
    return [Text(
        f"At equal PPL, from {value_text(found.levels[0], 'ppl')} to "
        f"{value_text(found.levels[-1], 'ppl')}, a range that both curves pass along the epochs, "
        f"{text[0].lower()}{text[1:]}"
    )]  # fmt: skip


def at_equal_ppl(study: Study, numbers: Numbers, name: str) -> list[Block]:
    """Compares a score of each row with PAML's over the range of PPL that both curves pass."""
    head = ["", "shots", "common PPL", f"{SCORES[name].name}, there", "PAML's", "difference",
            "each seed", "interval"]  # fmt: skip
    rows, without, rare = [], [], []
    for shots in shots_in_order(study):
        for row in study.group("paper", "control"):
            if row == "paml" or "paml" not in study.rows:
                continue
            found = numbers.at_equal_ppl(row, "paml", shots, name)
            label = f"{study.label(row)}, {shots}-shot"
            if found is None:
                without.append(label)
                continue
            if found.without > 0.05:
                rare.append(f"{label} ({100 * found.without:.0f} %)")
            low, high = (value_text(found.levels[end], "ppl") for end in (0, -1))
            scores = (value_text(np.mean(curve), name) for curve in (found.one, found.other))
            seeds = ", ".join(value_text(x, name) for x in found.difference.seeds.values())
            rows.append([
                study.label(row), str(shots), f"{low} to {high}", *scores,
                score_cell(found.difference, name), seeds, side_cell(found.difference),
            ])  # fmt: skip
    blocks: list[Block] = [Table(head, rows)] if rows else []
    if without:
        blocks.append(Text(f"No PPL in common with PAML: {'; '.join(without)}."))
    if rare:
        share = "Share of resamples without a common range, which the interval leaves out"
        blocks.append(Text(f"{share}: {'; '.join(rare)}."))
    return blocks or [Text("PAML has no cell, so there is nothing to compare with.")]


def _why_missing(study, one, other, among):
    lacking = [study.label(row) for row in (one, other) if row not in study.rows]
    if lacking:
        return f"there is no cell of {' and none of '.join(lacking)}"
    shared = set(study.rows[one]) & set(study.rows[other])
    if not shared:
        return f"{study.label(one)} and {study.label(other)} share no seed"
    if among is not None and not set(among) & shared:
        return "these seeds have not been run yet"
    return "the cells lack this score, epoch or number of dialogues"
