"""Computes low-rank adapters of a frozen decoder: x W + scale (x A) B.

Hu et al. (2021). Adapters are the only trained parameters; they are a pytree of their
own, {name of the product: {"a": [L, I, R], "b": [L, R, O]}}, stacked over the last L
layers of the decoder.

Axes: L adapted layer, T token, I input, R rank, O output.
"""

import jax
import jax.numpy as jnp

from mtml_jax.config_decoder import TARGETS, LoraConfig
from mtml_jax.types import Params

__all__ = ("TARGETS", "LoraConfig", "init", "split_layers", "product", "merge")


def init(key: jax.Array, base: Params, config: LoraConfig) -> Params:
    """Draws adapters under which the decoder is unchanged: A random, B = 0.

    Args:
      key: PRNG key.
      base: from `split_layers`; only shapes and dtypes are read, so that abstract arrays do.
      config: settings of the adapters.

    Returns:
      {target: {"a": [L, I, R], "b": [L, R, O]}} in the base's dtype, at least float32.
    """
    adapters = {}
    for name, key in zip(config.targets, jax.random.split(key, len(config.targets))):
        layers, inputs, outputs = base["layers"][name].shape
        dtype = jnp.promote_types(base["layers"][name].dtype, jnp.float32)
        shape = (layers, inputs, config.rank)
        if config.initialiser == "gaussian":
            a = config.rank**-0.5 * jax.random.normal(key, shape, dtype)
        else:
            bound = inputs**-0.5
            a = jax.random.uniform(key, shape, dtype, -bound, bound)
        adapters[name] = {"a": a, "b": jnp.zeros((layers, config.rank, outputs), dtype)}
    return adapters


def split_layers(base: Params, config: LoraConfig) -> Params:
    """Parts the stacked layers into those before the first adapted one and the others.

    Args:
      base: a decoder's parameters, all layers in "layers".
      config: settings of the adapters.

    Returns:
      The same parameters; "frozen" holds the layers before the first adapted one, where
      there are any, and "layers" the adapted ones. Numpy arrays are views of the old ones.

    Raises:
      ValueError: the base has fewer layers than are to be adapted, or is parted already.
    """
    if "frozen" in base:
        raise ValueError('expected a base with all layers in "layers", got one that is parted')
    count = next(iter(base["layers"].values())).shape[0]
    adapted = count if config.layers is None else config.layers
    if adapted > count:
        raise ValueError(
            f"expected at most {count} adapted layers, which the base has, got {adapted}; "
            "lower --lora_layers"
        )
    if adapted == count:
        return base
    first = count - adapted
    return {
        **base,
        "frozen": {name: stack[:first] for name, stack in base["layers"].items()},
        "layers": {name: stack[first:] for name, stack in base["layers"].items()},
    }


def product(inputs_TI, kernel_IO, adapter: Params | None, config: LoraConfig) -> jax.Array:
    """x W + scale (x A) B, or x W without an adapter; in the dtype of the inputs."""
    outputs_TO = inputs_TI @ kernel_IO.astype(inputs_TI.dtype)
    if adapter is None:
        return outputs_TO
    a_IR, b_RO = (adapter[name].astype(inputs_TI.dtype) for name in ("a", "b"))
    return outputs_TO + (config.scale * (inputs_TI @ a_IR)) @ b_RO


def merge(base: Params, adapters: Params, config: LoraConfig) -> Params:
    """Adds the adapters into the matrices of the base: W + scale A B.

    Args:
      base: from `split_layers`.
      adapters: as from `init`.
      config: settings of the adapters.

    Returns:
      A base that computes, without adapters, what `base` computes with them.
    """
    layers = dict(base["layers"])
    for name, adapter in adapters.items():
        added = jnp.einsum("lir,lro->lio", adapter["a"], adapter["b"])
        layers[name] = layers[name] + (config.scale * added).astype(layers[name].dtype)
    return {**base, "layers": layers}
