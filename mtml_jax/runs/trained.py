"""Load a trained model from a run's folder."""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtml_jax.config import TrainConfig
from mtml_jax.config_eval import CHECKPOINTS, Checkpoint
from mtml_jax.data.encode import Encoding
from mtml_jax.data.layout import encoding_of
from mtml_jax.data.strands import RowEncoding
from mtml_jax.data.subwords import Subwords
from mtml_jax.data.vocab import Vocabulary
from mtml_jax.model import lora
from mtml_jax.model.pretrained import frozen_base, read_pretrained
from mtml_jax.runs.checkpoint import Saved, restore_params
from mtml_jax.runs.folder import START, load_run, restored_config
from mtml_jax.runs.peft import read_peft
from mtml_jax.types import Params


class Trained(NamedTuple):
    """A trained model.

    Attributes:
      config: the run's settings.
      vocabulary: the run's words, or the subwords of a pretrained decoder.
      params: the initial parameters phi, from the checkpoint.
      step: finished outer updates when the checkpoint was saved.
      workdir: folder of the run.
      base: the frozen parameters of a pretrained decoder, whose adapters `params` are.
    """

    config: TrainConfig
    vocabulary: Vocabulary | Subwords
    params: Params
    step: int
    workdir: str
    base: Params | None = None

    @property
    def encoding(self) -> Encoding | RowEncoding:
        """How the model reads dialogues."""
        return encoding_of(self.config, self.vocabulary)


def load_trained(workdir: str | os.PathLike, checkpoint: Checkpoint = "best") -> Trained:
    """Reads a trained model; nothing is written into the run's folder.

    Args:
      workdir: folder of a training run, or of a start (`runs.starts`).
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
    if text is None:
        return _load_adapters(workdir, checkpoint, config, saved)
    vocabulary = Vocabulary.from_text(text)
    restored = restore_params(workdir, checkpoint)
    words = restored.params["embedding"].shape[0]
    if words != len(vocabulary):
        raise ValueError(
            f"{workdir}: expected the vocabulary of {words:,} words that the checkpoint was "
            f"trained with, got {len(vocabulary):,} words in vocabulary.txt; restore the run's file"
        )
    return Trained(config, vocabulary, restored.params, restored.step, str(workdir))


def _load_adapters(workdir, checkpoint, config, saved) -> Trained:
    found = read_pretrained(config.init_from)
    if found.digest != saved.get("init_digest"):
        raise ValueError(
            f"{workdir}: expected the decoder that the run began with, of digest "
            f"{str(saved.get('init_digest'))[:12]}, got {config.init_from} of digest "
            f"{found.digest[:12]}; restore its files"
        )
    base = frozen_base(found, config)
    if (Path(workdir) / START).is_file():
        lora_config, params = read_peft(workdir, config.model)
        if lora_config.targets != config.model.lora.targets:
            raise ValueError(
                f"{workdir}: expected adapters of {', '.join(config.model.lora.targets)}, got "
                f"those of {', '.join(lora_config.targets)}; export the run again"
            )
        restored = Saved(jax.tree.map(jnp.asarray, params), int(saved["step"]), {})
    else:
        restored = restore_params(workdir, checkpoint)
    template = jax.eval_shape(lambda: lora.init(jax.random.key(0), base, config.model.lora))
    if jax.tree.map(jnp.shape, restored.params) != jax.tree.map(jnp.shape, template):
        raise ValueError(
            f"{workdir}: expected adapters of the sizes in config.json, got others in the "
            f"{checkpoint} checkpoint; restore the run's files"
        )
    return Trained(
        config, found.subwords, restored.params, restored.step, str(workdir),
        jax.tree.map(jnp.asarray, base)
    )  # fmt: skip
