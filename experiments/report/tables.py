"""The numbers of a study as tables, and sentences that say what they say and no more."""

import math
from typing import NamedTuple

import numpy as np

from experiments.report.cells import GAINS, Study
from experiments.report.numbers import Estimate, Numbers
from experiments.report.page import Block, Number, Table, Text, fixed
from experiments.report.paper_numbers import PAPER


class Score(NamedTuple):
    """How a score is written."""

    name: str
    meaning: str
    digits: int


SCORES = {
    "ppl": Score("PPL", "perplexity of the human replies over all tokens, exp(nats a token)", 2),
    "nats": Score("nats a token", "the logarithm of PPL", 3),
    "bleu": Score("BLEU", "sacreBLEU of the corpus, 0 to 100", 2),
    "c": Score("C own", "statements entailed minus contradicted, a reply; own persona's", 3),
    "c_shuffled": Score("C shuffled", "the same against another persona's statements", 3),
    "c_own_minus_shuffled": Score("C own minus shuffled", "the difference of these two", 3),
    "facts": Score("facts", "share of replies that state a fact of the speaker minus share that "
                   "contradict one", 3),
    "repeats": Score("repeats", "share of replies that are a train statement word for word", 3),
}  # fmt: skip
_REPORTED = ("ppl", "bleu", "c")


def persona_scores(study: Study) -> list[str]:
    """What tells how much of a persona is in the replies; the endpoint's score first."""
    found = ["c_own_minus_shuffled", "c"] if study.has("c") and study.has("c_shuffled") else []
    found += ["facts"] if study.has("facts") else []
    return sorted(found, key=lambda name: name != study.settings["endpoint"]["score"])


def shots_in_order(study: Study) -> list[int]:
    """All numbers of shots, the endpoint's first."""
    return sorted(study.settings["shots"], key=lambda k: (k != study.shots(), k))


def reported(shots: int, row: str, name: str) -> float | None:
    """The paper's number; None where it has none."""
    line = PAPER.get(shots, {}).get(row)
    return getattr(line, name) if line and name in _REPORTED else None


def endpoint(study: Study, numbers: Numbers) -> list[Block]:
    """The one comparison that was fixed beforehand, and those added to it since."""
    blocks = _comparison(
        study, numbers, study.settings["endpoint"],
        "The primary endpoint, fixed before a test persona was used, is",
    )  # fmt: skip
    for added in study.settings.get("follow_ups", []):
        seeds = " and ".join(map(str, added["seeds"]))
        blocks += _comparison(
            study, numbers, {**study.settings["endpoint"], **added},
            f"A follow-up, fixed {added['fixed']} and of seeds {seeds} alone, is",
        )  # fmt: skip
    return blocks


def control(study: Study, numbers: Numbers) -> list[Block]:
    """The endpoint's comparison with the row that has the second task and no inner step."""
    return _comparison(
        study, numbers, {**study.settings["endpoint"], "other": "multitask"},
        "Is it the second task that helps, or learning to adapt with it? Exploratory, the answer is",
    )  # fmt: skip


def _comparison(study, numbers, chosen, begin):
    one, other, name, among = (chosen.get(key) for key in ("one", "other", "score", "seeds"))
    stage = ("own", chosen["shots"], chosen["epoch"])
    titles = study.label(one), study.label(other)
    found = numbers.difference((one, stage), (other, stage), name, among)
    what = (
        f"{begin} {titles[0]} minus {titles[1]} in {_name(name)} after {chosen['epoch']} epochs on "
        f"{chosen['shots']} dialogues."
    )
    if found is None:
        return [Text(f"{what} It cannot be given: {_why_not(study, one, other, among)}.")]
    lines: list[tuple[str, Estimate]] = [("difference", found)]
    if among is None:  # else the rows' means are of other seeds, too
        means = [numbers.mean(row, stage, name) for row in (one, other)]
        lines = [line for line in zip(titles, means) if line[1]] + lines
    seeds = sorted({seed for _, estimate in lines for seed in estimate.seeds})
    rows = [
        [title, *(_seed(estimate.seeds, seed, name) for seed in seeds), _estimate(estimate, name)]
        for title, estimate in lines
    ]
    head = [_name(name), *(f"seed {seed}" for seed in seeds), "mean (95 % interval)"]
    return [
        Text(f"{what} {sentence(found, *titles, name)}"),
        Table(head, rows),
        *_at_equal_ppl(study, numbers, chosen),
    ]


