"""Writes and reads adapters in the layout of Hugging Face's PEFT, for `transformers` and others.

A folder holds adapter_config.json and adapter_model.safetensors; nothing is unpickled.

Axes: L adapted layer, I input, R rank, O output.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mtml_jax.config_decoder import LlamaConfig, LoraConfig
from mtml_jax.data.pretrained_files import missing_library, read_json
from mtml_jax.model.pretrained_folder import Safetensors
from mtml_jax.runs.files import write_bytes, write_json, write_text
from mtml_jax.runs.peft_settings import MODULES, first_layer, from_peft, to_peft
from mtml_jax.types import Params

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
PICKLE = "adapter_model.bin"
DTYPES = ("float32", "float16")


def write_peft(
    folder: str | os.PathLike,
    adapters: Params,
    config: LlamaConfig,
    base_name: str,
    *,
    card: str = "",
    dtype: str = "float32",
) -> None:
    """Writes adapters as `PeftModel.from_pretrained` reads them.

    The settings are written last, and old ones are removed first: a folder with settings is
    whole.

    Args:
      folder: is created if it does not exist.
      adapters: as from `lora.init`, of `config.lora`.
      config: sizes of the decoder.
      base_name: the decoder's name on Hugging Face, or its folder; `transformers` fetches the
        decoder by it.
      card: the text of README.md; none is written without one.
      dtype: of the numbers in the file, out of `DTYPES`.

    Raises:
      ValueError: the adapters are not those of `config`, or not finite in `dtype`.
      ImportError: the library of safetensors is not installed.
      OSError: a file cannot be written.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise missing_library(error) from None
    if dtype not in DTYPES:
        raise ValueError(f"expected a dtype out of {', '.join(DTYPES)}, got {dtype!r}")
    if set(adapters) != set(config.lora.targets):
        raise ValueError(
            f"expected adapters of {', '.join(config.lora.targets)}, got "
            f"{', '.join(adapters) or 'none'}; pass the settings that they were made with"
        )
    first = first_layer(config.lora, config)
    stacks = {
        (target, part): np.asarray(leaf)
        for target, adapter in adapters.items()
        for part, leaf in adapter.items()
    }
    tensors = {}
    for name, target, part, layer, shape in _entries(config.lora, config):
        stack = stacks[target, part]
        wanted = (config.layers - first, *shape[::-1])
        if stack.shape != wanted:
            raise ValueError(
                f"expected adapters of shape {wanted} as {part.upper()} of {target}, got "
                f"{stack.shape}; pass the settings that they were made with"
            )
        with np.errstate(over="ignore"):  # an infinity is refused below
            tensors[name] = np.ascontiguousarray(stack[layer - first].T.astype(dtype))
        if not np.isfinite(tensors[name]).all():
            raise ValueError(
                f"expected adapters that are finite in {dtype}, got others in layer {layer}, "
                f"{part.upper()} of {target}; adapt at a lower rate, or write float32"
            )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    write_bytes(folder / WEIGHTS, save(tensors, {"format": "pt"}))
    if card:
        write_text(folder / CARD, card)
    write_json(folder / CONFIG, to_peft(config.lora, config, base_name))


def read_peft(folder: str | os.PathLike, config: LlamaConfig) -> tuple[LoraConfig, Params]:
    """Reads adapters that PEFT or `write_peft` wrote.

    Args:
      folder: with adapter_config.json and adapter_model.safetensors.
      config: sizes of the decoder that they adapt; its `lora` is not read.

    Returns:
      (settings of the adapters, with targets in the order of `TARGETS`, adapters: see
      `lora.init`; float32 numpy arrays).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, an option is not implemented, or the adapters are of
        another decoder; one sentence.
      ImportError: the library of safetensors is not installed.
    """
    folder = Path(folder)
    path = folder / WEIGHTS
    if not path.is_file() and (folder / PICKLE).is_file():
        raise ValueError(
            f"{folder}: expected {WEIGHTS}, got {PICKLE}, which may run code when it is opened; "
            "save the adapters again with safe_serialization=True"
        )
    for required in (CONFIG, WEIGHTS):
        if not (folder / required).is_file():
            raise FileNotFoundError(
                f"{folder}: expected a folder of PEFT with {CONFIG} and {WEIGHTS}, got no {required}"
            )
    lora = from_peft(read_json(folder / CONFIG), config, str(folder / CONFIG))
    entries = list(_entries(lora, config))
    with Safetensors({}, folder) as file:
        file.add_all(path)
        if others := sorted(set(file.names) ^ {name for name, *_ in entries}):
            state = "another tensor," if others[0] in file.names else "no tensor"
            raise ValueError(
                f"{path}: expected the tensors of {', '.join(lora.targets)} in layers "
                f"{first_layer(lora, config)} to {config.layers - 1}, got {state} {others[0]}; the "
                "adapters belong to another decoder, or have an option that is not implemented"
            )
        matrices: dict[str, dict[str, list[np.ndarray]]] = {
            target: {"a": [], "b": []} for target in lora.targets
        }
        for name, target, part, _, shape in entries:  # layer by layer
            found = file.read(name)
            if found.shape != shape:
                raise ValueError(
                    f"{path}: expected tensor {name} of shape {shape}, got {found.shape}; the "
                    "adapters belong to another decoder, or are of another rank"
                )
            if not np.isfinite(found).all():
                raise ValueError(
                    f"{path}: expected finite numbers in {name}, got others; use adapters that "
                    "were saved before training failed"
                )
            matrices[target][part].append(found.T)
    adapters = {
        target: {part: np.stack(layers) for part, layers in parts.items()}
        for target, parts in matrices.items()
    }
    return lora, adapters


def _entries(
    lora: LoraConfig, config: LlamaConfig
) -> Iterator[tuple[str, str, str, int, tuple[int, int]]]:
    """(tensor, target, "a" or "b", layer, shape in the file) of every matrix."""
    width, inner = config.width, config.feed_forward
    queries, keys = (n * config.head_width for n in (config.heads, config.key_value_heads))
    sizes = {
        "query": (width, queries), "key": (width, keys), "value": (width, keys),
        "output": (queries, width), "gate": (width, inner), "up": (width, inner),
        "down": (inner, width),
    }  # fmt: skip
    for layer in range(first_layer(lora, config), config.layers):
        for target in lora.targets:
            inputs, outputs = sizes[target]
            name = f"base_model.model.model.layers.{layer}.{MODULES[target]}.lora_{{}}.weight"
            yield name.format("A"), target, "a", layer, (lora.rank, inputs)
            yield name.format("B"), target, "b", layer, (outputs, lora.rank)
