"""Reads pretrained decoders of the Llama family: GGUF files and folders of Hugging Face.

GGUF files are of architecture llama, in any quantisation; folders hold Llama (SmolLM2 and
Llama 3 included), Qwen2 (Qwen2.5 included) or Qwen3 in safetensors. Nothing is unpickled.

Axes: L layer, I input, O output.
"""

import dataclasses
import functools
from typing import NamedTuple

from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.gguf_file import open_gguf
from mtml_jax.data.pretrained_files import digest, locate
from mtml_jax.data.subwords import Subwords, from_gguf, read_subwords
from mtml_jax.model import lora
from mtml_jax.model.pretrained_folder import read_folder
from mtml_jax.model.pretrained_gguf import read_gguf
from mtml_jax.types import Params


class Pretrained(NamedTuple):
    """A pretrained decoder.

    Attributes:
      name: what `locate` found it by.
      digest: SHA-256 of its files, which a run stores.
      config: sizes of the decoder.
      base: {"embedding", "norm", "layers", "output" unless tied}; float32 numpy arrays,
        layers stacked, matrices [L, I, O].
      subwords: its tokenizer.
    """

    name: str
    digest: str
    config: LlamaConfig
    base: Params
    subwords: Subwords


def read_pretrained(name: str) -> Pretrained:
    """Reads a decoder with its tokenizer.

    Args:
      name: see `data.pretrained_files.locate`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, the architecture is another one, or tokenizer and
        decoder do not belong together.
      ImportError: weights or libraries are not installed.
    """
    path = locate(name)
    return _read(name, path, digest(path))


@functools.lru_cache(1)
def _read(name, path, found) -> Pretrained:
    if path.is_file():
        file = open_gguf(path)
        subwords, (config, base) = from_gguf(file), read_gguf(file)
    else:
        subwords, (config, base) = read_subwords(path), read_folder(path)
    if len(subwords) > config.vocabulary:
        raise ValueError(
            f"{path}: expected a tokenizer with at most the {config.vocabulary:,} tokens of the "
            f"decoder, got one with {len(subwords):,}; use the tokenizer that came with it"
        )
    return Pretrained(name, found, config, base, subwords)


def frozen_base(found: Pretrained, config: TrainConfig) -> Params:
    """The base whose adapters a run trains, parted into its frozen and its adapted layers.

    Raises:
      ValueError: the decoder has other sizes than the run's settings.
    """
    model = config.model
    assert isinstance(model, LlamaConfig)
    if _like(found.config, model) != model:
        raise ValueError(
            f"expected a decoder of the sizes {_sizes(model)}, got {found.name} of the sizes "
            f"{_sizes(found.config)}; choose the decoder that the settings belong to"
        )
    return lora.split_layers(found.base, model.lora)


def with_decoder(config: TrainConfig, name: str) -> TrainConfig:
    """The settings of a run that begins with another decoder; adapters and rows stay the same."""
    model = config.model
    assert isinstance(model, LlamaConfig)
    model = _like(read_pretrained(name).config, model)
    return dataclasses.replace(config, init_from=name, model=model)


def _like(sizes: LlamaConfig, model: LlamaConfig) -> LlamaConfig:
    return dataclasses.replace(sizes, lora=model.lora, dtype=model.dtype, remat=model.remat)


def _sizes(config):
    return ", ".join(
        f"{name} {getattr(config, name)}"
        for name in ("layers", "width", "heads", "key_value_heads", "feed_forward", "vocabulary")
    )