def sentence(found: Estimate, one: str, other: str, name: str) -> str:
    """What a difference says: its interval, its direction and how many seeds it stands on."""
    digits = SCORES[name].digits
    value, low, high = (format(x, f".{digits}f") for x in found[:3])
    count = len(found.seeds)
    if math.isnan(found.low):
        return f"The difference is {value}; there is no interval, for want of personas."
    higher = {1: f"{one} is higher than {other}.", -1: f"{one} is lower than {other}."}
    verdict = {
        1: f"The interval lies above zero: {higher[1]}",
        -1: f"The interval lies below zero: {higher[-1]}",
        0: "The interval holds zero: these runs do not tell the two apart.",
    }[found.side()]
    if count == 1:
        seeds = (
            "It stands on one seed and resamples personas alone, so it does not say what another "
            "seed would give."
        )
    else:
        above = sum(x > 0 for x in found.seeds.values())
        seeds = f"{above} of {count} seeds are above zero."
    return f"The difference is {value} (95 % interval {low} to {high}). {verdict} {seeds}"


def main_table(study: Study, numbers: Numbers, shots: int) -> list[Block]:
    """Table 2 or 3 of the paper with controls, ours beside its numbers."""
    names = ["ppl", "bleu"]
    names += ["c", "c_shuffled", "c_own_minus_shuffled"] if study.has("c_shuffled") else []
    names += ["facts"] if study.has("facts") else []
    names += ["repeats"]
    beside = [name for name in _REPORTED if name in names]
    head = ["", "seeds", *(SCORES[name].name for name in names)]
    head += [f"paper {SCORES[name].name}" for name in beside]
    rows = []
    for row in study.group("paper", "control"):
        found = [numbers.mean(row, ("own", shots, study.last()), name) for name in names]
        theirs = [reported(shots, row, name) for name in beside]
        rows.append(
            [
                study.label(row),
                str(len(study.rows[row])),
                *(_estimate(f, name) for f, name in zip(found, names)),
                *("-" if x is None else f"{x:.2f}" for x in theirs),
            ]
        )
    human = [numbers.mean(next(iter(study.rows)), ("human", 0, 0), name) for name in names]
    shown = [_estimate(None if n == "bleu" else h, n) for h, n in zip(human, names)]
    rows.append(["human replies", "-", *shown, *("-" for _ in beside)])
    return [Table(head, rows)]


def own_and_other(study: Study, numbers: Numbers, shots: int) -> list[Block]:
    """Not adapted, adapted to the speaker's dialogues and to another's."""
    names = ["ppl", *(n for n in ("c", "facts") if study.has(n))]
    head, rows, unsure = ["", "seeds"], [], {name: [] for name in names}
    for name in names:
        head += [f"{SCORES[name].name}, unadapted", "own", "other", "own minus other"]
        head += [f"nats, {gain}" for gain in GAINS] if name == "ppl" else []
    stages = [(system, shots, study.last()) for system in ("own", "other")]
    for row in study.group("paper", "control"):
        line: list[str | Number] = [study.label(row), str(len(study.rows[row]))]
        for name in names:
            for stage in (("unadapted", 0, 0), *stages):
                line.append(_estimate(numbers.mean(row, stage, name), name, interval=False))
            found = numbers.difference((row, stages[0]), (row, stages[1]), name)
            line.append(_estimate(found, name))
            for gain in GAINS if name == "ppl" else ():  # ratios, for rows whose PPL differ
                estimate = numbers.mean(row, (gain, shots, study.last()), "nats")
                line.append(_estimate(estimate, "nats"))
            if found and found.side() != (-1 if name == "ppl" else 1):
                unsure[name].append(study.label(row))
        rows.append(line)
    told = []
    for name in names:
        better = "below" if name == "ppl" else "above"
        told.append(
            f"{SCORES[name].name}: "
            + (
                f"the interval is not {better} zero for {', '.join(unsure[name])}"
                if unsure[name]
                else f"the interval is {better} zero in every row"
            )
        )
    return [Table(head, rows), Text(f"{'. '.join(told)}.")]


