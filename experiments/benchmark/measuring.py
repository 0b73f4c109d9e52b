"""Share what the measuring commands have in common: flags, corpus, timing and circumstances."""

import statistics
import time
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

from experiments import flags as settings
from experiments.checkout import commit
from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared, prepare
from mtml_jax.runs.versions import versions
from mtml_jax.sharding import PERSONAS, split_personas

flags.disclaim_key_flags()  # --help shows these flags for the command that asks for them


def define_measuring_flags() -> None:
    """Defines the flags of devices, data and results."""
    settings.define_device_flags()
    settings.define_data_flags()
    # With a cache of compiled programs, the compile time would be that of a look-up.
    flags.FLAGS.set_default("compilation_cache", "")
    flags.DEFINE_string("json", None, "file for all numbers, as JSON")
    flags.DEFINE_boolean("markdown", False, "print the tables as Markdown")


def read_corpus(config: TrainConfig, given) -> Prepared:
    """Prepares the corpus that the data flags name."""
    source = {"split_seed": given.split_seed, "skip_bad": given.skip_bad}
    return prepare(config, given.data, given.data_dir, **source)


def time_calls(call: Callable[[], Any], repeats: int, what: str = "") -> tuple[Any, list[float]]:
    """Times a call several times, after one call that warms up.

    Args:
      call: a function without arguments; its result is awaited.
      repeats: number of timed calls.
      what: description of the progress bar; without one, there is no bar.

    Returns:
      (the result of the last call, the seconds of each timed call).
    """
    result = jax.block_until_ready(call())
    seconds = []
    for _ in tqdm(range(repeats), desc=what, leave=False, disable=None if what else True):
        clock = time.perf_counter()
        result = jax.block_until_ready(call())
        seconds.append(time.perf_counter() - clock)
    return result, seconds


def summarise(seconds: list[float]) -> dict[str, float]:
    """The median, the least and the most of several times."""
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def product_ceiling(mesh: Mesh, dtype: str, repeats: int = 7) -> float:
    """Measures products of large square matrices, one on each device of a mesh at the same time.

    Returns:
      Operations per second of all devices together, the best of `repeats`, since it is a ceiling.
    """
    size = 2048 if mesh.devices.flat[0].platform == "cpu" else 8192
    matrix = split_personas(jnp.ones((mesh.size * size, size), dtype), mesh)
    split = PartitionSpec(PERSONAS)
    product = jax.jit(jax.shard_map(lambda x: x @ x, mesh=mesh, in_specs=split, out_specs=split))
    _, seconds = time_calls(lambda: product(matrix), repeats)
    return mesh.size * 2 * size**3 / min(seconds)


def circumstances(given) -> dict[str, Any]:
    """What the numbers were measured with; reads the flags `preset` and `data`."""
    devices = jax.devices()
    return {
        "preset": given.preset, "data": given.data, "device": devices[0].device_kind,
        "devices": len(devices), "versions": versions(), "commit": commit(),
    }  # fmt: skip


def check_among(flag: str, values: Collection[str], allowed: Collection[str]) -> None:
    """Raises a ValueError if a flag that takes a list has a value that is not allowed."""
    if unknown := set(values) - set(allowed):
        raise ValueError(
            f"expected --{flag} to list some of {', '.join(allowed)}, got --{flag}={min(unknown)}"
        )


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)
