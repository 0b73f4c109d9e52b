"""Reads pretrained decoders of the Llama family: GGUF files and folders of Hugging Face.

GGUF files are of architecture llama, in any quantisation; folders hold Llama (SmolLM2 and
Llama 3 included), Qwen2 (Qwen2.5 included) or Qwen3 in safetensors. Nothing is unpickled.

Axes: L layer, I input, O output.
"""

from typing import NamedTuple

from mtml_jax.data.gguf_file import open_gguf
from mtml_jax.data.pretrained_files import digest, locate
from mtml_jax.data.subwords import Subwords, from_gguf, read_subwords
from mtml_jax.model.llama import LlamaConfig
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
    return Pretrained(name, digest(path), config, base, subwords)
