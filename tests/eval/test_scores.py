"""Scores of systems: counted per persona, summed over drawn ones."""

import math

import numpy as np
import pytest

from mtml_jax.eval import metrics, scores
from mtml_jax.eval.scores import Answer, HeldOut, count
from mtml_jax.eval.statistics import (
    differences,
    differences_over_seeds,
    summarise,
    summarise_seeds,
)

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


def parts(statistics):
    everyone = np.arange(len(statistics["dialogues"]))
    names = scores.part_functions(statistics, scores.score_functions(statistics))
    return {name: scores.scorer(statistics, name)(everyone) for name in names}


def test_the_parts_of_consistency_and_of_facts_by_hand():
    """Own: 1 of 6 pairs entailed; shuffled: 2 of 5, in a reply each."""
    tests = [HeldOut(0, ("", ""), ("i sail .", "i ski ."), ("i sail .",))]
    tests.append(HeldOut(1, ("",), ("i bake .", "no"), ("i bake .", "i ski .", "no")))
    labels = {"c": lambda pairs: np.array([reply in about for reply, about in pairs], np.int8)}
    replies = [Answer(("i sail", "hm")), Answer(("i ski",))]
    found = parts(count(tests, replies, labels=labels))
    assert found["c_shuffled_entailment"] == pytest.approx(2 / 5)
    assert found["c_entailed_either"] == pytest.approx(1 / 6 + 2 / 5)
    assert found["c_own_share"] == pytest.approx((1 / 6) / (1 / 6 + 2 / 5))
    silent = parts(count(tests, [Answer(("hm", "hm")), Answer(("hm",))], labels=labels))
    assert silent["c_entailed_either"] == 0 and math.isnan(silent["c_own_share"])
    judged = [t._replace(verdict=lambda r: {"i sail": "stated"}.get(r, "contradicted")) for t in tests]
    found = parts(count(judged, replies))
    assert (found["facts_either"], found["facts_true_share"]) == pytest.approx((1, 1 / 3))


def test_perplexity_over_tokens_and_over_dialogues():
    tokens, nll = (10, 20, 70), (10 * math.log(2), 20 * math.log(4), 70 * math.log(8))
    answers = [Answer(g, n, t) for g, n, t in zip(GOLD, nll, tokens)]
    found = values(count(held_out(), answers))
    assert found["ppl"] == pytest.approx(math.exp(sum(nll) / 100))
    assert found["ppl_macro"] == pytest.approx((2 + 4 + 8) / 3)


def test_answers_are_shares_of_the_questions():
    judge = {"i sail": "right", "i bake": "wrong", "tea": "none"}.__getitem__
    tests = [
        test._replace(answers=answers)
        for test, answers in zip(held_out(), [(judge, None), (None,), (judge, judge, judge)])
    ]
    replies = [("i sail", "i bake"), ("i bake",), ("i bake", "tea", "i sail")]
    found = values(count(tests, [Answer(r) for r in replies]))
    wanted = {"right": 2 / 4, "wrong": 1 / 4, "other": 0, "none": 1 / 4}
    assert {name: found[f"answers_{name}"] for name in wanted} == wanted
    assert found["answers"] == 3 / 4
    assert "answers" not in values(count(held_out(), [Answer(gold) for gold in GOLD]))


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
    assert found["facts"] == pytest.approx(3 / 6 - 1 / 6)


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


def words_of(*lengths):
    """Statistics of personas with one reply each, of so many words."""
    tests = [HeldOut(persona, ("hm",), (), ()) for persona in range(len(lengths))]
    return count(tests, [Answer((" ".join("a" * n),)) for n in lengths])


def test_mean_over_seeds_by_hand():
    """Two seeds and two personas: a resample is a mean of two of four numbers."""
    runs = [words_of(2, 4), words_of(6, 12)]
    found = summarise_seeds(runs, ["length"], seed=0)["length"]
    assert found["seeds"] == [3, 9] and found["value"] == 6
    assert (found["low"], found["high"]) == (2, 12)  # one seed and one persona, drawn twice


def test_a_single_seed_leaves_the_interval_of_its_personas():
    run = words_of(2, 4, 9, 11)
    found = summarise_seeds([run], ["length", "c"], seed=5, resamples=70)
    want = summarise(run, seed=5, resamples=70)["length"]
    assert found == {"length": {**want, "seeds": [6.5]}}


def test_interval_over_seeds_has_the_closed_form():
    """Score = a(seed) + b(persona): the variance of a resample is var a / S + var b / P."""
    rng = np.random.default_rng(2)
    a, b = rng.integers(1, 40, 11), rng.integers(1, 40, 13)
    found = summarise_seeds([words_of(*(n + b)) for n in a], ["length"], seed=1)["length"]
    assert found["value"] == pytest.approx(a.mean() + b.mean())
    spread = 1.96 * math.sqrt(a.var() / 11 + b.var() / 13)
    assert found["high"] - found["low"] == pytest.approx(2 * spread, rel=0.08)


def test_differences_over_seeds_are_paired():
    """Worse by 3 words on every persona of every seed: nothing is left to vary."""
    ones = [words_of(2, 9, 30), words_of(40, 3, 7)]
    others = [words_of(5, 12, 33), words_of(43, 6, 10)]
    found = differences_over_seeds(ones, others, ["length", "facts"], seed=0, resamples=30)
    assert list(found) == ["length"]  # no facts are known here
    for number in ("value", "low", "high", "seeds"):
        assert found["length"][number] == pytest.approx([-3, -3] if number == "seeds" else -3)
    mixed = differences_over_seeds(ones, others[::-1], ["length"], seed=0)["length"]
    assert mixed["seeds"] == pytest.approx([(41 - 59) / 3, (50 - 50) / 3])


@pytest.mark.parametrize("ones, others", [([], []), ([words_of(1)] * 2, [words_of(1)])])
def test_runs_that_cannot_be_compared(ones, others):
    with pytest.raises(ValueError, match="expected .*got runs of"):
        differences_over_seeds(ones, others, ["length"], seed=0)
    with pytest.raises(ValueError, match="expected .*got runs of 1 and 2 personas"):
        summarise_seeds([words_of(1), words_of(1, 2)], ["length"], seed=0)


def test_statistics_as_lists_lack_distinct_ngrams():
    kept = {name: x for name, x in words_of(2, 3).items() if not name.startswith("distinct")}
    again = {name: np.array(x.tolist()) for name, x in kept.items()}
    found = values(again)
    assert "distinct_1" not in found and "distinct_2" not in found and found["length"] == 2.5
