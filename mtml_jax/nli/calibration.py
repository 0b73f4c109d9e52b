"""Calibrates an NLI classifier to the class shares of real dialogues.

A classifier trained on balanced classes finds too many contradictions in real dialogues,
where most statements are unrelated to most replies. Calibration adds a number to the
log-probability of each class (Saerens et al., 2002: the ratio of the priors). The numbers
are fitted once and stored in `calibration.json` next to the weights.

Columns of scores: entailment, neutral, contradiction.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from mtml_jax.data.records import Persona
from mtml_jax.nli.dialogue_nli import CLASSES, LabelledPair
from mtml_jax.progress import ProgressBar

CALIBRATION = "calibration.json"
SIGNS = np.array([1, 0, -1], np.int8)  # of entailment, neutral, contradiction

# Class shares of pairs of a PersonaChat reply and a statement, if half of the statements
# are from the speaker's own dialogue and half from another persona, as when C is compared
# with C against shuffled personas. Counted on valid: of 200 pairs with an own statement
# 23.5 are entailed and 0.5 contradicted; of 300 pairs with another persona's statement 1
# is entailed and 10 are contradicted. (A doubtful pair counts half. A single annotator, a
# language model, judged the pairs one by one before any scorer was run.) A check without
# judgement: own pairs share a rare word more often than other pairs by 12 % of the excess
# of labelled entailments (the label-shift estimate of Lipton et al., 2018).
NATURAL = (0.060, 0.922, 0.018)

_CALIBRATION_REPLIES = 500


def calibrate(
    score: Callable[[Sequence[tuple[str, str]], Callable[[int], object]], np.ndarray],
    labelled: Sequence[LabelledPair],
    personas: Sequence[Persona],
    *,
    replies: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fits the bias on one half of the personas, and measures C on the other half.

    Args:
      score: (pairs, progress) -> float [N, 3] uncalibrated log-probabilities.
      labelled: pairs on which accuracy is measured; the bias does not depend on them.
      personas: four or more, with statements; none of them seen in training.
      replies: number of replies for which C is measured.
      seed: random seed of the two halves, the replies and the other personas.

    Returns:
      (content of calibration.json, report): "uncalibrated" and "calibrated" hold accuracy,
      confusion matrix (rows: true class) and C of human replies, with their own statements
      and with those of another persona.
    """
    # Draw replies for the fit from one half, and replies for C from the other.
    order = np.random.default_rng(seed).permutation(len(personas))
    halves = [[personas[n] for n in sorted(half)] for half in np.array_split(order, 2)]
    counts = (_CALIBRATION_REPLIES, replies)
    drawn = [
        draw_replies(half, count, np.random.default_rng((seed, number)))
        for number, (half, count) in enumerate(zip(halves, counts, strict=True))
    ]
    # Score all pairs.
    pairs = [(pair.reply, pair.statement) for pair in labelled]
    total = len(pairs) + sum(len(pair) for own, other in drawn for pair in (*own, *other))
    clock = time.monotonic()
    with ProgressBar(total=total, unit="pair", desc="scoring") as bar:
        labelled_scores = score(pairs, bar.update)
        natural_scores = [
            [score([pair for reply in side for pair in reply], bar.update) for side in both]
            for both in drawn
        ]
    report: dict[str, Any] = {"pairs_per_second": total / (time.monotonic() - clock)}
    # Fit the bias, and report the scorer with and without it.
    bias = natural_bias(*natural_scores[0])
    classes = np.array([pair.label for pair in labelled])
    for name, added in {"uncalibrated": None, "calibrated": bias}.items():
        predicted = 1 - labels_of(labelled_scores, added).astype(int)
        confusion = np.zeros((3, 3), int)
        np.add.at(confusion, (classes, predicted), 1)
        # C: the sum over the statements of a reply, then the mean over replies.
        human, shuffled = (
            float(labels_of(scores, added).sum() / len(side))
            for scores, side in zip(natural_scores[1], drawn[1], strict=True)
        )
        report[name] = {
            "accuracy": float(np.mean(predicted == classes)),
            "confusion": confusion.tolist(),
            "human_c": human,
            "shuffled_c": shuffled,
        }
    calibration = {
        "bias": dict(zip(CLASSES, map(float, bias), strict=True)),
        "shares": dict(zip(CLASSES, NATURAL, strict=True)),
        "pairs": sum(len(scores) for scores in natural_scores[0]),
        "fitted": "log loss of the shares on valid replies with all statements of their own "
        "dialogue and of a dialogue of another persona, half the weight each",
    }
    return calibration, report


