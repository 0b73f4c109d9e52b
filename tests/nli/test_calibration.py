"""Tests the calibration: the fitted bias, the natural shares and the drawn replies."""

import numpy as np
import pytest
from scipy.special import log_softmax

from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.personas import group_personas
from mtml_jax.nli.calibration import NATURAL, draw_replies, fit_bias, labels_of, natural_bias


def test_the_bias_of_least_log_loss():
    """It beats its neighbours, undoes a known shift, and needs all three classes."""
    rng = np.random.default_rng(0)
    truth = np.array([0.7, 0.0, -1.3])
    logits = 2 * rng.standard_normal((20_011, 3))
    chances = np.exp(log_softmax(logits + truth[None], axis=-1))
    classes = (rng.random((20_011, 1)) > chances.cumsum(1)).sum(1)
    weights = rng.random(20_011)
    bias = fit_bias(log_softmax(logits, axis=-1), classes, weights)
    np.testing.assert_allclose(bias, truth, atol=0.1)
    assert bias[1] == 0

    def log_loss(bias):
        return -weights @ log_softmax(logits + bias[None], axis=-1)[np.arange(20_011), classes]

    for step in (1e-3, -1e-3):
        assert log_loss(bias) < log_loss(bias + [step, 0, 0])
        assert log_loss(bias) < log_loss(bias + [0, 0, step])
    with pytest.raises(ValueError, match="expected pairs of all three classes, got no pair of class contradiction"):
        fit_bias(log_softmax(logits, axis=-1), np.minimum(classes, 1), weights)


def test_labels_of_scores():
    scores = np.log([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    assert labels_of(scores).tolist() == [1, 0, -1]
    assert labels_of(scores, np.log([1, 2, 1])).tolist() == [0, 0, -1]


def test_the_bias_makes_mean_probabilities_the_natural_shares():
    """By the first-order condition of the log loss; own and other pairs have half the weight each."""
    rng = np.random.default_rng(0)
    own, other = (log_softmax(rng.standard_normal((n, 3)), axis=-1) for n in (11, 53))
    bias = natural_bias(own, other)
    means = [np.exp(log_softmax(s + bias[None], axis=-1)).mean(0) for s in (own, other)]
    np.testing.assert_allclose(np.mean(means, 0), NATURAL, atol=1e-9)
    assert sum(NATURAL) == pytest.approx(1)


def test_replies_are_paired_with_own_and_other_statements():
    personas = group_personas(demo_corpus("valid"))
    own, other = draw_replies(personas, 31, np.random.default_rng(0))
    assert len(own) == len(other) == 31
    speakers = {}
    for persona in personas:
        for dialogue in persona.dialogues:
            for turn in dialogue.turns:
                speakers.setdefault(turn.response, []).append((persona.name, dialogue.statements))
    for mine, theirs in zip(own, other, strict=True):
        (reply,) = {reply for reply, _ in mine + theirs}
        said_by = speakers[reply]
        assert tuple(statement for _, statement in mine) in [statements for _, statements in said_by]
        assert any(tuple(s for _, s in theirs) != statements for _, statements in said_by)
