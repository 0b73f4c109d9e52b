"""Scores against values worked out by hand, and against the libraries they follow."""

import importlib.metadata
import math

import numpy as np
import pytest
import sacrebleu

from mtml_jax.eval import metrics

REPLIES = [
    "i have two dogs and a cat .",
    "i work as a nurse , and you ?",
    "hello",
    "",
    "the the the the cat sat on the mat",
    "i love to read a good book  at night",
    "my cat is here today",
]
REFERENCES = [
    "i have two dogs and three cats .",
    "i work in a bank , and you ?",
    "hi there , how are you ?",
    "nothing much .",
    "the cat sat on the mat",
    "i like to read a good book at night .",
    "my cat was here",
]


@pytest.mark.parametrize("classes", [2, 10558])
def test_a_uniform_model_is_perplexed_by_its_vocabulary(classes):
    assert metrics.perplexity(37 * math.log(classes), 37) == pytest.approx(classes, rel=1e-12)
    assert metrics.perplexity(1e6, 1) == math.inf


def test_bleu_counts_by_hand():
    """Each word of the reply is matched as often as the reference has it."""
    got = metrics.bleu_statistics(["the the cat sat on", "", "a b"], ["the cat sat", "x", "c b"])
    # the cat sat; the cat, cat sat; the cat sat.
    assert got.tolist() == [
        [3, 2, 1, 0, 5, 4, 3, 2, 5, 3],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 2, 1, 0, 0, 2, 2],
    ]
    with pytest.raises(ValueError, match="2 replies and 1 references"):
        metrics.bleu_statistics(["a", "b"], ["a"])


# All; no words at all; no word in common; none of three words, which is smoothed.
@pytest.mark.parametrize("chosen", [slice(None), slice(3, 4), slice(2, 3), slice(6, 7)])
def test_corpus_bleu_is_that_of_sacrebleu(chosen):
    replies, references = REPLIES[chosen], REFERENCES[chosen]
    counts = metrics.bleu_statistics(replies, references).sum(axis=0)
    want = sacrebleu.BLEU(tokenize="none").corpus_score(replies, [references])
    assert metrics.corpus_bleu(counts) == want.score
    assert (want.score > 0) == (chosen in (slice(None), slice(6, 7)))
    no_smoothing = sacrebleu.BLEU(tokenize="none", smooth_method="none")
    assert metrics.dialogue_bleu(counts) == no_smoothing.corpus_score(replies, [references]).score


def test_bleu_is_the_geometric_mean_times_the_brevity_penalty():
    counts = metrics.bleu_statistics(["a b c d e x"], ["a b c d e f g h"]).sum(axis=0)
    mean = (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** (1 / 4)
    want = 100 * math.exp(1 - 8 / 6) * mean
    assert metrics.corpus_bleu(counts) == pytest.approx(want, rel=1e-9)
    assert metrics.dialogue_bleu(counts) == pytest.approx(want, rel=1e-9)


def test_only_the_corpus_score_is_smoothed():
    counts = metrics.bleu_statistics(["a b c x"], ["a b c d"]).sum(axis=0)
    want = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / (2 * 1)) ** (1 / 4)  # half a match for none
    assert metrics.corpus_bleu(counts) == pytest.approx(want, rel=1e-9)
    assert metrics.dialogue_bleu(counts) == pytest.approx(0.0, abs=1e-9)


def test_a_copy_of_the_references_has_bleu_100():
    counts = metrics.bleu_statistics(REFERENCES, REFERENCES).sum(axis=0)
    assert metrics.corpus_bleu(counts) == pytest.approx(100.0, rel=1e-12)
    assert metrics.dialogue_bleu(counts) == pytest.approx(100.0, rel=1e-12)


def test_the_signature_tells_what_was_computed():
    version = importlib.metadata.version("sacrebleu")
    want = f"nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|version:{version}"
    assert metrics.bleu_signature() == want


def test_distinct_by_hand():
    texts = ["a b a b", "b a", "", "c"]
    assert metrics.distinct(texts, 1) == 3 / 7
    assert metrics.distinct(texts, 2) == 2 / 4  # ab ba ab, ba; none across replies
    assert metrics.distinct(["c"], 1) == 1.0
    assert metrics.distinct(texts, 5) == 0.0
    assert metrics.distinct([], 1) == 0.0


def test_consistency_by_hand():
    labels = [[1, 0, -1, 1], [0, -1], [], np.array([1, 1, 0])]
    rows = metrics.consistency_statistics(labels)
    assert rows.tolist() == [[1, 4, 2, 1], [1, 2, 0, 1], [1, 0, 0, 0], [1, 3, 2, 0]]
    # Sums over statements 1, -1, 0 and 2, then the mean over four replies.
    assert metrics.consistency(rows.sum(axis=0)) == (2 / 4, 4 / 9, 2 / 9)
    assert metrics.consistency(rows[1]) == (-1.0, 0.0, 1 / 2)


