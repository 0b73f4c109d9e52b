"""Run one training of the study; after an interruption, the same call resumes it."""

from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.train.loop import Outcome, train
from mtml_jax.train.run import open_run


def train_run(config: TrainConfig, data: Prepared, workdir, study, bar) -> Outcome:
    """Trains in a folder whose lock the caller holds, within the study's limit of time.

    Raises:
      KeyboardInterrupt: the user stopped it; the next call resumes.
      FloatingPointError: the gradients are no longer finite.
    """
    saved = {**study.source, "preset": study.preset}
    with open_run(workdir, config, data, saved, lock=False) as run:
        outcome = train(
            config, data, run.log, run.checkpoints, lambda _: None, minutes=study.minutes, bar=bar
        )
    if outcome.reason == "interrupted":
        raise KeyboardInterrupt(outcome.signal)
    return outcome
