"""Name and format the scores of a study, and the numbers that the paper reports for them."""

import math
from typing import NamedTuple

from experiments.report.cells import Study
from experiments.report.numbers import Estimate
from experiments.report.page import Number
from experiments.report.paper_numbers import PAPER


class Score(NamedTuple):
    """How a score is written."""

    name: str  # in tables
    meaning: str  # in the legend
    digits: int  # after the decimal point


SCORES = {
    "ppl": Score("PPL", "perplexity of the human replies over all tokens, exp(nats a token)", 2),
    "nats": Score("nats a token", "the logarithm of PPL", 3),
    "bleu": Score("BLEU", "sacreBLEU of the corpus, 0 to 100", 2),
    "c": Score(
        "C own", "the speaker's statements that a reply entails minus those that it contradicts", 3
    ),
    "c_shuffled": Score("C shuffled", "the same with another persona's statements", 3),
    "c_own_minus_shuffled": Score("C own minus shuffled", "the difference of these two", 3),
    "facts": Score(
        "facts",
        "share of replies that state a fact of the speaker minus share that contradict one",
        3,
    ),
    "answers": Score(
        "answers", "share of the questions about a fact that get a value of what was asked for", 3
    ),
    "answers_right": Score(
        "answers, right", "share of these questions that get the speaker's own value", 3
    ),
    "repeats": Score("repeats", "share of replies that copy a training statement word for word", 3),
}
REPORTED = ("ppl", "bleu", "c")  # by the paper


def persona_scores(study: Study) -> list[str]:
    """Lists the scores of how much of a persona is in the replies, the endpoint's score first."""
    found = ["c_own_minus_shuffled", "c"] if study.has("c") and study.has("c_shuffled") else []
    found += ["facts"] if study.has("facts") else []
    return sorted(found, key=lambda name: name != study.settings["endpoint"]["score"])


def shots_in_order(study: Study) -> list[int]:
    """Lists the numbers of shots, the endpoint's first."""
    return sorted(study.settings["shots"], key=lambda k: (k != study.shots(), k))


def reported(shots: int, row: str, name: str) -> float | None:
    """Looks up the paper's number; None if it reports none."""
    line = PAPER.get(shots, {}).get(row)
    return getattr(line, name) if line and name in REPORTED else None


def title_of(name: str) -> str:
    """Returns the name of a score in tables."""
    return SCORES[name].name if name in SCORES else name


def fixed(value: float, digits: int) -> str:
    """Formats a number with a fixed number of digits, without a negative zero; NaN as "-"."""
    return "-" if math.isnan(value) else f"{value:z,.{digits}f}"


def value_text(value: float, name: str) -> str:
    """Formats a value of a score."""
    return fixed(value, SCORES[name].digits)


def interval_text(found: Estimate, name: str) -> str:
    """Formats the interval of an estimate."""
    return f"{value_text(found.low, name)} to {value_text(found.high, name)}"


def estimate_cell(found: Estimate | None, digits: int, interval: bool = True) -> Number:
    """Formats an estimate for a cell of a table, None as "-"; `digits` after the decimal point."""
    if found is None:
        return Number("-")
    if not interval or math.isnan(found.low):
        return Number(fixed(found.value, digits))
    text = f"{fixed(found.low, digits)} to {fixed(found.high, digits)}"
    return Number(fixed(found.value, digits), text)


def score_cell(found: Estimate | None, name: str, interval: bool = True) -> Number:
    """Formats an estimate of a score for a cell of a table."""
    return estimate_cell(found, SCORES[name].digits, interval)


def seed_cell(seeds: dict[int, float], seed: int, name: str) -> str:
    """Formats one seed's value for a cell of a table; "-" if the seed was not run."""
    return value_text(seeds[seed], name) if seed in seeds else "-"


def side_cell(found: Estimate) -> str:
    """Says on which side of zero an interval lies."""
    if math.isnan(found.low):
        return "none"
    return {1: "above zero", -1: "below zero", 0: "contains zero"}[found.side()]
