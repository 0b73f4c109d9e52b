"""Run one training of the study; after an interruption, the same call resumes it."""

import dataclasses

from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.files import RunLog
from mtml_jax.runs.folder import save_run
from mtml_jax.train.loop import Outcome, train


def train_run(config: TrainConfig, data: Prepared, workdir, study, bar) -> Outcome:
    """Trains in a folder whose lock the caller holds.

    Args:
      config: settings of the training.
      data: corpus prepared for it.
      workdir: folder of the run, a `pathlib.Path`.
      study: the `Study`; its data, preset and time limit apply to all trainings.
      bar: progress bar.

    Raises:
      KeyboardInterrupt: the user stopped it; the next call resumes.
      FloatingPointError: the gradients are no longer finite.
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
