"""Write the numbers of a study as tables."""

from experiments.report.cells import GAINS, Study
from experiments.report.numbers import Numbers
from experiments.report.page import Block, Number, Table, Text
from experiments.report.scores import (
    REPORTED,
    SCORES,
    persona_scores,
    reported,
    score_cell,
    seed_cell,
    side_cell,
    title_of,
)


def main_table(study: Study, numbers: Numbers, shots: int) -> list[Block]:
    """Makes table 2 or 3 of the paper with the controls, and the paper's numbers next to ours."""
    names = _names(study, "c_own_minus_shuffled")
    compared = [name for name in REPORTED if name in names]
    head = ["", "seeds", *(SCORES[name].name for name in names)]
    head += [f"paper {SCORES[name].name}" for name in compared]
    rows = []
    for row in study.group("paper", "control"):
        found = [numbers.mean(row, ("own", shots, study.last()), name) for name in names]
        theirs = [reported(shots, row, name) for name in compared]
        ours = [study.label(row), str(len(study.rows[row])), *map(score_cell, found, names)]
        rows.append([*ours, *("-" if x is None else f"{x:.2f}" for x in theirs)])
    shown = [score_cell(None if name == "bleu" else numbers.human(name), name) for name in names]
    rows.append(["human replies", "-", *shown, *("-" for _ in compared)])
    return [Table(head, rows)]


def _names(study, *more_of_c):
    """Lists the scores of the main tables that a study has."""
    names = ["ppl", "bleu"]
    names += ["c", "c_shuffled", *more_of_c] if study.has("c_shuffled") else []
    names += ["facts"] if study.has("facts") else []
    names += ["answers", "answers_right"] if study.has("answers") else []
    return [*names, "repeats"]


def own_and_other(study: Study, numbers: Numbers, shots: int) -> list[Block]:
    """Compares unadapted models with those adapted to own and to another speaker's dialogues."""
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
                line.append(score_cell(numbers.mean(row, stage, name), name, interval=False))
            found = numbers.difference((row, stages[0]), (row, stages[1]), name)
            line.append(score_cell(found, name))
            for gain in GAINS if name == "ppl" else ():  # rows with different PPL need ratios
                estimate = numbers.mean(row, (gain, shots, study.last()), "nats")
                line.append(score_cell(estimate, "nats"))
            if found and found.side() != (-1 if name == "ppl" else 1):
                unsure[name].append(study.label(row))
        rows.append(line)
    verdicts = []
    for name in names:
        better = "below" if name == "ppl" else "above"
        verdict = f"not {better} zero for {', '.join(unsure[name])}" if unsure[name] else ""
        verdict = verdict or f"{better} zero in every row"
        verdicts.append(f"{SCORES[name].name}: the interval is {verdict}")
    return [Table(head, rows), Text(f"{'. '.join(verdicts)}.")]


def against_paml(
    study: Study, numbers: Numbers, shots: int, name: str, system: str = "own"
) -> list[Block]:
    """Subtracts PAML from every row, with each seed; `system` may also be one of `GAINS`."""
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
        line = [study.label(row), score_cell(found, name)]
        line += [seed_cell(found.seeds, s, name) for s in seeds]
        line.append(side_cell(found))
        if theirs is not None:
            paper = reported(shots, row, name)
            line.append("-" if paper is None else f"{paper - theirs:+z.2f}")
        rows.append(line)
    if not rows:
        return [Text("There is no row to compare: no other row has a seed of PAML.")]
    return [Table(head, rows)]


def ablations(study: Study, numbers: Numbers) -> list[Block]:
    """Subtracts from every ablation the row that it changes."""
    rows = study.group("ablation")
    if not rows:
        return [Text("There are no ablation rows.")]
    names = [*persona_scores(study), "ppl"]
    stage = ("own", study.shots(), study.last())
    head = ["", "minus", "seeds", *(SCORES[name].name for name in names), "each seed"]
    lines = []
    for row in rows:
        base = study.base(row)
        found = [numbers.difference((row, stage), (base, stage), name) for name in names]
        each = found[0].seeds if found[0] else {}
        lines.append([
            study.label(row), study.label(base), str(len(each)), *map(score_cell, found, names),
            ", ".join(seed_cell(each, s, names[0]) for s in each) or "-",
        ])  # fmt: skip
    note = f"After adapting {study.shots()}-shot for {study.last()} epochs; each seed: "
    return [Table(head, lines), Text(f"{note}{title_of(names[0])}.")]


def legend(study: Study) -> list[Block]:
    """Explains the scores and the intervals."""
    meanings = "; ".join(f"{SCORES[n].name}: {SCORES[n].meaning}" for n in _names(study))
    return [
        Text(f"{meanings}."),
        Text(
            "Numbers are means over seeds. Intervals at 95 % resample seeds and personas together, "
            "and only personas for rows with one seed; with few seeds they are narrower than the "
            "spread that more seeds would show. 5-shot and 10-shot also differ in the number of SGD "
            "steps, because an epoch runs over all dialogues adapted to. Everything except the "
            "primary endpoint is exploratory, and nothing is corrected for multiple comparisons. "
            "The paper used PersonaChat, another vocabulary and another scorer of C, so PPL and C "
            "can be compared within a study but not with the paper's numbers."
        ),
    ]
