"""Format the reports of evaluation and reconstruction as tables of text."""

import textwrap
from collections.abc import Sequence

from mtml_jax.data.records import Dialogue
from mtml_jax.eval.reconstruction import BOTH_SIDES, VARIANTS, Scored

COLUMNS = {  # score -> (heading, digits)
    "ppl": ("PPL", 2),
    "word_ppl": ("PPL/wd", 2),
    "ppl_macro": ("macro", 2),
    "bleu": ("BLEU", 2),
    "bleu_dialogue": ("by dlg", 2),
    "distinct_1": ("dist-1", 3),
    "distinct_2": ("dist-2", 3),
    "length": ("words", 1),
    "repeats": ("repeat", 3),
    "c": ("C own", 3),
    "c_shuffled": ("C shuf", 3),
    "c_own_minus_shuffled": ("differ", 3),
    "c_entailment": ("entail", 3),
    "c_contradiction": ("contra", 3),
    "stated": ("stated", 3),
    "contradicted": ("denied", 3),
    "facts": ("facts", 3),
    "answers": ("answers", 3),
    "answers_right": ("right", 3),
}
# Those of a table of 79 columns.
_MAIN = ("ppl", "word_ppl", "bleu", "c_own_minus_shuffled", "facts", "answers", "answers_right")
VARIANT_TITLES = {"both_sides": "both sides", "own_only": "own utterances only"}
_RECONSTRUCTION = {"token_f1": "F1", "statement_recall": "recall", "ppl": "PPL"}
_WIDTH, _COLUMNS = 31, 79
_LEGEND = {
    "ppl": "PPL: perplexity of the human replies over all tokens",
    "ppl_macro": "macro: PPL's mean over dialogues",
    "word_ppl": "PPL/wd: the same nats over all words and ends of replies, so that models with "
    "different tokens compare",
    "bleu": "BLEU: sacreBLEU of the corpus",
    "bleu_dialogue": "by dlg: BLEU's mean over dialogues, unsmoothed",
    "repeats": "repeat: share of replies that are a train statement word for word",
    "c_own_minus_shuffled": "C: entailed minus contradicted statements a reply, of the speaker (own) "
    "and of another persona (shuf); differ: own minus shuf",
    "facts": "facts: share of replies with a fact of the speaker (stated) minus share with a wrong "
    "one (denied)",
    "answers": "answers: share of the questions about a fact that are answered with a value of what "
    "was asked for; right: with the speaker's value",
}


def score_table(report: dict, *, everything: bool = False) -> str:
    """The table of a report of `experiments.evaluate`.

    Args:
      report: what `evaluate` returns.
      everything: all scores after every epoch, in a table as wide as they need; otherwise the
        main scores at the last epoch, with intervals, in 79 columns.
    """
    rows = report["rows"]
    last = max(row["epoch"] for row in rows)
    shown = [
        name for name in (COLUMNS if everything else _MAIN)
        if any(name in row["scores"] for row in rows) and not (name == "word_ppl" and _words(rows))
    ]  # fmt: skip
    lines = [f"{'':<{_WIDTH}}" + "".join(f"{COLUMNS[name][0]:>8}" for name in shown)]
    for row in rows:
        difference = row["system"] == "own minus other"
        by_epoch = difference or row["system"] in ("own", "other")
        if row["epoch"] == last or not by_epoch or (everything and not difference):
            cells = "".join(_cell(row, name) for name in shown)
            lines.append(f"{_label(row, everything):<{_WIDTH}}" + cells)
        if difference and row["epoch"] == last:
            lines += [
                f"{label:<{_WIDTH}}" + "".join(_cell(row, name, end) for name in shown)
                for label, end in (("  95 % interval, from", "low"), ("  to", "high"))
            ]
    notes = [text for name, text in _LEGEND.items() if name in shown]
    adapted = f"adapted for {last} epochs; " if last and not everything else ""
    notes.append(f"{adapted}intervals resample the {report['personas']} personas")
    if everything:
        notes.append(f"sacreBLEU {report['bleu_signature']}")
    return "\n".join([*lines, "", *(textwrap.fill(note, _COLUMNS) for note in notes)])


def _words(rows):
    """Whether the model's tokens are words, so that PPL for each word is the same number."""
    both = [[row["scores"].get(name) for name in ("ppl", "word_ppl")] for row in rows]
    return all(a["value"] == b["value"] for a, b in both if a and b)


def _label(row, everything):
    if not row["shots"]:
        return row["system"]
    return f"{row['shots']}-shot, {row['system']}" + everything * f", epoch {row['epoch']}"


def _cell(row, name, part="value"):
    score = row["scores"].get(name)
    return f"{_number(score[part], name) if score and part in score else '-':>8}"


def _number(value, name):
    return f"{value:.{COLUMNS[name][1]}f}"


def reconstruction_table(report: dict) -> str:
    """The table of a report of `experiments.reconstruct`, with intervals of own minus shuffled."""
    heading = f"{'turns':>5}{'dialogues':>11}" + "".join(
        f"{title:>9}{'shuffled':>10}" for title in _RECONSTRUCTION.values()
    )
    lines = []
    for variant in VARIANTS:
        rows = common_rows(report, variant)
        lines += ["", f"context: {VARIANT_TITLES[variant]}", heading]
        lines += [
            f"{row['turns_seen']:>5}{row['dialogues']:>11,}"
            + "".join(
                f"{_part(row, name):>9}{_part(row, f'{name}_shuffled'):>10}"
                for name in _RECONSTRUCTION
            )
            for row in rows
        ]
        last = [row for row in rows if 2 * row["dialogues"] >= report["dialogues"]][-1]
        differences = ", ".join(
            f"{title} {_interval(last, f'{name}_own_minus_shuffled')}"
            for name, title in _RECONSTRUCTION.items()
        )
        lines.append(f"own minus shuffled after {last['turns_seen']} turns: {differences}")
    lines += [
        "",
        "turns: turns up to the current one; own utterances are those of earlier turns",
        "shuffled: F1 and recall against another persona's statements, PPL of the true persona "
        + "after another persona's dialogue",
        "95 % intervals resample personas",
    ]
    if len(common_rows(report, VARIANTS[0])) * len(VARIANTS) < len(report["rows"]):
        lines.append("rows that fewer than 5 % of the dialogues reach are only in the JSON file")
    return "\n".join(lines)


def common_rows(report, variant):
    """The rows of a variant that at least 5 % of the dialogues reach."""
    return [
        row
        for row in report["rows"]
        if row["variant"] == variant and 20 * row["dialogues"] >= report["dialogues"]
    ]


def _part(row, name, part="value"):
    return f"{row['scores'][name][part]:.{2 if name.startswith('ppl') else 3}f}"


def _interval(row, name):
    value, low, high = (_part(row, name, part) for part in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def sample_text(dialogue: Dialogue, scored: Sequence[Scored]) -> str:
    """A true persona, and its reconstruction after one turn, half of the turns and all of them."""
    texts = {s.turns_seen: s.text for s in scored if s.variant == BOTH_SIDES}
    every = len(texts)
    lines = ["", "true persona", *(f"  {statement}" for statement in sorted(dialogue.statements))]
    for seen in sorted({1, (every + 1) // 2, every}):
        lines += [f"reconstructed after {seen} of {every} turns", f"  {texts[seen]}"]
    return "\n".join(lines)
