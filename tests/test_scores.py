"""Scores of systems: counted per persona, summed over drawn ones."""

import math

import numpy as np
import pytest

from mtml_jax import metrics, scores
from mtml_jax.scores import Answer, HeldOut, count, differences, summarise

GOLD = (
    ("i sail the wide sea every day", "no , my cat is at home"),
    ("we bake bread at night for the town",),
    ("yes i do love my two big dogs", "so do i", "see you then my friend"),
)
STATEMENTS = (("i sail .", "i have a cat ."), ("i bake .",), ("i have dogs .", "i walk ."))


def held_out(**changes):
    return [
        HeldOut(persona, GOLD[n], STATEMENTS[n], STATEMENTS[(n + 1) % 3])._replace(**changes)
        for n, persona in enumerate((7, 3, 7))
    ]


def values(statistics):
    return {name: score["value"] for name, score in summarise(statistics, seed=0).items()}


def word_label(pairs):
    """Entailed if reply and statement share a noun; contradicted if the reply says no."""
    labels = []
    for reply, statement in pairs:
        shared = {"sail", "cat", "bake", "dogs"} & set(reply.split()) & set(statement.split())
        labels.append(1 if shared else -1 if "no" in reply.split() else 0)
    return np.array(labels, np.int8)


def test_a_copy_of_the_gold_has_bleu_100():
    found = values(count(held_out(), [Answer(gold) for gold in GOLD]))
    assert found["bleu"] == pytest.approx(100)
    # Replies of three words have no 4-gram, but every dialogue here has one.
    assert found["bleu_dialogue"] == pytest.approx(100)
    assert "ppl" not in found and "c" not in found and "stated" not in found
    assert found["length"] == pytest.approx((7 + 7 + 8 + 8 + 3 + 5) / 6)


def test_consistency_by_hand():
    answers = [Answer(gold) for gold in GOLD]
    labels = {"c": word_label, "other": lambda pairs: 0 * word_label(pairs)}
    found = values(count(held_out(), answers, labels=labels))
    # Own statements: sail +1; cat +1 and "no" -1; bake +1; dogs +1 and the rest neutral.
    assert found["c"] == pytest.approx((1 + 0 + 1 + 1 + 0 + 0) / 6)
    assert found["c_entailment"] == pytest.approx(4 / 11)
    assert found["c_contradiction"] == pytest.approx(1 / 11)
    # Shuffled: the statements of the next dialogue; only "no" says something.
    assert found["c_shuffled"] == pytest.approx(-1 / 6)
    assert found["c_own_minus_shuffled"] == pytest.approx(3 / 6 + 1 / 6)
    assert found["other"] == found["other_shuffled"] == 0


def test_perplexity_over_tokens_and_over_dialogues():
    tokens, nll = (10, 20, 70), (10 * math.log(2), 20 * math.log(4), 70 * math.log(8))
    answers = [Answer(g, n, t) for g, n, t in zip(GOLD, nll, tokens)]
    found = values(count(held_out(), answers))
    assert found["ppl"] == pytest.approx(math.exp(sum(nll) / 100))
    assert found["ppl_macro"] == pytest.approx((2 + 4 + 8) / 3)


def test_repeats_distinct_and_facts():
    replies = (("i sail", "hm hm hm"), ("i sail .",), ("i do", "i sail", "no"))
    verdict = {"i sail": "stated", "i sail .": "stated", "no": "contradicted"}
    tests = held_out(verdict=lambda reply: verdict.get(reply, "ignored"))
    found = values(count(tests, [Answer(r) for r in replies], known_statements={"i sail ."}))
    assert found["repeats"] == pytest.approx(3 / 6)
    assert found["distinct_1"] == metrics.distinct(sum(replies, ()), 1) == pytest.approx(6 / 13)
    assert found["distinct_2"] == metrics.distinct(sum(replies, ()), 2)
    shares = [found[v] for v in scores.VERDICTS]
    assert shares == pytest.approx([3 / 6, 1 / 6, 2 / 6])


def test_what_some_dialogues_lack_is_not_scored():
    tests = held_out()
    tests[1] = tests[1]._replace(statements=())
    found = values(count(tests, [Answer(gold) for gold in GOLD], labels={"c": word_label}))
    assert "c" not in found
    answers = [Answer(gold, 1.0, 2) for gold in GOLD[:2]] + [Answer(GOLD[2])]
    assert "ppl" not in values(count(held_out(), answers))


def test_intervals_draw_whole_personas():
    """Two personas: a resample is one of them twice or both, so the bounds are known."""
    answers = [Answer(g, t * math.log(v), t) for g, v, t in zip(GOLD, (2, 4, 2), (10, 20, 70))]
    summary = summarise(count(held_out(), answers), seed=3)
    assert (summary["length"]["low"], summary["length"]["high"]) == (6, 8)  # words a reply
    found = summary["ppl"]
    assert (found["low"], found["high"]) == (pytest.approx(2), pytest.approx(4))
    mixed = math.exp((80 * math.log(2) + 20 * math.log(4)) / 100)
    assert found["value"] == pytest.approx(mixed)


def test_differences_are_paired():
    """A system that is worse by the same on every persona: the difference has no spread."""

    def answers(worse):
        return [Answer(g, 10 * math.log(v + worse), 10) for g, v in zip(GOLD, (2, 40, 2))]

    one, other = (count(held_out(), answers(worse)) for worse in (0, 1))
    found = differences(one, other, seed=0)["ppl_macro"]
    assert found["value"] == pytest.approx(-1)
    assert (found["low"], found["high"]) == (pytest.approx(-1), pytest.approx(-1))
    assert summarise(one, seed=0)["ppl_macro"]["high"] > 30
    assert "c" not in differences(one, other, seed=0)
