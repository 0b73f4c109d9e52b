"""Describe a study behind its scores: setting, tuning, reconstruction, samples and cost."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from experiments.report.cells import Cell, Study
from experiments.report.page import Block, Code, Heading, Number, Said, Table, Text
from experiments.report.paper_numbers import EPOCHS_AT_TEST, INNER_LR, OUTER_LR
from experiments.report.scores import fixed

_SAMPLES = 3  # contexts of table 1
_MOST_UTTERANCES = 8
_WHO = {"self": "speaker", "other": "other"}


def setting(study: Study) -> list[Block]:
    """Lists the data, the learning rates and the machine of a study."""
    settings, cells = study.settings, [cell.record for cell in study.cells()]
    first = cells[0]
    tests = f"{first['personas']:,} personas, {first['folds']:,} held-out dialogues, "
    tests += f"{first['turns']:,} replies ({settings['split']})"
    effective = {int(k): n for k, n in (first.get("effective_shots") or {}).items()}
    elsewhere = ("backend", "device_kind", "device_count")  # the row "device" has them
    versions = {
        f"{k} {v}"
        for c in cells
        for k, v in (c.get("versions") or {}).items()
        if k not in elsewhere and v != "not installed"  # as mtml_jax itself in a checkout
    }
    rates = settings["settings"]
    chosen_by = f"; chosen by {settings['chosen_by']}" if "chosen_by" in settings else ""
    paper_epochs = "" if study.last() == EPOCHS_AT_TEST else f" (PAML's code: {EPOCHS_AT_TEST})"
    mean = (f"{k}-shot {n:.1f}" for k, n in sorted(effective.items()) if k)
    rows = [
        ["preset, data", f"{settings['preset']}, {settings['data']}"],
        ["tested on", tests],
        ["dialogues adapted to, mean", ", ".join(mean)],
        ["epochs of adaptation", _list(settings["epochs"]) + paper_epochs],
        ["rates", ", ".join(f"{name} {value}" for name, value in rates.items()) + chosen_by],
        ["outer steps", _list({c["training"]["iterations"] for c in cells})],
        ["parameters", _list({c["training"]["parameters"] for c in cells})],
        ["NLI scorer", _list({c.get("nli") or "none, so no C-score" for c in cells})],
        ["device", _list({f"{c['device']} x {c['devices']}" for c in cells})],
        ["commit", _list({c.get("commit") or "unknown" for c in cells})],
        ["versions", _list(versions)],
    ]
    blocks = [Table(["", "setting"], rows, words=True)]
    if command := settings.get("command"):
        blocks.append(Code(command))
    return blocks


def missing(study: Study) -> list[Block]:
    """Lists the cells that are missing."""
    lacking = study.missing()
    if not lacking:
        return [Text(f"All cells are complete, {study.settings['seeds']} seeds for each row.")]
    cells = "; ".join(f"{study.label(row)} seed {_list(seeds)}" for row, seeds in lacking.items())
    return [Text(f"Missing cells: {cells}.")]


def tuning(study: Study) -> list[Block]:
    """Lists the trials on valid personas by which the rates were chosen."""
    if not study.tuning:
        return [Text("The folder has no tuning trials.")]

    def place(trial):
        rates = _number(trial, "outer_lr"), trial["inner_lr"]
        return trial["strategy"], str(trial.get("reduction")), *rates

    chosen = study.settings["settings"]
    rows = []
    for trial in sorted(study.tuning, key=place):
        marks = []
        if all(trial.get(name) == value for name, value in chosen.items()):
            marks.append("chosen")
        if (trial["inner_lr"], trial.get("outer_lr")) == (INNER_LR, OUTER_LR):
            marks.append("the paper's rates")
        if "failed" in trial:
            marks.append(f"failed: {trial['failed']}")
        own, other = _number(trial, "own_ppl"), _number(trial, "other_ppl")
        before, after = _number(trial, "initial_ppl"), _number(trial, "adapted_ppl")
        rows.append([
            trial["strategy"], str(trial["inner_lr"]),
            *(str(trial.get(name, "-")) for name in ("reduction", "outer_lr", "iterations")),
            fixed(_number(trial, "moved"), 5), fixed(_number(trial, "second_order_share"), 4),
            f"{fixed(before, 2)} to {fixed(after, 2)}",
            *(fixed(x, 2) for x in (own, other, own - other)), ", ".join(marks),
        ])  # fmt: skip
    head = [
        "strategy", "inner_lr", "reduction", "outer_lr", "steps", "moved", "second order",
        "PPL, one inner step", "PPL own", "PPL other", "own minus other", "",
    ]  # fmt: skip
    return [
        Table(head, rows),
        Text(
            "All trials use only valid personas. moved: |phi' - phi| / |phi| of one inner step, mean "
            "over valid episodes; second order: |g - g of first order| / |g|; PPL, one inner step: "
            "PPL of valid query sets before and after it; PPL own and other: PPL of valid dialogues "
            "after adapting as at test to dialogues of the speaker and of another speaker."
        ),
    ]


def reconstruction(study: Study) -> list[Block]:
    """Reports how much of the persona each row reconstructs after one turn and after many."""
    lines = []
    for row, seeds in study.rows.items():
        found = reconstructions(seeds)
        for variant in dict.fromkeys(r["variant"] for rows in found for r in rows):
            turns = turns_seen(found, variant)
            for seen in dict.fromkeys((turns[0], turns[-1])):
                at = results_at(found, variant, seen)
                line = [study.label(row), variant.replace("_", " "), str(seen), str(len(at))]
                for name, digits in (("token_f1", 3), ("statement_recall", 3), ("ppl", 2)):
                    for suffix in ("", "_shuffled"):
                        values = [float(r["scores"][name + suffix]["value"]) for r in at]
                        line.append(_spread(values, digits))
                lines.append(line)
    if not lines:
        return [Text("No row was tested for persona reconstruction.")]
    head = ["", "context", "turns", "seeds", "F1", "F1 shuffled", "recall", "recall shuffled",
            "PPL", "PPL shuffled"]  # fmt: skip
    return [
        Table(head, lines),
        Text(
            "Mean over seeds, with the lowest and the highest; the model is not adapted. Shuffled: "
            "F1 and recall against another persona's statements, PPL of the true persona after "
            "another persona's dialogue. The last number of turns is the largest that at least 5 % "
            "of the dialogues have."
        ),
    ]


def reconstructions(seeds: Mapping[int, Cell]) -> list[list[dict]]:
    """Lists the reconstruction results of the seeds that have them."""
    found = [cell.record.get("reconstruction") for cell in seeds.values()]
    return [rows for rows in found if rows]


def results_at(found: Sequence[Sequence[dict]], variant: str, seen: int) -> list[dict]:
    """Lists the seeds' results of one variant at one number of turns."""
    rows = (r for rows in found for r in rows)
    return [r for r in rows if r["variant"] == variant and r["turns_seen"] == seen]


