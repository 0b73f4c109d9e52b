"""Time calls, and describe the machine and the versions that the times belong to."""

import statistics
import time
from collections.abc import Callable, Collection
from typing import Any

import jax
from tqdm import tqdm

from experiments.checkout import commit
from mtml_jax.runs.versions import versions


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


def circumstances(given) -> dict[str, Any]:
    """What the numbers were measured with.

    Args:
      given: the command's flags as attributes, of which it reads `preset` and `data`.
    """
    return {
        "preset": given.preset,
        "data": given.data,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "versions": versions(),
        "commit": commit(),
    }


def check_among(flag: str, values: Collection[str], allowed: Collection[str]) -> None:
    """Checks the values of a flag that takes a list.

    Raises:
      ValueError: a value is not allowed.
    """
    if unknown := set(values) - set(allowed):
        raise ValueError(
            f"expected --{flag} to list some of {', '.join(allowed)}, got --{flag}={min(unknown)}"
        )


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)