def labels_of(scores: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Returns the signs of the most likely classes: +1 entailment, 0 neutral, -1 contradiction.

    Scores are float [N, 3] log-probabilities, the bias is float [3], and signs are int8 [N].
    """
    shifted = scores if bias is None else scores + np.asarray(bias)[None]
    return SIGNS[np.argmax(shifted, axis=-1)]


def fit_bias(scores: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fits the bias of the least weighted log loss; the bias of neutral is fixed at 0.

    Minimises -sum_n w_n log softmax(scores_n + bias)[classes_n], convex in the bias, by
    Newton's method with steps of at most 1.

    Args:
      scores: float [N, 3] log-probabilities.
      classes: int [N], indices of the columns.
      weights: float [N], not negative.

    Returns:
      float64 [3].

    Raises:
      ValueError: a class has no weight, so that its bias would diverge.
    """
    shares = np.bincount(classes, weights, minlength=3) / weights.sum()
    if not np.all(shares > 0):
        missing = CLASSES[int(np.argmin(shares))]
        raise ValueError(f"expected pairs of all three classes, got no pair of class {missing}")
    weights = weights / weights.sum()
    bias, free = np.zeros(3), np.array([0, 2])
    for _ in range(100):
        expected = softmax(scores.astype(np.float64) + bias[None], axis=-1)
        gradient = (weights @ expected - shares)[free]
        hessian = np.diag(weights @ expected) - (expected * weights[:, None]).T @ expected
        step = np.linalg.solve(hessian[np.ix_(free, free)], gradient)
        bias[free] -= step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-10:
            break
    return bias


def natural_bias(own_scores: np.ndarray, other_scores: np.ndarray) -> np.ndarray:
    """Fits the bias to naturally distributed pairs, whose class shares are `NATURAL`.

    The log loss of a bias depends on the labels only through their shares: its gradient is
    the mean predicted probability of a class minus the share of the class. The shares are
    therefore sufficient, and each pair is used once with every label, weighted by them.

    Args:
      own_scores: float [N, 3], of replies with statements of their own dialogue.
      other_scores: float [M, 3], of replies with statements of another persona.

    Returns:
      float64 [3].
    """
    scores = np.concatenate([own_scores, other_scores])
    counts = np.array([len(own_scores), len(other_scores)])
    weights = np.outer(NATURAL, np.repeat(0.5 / counts, counts)).ravel()
    return fit_bias(np.tile(scores, (3, 1)), np.repeat(np.arange(3), len(scores)), weights)


def draw_replies(personas: Sequence[Persona], count: int, rng: np.random.Generator):
    """Draws replies, and pairs each with the statements of its own and of another dialogue.

    Of two or more personas with statements, `count` replies are drawn, or all if they have fewer.

    Returns:
      (own, other): for each reply, the list of its pairs with statements of its own dialogue,
      and with those of a dialogue of another persona.
    """
    replies = [
        (number, dialogue, turn.response)
        for number, persona in enumerate(personas)
        for dialogue in persona.dialogues
        for turn in dialogue.turns
    ]
    own, other = [], []
    for index in rng.permutation(len(replies))[:count]:
        number, dialogue, reply = replies[index]
        stranger = personas[(number + rng.integers(1, len(personas))) % len(personas)]
        foreign = stranger.dialogues[rng.integers(len(stranger.dialogues))]
        own.append([(reply, statement) for statement in dialogue.statements])
        other.append([(reply, statement) for statement in foreign.statements])
    return own, other


def read_bias(folder: str | os.PathLike) -> np.ndarray:
    """Reads the bias of a folder's calibration.json, float64 [3]; zeros without that file.

    Raises:
      ValueError: the file does not have a finite number for each class.
    """
    path = Path(folder) / CALIBRATION
    if not path.is_file():
        return np.zeros(3)
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))["bias"]
        bias = np.array([float(numbers[name]) for name in CLASSES])
        if not np.all(np.isfinite(bias)):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f'{path}: expected {{"bias": {{"{CLASSES[0]}": number, ...}}}}, got no finite number for '
            "each class; python -m experiments.train_nli writes this file"
        ) from None
    return bias
