"""What stands behind the scores of a study: its setting, tuning, reconstruction, cost, samples."""

import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.report.cells import Study
from experiments.report.page import Block, Code, Heading, Number, Said, Table, Text, fixed
from experiments.report.paper_numbers import EPOCHS_AT_TEST, INNER_LR, OUTER_LR

_SAMPLES = 3  # contexts of table 1
_MOST_UTTERANCES = 8
_WHO = {"self": "speaker", "other": "other"}


def setting(study: Study) -> list[Block]:
    """What was run, on what, and by which rates."""
    given, cells = study.settings, [cell.told for cell in study.cells()]
    first = cells[0]
    tests = f"{first['personas']:,} personas, {first['folds']:,} held-out dialogues, "
    tests += f"{first['turns']:,} replies ({given['split']})"
    effective = {int(k): n for k, n in (first.get("effective_shots") or {}).items()}
    told = ("backend", "device_kind", "device_count")  # by the device's own line
    versions = {
        f"{k} {v}"
        for c in cells
        for k, v in (c.get("versions") or {}).items()
        if k not in told and v != "not installed"  # mtml_jax itself, run from its checkout
    }
    rates = given["settings"]
    chosen_by = f"; chosen by {given['chosen_by']}" if "chosen_by" in given else ""
    mean = (f"{k}-shot {n:.1f}" for k, n in sorted(effective.items()) if k)
    rows = [
        ["preset, data", f"{given['preset']}, {given['data']}"],
        ["tested on", tests],
        ["dialogues adapted to, mean", ", ".join(mean)],
        ["epochs of adapting", _list(given["epochs"]) + _beside_paper(given["epochs"])],
        ["rates", ", ".join(f"{name} {value}" for name, value in rates.items()) + chosen_by],
        ["outer steps", _list({c["training"]["iterations"] for c in cells})],
        ["parameters", _list({c["training"]["parameters"] for c in cells})],
        ["NLI scorer", _list({c.get("nli") or "none, so no C-score" for c in cells})],
        ["device", _list({f"{c['device']} x {c['devices']}" for c in cells})],
        ["commit", _list({c.get("commit") or "not known" for c in cells})],
        ["versions", _list(versions)],
    ]
    blocks = [Table(["", "setting"], rows, words=True)]
    if command := given.get("command"):
        blocks.append(Code(command))
    return blocks


def missing(study: Study) -> list[Block]:
    """Cells that are not there."""
    lacking = study.missing()
    if not lacking:
        return [Text(f"All cells are there, {study.settings['seeds']} seeds a row.")]
    told = "; ".join(f"{study.label(row)} seed {_list(seeds)}" for row, seeds in lacking.items())
    return [Text(f"Cells that are not there: {told}.")]


def tuning(study: Study) -> list[Block]:
    """The trials on valid personas that the rates were chosen by."""
    if not study.tuning:
        return [Text("The folder holds no tuning table.")]
    trials = sorted(
        study.tuning,
        key=lambda trial: (
            trial["strategy"],
            str(trial.get("reduction")),
            _number(trial, "outer_lr"),
            trial["inner_lr"],
        ),
    )
    chosen = study.settings["settings"]
    rows = []
    for trial in trials:
        marks = []
        if all(trial.get(name) == value for name, value in chosen.items()):
            marks.append("chosen")
        if (trial["inner_lr"], trial.get("outer_lr")) == (INNER_LR, OUTER_LR):
            marks.append("the paper's rates")
        if "failed" in trial:
            marks.append(f"failed: {trial['failed']}")
        own, other = _number(trial, "own_ppl"), _number(trial, "other_ppl")
        before, after = _number(trial, "initial_ppl"), _number(trial, "adapted_ppl")
        rows.append(
            [
                trial["strategy"],
                str(trial["inner_lr"]),
                str(trial.get("reduction", "-")),
                str(trial.get("outer_lr", "-")),
                str(trial.get("iterations", "-")),
                fixed(_number(trial, "moved"), 5),
                fixed(_number(trial, "second_order_share"), 4),
                f"{fixed(before, 2)} to {fixed(after, 2)}",
                fixed(own, 2),
                fixed(other, 2),
                fixed(own - other, 2),
                ", ".join(marks),
            ]
        )
    head = [
        "strategy", "inner_lr", "reduction", "outer_lr", "steps", "moved", "second order",
        "PPL, one inner step", "PPL own", "PPL other", "own minus other", "",
    ]  # fmt: skip
    return [
        Table(head, rows),
        Text(
            "moved: |phi' - phi| / |phi| of one inner step, mean over valid episodes; second order: "
            "|g - g of first order| / |g|; PPL, one inner step: of valid query sets before and after "
            "it; own, other: valid dialogues after adapting as at test to dialogues of the speaker, "
            "of another speaker. Valid personas alone."
        ),
    ]


