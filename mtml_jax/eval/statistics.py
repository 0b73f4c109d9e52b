"""Resample personas and seeds: every score with its interval."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mtml_jax.eval.scores import Statistics, score_functions, scorer


def bootstrap_interval(
    score: Callable[..., float], groups: int | tuple[int, ...], *, seed: int, resamples: int = 1000,
    level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of a score (Efron and Tibshirani, 1993, ch. 13).

    Personas are drawn with repetition, as many as there are, and whole: replies of one
    persona are not independent. With statistics added up per persona,
    `lambda drawn: corpus_bleu(per_persona[drawn].sum(axis=0))` is a score. The difference of
    two systems on the same drawn personas is a score too, which makes the interval paired:
    `lambda drawn: score_a(drawn) - score_b(drawn)`.

    Args:
      score: called with the drawn indices, int64 [groups], one array for each entry of
        `groups` where that is a tuple.
      groups: number of personas; or numbers of independent kinds that are drawn together,
        such as (seeds, personas).
      seed: random seed of the draws; equal seeds draw equal indices, whatever the score.
      resamples: number of draws.
      level: share of the resamples that the interval holds.

    Returns:
      (low, high), two scores of the sorted resamples. Resamples whose score is NaN
      (nothing to count was drawn) are left out. NaN where a single group leaves nothing
      to vary, or every score is NaN.

    Raises:
      ValueError: there are no groups or resamples, or level is not inside (0, 1).
    """
    sizes = groups if isinstance(groups, tuple) else (groups,)
    if min(sizes, default=0) < 1 or resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(
            "expected at least 1 group, at least 1 resample and a level between 0 and 1, got "
            f"groups {groups}, resamples {resamples} and level {level}"
        )
    if min(sizes) == 1:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = ([rng.integers(size, size=size) for size in sizes] for _ in range(resamples))
    scores = np.array([float(score(*indices)) for indices in drawn])
    scores = scores[~np.isnan(scores)]
    if not scores.size:
        return math.nan, math.nan
    tail = (1.0 - level) / 2.0
    # Two of the scores themselves: between infinite ones nothing can be interpolated.
    low, high = np.quantile(scores, [tail, 1.0 - tail], method="nearest")
    return float(low), float(high)


def with_interval(
    score: Callable[[np.ndarray], float], personas: int, *, seed: int, resamples: int = 1000
) -> dict[str, float]:
    """The score of all personas and its interval: {"value", "low", "high"}."""
    low, high = bootstrap_interval(score, personas, seed=seed, resamples=resamples)
    return {"value": float(score(np.arange(personas))), "low": low, "high": high}


def summarise(statistics: Statistics, *, seed: int, resamples: int = 1000) -> dict[str, dict]:
    """Every score with its interval over personas.

    Returns:
      Name -> {"value", "low", "high"}: `bootstrap_interval` at 95 %.
    """
    return {
        name: with_interval(
            functools.partial(score, statistics), _personas(statistics), seed=seed, resamples=resamples
        )
        for name, score in score_functions(statistics).items()
    }


def differences(
    one: Statistics, other: Statistics, *, seed: int, resamples: int = 1000
) -> dict[str, dict]:
    """Every score of one system minus the other's on the same personas, as `summarise`.

    The same personas are drawn for both, so the interval is paired.
    """
    return {
        name: with_interval(
            lambda drawn: score(one, drawn) - score(other, drawn), _personas(one),
            seed=seed, resamples=resamples
        )
        for name, score in score_functions(one).items()
        if name in score_functions(other)
    }


def summarise_seeds(
    runs: Sequence[Statistics], names: Iterable[str], *, seed: int, resamples: int = 1000
) -> dict[str, dict]:
    """Scores of one system that was trained with several seeds.

    `runs` are the statistics of each seed, of the same personas in the same order. A name of a
    score that some run does not allow is left out.

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
    ones: Sequence[Statistics], others: Sequence[Statistics], names: Iterable[str], *, seed: int,
    resamples: int = 1000
) -> dict[str, dict]:
    """Scores of one system minus those of another, seed by seed, as `summarise_seeds`.

    The same seeds and personas are drawn for both, so the interval is paired.

    Raises:
      ValueError: there are no runs, or they differ in their number of seeds or personas.
    """
    if len(ones) != len(others):
        raise ValueError(
            f"expected runs of the same seeds, got runs of {len(ones)} and of {len(others)} seeds"
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


def resample_seeds(
    mean: Callable[[Sequence[int], np.ndarray], float], seeds: int, personas: int, *, seed: int,
    resamples: int = 1000
) -> tuple[float, float]:
    """The interval at 95 % of a mean over seeds, as `bootstrap_interval`.

    `mean` is a function of drawn seeds and personas, which are drawn together. A single seed is
    kept, and the interval is over personas alone.
    """
    draw = functools.partial(bootstrap_interval, seed=seed, resamples=resamples)
    if seeds == 1:
        return draw(lambda drawn: mean((0,), drawn), personas)
    return draw(mean, (seeds, personas))


def _over_seeds(scored, runs, seed, resamples):
    """`scored` holds, for each seed, a function of the drawn personas."""
    if len(sizes := {_personas(run) for run in runs}) != 1:
        raise ValueError(
            "expected one run or more, all of the same personas, got runs of "
            f"{' and '.join(map(str, sorted(sizes))) or 'no'} personas"
        )
    (personas,) = sizes

    def mean(seeds, drawn):
        return sum(scored[n](drawn) for n in seeds) / len(seeds)

    low, high = resample_seeds(mean, len(scored), personas, seed=seed, resamples=resamples)
    each = [float(one(np.arange(personas))) for one in scored]
    return {"value": sum(each) / len(each), "low": low, "high": high, "seeds": each}


def _personas(statistics):
    return len(statistics["dialogues"])
