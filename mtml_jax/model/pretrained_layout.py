"""Arranges the tensors of a checkpoint as the base of `llama`, and checks its sizes.

Axes: L layer, I input, O output.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.types import Params


def arrange(
    read: Callable[[str], np.ndarray],
    names: dict[str, str],
    top: dict[str, str],
    config: LlamaConfig,
    where: str,
) -> tuple[Params, set[str]]:
    """(the base, the names of the tensors in it)."""
    width, inner, size = config.width, config.feed_forward, config.head_width
    queries, keys = config.heads * size, config.key_value_heads * size
    shapes = {
        "embedding": (config.vocabulary, width), "output_matrix": (config.vocabulary, width),
        "norm": (width,), "attention_norm": (width,), "feed_forward_norm": (width,),
        "query": (queries, width), "key": (keys, width), "value": (keys, width),
        "output": (width, queries), "gate": (inner, width), "up": (inner, width),
        "down": (width, inner), "query_bias": (queries,), "key_bias": (keys,),
        "value_bias": (keys,), "query_norm": (size,), "key_norm": (size,),
    }  # fmt: skip
    used = set()

    def tensor(name, shape):
        found = read(name)
        if found.shape != shape:
            raise ValueError(
                f"{where}: expected tensor {name} of shape {shape}, got {found.shape}; the file "
                "does not fit its settings, fetch both again"
            )
        used.add(name)
        return found

    base: dict[str, Any] = {
        leaf: np.ascontiguousarray(
            tensor(name, shapes["output_matrix" if leaf == "output" else leaf]), np.float32
        )
        for leaf, name in top.items()
    }
    base["layers"] = {}
    for leaf, name in names.items():
        shape = shapes[leaf]
        stack = np.empty((config.layers, *shape[::-1]), np.float32)
        for layer in range(config.layers):
            stack[layer] = tensor(name.format(layer), shape).T  # stored as [outputs, inputs]
        base["layers"][leaf] = stack
    return base, used


def require_all_used(names: Collection[str], used: Collection[str], where: str, family: str):
    if unknown := sorted(set(names) - set(used)):
        raise ValueError(
            f"{where}: expected the tensors of a {family} decoder, got {unknown[0]} and "
            f"{len(unknown) - 1} others that it does not have; this variant is not implemented"
        )


def checked_config(sizes, epsilon, theta, factors, where):
    for name, value in sizes.items():
        if not (isinstance(value, int) and value > 0):
            raise ValueError(f"{where}: expected a positive whole number for {name}, got {value!r}")
    numbers = (epsilon, theta, *factors)
    if not all(isinstance(x, (int, float)) and math.isfinite(x) and x > 0 for x in numbers):
        raise ValueError(
            f"{where}: expected positive numbers for epsilon, theta and factors of the rotation, "
            f"got {epsilon!r}, {theta!r}, {factors!r}"
        )
    # A GGUF file has float32: 1e-5, and not the nearest float32 number in decimal digits.
    epsilon, theta = (float(str(np.float32(x))) for x in (epsilon, theta))
    config = LlamaConfig(**sizes, epsilon=epsilon, rope_theta=theta, rope_factors=factors)
    half = config.head_width // 2
    if (
        config.heads % config.key_value_heads
        or config.head_width % 2
        or len(factors) not in (0, half)
    ):
        raise ValueError(
            f"{where}: expected heads that key-value heads divide, an even head width and a "
            f"factor for each rotated pair, got {config.heads} and {config.key_value_heads} heads "
            f"of {config.head_width} and {len(factors)} factors"
        )
    return config


def ratio(a, b):
    return a // b if isinstance(a, int) and isinstance(b, int) and b > 0 and a % b == 0 else None
