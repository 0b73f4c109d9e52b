"""Compute the rates of an outer step: alpha, and the learning rates with their warm-up."""

import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.types import Rates


def rates_at(config: TrainConfig, step: int) -> Rates:
    """Returns alpha and the learning rates of outer step `step` (from 0), warm-up included."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return Rates(
        np.float32(config.alpha), np.float32(config.inner_lr), np.float32(config.outer_lr * warm)
    )
