"""One training of the study, which the same call goes on with after a stop."""

import dataclasses

from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.folder import save_run
from mtml_jax.runs.log import RunLog
from mtml_jax.train.loop import Outcome, train


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
    save_run(
        workdir,
        {**dataclasses.asdict(config), **study.source, "preset": study.preset},
        data.vocabulary.to_text(),
    )
    with Checkpoints(workdir) as checkpoints:
        with RunLog(workdir, checkpoints.latest_step() or 0) as log:
            outcome = train(
                config, data, log, checkpoints, lambda _: None, minutes=study.minutes, bar=bar
            )
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt
    return outcome
