"""Estimate what a report shows: means over seeds, differences of rows, and rows at equal PPL."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.report.cells import Stage, Study
from mtml_jax.eval.scores import scorer
from mtml_jax.eval.statistics import differences_over_seeds, resample_seeds, summarise_seeds

_LEVELS = 5  # number of PPL at which two curves are compared


class Estimate(NamedTuple):
    """A number over seeds: mean, 95 % interval (NaN without one), and seed -> its value."""

    value: float
    low: float
    high: float
    seeds: dict[int, float]

    def side(self) -> int:
        """1 if the whole interval is above zero, -1 if it is below, otherwise 0."""
        return (self.low > 0) - (self.high < 0)


class AtEqualPpl(NamedTuple):
    """A comparison of two rows' curves of a score over PPL, on the range that both pass."""

    levels: tuple[float, ...]  # PPL from the lowest to the highest that both curves pass
    one: tuple[float, ...]  # score of the first row at each level
    other: tuple[float, ...]
    difference: Estimate  # mean over the levels of one minus other
    without: float  # share of the resamples in which the curves have no common range


class Numbers:
    """Computes the estimates of a study, each of them once, with bootstrap intervals."""

    def __init__(self, study: Study, *, seed: int, resamples: int):
        self.study = study
        self._draws = {"seed": seed, "resamples": resamples}
        self._known: dict[tuple, Estimate | None] = {}
        self._scorers: dict[tuple[int, str], Callable] = {}

    def mean(self, row: str, stage: Stage, name: str) -> Estimate | None:
        """Averages a score of a row over its seeds; None if it was not measured."""
        place = (row, stage, name)
        if place not in self._known:
            runs = self._runs(row, stage)
            found = summarise_seeds(list(runs.values()), [name], **self._draws) if runs else {}
            self._known[place] = _estimate(found.get(name), runs)
        return self._known[place]

    def human(self, name: str) -> Estimate | None:
        """The score of the human replies, which is the same for every row."""
        return self.mean(next(iter(self.study.rows)), ("human", 0, 0), name)

    def difference(
        self, one: tuple[str, Stage], other: tuple[str, Stage], name: str,
        among: Sequence[int] | None = None,
    ) -> Estimate | None:  # fmt: skip
        """Subtracts a score of the other row and stage, over the seeds that both have.

        Args:
          one: row and stage.
          other: row and stage that is subtracted.
          name: the score.
          among: the seeds to use; None uses all.

        Returns:
          The difference; None without a shared seed.
        """
        place = (one, other, name, among and tuple(among))
        if place not in self._known:
            ones, others = self._runs(*one), self._runs(*other)
            seeds = [s for s in ones if s in others and (among is None or s in among)]
            left, right = [ones[s] for s in seeds], [others[s] for s in seeds]
            found = differences_over_seeds(left, right, [name], **self._draws) if seeds else {}
            self._known[place] = _estimate(found.get(name), seeds)
        return self._known[place]

    def curve(self, row: str, shots: int, name: str) -> list[tuple[Stage, Estimate]]:
        """Lists the estimates of a score along the epochs, from the unadapted model on."""
        found = [(stage, self.mean(row, stage, name)) for stage in self._stages(shots)]
        return [(stage, estimate) for stage, estimate in found if estimate]

    def at_equal_ppl(
        self, row: str, other: str, shots: int, name: str, among: Sequence[int] | None = None,
        first: bool = False,
    ) -> AtEqualPpl | None:  # fmt: skip
        """Compares the curves of two rows at the PPL that both pass.

        A curve is a mean over seeds of (PPL, score) along the epochs, interpolated between them.
        Each resample draws seeds and personas and recomputes both curves and their common range.

        Args:
          row: the first row.
          other: the row that it is compared with.
          shots: number of dialogues adapted to.
          name: the score.
          among: the seeds to use, of those that both rows have; None uses all.
          first: where a curve passes a PPL more than once because PPL rises again, count the
            first time along the epochs, not the last.

        Returns:
          The comparison; None if the curves have no PPL in common.
        """
        stages = self._stages(shots)
        runs = [[self._runs(r, stage) for stage in stages] for r in (row, other)]
        shared = set.intersection(*(set(at) for curve in runs for at in curve))
        seeds = [s for s in runs[0][0] if s in shared and (among is None or s in among)]
        if not seeds:
            return None

        # Score functions by row, stage, (PPL, score) and seed.
        everyone = np.arange(len(runs[0][0][seeds[0]]["dialogues"]))
        scored = [
            [[[self._scorer(at[n], of) for n in seeds] for of in ("ppl", name)] for at in curve]
            for curve in runs
        ]

        def curves(numbers, drawn):
            key = drawn.tobytes()

            def mean(scores):
                return sum(scores[n](key, drawn) for n in numbers) / len(numbers)

            return [[tuple(map(mean, at)) for at in curve] for curve in scored]

        no_range = []  # of each resample

        def gap(numbers, drawn):
            both = curves(numbers, drawn)
            no_range.append(common_range(*both) is None)
            return _gap(*both, first)

        whole = curves(range(len(seeds)), everyone)
        span = common_range(*whole)
        if span is None:
            return None
        levels = tuple(np.linspace(*span, _LEVELS).tolist())
        low, high = resample_seeds(gap, len(seeds), len(everyone), **self._draws)
        each = {seed: _gap(*curves((n,), everyone), first) for n, seed in enumerate(seeds)}
        ones, others = (tuple(passing(curve, at, first) for at in levels) for curve in whole)
        difference = Estimate(_gap(*whole, first), low, high, each)
        without = sum(no_range) / max(len(no_range), 1)
        return AtEqualPpl(levels, ones, others, difference, without)

    def _scorer(self, run, name):
        """Returns a cached function (bytes of a draw of personas, the draw) -> score."""
        place = (id(run), name)
        if place not in self._scorers:
            known, scored = {}, scorer(run, name)

            def look_up(key, drawn):
                if key not in known:
                    known[key] = scored(drawn)
                return known[key]

            self._scorers[place] = look_up
        return self._scorers[place]

    def _stages(self, shots):
        return [("unadapted", 0, 0)] + [("own", shots, e) for e in self.study.settings["epochs"]]

    def _runs(self, row, stage):
        seeds = self.study.rows.get(row, {})
        return {n: cell.statistics[stage] for n, cell in seeds.items() if stage in cell.statistics}


