"""Reads folders of Hugging Face as the base of `llama`: Llama, Qwen2 and Qwen3 in safetensors."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.pretrained_files import CONFIG, missing_library, read_json, weight_files
from mtml_jax.model.pretrained_layout import arrange, checked_config, ratio, require_all_used
from mtml_jax.types import Params

FAMILIES = ("llama", "qwen2", "qwen3")

LAYER = {
    "attention_norm": "input_layernorm.weight",
    "query": "self_attn.q_proj.weight",
    "key": "self_attn.k_proj.weight",
    "value": "self_attn.v_proj.weight",
    "output": "self_attn.o_proj.weight",
    "feed_forward_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
_ALSO = {
    "llama": {},
    "qwen2": {
        "query_bias": "self_attn.q_proj.bias",
        "key_bias": "self_attn.k_proj.bias",
        "value_bias": "self_attn.v_proj.bias",
    },
    "qwen3": {"query_norm": "self_attn.q_norm.weight", "key_norm": "self_attn.k_norm.weight"},
}


def read_folder(folder: Path) -> tuple[LlamaConfig, Params]:
    """Reads config.json and the safetensors of a folder of Hugging Face.

    Returns:
      (sizes of the decoder, its base: see `pretrained.Pretrained`).

    Raises:
      FileNotFoundError: there are no weights.
      ValueError: the architecture is another one, or a file is damaged.
      ImportError: the library of safetensors is not installed.
    """
    folder = Path(folder)
    settings = read_json(folder / CONFIG)
    config, family, tied = _config(settings, folder / CONFIG)
    files = weight_files(folder)
    with Safetensors(files if isinstance(files, dict) else {}, folder) as tensors:
        if isinstance(files, Path):
            tensors.add_all(files)
        layer = LAYER | _ALSO[family]
        names = {leaf: f"model.layers.{{}}.{name}" for leaf, name in layer.items()}
        top = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight"}
        if not tied:
            top["output"] = "lm_head.weight"
        base, used = arrange(tensors.read, names, top, config, str(folder))
        require_all_used(
            {n for n in tensors.names if n != "lm_head.weight" and "rotary_emb" not in n},
            used,
            str(folder),
            family,
        )
    return config, base


def _config(settings, where):
    """(LlamaConfig, family, whether the output matrix is the embedding)."""
    family = settings.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"{where}: expected model_type {', '.join(FAMILIES)}, got {family!r}; other "
            "architectures are not implemented"
        )
    # Qwen2's biases on query, key and value are not a setting.
    wanted = {
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "use_sliding_window": False, "quantization_config": None, "partial_rotary_factor": 1.0,
    }  # fmt: skip
    for name, value in wanted.items():
        if settings.get(name, value) != value:
            raise ValueError(
                f"{where}: expected {name} {value!r}, got {settings[name]!r}; this variant is "
                "not implemented"
            )
    heads, width = settings.get("num_attention_heads"), settings.get("hidden_size")
    sizes = {
        "layers": settings.get("num_hidden_layers"),
        "width": width,
        "heads": heads,
        "key_value_heads": settings.get("num_key_value_heads") or heads,
        "head_width": settings.get("head_dim") or ratio(width, heads),
        "feed_forward": settings.get("intermediate_size"),
        "vocabulary": settings.get("vocab_size"),
    }
    # Since transformers 5 both stand in rope_parameters.
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    theta = settings.get("rope_theta") or rope.get("rope_theta") or 10000.0
    factors = _rope_factors(rope, theta, sizes["head_width"], where)
    config = checked_config(sizes, settings.get("rms_norm_eps", 1e-6), theta, factors, where)
    return config, family, bool(settings.get("tie_word_embeddings", False))


def _rope_factors(rope, theta, size, where):
    """The numbers by which the rates of the rotation are divided."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return ()
    half = ratio(size, 2) or 0
    try:
        factor = float(rope["factor"])
        if kind == "linear":
            return (factor,) * half
        if kind != "llama3":
            raise ValueError
        low, high, length = (
            float(rope[name])
            for name in (
                "low_freq_factor",
                "high_freq_factor",
                "original_max_position_embeddings",
            )  # fmt: skip
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{where}: expected rope_type default, linear or llama3 with its factors, got {rope}"
        ) from None
    # Long waves turn slower by the factor, short ones as before, those between are mixed.
    waves = 2 * math.pi * theta ** (np.arange(half) / half)
    smooth = np.clip((length / waves - low) / (high - low), 0.0, 1.0)
    return tuple(float(f) for f in 1.0 / (smooth + (1.0 - smooth) / factor))


class Safetensors:
    """Tensors of several files by name; files are mapped, and closed at the end."""

    def __init__(self, files: dict[str, Path], folder: Path):
        try:
            import safetensors
        except ImportError as error:
            raise missing_library(error) from None
        self._library = safetensors
        self._folder = folder
        self._files = files
        self._open: dict[Path, Any] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open.clear()

    @property
    def names(self) -> Collection[str]:
        return self._files.keys()

    def add_all(self, path: Path) -> None:
        self._files |= dict.fromkeys(self._opened(path).keys(), path)

    def read(self, name: str) -> np.ndarray:
        if name not in self._files:
            raise ValueError(f"{self._folder}: expected a tensor {name}, got weights without it")
        path = self._files[name]
        try:
            tensor = self._opened(path).get_tensor(name)
            if not jnp.issubdtype(tensor.dtype, jnp.floating):  # bfloat16 is no floating of numpy
                raise TypeError(f"its type is {tensor.dtype}")
            return tensor.astype(np.float32)
        except (self._library.SafetensorError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}: expected tensor {name} as numbers, got none ({error})"
            ) from None

    def _opened(self, path):
        if path not in self._open:
            try:
                self._open[path] = self._library.safe_open(path, framework="numpy")
            except self._library.SafetensorError as error:
                raise ValueError(
                    f"{path}: expected a safetensors file, got a damaged or other one ({error}); "
                    "fetch it again"
                ) from None
        return self._open[path]