def against_paml(
    study: Study, numbers: Numbers, shots: int, name: str, system: str = "own"
) -> list[Block]:
    """Every row minus PAML with every seed."""
    stage = (system, shots, study.last())
    seeds = sorted({s for row in study.group("paper", "control") for s in study.rows[row]})
    theirs = reported(shots, "paml", name)
    head = ["", "minus PAML", *(f"seed {s}" for s in seeds), "interval"]
    head += ["paper"] if theirs is not None else []
    rows = []
    for row in study.group("paper", "control"):
        found = numbers.difference((row, stage), ("paml", stage), name)
        if row == "paml" or found is None:
            continue
        line = [study.label(row), _estimate(found, name)]
        line += [_seed(found.seeds, s, name) for s in seeds]
        line.append(_side(found))
        if theirs is not None:
            paper = reported(shots, row, name)
            line.append("-" if paper is None else f"{paper - theirs:+.2f}")
        rows.append(line)
    if not rows:
        return [Text("There is no row to compare: PAML has no cell with a seed that another has.")]
    return [Table(head, rows)]


def at_equal_ppl(study: Study, numbers: Numbers, name: str) -> list[Block]:
    """Rows beside PAML within the PPL that both have on their way."""
    digits = SCORES[name].digits
    head = ["", "shots", "common PPL", f"{SCORES[name].name}, there", "PAML's", "difference",
            "every seed", "interval"]  # fmt: skip
    rows, without, rare = [], [], []
    for shots in shots_in_order(study):
        for row in study.group("paper", "control"):
            if row == "paml" or "paml" not in study.rows:
                continue
            found = numbers.at_equal_ppl(row, "paml", shots, name)
            title = f"{study.label(row)}, {shots}-shot"
            if found is None:
                without.append(title)
                continue
            if found.without > 0.05:
                rare.append(f"{title} ({100 * found.without:.0f} %)")
            each = ", ".join(fixed(x, digits) for x in found.difference.seeds.values())
            rows.append(
                [
                    study.label(row),
                    str(shots),
                    f"{found.levels[0]:.2f} to {found.levels[-1]:.2f}",
                    fixed(np.mean(found.one), digits),
                    fixed(np.mean(found.other), digits),
                    _estimate(found.difference, name),
                    each,
                    _side(found.difference),
                ]
            )
    blocks: list[Block] = [Table(head, rows)] if rows else []
    if without:
        blocks.append(Text(f"No PPL in common with PAML: {'; '.join(without)}."))
    if rare:
        blocks.append(
            Text(
                "Share of the resamples without a common range, which the interval leaves out: "
                f"{'; '.join(rare)}."
            )
        )
    return blocks or [Text("PAML has no cell, so there is nothing to compare with.")]


