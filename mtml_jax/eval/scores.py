"""Count and score the answers of a system to held-out dialogues.

A system's statistics are arrays that add up, one row a persona, so that every score of a
resample of personas is the score of a sum.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtml_jax.eval import metrics
from mtml_jax.nli.consistency import consistency, consistency_statistics

Label = Callable[[Sequence[tuple[str, str]]], np.ndarray]  # (reply, statement) -> 1, 0, -1
Statistics = dict[str, np.ndarray]
VERDICTS = ("stated", "contradicted", "ignored")
ANSWERS = ("right", "wrong", "other", "none")


class HeldOut(NamedTuple):
    """A held-out dialogue that answers are scored against."""

    persona: int  # index of its persona
    gold: tuple[str, ...]  # the human replies
    statements: tuple[str, ...]  # the speaker's statements in this dialogue
    shuffled: tuple[str, ...]  # statements of another persona, the control
    # reply -> one of `VERDICTS`, where the speaker's facts are known; else None
    verdict: Callable[[str], str] | None = None
    # for each turn, reply -> one of `ANSWERS`, where a known fact was asked for; else None
    answers: tuple[Callable[[str], str] | None, ...] = ()


class Answer(NamedTuple):
    """The answer of a system to a held-out dialogue."""

    replies: tuple[str, ...]  # one reply per turn
    # negative log-likelihood of the gold replies in nats; None for a system without probabilities
    nll: float | None = None
    tokens: int = 0  # number of tokens of the gold replies


def count(
    tests: Sequence[HeldOut], answers: Sequence[Answer], *, known_statements: Iterable[str] = (),
    labels: Mapping[str, Label] | None = None
) -> Statistics:
    """Counts the statistics that the scores of one system are computed from.

    Args:
      tests: held-out dialogues.
      answers: one for each.
      known_statements: persona statements of the train split.
      labels: name of a C-score -> what labels its pairs; "c" is the calibrated one.

    Returns:
      Arrays that add up, with a leading axis of the personas of `tests` in the order of their
      numbers. Statistics that cannot be counted (no probabilities, no statements, no scorer, no
      known facts) are left out. Bits of distinct n-grams are joined instead of added.
    """
    personas, rows = np.unique([test.persona for test in tests], return_inverse=True)
    turns = np.repeat(rows, [len(answer.replies) for answer in answers])
    replies = [reply for answer in answers for reply in answer.replies]
    gold = [reply for test in tests for reply in test.gold]
    add = functools.partial(add_rows, len(personas))
    bleu = metrics.bleu_statistics(replies, gold)
    known = set(known_statements)
    counted = {
        "dialogues": add(rows, np.ones(len(rows))),
        "replies": add(turns, np.ones(len(turns))),
        "words": add(turns, bleu[:, -2]),
        "bleu": add(turns, bleu),
        "dialogue_bleu": add(rows, _dialogue_bleu(answers, bleu)),
        "repeats": add(turns, [metrics.repeat_share([reply], known) for reply in replies]),
    }
    for n, name in enumerate(("unigrams", "bigrams"), start=1):
        counted[name], counted[f"distinct_{name}"] = _ngrams(len(personas), turns, replies, n)
    if all(answer.nll is not None for answer in answers):
        counted["nll"] = add(rows, [answer.nll for answer in answers])
        counted["tokens"] = add(rows, [answer.tokens for answer in answers])
        # Words that are separated by blanks, and the end of each reply.
        counted["gold_words"] = add(turns, bleu[:, -1] + 1)
        ppl = [metrics.perplexity(a.nll, a.tokens) for a in answers if a.nll is not None]
        counted["dialogue_ppl"] = add(rows, ppl)
    if all(test.verdict for test in tests):
        judged = [(t.verdict, a) for t, a in zip(tests, answers) if t.verdict]
        verdicts = [verdict(reply) for verdict, a in judged for reply in a.replies]
        counted["facts"] = add(turns, [[v == name for name in VERDICTS] for v in verdicts])
    asked = [
        (row, answer(reply))
        for row, test, given in zip(rows, tests, answers)
        for answer, reply in zip(test.answers, given.replies)
        if answer
    ]
    if asked:
        at, found = zip(*asked)
        counted["answers"] = add(np.asarray(at), [[f == name for name in ANSWERS] for f in found])
    if all(test.statements and test.shuffled for test in tests):
        for name, label in (labels or {}).items():
            for against, suffix in (("statements", ""), ("shuffled", "_shuffled")):
                pairs_of = [
                    [(reply, statement) for statement in getattr(test, against)]
                    for test, answer in zip(tests, answers)
                    for reply in answer.replies
                ]
                flat = label([pair for pairs in pairs_of for pair in pairs])
                cuts = np.cumsum([len(pairs) for pairs in pairs_of])[:-1]
                sums = consistency_statistics(np.split(flat, cuts))
                counted[f"{name}{suffix}"] = add(turns, sums)
    return counted


def scorer(statistics: Statistics, name: str) -> Callable[[np.ndarray], float] | None:
    """The function from drawn personas to a score or a part of one; None if it is not counted."""
    known = score_functions(statistics)
    function = known.get(name) or part_functions(statistics, known).get(name)
    return functools.partial(function, statistics) if function else None


def score_functions(statistics: Statistics) -> dict[str, Callable[[Statistics, np.ndarray], float]]:
    """Name -> (statistics, drawn personas) -> score, for all scores that the statistics allow."""

    def total(name):
        return lambda sums, drawn: sums[name][drawn].sum(axis=0)

    def ratio(part, whole, index=()):
        return lambda sums, drawn: float(
            total(part)(sums, drawn)[index] / max(total(whole)(sums, drawn), 1)
        )

    def distinct(name):
        def score(sums, drawn):
            present = np.bitwise_or.reduce(sums[f"distinct_{name}"][drawn], axis=0)
            return np.bitwise_count(present).sum() / max(total(name)(sums, drawn), 1)

        return score

    scores: dict[str, Callable] = {}
    if "nll" in statistics:
        scores["ppl"] = lambda sums, drawn: metrics.perplexity(
            total("nll")(sums, drawn), total("tokens")(sums, drawn)
        )
        if "gold_words" in statistics:
            scores["word_ppl"] = lambda sums, drawn: metrics.perplexity(
                total("nll")(sums, drawn), total("gold_words")(sums, drawn)
            )
        scores["ppl_macro"] = ratio("dialogue_ppl", "dialogues")
    scores["bleu"] = lambda sums, drawn: metrics.corpus_bleu(total("bleu")(sums, drawn))
    scores["bleu_dialogue"] = ratio("dialogue_bleu", "dialogues")
    for n, name in enumerate(("unigrams", "bigrams"), start=1):
        if f"distinct_{name}" in statistics:  # they are large, and not kept everywhere
            scores[f"distinct_{n}"] = distinct(name)
    scores["length"] = ratio("words", "replies")
    scores["repeats"] = ratio("repeats", "replies")
    for name in statistics:
        if f"{name}_shuffled" in statistics:
            own = scores[name] = _consistency(name, "c")
            shuffled = scores[f"{name}_shuffled"] = _consistency(f"{name}_shuffled", "c")
            scores[f"{name}_own_minus_shuffled"] = _combined(operator.sub, own, shuffled)
            for field in ("entailment", "contradiction"):
                scores[f"{name}_{field}"] = _consistency(name, field)
    if "facts" in statistics:
        for index, verdict in enumerate(VERDICTS):
            scores[verdict] = ratio("facts", "replies", index)
        scores["facts"] = _combined(operator.sub, scores["stated"], scores["contradicted"])
    if "answers" in statistics:
        for index, answer in enumerate(ANSWERS):
            scores[f"answers_{answer}"] = _share("answers", index)
        right, wrong = scores["answers_right"], scores["answers_wrong"]
        scores["answers"] = _combined(operator.add, right, wrong)
    return scores


def part_functions(statistics: Statistics, scores: Mapping[str, Callable]) -> dict[str, Callable]:
    """The parts of scores, by name: nats per token of PPL; for persona scores, the rates of right
    and of wrong statements, their sum, and the share of right ones, NaN if there are none of both.
    """

    def nats(sums, drawn):
        return float(sums["nll"][drawn].sum() / max(sums["tokens"][drawn].sum(), 1))

    def share(right, wrong):
        return right / (right + wrong) if right + wrong else math.nan

    parts: dict[str, Callable] = {"nats": nats} if "nll" in statistics else {}
    for name in statistics:
        if (shuffled := f"{name}_shuffled") in statistics:
            for field in ("entailment", "contradiction"):
                parts[f"{shuffled}_{field}"] = _consistency(shuffled, field)
            entailed = scores[f"{name}_entailment"], parts[f"{shuffled}_entailment"]
            parts[f"{name}_entailed_either"] = _combined(operator.add, *entailed)
            parts[f"{name}_own_share"] = _combined(share, *entailed)
    if "facts" in statistics:
        judged = scores["stated"], scores["contradicted"]
        parts["facts_either"] = _combined(operator.add, *judged)
        parts["facts_true_share"] = _combined(share, *judged)
    return parts


def _share(name, index):
    """The function of one column of a statistic, as a share of all of them."""

    def share(sums, drawn):
        counts = sums[name][drawn].sum(axis=0)
        return float(counts[index] / max(counts.sum(), 1))

    return share


def _consistency(name, field):
    return lambda sums, drawn: getattr(consistency(sums[name][drawn].sum(axis=0)), field)


def _combined(how, one, other):
    """The function of two scores, such as their difference, on the same drawn personas."""
    return lambda sums, drawn: how(one(sums, drawn), other(sums, drawn))


def add_rows(count: int, rows: np.ndarray, values) -> np.ndarray:
    """Adds values up by the row that each belongs to, [count, ...]."""
    values = np.asarray(values, np.float64)
    total = np.zeros((count, *values.shape[1:]))
    np.add.at(total, rows, values)
    return total


def _ngrams(count, rows, texts, n):
    """How many n-grams each persona's texts have, and which, as bits."""
    index: dict[tuple[str, ...], int] = {}
    total, present = np.zeros(count), [set() for _ in range(count)]
    for row, text in zip(rows, texts):
        words = text.split()
        for ngram in zip(*(words[i:] for i in range(n))):
            present[row].add(index.setdefault(ngram, len(index)))
            total[row] += 1
    bits = np.zeros((count, max(len(index), 1)), bool)
    for row, places in enumerate(present):
        bits[row, sorted(places)] = True
    return total, np.packbits(bits, axis=1)


def _dialogue_bleu(answers, bleu):
    cuts = np.cumsum([len(answer.replies) for answer in answers])[:-1]
    return [metrics.dialogue_bleu(rows.sum(axis=0)) for rows in np.split(bleu, cuts)]
