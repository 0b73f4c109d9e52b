"""Load a trained model from a run's folder."""

import os
from typing import NamedTuple

from mtml_jax.config import CHECKPOINTS, Checkpoint, TrainConfig, restored_config
from mtml_jax.data.vocab import Vocabulary
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.runs.folder import load_run
from mtml_jax.types import Params


class Trained(NamedTuple):
    """A trained model.

    Attributes:
      config: the run's settings.
      vocabulary: the run's words.
      params: the initial parameters phi, from the checkpoint.
      step: finished outer updates when the checkpoint was saved.
      workdir: folder of the run.
    """

    config: TrainConfig
    vocabulary: Vocabulary
    params: Params
    step: int
    workdir: str


def load_trained(workdir: str | os.PathLike, checkpoint: Checkpoint = "best") -> Trained:
    """Reads a trained model; nothing is written into the run's folder.

    Args:
      workdir: folder of a training run.
      checkpoint: "best" or "latest".

    Returns:
      The model; its arrays are on the default device, uncommitted.

    Raises:
      FileNotFoundError: the folder has no run or no such checkpoint.
      ValueError: `checkpoint` is neither of the two, the checkpoint is damaged, or
        checkpoint and vocabulary do not fit together.
    """
    if checkpoint not in CHECKPOINTS:
        raise ValueError(f"expected --checkpoint=best or latest, got {checkpoint!r}")
    saved, text = load_run(workdir)
    config = restored_config(saved)
    vocabulary = Vocabulary.from_text(text)
    restored = restore_params(workdir, checkpoint)
    words = restored.params["embedding"].shape[0]
    if words != len(vocabulary):
        raise ValueError(
            f"{workdir}: expected the vocabulary of {words:,} words that the checkpoint was "
            f"trained with, got {len(vocabulary):,} words in vocabulary.txt; restore the run's file"
        )
    return Trained(config, vocabulary, restored.params, restored.step, str(workdir))
