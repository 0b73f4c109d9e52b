"""The rows of an evaluation as a table of text."""

COLUMNS = {  # score -> (heading, digits)
    "ppl": ("PPL", 2),
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
}
_WIDTH = 36
_LEGEND = {
    "ppl": "PPL over all tokens, macro: mean over dialogues",
    "bleu": "BLEU of the corpus, by dlg: mean over dialogues, unsmoothed",
    "repeats": "repeat: share of replies that are a train statement word for word",
    "c": "C: entailed minus contradicted statements a reply; own persona's, a shuffled one's",
    "stated": "stated, denied: share of replies with a fact of the speaker, with a wrong one; "
    "facts: stated minus denied",
}


def score_table(report: dict) -> str:
    """The table of a report of `experiments.evaluate`; intervals of own minus other below."""
    rows = report["rows"]
    shown = [name for name in COLUMNS if any(name in row["scores"] for row in rows)]
    lines = [f"{'':<{_WIDTH}}" + "".join(f"{COLUMNS[name][0]:>8}" for name in shown)]
    last = max(row["epoch"] for row in rows)
    for row in rows:
        if row["system"] != "own minus other" or row["epoch"] == last:
            lines.append(f"{_label(row):<{_WIDTH}}" + "".join(_cell(row, name) for name in shown))
    personas = report["personas"]
    lines += ["", f"95 % intervals over {personas} personas of own minus other, epoch {last}"]
    lines += [
        f"  {row['shots']}-shot  "
        + "  ".join(
            f"{COLUMNS[name][0]} {_number(score['low'], name)} to {_number(score['high'], name)}"
            for name in ("ppl", "bleu", "c", "c_own_minus_shuffled", "stated", "facts")
            if (score := row["scores"].get(name))
        )
        for row in rows
        if row["system"] == "own minus other" and row["epoch"] == last
    ]
    if lines[-1].startswith("95"):
        del lines[-2:]
    lines += ["", *(text for name, text in _LEGEND.items() if name in shown)]
    lines += [f"sacreBLEU {report['bleu_signature']}"]
    return "\n".join(lines)


def _label(row):
    if not row["shots"]:
        return row["system"]
    return f"{row['shots']}-shot, {row['system']}, epoch {row['epoch']}"


def _cell(row, name):
    score = row["scores"].get(name)
    return f"{_number(score['value'], name) if score else '-':>8}"


def _number(value, name):
    return f"{value:.{COLUMNS[name][1]}f}"
