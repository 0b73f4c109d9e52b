"""The scores of a system: held-out dialogues and its answers in, numbers with intervals out.

A system's statistics are arrays that add up, one row a persona, so that every score of a
resample of personas is the score of a sum.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtml_jax.eval import metrics

Label = Callable[[Sequence[tuple[str, str]]], np.ndarray]  # (reply, statement) -> 1, 0, -1
Statistics = dict[str, np.ndarray]
VERDICTS = ("stated", "contradicted", "ignored")


class HeldOut(NamedTuple):
    """What a held-out dialogue is scored against.

    Attributes:
      persona: index of its persona.
      gold: the human replies.
      statements: of the speaker, in this dialogue.
      shuffled: of another persona.
      verdict: reply -> one of `VERDICTS`, where the speaker's facts are known; else None.
    """

    persona: int
    gold: tuple[str, ...]
    statements: tuple[str, ...]
    shuffled: tuple[str, ...]
    verdict: Callable[[str], str] | None = None


class Answer(NamedTuple):
    """What a system makes of a held-out dialogue.

    Attributes:
      replies: one a turn.
      nll: of the gold replies, in nats; None where the system gives no probabilities.
      tokens: of the gold replies.
    """

    replies: tuple[str, ...]
    nll: float | None = None
    tokens: int = 0


def count(
    tests: Sequence[HeldOut],
    answers: Sequence[Answer],
    *,
    known_statements: Iterable[str] = (),
    labels: Mapping[str, Label] | None = None,
) -> Statistics:
    """Counts what the scores of one system are made of.

    Args:
      tests: held-out dialogues.
      answers: one for each.
      known_statements: persona statements of the train split.
      labels: name of a C-score -> what labels its pairs; "c" is the calibrated one.

    Returns:
      Arrays that add up, with a leading axis of personas, those of `tests` in the order of their
      numbers. What cannot be counted (no probabilities, no statements, no scorer, no known
      facts) is not in it. Bits of distinct n-grams are joined instead of added.
    """
    places = {p: n for n, p in enumerate(sorted({test.persona for test in tests}))}
    rows = np.array([places[test.persona] for test in tests])
    turns = np.repeat(rows, [len(answer.replies) for answer in answers])
    replies = [reply for answer in answers for reply in answer.replies]
    gold = [reply for test in tests for reply in test.gold]
    add = functools.partial(_add, len(places))
    bleu = metrics.bleu_statistics(replies, gold)
    known = set(known_statements)
    found = {
        "dialogues": add(rows, np.ones(len(rows))),
        "replies": add(turns, np.ones(len(turns))),
        "words": add(turns, bleu[:, -2]),
        "bleu": add(turns, bleu),
        "dialogue_bleu": add(rows, _dialogue_bleu(answers, bleu)),
        "repeats": add(turns, [metrics.repeat_share([reply], known) for reply in replies]),
    }
    for n, name in enumerate(("unigrams", "bigrams"), start=1):
        found[name], found[f"distinct_{name}"] = _ngrams(len(places), turns, replies, n)
    if all(answer.nll is not None for answer in answers):
        found["nll"] = add(rows, [answer.nll for answer in answers])
        found["tokens"] = add(rows, [answer.tokens for answer in answers])
        ppl = [metrics.perplexity(a.nll, a.tokens) for a in answers if a.nll is not None]
        found["dialogue_ppl"] = add(rows, ppl)
    if all(test.verdict for test in tests):
        judged = [(t.verdict, a) for t, a in zip(tests, answers) if t.verdict]
        verdicts = [verdict(reply) for verdict, a in judged for reply in a.replies]
        found["facts"] = add(turns, [[v == name for name in VERDICTS] for v in verdicts])
    if all(test.statements and test.shuffled for test in tests):
        for name, label in (labels or {}).items():
            for against, suffix in (("statements", ""), ("shuffled", "_shuffled")):
                whose = [
                    [(reply, statement) for statement in getattr(test, against)]
                    for test, answer in zip(tests, answers)
                    for reply in answer.replies
                ]
                flat = label([pair for pairs in whose for pair in pairs])
                cuts = np.cumsum([len(pairs) for pairs in whose])[:-1]
                sums = metrics.consistency_statistics(np.split(flat, cuts))
                found[f"{name}{suffix}"] = add(turns, sums)
    return found


def summarise(statistics: Statistics, *, seed: int, resamples: int = 1000) -> dict[str, dict]:
    """Every score with its interval over personas.

    Returns:
      Name -> {"value", "low", "high"}: `bootstrap_interval` at 95 %.
    """
    return {
        name: _with_interval(functools.partial(score, statistics), statistics, seed, resamples)
        for name, score in _scores(statistics).items()
    }


def differences(
    one: Statistics, other: Statistics, *, seed: int, resamples: int = 1000
) -> dict[str, dict]:
    """Every score of one system minus the other's on the same personas, as `summarise`.

    The same personas are drawn for both, so the interval is paired.
    """

    def difference(score, drawn):
        return score(one, drawn) - score(other, drawn)

    return {
        name: _with_interval(functools.partial(difference, score), one, seed, resamples)
        for name, score in _scores(one).items()
        if name in _scores(other)
    }


def summarise_seeds(
    runs: Sequence[Statistics], names: Iterable[str], *, seed: int, resamples: int = 1000
) -> dict[str, dict]:
    """Scores of one system that was trained with several seeds.

    Args:
      runs: one a seed, of the same personas in the same order.
      names: of scores; what some run does not allow is left out.
      seed: of the draws.
      resamples: how many times seeds and personas are drawn.

    Returns:
      Name -> {"value", "low", "high", "seeds"}: the mean over seeds with the interval of
      `resample_seeds`, and the score of every seed.

    Raises:
      ValueError: there are no runs, or they differ in their number of personas.
    """
    return {
        name: _over_seeds(scored, runs, seed, resamples)
        for name in names
        if all(scored := [scorer(run, name) for run in runs])
    }


def differences_over_seeds(
    ones: Sequence[Statistics],
    others: Sequence[Statistics],
    names: Iterable[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> dict[str, dict]:
    """Scores of one system minus those of another, seed by seed, as `summarise_seeds`.

    The same seeds and personas are drawn for both, so the interval is paired.

    Raises:
      ValueError: there are no runs, or they differ in their number of seeds or personas.
    """
    if len(ones) != len(others):
        raise ValueError(
            f"found runs of {len(ones)} and of {len(others)} seeds, want those of the same seeds"
        )

    def minus(one, other):
        return lambda drawn: one(drawn) - other(drawn)

    found = {}
    for name in names:
        left, right = ([scorer(run, name) for run in runs] for runs in (ones, others))
        if all(left) and all(right):
            gaps = list(map(minus, left, right))
            found[name] = _over_seeds(gaps, [*ones, *others], seed, resamples)
    return found


def scorer(statistics: Statistics, name: str) -> Callable[[np.ndarray], float] | None:
    """Makes the function from drawn personas to a score, or to a part of one (`_parts`); None
    where it cannot be counted."""
    known = _scores(statistics)
    found = known.get(name) or _parts(statistics, known).get(name)
    return functools.partial(found, statistics) if found else None


def resample_seeds(
    mean: Callable[[Sequence[int], np.ndarray], float],
    seeds: int,
    personas: int,
    *,
    seed: int,
    resamples: int = 1000,
) -> tuple[float, float]:
    """The interval at 95 % of what is a mean over seeds.

    Args:
      mean: (drawn seeds, drawn personas) -> number.
      seeds: drawn together with the personas; a single one is kept, and the interval is
        over personas alone.
      personas: of every seed.
      seed: of the draws.
      resamples: how many times.

    Returns:
      (low, high), as `metrics.bootstrap_interval`.
    """
    draw = functools.partial(metrics.bootstrap_interval, seed=seed, resamples=resamples)
    if seeds == 1:
        return draw(lambda drawn: mean((0,), drawn), personas)
    return draw(mean, (seeds, personas))


def _over_seeds(scored, runs, seed, resamples):
    """`scored` holds, for each seed, a function of the drawn personas."""
    if len(sizes := {len(run["dialogues"]) for run in runs}) != 1:
        raise ValueError(
            f"found runs of {' and '.join(map(str, sorted(sizes))) or 'no'} personas, want at "
            "least one run, and all of the same personas"
        )
    (personas,) = sizes

    def mean(seeds, drawn):
        return sum(scored[n](drawn) for n in seeds) / len(seeds)

    low, high = resample_seeds(mean, len(scored), personas, seed=seed, resamples=resamples)
    each = [float(one(np.arange(personas))) for one in scored]
    return {"value": sum(each) / len(each), "low": low, "high": high, "seeds": each}


def _with_interval(score, statistics, seed, resamples):
    personas = len(statistics["dialogues"])
    low, high = metrics.bootstrap_interval(score, personas, seed=seed, resamples=resamples)
    return {"value": float(score(np.arange(personas))), "low": low, "high": high}


def _scores(statistics: Statistics) -> dict[str, Callable[[Statistics, np.ndarray], float]]:
    """Name -> (statistics, drawn personas) -> score, for what the statistics allow."""

    def total(name):
        return lambda found, drawn: found[name][drawn].sum(axis=0)

    def ratio(part, whole, index=()):
        return lambda found, drawn: float(
            total(part)(found, drawn)[index] / max(total(whole)(found, drawn), 1)
        )

    def distinct(name):
        def score(found, drawn):
            present = np.bitwise_or.reduce(found[f"distinct_{name}"][drawn], axis=0)
            return np.bitwise_count(present).sum() / max(total(name)(found, drawn), 1)

        return score

    def consistency(name, field):
        return lambda found, drawn: getattr(
            metrics.consistency(total(name)(found, drawn)), field
        )

    def own_minus_shuffled(name):
        own, shuffled = consistency(name, "c"), consistency(f"{name}_shuffled", "c")
        return lambda found, drawn: own(found, drawn) - shuffled(found, drawn)

    scores: dict[str, Callable] = {}
    if "nll" in statistics:
        scores["ppl"] = lambda found, drawn: metrics.perplexity(
            total("nll")(found, drawn), total("tokens")(found, drawn)
        )
        scores["ppl_macro"] = ratio("dialogue_ppl", "dialogues")
    scores["bleu"] = lambda found, drawn: metrics.corpus_bleu(total("bleu")(found, drawn))
    scores["bleu_dialogue"] = ratio("dialogue_bleu", "dialogues")
    for n, name in enumerate(("unigrams", "bigrams"), start=1):
        if f"distinct_{name}" in statistics:  # they are large, and not kept everywhere
            scores[f"distinct_{n}"] = distinct(name)
    scores["length"] = ratio("words", "replies")
    scores["repeats"] = ratio("repeats", "replies")
    for name in statistics:
        if f"{name}_shuffled" in statistics:
            scores[name] = consistency(name, "c")
            scores[f"{name}_shuffled"] = consistency(f"{name}_shuffled", "c")
            scores[f"{name}_own_minus_shuffled"] = own_minus_shuffled(name)
            for field in ("entailment", "contradiction"):
                scores[f"{name}_{field}"] = consistency(name, field)
    if "facts" in statistics:
        for index, verdict in enumerate(VERDICTS):
            scores[verdict] = ratio("facts", "replies", index)
        stated, denied = (scores[verdict] for verdict in ("stated", "contradicted"))
        scores["facts"] = lambda found, drawn: stated(found, drawn) - denied(found, drawn)
    return scores


def _parts(statistics: Statistics, scores: Mapping[str, Callable]) -> dict[str, Callable]:
    """What `_scores` are made of: the nats a token of PPL; of persona scores the rates of what is
    right and wrong, their sum, and the share of the right in it, which is NaN where nothing is
    said."""

    def nats(found, drawn):
        return float(found["nll"][drawn].sum() / max(found["tokens"][drawn].sum(), 1))

    def pairs(name, field):
        return lambda found, drawn: getattr(metrics.consistency(found[name][drawn].sum(axis=0)), field)

    def both(right, wrong):
        return lambda found, drawn: right(found, drawn) + wrong(found, drawn)

    def share(right, wrong):
        whole = both(right, wrong)
        return lambda found, drawn: (
            right(found, drawn) / whole(found, drawn) if whole(found, drawn) else math.nan
        )

    parts: dict[str, Callable] = {"nats": nats} if "nll" in statistics else {}
    for name in statistics:
        if (shuffled := f"{name}_shuffled") in statistics:
            for field in ("entailment", "contradiction"):
                parts[f"{shuffled}_{field}"] = pairs(shuffled, field)
            entailed = scores[f"{name}_entailment"], parts[f"{shuffled}_entailment"]
            parts[f"{name}_entailed_either"] = both(*entailed)
            parts[f"{name}_own_share"] = share(*entailed)
    if "facts" in statistics:
        judged = scores["stated"], scores["contradicted"]
        parts["facts_either"], parts["facts_true_share"] = both(*judged), share(*judged)
    return parts


def _add(count, rows, values):
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
