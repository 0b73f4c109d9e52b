"""Bootstrap intervals against those of a normal mean, their draws and what they leave out."""

import math

import numpy as np
import pytest

from mtml_jax.eval.statistics import bootstrap_interval


def gaussian(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size) * 3.0 + 5.0


@pytest.mark.parametrize("level, quantile", [(0.95, 1.9600), (0.8, 1.2816)])
def test_the_interval_of_a_mean_is_the_normal_one(level, quantile):
    values = gaussian(197)
    low, high = bootstrap_interval(
        lambda drawn: values[drawn].mean(), 197, seed=1, resamples=4000, level=level
    )
    reach = quantile * values.std() / math.sqrt(197)
    # A quantile of 4000 draws is off by about 0.04 standard errors, of which reach has one or two.
    assert high - values.mean() == pytest.approx(reach, rel=0.1)
    assert values.mean() - low == pytest.approx(reach, rel=0.1)


def test_a_paired_difference_varies_less_than_its_parts():
    first = gaussian(101)
    second = first + 0.5 + 0.01 * gaussian(101, seed=1)

    def width(score):
        low, high = bootstrap_interval(score, 101, seed=0)
        assert low < high
        return high - low

    paired = width(lambda drawn: second[drawn].mean() - first[drawn].mean())
    assert paired < 0.02 * width(lambda drawn: first[drawn].mean())


def test_seeds_and_personas_are_drawn_together():
    """A mean over both kinds varies by the sum of the two variances."""
    seeds, personas = gaussian(53), gaussian(61, seed=1)
    low, high = bootstrap_interval(
        lambda i, j: seeds[i].mean() + personas[j].mean(), (53, 61), seed=0, resamples=4000
    )
    spread = math.sqrt(seeds.var() / 53 + personas.var() / 61)
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_the_seed_fixes_the_draws():
    drawn = []

    def score(indices):
        drawn.append(indices.tolist())
        return gaussian(7)[indices].mean()

    first = bootstrap_interval(score, 7, seed=3, resamples=20)
    assert len(drawn) == 20 and all(len(d) == 7 for d in drawn)
    assert {i for d in drawn for i in d} == set(range(7))
    assert len({tuple(d) for d in drawn}) == 20 and any(len(set(d)) < 7 for d in drawn)
    assert bootstrap_interval(score, 7, seed=3, resamples=20) == first
    assert drawn[20:] == drawn[:20]
    assert bootstrap_interval(score, 7, seed=4, resamples=20) != first


def test_as_many_draws_as_were_asked_for():
    drawn = []
    score = lambda indices: drawn.append(indices) or len(drawn)  # noqa: E731
    assert bootstrap_interval(score, 7, seed=0, resamples=1) == (1.0, 1.0)
    bootstrap_interval(score, 7, seed=0)
    assert len(drawn) == 1 + 1000


def test_scores_that_are_undefined_are_left_out():
    values = np.array([1.0, 1.0, math.nan, math.nan, math.inf])
    low, high = bootstrap_interval(
        lambda drawn: values[drawn[0]], 5, seed=0, resamples=500, level=0.9
    )
    assert (low, high) == (1.0, math.inf)
    for lost in (
        bootstrap_interval(lambda drawn: math.nan, 5, seed=0),
        bootstrap_interval(lambda drawn: 1.0, 1, seed=0),
        bootstrap_interval(lambda i, j: 1.0, (1, 5), seed=0),
    ):
        assert all(math.isnan(x) for x in lost)


@pytest.mark.parametrize(
    "groups, settings",
    [(0, {}), ((), {}), (5, {"resamples": 0}), (5, {"level": 1.0}), (5, {"level": 0.0})],
)
def test_an_impossible_bootstrap_is_refused(groups, settings):
    with pytest.raises(ValueError, match="groups .* resamples .* level"):
        bootstrap_interval(lambda drawn: 1.0, groups, seed=0, **settings)
