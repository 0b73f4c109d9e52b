"""Save a meta-trained start of a pretrained decoder in a small folder that adapts and chats.

It has adapters in PEFT's layout, which other programs read too, and the settings of the run. Every
command takes the folder where it takes that of a run, except that nothing is trained in it.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.pretrained_files import HUGGING_FACE
from mtml_jax.runs.files import write_json
from mtml_jax.runs.folder import START
from mtml_jax.runs.peft import write_peft
from mtml_jax.runs.versions import versions
from mtml_jax.types import Params


def write_start(
    folder: str | os.PathLike, params: Params, config: TrainConfig, saved: dict[str, Any],
    step: int, *, card: str = "", dtype: str = "float16"
) -> None:
    """Writes adapters and the settings that `runs.trained.load_trained` needs.

    Args:
      folder: is created if it does not exist.
      params: the adapters.
      config: settings of the run.
      saved: from `load_run` of the run.
      step: finished outer updates.
      card: text of README.md; none is written without one.
      dtype: of the numbers, float32 or float16.

    Raises:
      ValueError: the run has no pretrained decoder, or an adapter is not finite in this dtype.
    """
    write_adapters(folder, params, config, card=card, dtype=dtype)
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    others = {name: value for name, value in saved.items() if name not in known}
    found = {name: version for name, version in versions().items() if name != "platform"}
    record = {**dataclasses.asdict(config), **others, "step": step, "versions": found}
    write_json(Path(folder) / START, record)


def write_adapters(
    folder: str | os.PathLike, params: Params, config: TrainConfig, *, card: str = "",
    dtype: str = "float32"
) -> None:
    """Writes adapters for other programs; arguments and errors as for `write_start`."""
    model = decoder_of(config)
    base = HUGGING_FACE.get(config.init_from, config.init_from)
    write_peft(folder, params, model, base, card=card, dtype=dtype)


def decoder_of(config: TrainConfig) -> LlamaConfig:
    """The sizes of a run's decoder.

    Raises:
      ValueError: the run has none.
    """
    if not isinstance(config.model, LlamaConfig):
        raise ValueError(
            "expected a run with --init_from, got one of a Transformer, which has no adapters to "
            "export; share its folder instead"
        )
    return config.model
