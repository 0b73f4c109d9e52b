"""Measure the most that the devices reach: a large matrix product on all of them at once."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from experiments.benchmark.measuring import time_calls
from mtml_jax.sharding import PERSONAS, split_personas


def product_ceiling(mesh: Mesh, dtype: str, repeats: int = 7) -> float:
    """Measures square matrix products, one on each device at the same time.

    Args:
      mesh: the devices that a step runs on.
      dtype: data type of the matrices.
      repeats: number of timings, of which the best counts, since the result is a ceiling.

    Returns:
      Operations per second of all devices together.
    """
    size = 2048 if mesh.devices.flat[0].platform == "cpu" else 8192
    matrix = split_personas(jnp.ones((mesh.size * size, size), dtype), mesh)
    product = jax.jit(
        jax.shard_map(
            lambda x: x @ x, mesh=mesh, in_specs=PartitionSpec(PERSONAS),
            out_specs=PartitionSpec(PERSONAS),
        )
    )  # fmt: skip
    _, seconds = time_calls(lambda: product(matrix), repeats)
    return mesh.size * 2 * size**3 / min(seconds)
