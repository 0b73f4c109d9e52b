"""What the devices reach at most: a large matrix product on all of them at once."""

import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from mtml_jax.sharding import PERSONAS, split_personas


def product_ceiling(mesh: Mesh, dtype: str, repeats: int = 7) -> float:
    """Operations per second of square matrix products, one on each device at the same time.

    Args:
      mesh: the devices that a step runs on.
      dtype: of the products.
      repeats: timings; the best counts, as it is a ceiling.

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
    jax.block_until_ready(product(matrix))
    seconds = []
    for _ in range(repeats):
        clock = time.perf_counter()
        jax.block_until_ready(product(matrix))
        seconds.append(time.perf_counter() - clock)
    return mesh.size * 2 * size**3 / min(seconds)
