"""One training of the study, which the same call goes on with after a stop."""

from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.train.loop import Outcome, train
from mtml_jax.train.run import open_run


def train_run(config: TrainConfig, data: Prepared, workdir, study, bar) -> Outcome:
    """Trains in a folder whose lock the caller holds.

    Args:
      config: of the training.
      data: prepared for it.
      workdir: its folder, a `pathlib.Path`.
      study: `Study`, for what the folder's settings name beside `config`, and the most minutes.
      bar: progress.

    Raises:
      KeyboardInterrupt: it was stopped; the next call goes on.
      FloatingPointError: it has no finite gradient any more.
    """
    saved = {**study.source, "preset": study.preset}
    with open_run(workdir, config, data, saved, lock=False) as run:
        outcome = train(
            config, data, run.log, run.checkpoints, lambda _: None, minutes=study.minutes, bar=bar
        )
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt
    return outcome
