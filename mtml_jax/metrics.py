"""Scores: numbers in, numbers out."""

import math


def perplexity(nll: float, tokens: float) -> float:
    """exp of the mean negative log-likelihood.

    Args:
      nll: summed over tokens, in nats.
      tokens: how many, at least one.

    Returns:
      The perplexity; infinity where it overflows.
    """
    try:
        return math.exp(float(nll) / float(tokens))
    except OverflowError:
        return math.inf
