"""Keep the progress of a training run, and decide when the run stops."""

import dataclasses
import math
import signal
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from mtml_jax.config import TrainConfig


class Progress(NamedTuple):
    """The record of a run in addition to its state; saved with every checkpoint."""

    best_score: float = math.inf  # the best validation score so far, a perplexity
    best_step: int = 0  # the step of that validation
    waited: int = 0  # validations since then
    tokens: int = 0  # target tokens that steps have read
    seconds: float = 0.0  # time that steps have taken, over all starts of the run
    skipped: int = 0  # steps without a finite loss or gradient
    skipped_in_a_row: int = 0  # the most recent steps of that kind

    @classmethod
    def restored(cls, counters: Mapping[str, Any]) -> "Progress":
        """Reads the counters of a checkpoint."""
        return cls(**{**counters, "best_score": float(counters["best_score"])})

    def counters(self) -> dict[str, Any]:
        """Returns the counters for a checkpoint, whose JSON has no infinity."""
        return {**self._asdict(), "best_score": str(self.best_score)}

    def after_step(self, tokens: float, seconds: float, finite: bool) -> "Progress":
        return self._replace(
            tokens=self.tokens + int(tokens), seconds=self.seconds + seconds,
            skipped=self.skipped + (not finite),
            skipped_in_a_row=0 if finite else self.skipped_in_a_row + 1
        )

    def after_validation(self, score: float, step: int) -> "Progress":
        if score < self.best_score:
            return self._replace(best_score=score, best_step=step, waited=0)
        return self._replace(waited=self.waited + 1)


def should_stop(
    progress: Progress, config: TrainConfig, *, interrupted: bool, out_of_time: bool
) -> str | None:
    """Returns why a run stops before its next step; None if it continues.

    `interrupted` is whether a signal asked the run to stop, and `out_of_time` whether steps have
    taken the minutes that they may take.
    """
    if progress.waited >= config.patience:
        return "no better score"
    if interrupted:
        return "interrupted"
    if progress.skipped_in_a_row >= config.max_skipped:
        return "no finite gradient"
    if out_of_time:
        return "out of minutes"
    return None


@dataclasses.dataclass
class Interruption:
    """Notes SIGTERM and SIGINT, so that the run ends after a whole step; restores handlers."""

    asked: int = 0  # the number of the signal, or 0

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGTERM, signal.SIGINT):
                self._before[name] = signal.signal(name, self._note)
        return self

    def _note(self, number, _):
        self.asked = number

    def __exit__(self, *_):
        for name, handler in self._before.items():
            signal.signal(name, handler)