def _at_equal_ppl(study, numbers, chosen):
    """The same comparison at equal PPL."""
    one, other, name, among = (chosen.get(key) for key in ("one", "other", "score", "seeds"))
    if name not in persona_scores(study):
        return []
    titles = study.label(one), study.label(other)
    found = numbers.at_equal_ppl(one, other, chosen["shots"], name, among)
    if found is None:
        return [
            Text(
                f"At equal PPL: the curves of {titles[0]} and {titles[1]} along the epochs have no "
                "PPL in common, so what is above cannot be told apart from a difference in PPL."
            )
        ]
    told = sentence(found.difference, *titles, name)
    early = numbers.at_equal_ppl(one, other, chosen["shots"], name, among, first=True).difference
    value, low, high = (format(x, f".{SCORES[name].digits}f") for x in early[:3])
    again = (
        " Counted the first time that a curve passes a PPL, before it rises again, it is "
        f"{value} ({low} to {high})."
    )
    return [
        Text(
            f"At equal PPL, from {found.levels[0]:.2f} to {found.levels[-1]:.2f}, which both pass "
            f"along the epochs, {told[0].lower()}{told[1:]}"
            f"{again if early.value != found.difference.value else ''}"
        )
    ]


def ablations(study: Study, numbers: Numbers) -> list[Block]:
    """Every ablation minus the row that it changes."""
    rows = study.group("ablation")
    if not rows:
        return [Text("There are no ablation rows.")]
    names = [*persona_scores(study), "ppl"]
    stage = ("own", study.shots(), study.last())
    head = ["", "minus", "seeds", *(SCORES[name].name for name in names), "every seed"]
    lines = []
    for row in rows:
        base = study.base(row)
        found = [numbers.difference((row, stage), (base, stage), name) for name in names]
        each = found[0].seeds if found[0] else {}
        lines.append(
            [
                study.label(row),
                study.label(base),
                str(len(each)),
                *(_estimate(f, name) for f, name in zip(found, names)),
                ", ".join(_seed(each, s, names[0]) for s in each) or "-",
            ]
        )
    told = f"Adapted {study.shots()}-shot, {study.last()} epochs; every seed: of {_name(names[0])}."
    return [Table(head, lines), Text(told)]


def legend(study: Study) -> list[Block]:
    """What the scores and intervals are."""
    names = ["ppl", "bleu"]
    names += ["c", "c_shuffled"] if study.has("c_shuffled") else []
    names += ["facts"] if study.has("facts") else []
    told = "; ".join(f"{SCORES[n].name}: {SCORES[n].meaning}" for n in [*names, "repeats"])
    return [
        Text(f"{told}."),
        Text(
            "Numbers are means over seeds; intervals at 95 % draw seeds and personas together, of "
            "rows with one seed personas alone. With few seeds they are narrower than what further "
            "seeds would show. 5- and 10-shot differ in the number of SGD steps too: epochs run "
            "over all dialogues adapted to. All but the primary endpoint is exploratory, and "
            "nothing is corrected for the number of comparisons. The paper's numbers are of "
            "PersonaChat, another vocabulary and another scorer of C: PPL and C compare within a "
            "study, not with them."
        ),
    ]


def show(found: Estimate | None, digits: int, interval: bool = True) -> Number:
    """An estimate in a table's cell."""
    if found is None:
        return Number("-")
    small = f"{fixed(found.low, digits)} to {fixed(found.high, digits)}"
    return Number(fixed(found.value, digits), "" if math.isnan(found.low) or not interval else small)


def _estimate(found, name, interval=True):
    return show(found, SCORES[name].digits, interval)


def _why_not(study, one, other, among):
    lacking = [study.label(row) for row in (one, other) if row not in study.rows]
    if lacking:
        return f"there is no cell of {' and none of '.join(lacking)}"
    if not set(study.rows[one]) & set(study.rows[other]):
        return f"{study.label(one)} and {study.label(other)} share no seed"
    if among is not None and not set(among) & set(study.rows[one]) & set(study.rows[other]):
        return "these seeds are not there yet"
    return "the cells lack this score, epoch or number of dialogues"


def _name(score):
    return SCORES[score].name if score in SCORES else score


def _seed(seeds, seed, name):
    return fixed(seeds[seed], SCORES[name].digits) if seed in seeds else "-"


def _side(found):
    if math.isnan(found.low):
        return "none"
    return {1: "above zero", -1: "below zero", 0: "holds zero"}[found.side()]
