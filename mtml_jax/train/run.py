"""Train in a run's folder: settings, vocabulary, log and checkpoints around the loop."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from mtml_jax.checks import check_config
from mtml_jax.config import DataConfig, TrainConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.pretrained_files import digest, locate
from mtml_jax.data.vocab import Vocabulary
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.folder import save_run
from mtml_jax.runs.lock import WorkdirLock
from mtml_jax.runs.log import RunLog
from mtml_jax.train.loop import Outcome, train


class OpenRun(NamedTuple):
    """A run's folder while it is trained."""

    log: RunLog | None  # rows of steps and validations; None in processes other than the first
    checkpoints: Checkpoints  # of the run; their `notes` say what had to be repaired


@contextlib.contextmanager
def open_run(
    workdir: str | os.PathLike, config: TrainConfig, data: Prepared, saved: dict[str, Any], *,
    lock: bool = True
) -> Iterator[OpenRun]:
    """Opens a run's folder for training; the first process makes it.

    A run in the folder is continued. `data` is from `prepare` with the same settings; `saved` has
    further entries of config.json: the corpus (`DataConfig.to_saved`), the preset. Without `lock`,
    the caller holds the folder's lock.

    Raises:
      ValueError: a setting is out of its range, the folder holds a run with other settings or
        words, or another process trains in it.
    """
    check_config(config)
    first = jax.process_index() == 0  # it writes everything but arrays
    with contextlib.ExitStack() as stack:
        if first:
            if lock:
                stack.enter_context(WorkdirLock(workdir))
            text = None
            if isinstance(data.vocabulary, Vocabulary):
                text = data.vocabulary.to_text()
            else:
                saved = {**saved, "init_digest": digest(locate(config.init_from))}
            save_run(workdir, {**dataclasses.asdict(config), **saved}, text)
        checkpoints = stack.enter_context(Checkpoints(workdir))
        log = None
        if first:
            log = stack.enter_context(RunLog(workdir, checkpoints.latest_step() or 0))
            for note in (*data.notes, *checkpoints.notes):
                log.note(0, note)
        yield OpenRun(log, checkpoints)


def train_run(
    config: TrainConfig, data: Prepared, workdir: str | os.PathLike,
    source: DataConfig = DataConfig(), **options: Any
) -> Outcome:
    """Trains in a folder, from its latest checkpoint if it has one.

    Args:
      config: settings of the run.
      data: from `prepare` with the same settings.
      workdir: folder of the run.
      source: the corpus that `data` was prepared from; evaluation reads the same.
      **options: keyword arguments of `train`.

    Returns:
      Outcome; the folder then holds the latest and the best checkpoint.
    """
    with open_run(workdir, config, data, source.to_saved()) as run:
        return train(config, data, run.log, run.checkpoints, **options)
