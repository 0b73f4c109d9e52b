"""Begin a run: resume from its latest checkpoint, or draw the initial parameters."""

import dataclasses

import jax
import jax.numpy as jnp

from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.meta.outer import init_state
from mtml_jax.model import lora, transformer
from mtml_jax.model.pretrained import frozen_base, read_pretrained
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.peft import read_peft
from mtml_jax.sharding import Placement
from mtml_jax.train.stopping import Progress
from mtml_jax.types import MetaState


def initial_state(config: TrainConfig, data: Prepared, base=None) -> MetaState:
    """Returns the state before iteration 1: random parameters, with word vectors if there are.

    `base` is of a pretrained decoder, whose adapters are the parameters; they change nothing yet,
    unless they are read from a folder.

    Raises:
      FileNotFoundError: the folder of the adapters does not exist.
      ValueError: its adapters are not those of the settings.
    """
    key = jax.random.key(config.seed)
    if isinstance(config.model, LlamaConfig):
        if config.adapters_from:
            return init_state(_read_adapters(config.adapters_from, config.model))
        return init_state(lora.init(key, base, config.model.lora))
    params = transformer.init(key, len(data.vocabulary), config.model, data.embedding)
    return init_state(params)


def resume_or_start(
    config: TrainConfig, data: Prepared, checkpoints: Checkpoints, placement: Placement, base=None
) -> tuple[MetaState, Progress]:
    """Returns the state of the latest checkpoint, or the initial one where there is none."""
    latest = checkpoints.latest_step()
    if latest is None:
        return placement.place(initial_state(config, data, base)), Progress()
    new = dataclasses.replace(config, adapters_from="")  # the run has its own by now
    state, counters = checkpoints.restore(latest, placement.place(initial_state(new, data, base)))
    return state, Progress.restored(counters)


def _read_adapters(folder, model):
    found, adapters = read_peft(folder, model)
    if found != dataclasses.replace(model.lora, initialiser=found.initialiser):
        raise ValueError(
            f"expected adapters of the settings {model.lora}, got {found} in {folder}; leave out "
            "the --lora_ flags"
        )
    return jax.tree.map(jnp.asarray, adapters)


def read_base(config: TrainConfig):
    """Reads the frozen parameters of a pretrained decoder; None for a Transformer."""
    return frozen_base(read_pretrained(config.init_from), config) if config.init_from else None