def common_range(one: Sequence, other: Sequence) -> tuple[float, float] | None:
    """Finds the range of PPL that two curves of (PPL, score) both pass; None if there is none."""
    low = max(min(ppl for ppl, _ in curve) for curve in (one, other))
    high = min(max(ppl for ppl, _ in curve) for curve in (one, other))
    return (low, high) if low <= high < math.inf else None


def passing(curve: Sequence[tuple[float, float]], level: float, first: bool = False) -> float:
    """Interpolates the score at which a curve of (PPL, score) passes a PPL.

    Args:
      curve: (PPL, score) along the epochs.
      level: the PPL.
      first: count the first time that the curve passes it, not the last.

    Returns:
      The score; NaN if the curve does not pass the PPL.
    """
    found = []
    for (before, left), (after, right) in itertools.pairwise(curve):
        if min(before, after) <= level <= max(before, after):
            share = (level - before) / (after - before) if after != before else 1.0
            found.append(left + share * (right - left))
    return found[0 if first else -1] if found else math.nan


def _gap(one, other, first=False):
    """Averages the difference of two curves over their common range; NaN without one."""
    span = common_range(one, other)
    if span is None:
        return math.nan
    levels = np.linspace(*span, _LEVELS)
    return float(np.mean([passing(one, at, first) - passing(other, at, first) for at in levels]))


def _estimate(found, seeds):
    if not found:
        return None
    return Estimate(found["value"], found["low"], found["high"], dict(zip(seeds, found["seeds"])))
