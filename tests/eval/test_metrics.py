"""Scores against values worked out by hand, and against the libraries they follow."""

import importlib.metadata
import math

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