def turns_seen(found: Sequence[Sequence[dict]], variant: str) -> list[int]:
    """Lists the numbers of turns that at least 5 % of the dialogues have."""
    rows = [r for rows in found for r in rows if r["variant"] == variant]
    most = max(r["dialogues"] for r in rows)
    return sorted({r["turns_seen"] for r in rows if 20 * r["dialogues"] >= most})


def cost(study: Study) -> list[Block]:
    """Reports what each row took, means over its cells."""
    lines = []
    for row, seeds in study.rows.items():
        records = [cell.record for cell in seeds.values()]
        trained = [record["training"] for record in records]
        column = functools.partial(_mean_of, trained)
        lines.append([
            study.label(row), str(len(records)), column("iterations", "{:,.0f}"),
            column("best_step", "{:,.0f}"), _list({t.get("reason") or "-" for t in trained}),
            column("seconds_a_step", "{:.2f}"), column("seconds", "{:.1f}", 60),
            _mean_of(records, "test_seconds", "{:.1f}", 60),
            column("temporary_bytes", "{:,.0f}", 1e6), column("operations", "{:,.1f}", 1e9),
            column("tokens", "{:,.0f}", 1e3),
        ])  # fmt: skip
    head = ["", "seeds", "steps", "best step", "ended by", "s a step", "training, min",
            "test, min", "memory, MB", "GFLOP a step", "tokens, thousands"]  # fmt: skip
    return [
        Table(head, lines),
        Text(
            "Mean over seeds. Memory: temporary memory of the compiled step. GFLOP: operations of a "
            "step, counted from its data. Rows that share a training show the same numbers for it."
        ),
    ]


def samples(study: Study) -> list[Block]:
    """Makes table 1: replies of every row to the same contexts, before and after adapting."""
    replies: dict[str, dict[str, dict[str, str]]] = {}
    contexts = {}
    for row in study.group("paper", "control"):
        cell = next(iter(study.rows[row].values())).record
        for sample in cell.get("samples") or []:
            place = repr((sample["persona"], sample["utterances"]))
            contexts.setdefault(place, sample)
            replies.setdefault(place, {})[row] = sample["replies"]
    if not contexts:
        return [Text("No cell has samples.")]
    blocks: list[Block] = []
    for number, (place, sample) in enumerate(list(contexts.items())[:_SAMPLES], start=1):
        answers = replies[place]
        columns = sorted({name for found in answers.values() for name in found}, key=_when)
        utterances = [(_WHO.get(who, who), text) for who, text in sample["utterances"]]
        said = [("persona", "; ".join(sample["statements"]))]
        if (omitted := len(utterances) - _MOST_UTTERANCES) > 0:
            said.append(("", f"({omitted} earlier utterances omitted)"))
        said += [*utterances[-_MOST_UTTERANCES:], ("human", sample["gold"])]
        lines = [
            [study.label(row), *(found.get(name, "-") or "(nothing)" for name in columns)]
            for row, found in answers.items()
        ]
        table = Table(["", *columns], lines, words=True)
        blocks += [Heading(f"Context {number}", 3), Said(said), table]
    return blocks


def _when(name):
    """Sorts "unadapted", "5-shot, own", "5-shot, other", "10-shot, own"."""
    shots, _, system = name.partition("-shot, ")
    return (int(shots), system != "own") if system else (0, False)


def _spread(values, digits):
    ends = f"{fixed(min(values), digits)} to {fixed(max(values), digits)}"
    return Number(fixed(float(np.mean(values)), digits), ends if len(values) > 1 else "")


def _mean_of(rows, name, form, unit=1.0):
    values = [row[name] for row in rows if row.get(name) is not None]
    return form.format(float(np.mean([float(v) for v in values])) / unit) if values else "-"


def _number(trial, name):
    value = trial.get(name)
    return math.nan if value is None else float(value)


def _list(values: Iterable) -> str:
    ordered = sorted(values, key=lambda v: (isinstance(v, str), v))
    return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in ordered)