def test_consistency_of_nothing_is_not_a_number():
    no_reply = metrics.consistency(metrics.consistency_statistics([]).sum(axis=0))
    assert all(math.isnan(x) for x in no_reply)
    no_pair = metrics.consistency(metrics.consistency_statistics([[]]).sum(axis=0))
    assert no_pair.c == 0.0 and math.isnan(no_pair.entailment + no_pair.contradiction)


def test_an_unknown_label_is_named():
    with pytest.raises(ValueError, match=r"found labels \[0, 2\] of reply 1, want -1, 0 or 1"):
        metrics.consistency_statistics([[1], [0, 2]])


def gaussian(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size) * 3.0 + 5.0


@pytest.mark.parametrize("level, quantile", [(0.95, 1.9600), (0.8, 1.2816)])
def test_the_interval_of_a_mean_is_the_normal_one(level, quantile):
    values = gaussian(197)
    low, high = metrics.bootstrap_interval(
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
        low, high = metrics.bootstrap_interval(score, 101, seed=0)
        assert low < high
        return high - low

    paired = width(lambda drawn: second[drawn].mean() - first[drawn].mean())
    assert paired < 0.02 * width(lambda drawn: first[drawn].mean())


def test_seeds_and_personas_are_drawn_together():
    """A mean over both kinds varies by the sum of the two variances."""
    seeds, personas = gaussian(53), gaussian(61, seed=1)
    low, high = metrics.bootstrap_interval(
        lambda i, j: seeds[i].mean() + personas[j].mean(), (53, 61), seed=0, resamples=4000
    )
    spread = math.sqrt(seeds.var() / 53 + personas.var() / 61)
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.1)


def test_the_seed_fixes_the_draws():
    drawn = []

    def score(indices):
        drawn.append(indices.tolist())
        return gaussian(7)[indices].mean()

    first = metrics.bootstrap_interval(score, 7, seed=3, resamples=20)
    assert len(drawn) == 20 and all(len(d) == 7 for d in drawn)
    assert {i for d in drawn for i in d} == set(range(7))
    assert len({tuple(d) for d in drawn}) == 20 and any(len(set(d)) < 7 for d in drawn)
    assert metrics.bootstrap_interval(score, 7, seed=3, resamples=20) == first
    assert drawn[20:] == drawn[:20]
    assert metrics.bootstrap_interval(score, 7, seed=4, resamples=20) != first


def test_as_many_draws_as_were_asked_for():
    drawn = []
    score = lambda indices: drawn.append(indices) or len(drawn)  # noqa: E731
    assert metrics.bootstrap_interval(score, 7, seed=0, resamples=1) == (1.0, 1.0)
    metrics.bootstrap_interval(score, 7, seed=0)
    assert len(drawn) == 1 + 1000


def test_scores_that_are_undefined_are_left_out():
    values = np.array([1.0, 1.0, math.nan, math.nan, math.inf])
    low, high = metrics.bootstrap_interval(
        lambda drawn: values[drawn[0]], 5, seed=0, resamples=500, level=0.9
    )
    assert (low, high) == (1.0, math.inf)
    for lost in (
        metrics.bootstrap_interval(lambda drawn: math.nan, 5, seed=0),
        metrics.bootstrap_interval(lambda drawn: 1.0, 1, seed=0),
        metrics.bootstrap_interval(lambda i, j: 1.0, (1, 5), seed=0),
    ):
        assert all(math.isnan(x) for x in lost)


@pytest.mark.parametrize(
    "groups, settings",
    [(0, {}), ((), {}), (5, {"resamples": 0}), (5, {"level": 1.0}), (5, {"level": 0.0})],
)
def test_an_impossible_bootstrap_is_refused(groups, settings):
    with pytest.raises(ValueError, match="groups .* resamples .* level"):
        metrics.bootstrap_interval(lambda drawn: 1.0, groups, seed=0, **settings)


def test_replies_that_repeat_a_statement():
    statements = {"i like dogs.", "i am tall, and proud.", "."}
    replies = [
        "i like dogs .",
        "i like  dogs",
        "i am tall , and proud .",
        "i like dogs . you ?",
        "like dogs .",
        "dogs",
        "",
    ]
    assert metrics.repeat_share(replies, statements) == 3 / 7
    assert metrics.repeat_share(replies[:1], statements) == 1.0
    assert metrics.repeat_share([], statements) == 0.0


@pytest.mark.parametrize(
    "predicted, gold, want",
    [
        ("a b c", "c b a", 1.0),  # the order does not matter
        ("a a b", "a b b c", 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
        ("a", "b", 0.0),
        ("", "b", 0.0),
        ("", "", 1.0),
    ],
)
def test_token_f1_by_hand(predicted, gold, want):
    assert metrics.token_f1(predicted, gold) == pytest.approx(want, rel=1e-12)


def test_statements_found_word_for_word():
    statements = ["i like dogs.", "i am tall, and proud.", "my name is bob."]
    text = "i am tall , and proud i like big dogs my name is bob"
    assert metrics.statement_recall(text, statements) == 2 / 3
    assert metrics.statement_recall("i like dogsmy name is bobby", statements) == 0.0
    assert metrics.statement_recall("", statements) == 0.0
    assert math.isnan(metrics.statement_recall("i like dogs", ["."]))