def reconstruction(study: Study) -> list[Block]:
    """How much of the persona a row writes down, after one turn and after many."""
    lines = []
    for row, seeds in study.rows.items():
        found = [c.told["reconstruction"] for c in seeds.values() if c.told.get("reconstruction")]
        for variant in dict.fromkeys(r["variant"] for rows in found for r in rows):
            turns = turns_seen(found, variant)
            for seen in dict.fromkeys((turns[0], turns[-1])):
                at = [r for rows in found for r in rows if _is(r, variant, seen)]
                line = [study.label(row), variant.replace("_", " "), str(seen), str(len(at))]
                for name, digits in (("token_f1", 3), ("statement_recall", 3), ("ppl", 2)):
                    for suffix in ("", "_shuffled"):
                        values = [float(r["scores"][name + suffix]["value"]) for r in at]
                        line.append(_spread(values, digits))
                lines.append(line)
    if not lines:
        return [Text("No row has been asked for the persona.")]
    head = ["", "context", "turns", "seeds", "F1", "F1 shuffled", "recall", "recall shuffled",
            "PPL", "PPL shuffled"]  # fmt: skip
    return [
        Table(head, lines),
        Text(
            "Mean over seeds, with the least and the most. The model is not adapted. Shuffled: F1 "
            "and recall against another persona's statements, PPL of the true persona after another "
            "persona's dialogue. The last number of turns is the largest that a twentieth of the "
            "dialogues has."
        ),
    ]


def turns_seen(found: Sequence[Sequence[dict]], variant: str) -> list[int]:
    """The numbers of turns that do not stand on a few dialogues."""
    rows = [r for rows in found for r in rows if r["variant"] == variant]
    most = max(r["dialogues"] for r in rows)
    return sorted({r["turns_seen"] for r in rows if 20 * r["dialogues"] >= most})


def cost(study: Study) -> list[Block]:
    """What each row took, mean over its cells."""
    lines = []
    for row, seeds in study.rows.items():
        told = [cell.told for cell in seeds.values()]
        trained = [t["training"] for t in told]
        column = functools.partial(_mean_of, trained)
        lines.append(
            [
                study.label(row),
                str(len(told)),
                column("iterations", "{:,.0f}"),
                column("best_step", "{:,.0f}"),
                _list({t.get("reason") or "-" for t in trained}),
                column("seconds_a_step", "{:.2f}"),
                column("seconds", "{:.1f}", 60),
                _mean_of(told, "test_seconds", "{:.1f}", 60),
                column("temporary_bytes", "{:,.0f}", 1e6),
                column("operations", "{:,.1f}", 1e9),
                column("tokens", "{:,.0f}", 1e3),
            ]
        )
    head = ["", "seeds", "steps", "best step", "ended by", "s a step", "training, min",
            "test, min", "memory, MB", "GFLOP a step", "tokens, thousands"]  # fmt: skip
    return [
        Table(head, lines),
        Text(
            "Mean over seeds. Memory: temporary memory of the compiled step. GFLOP: operations of a "
            "step, counted from its data. A row that shares its training with another repeats what "
            "that took."
        ),
    ]


def samples(study: Study) -> list[Block]:
    """Table 1: the same contexts answered by every row, before and after adapting."""
    replies: dict[str, dict[str, dict[str, str]]] = {}
    contexts = {}
    for row in study.group("paper", "control"):
        cell = next(iter(study.rows[row].values())).told
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
        said = [(_WHO.get(who, who), text) for who, text in sample["utterances"]]
        left_out = [("", f"({len(said) - _MOST_UTTERANCES} earlier utterances left out)")]
        blocks += [
            Heading(f"Context {number}", 3),
            Said(
                [("persona", "; ".join(sample["statements"]))]
                + (left_out if len(said) > _MOST_UTTERANCES else [])
                + said[-_MOST_UTTERANCES:]
                + [("human", sample["gold"])]
            ),
            Table(
                ["", *columns],
                [
                    [study.label(row), *(found.get(name, "-") or "(nothing)" for name in columns)]
                    for row, found in answers.items()
                ],
                words=True,
            ),
        ]
    return blocks


def _when(name):
    """Places "unadapted" before "5-shot, own" before "5-shot, other" before "10-shot, own"."""
    shots, _, system = name.partition("-shot, ")
    return (int(shots), system != "own") if system else (0, False)


def _spread(values, digits):
    small = f"{min(values):.{digits}f} to {max(values):.{digits}f}" if len(values) > 1 else ""
    return Number(fixed(float(np.mean(values)), digits), small)


def _mean_of(rows, name, form, unit=1.0):
    values = [row[name] for row in rows if row.get(name) is not None]
    return form.format(float(np.mean([float(v) for v in values])) / unit) if values else "-"


def _is(row, variant, seen):
    return row["variant"] == variant and row["turns_seen"] == seen


def _number(told, name):
    value = told.get(name)
    return math.nan if value is None else float(value)


def _list(values: Iterable) -> str:
    ordered = sorted(values, key=lambda v: (isinstance(v, str), v))
    return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in ordered)


def _beside_paper(epochs):
    return "" if max(epochs) == EPOCHS_AT_TEST else f" (PAML's code: {EPOCHS_AT_TEST})"
