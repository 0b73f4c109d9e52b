"""Compile the fastest setting of the outer step that fits the free memory."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import psutil

from mtml_jax.config import TrainConfig
from mtml_jax.meta.cost import REMAT_PRICE
from mtml_jax.meta.outer import outer_step
from mtml_jax.sharding import Placement, fetch
from mtml_jax.strategies import STRATEGIES

_USABLE = 0.9  # of the free memory; the loop's own arrays and other programs need some, too
# Files of a control group, version 2 and 1: its limit and its use; and the name that its
# `memory.stat` has for cached files, which it would release.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)

_step = jax.jit(
    outer_step, static_argnames=("phase", "config", "placement"), donate_argnames="state"
)

_ADVICE = {
    False: "lower --width, --encoder_layers, --decoder_layers, --context_tokens or --tile_rows, or "
    "use --min_count for fewer words",
    True: "lower --lora_layers or --row_tokens, or use a smaller decoder",
}


class Fitted(NamedTuple):
    """Steps that fit the memory."""

    config: TrainConfig  # the settings, with those filled in that were left open
    steps: list  # compiled (state, batch, rates, base) -> (state, metrics), one for each phase
    note: str  # a sentence on what was chosen, and its price


def lower_steps(config: TrainConfig, placement: Placement) -> list[Callable]:
    """Returns for each phase a function (state, batch, rates, base) -> lowered outer step.

    A lowered step has `compile()`; what was compiled once in a process is compiled no more.
    The compiled step reuses the memory of the state that it is called with. Its arguments lie
    as `placement` says.
    """
    how = config.step(placement.mesh.devices.flat[0].platform)
    return [
        functools.partial(_step.lower, phase=phase, config=how, placement=placement)
        for phase in STRATEGIES[config.strategy].phases
    ]


def fit_steps(config: TrainConfig, placement: Placement, arguments: Sequence[tuple]) -> Fitted:
    """Compiles the fastest steps that fit; a chunk or remat that `config` sets is kept.

    All processes choose the same setting, by the free memory of the one with the least.

    Args:
      config: settings of the run.
      placement: where the arguments lie.
      arguments: (state, batch, rates, base) of each phase, on the devices.

    Raises:
      ValueError: no setting fits; one sentence with what to lower.
    """
    mesh = placement.mesh
    free = float(fetch(np.asarray([free_memory(mesh.local_devices)], np.float32)).min())
    share = config.meta_batch // mesh.size
    platform = mesh.devices.flat[0].platform
    tried: list[tuple[int, int]] = []  # (personas at a time, bytes)
    for chunk, setting in _settings(config, platform, share):
        # Memory grows at most in proportion to the chunk, which rules out some without compiling.
        least = max((needed * chunk / other for other, needed in tried), default=0)
        if least > _USABLE * free and not setting.model.remat:
            continue
        steps, needed = [], 0
        for lower, phase_arguments in zip(lower_steps(setting, placement), arguments):
            steps.append(lower(*phase_arguments).compile())
            needed = max(needed, _bytes_needed(steps[-1]))
            if needed > _USABLE * free:
                break
        else:
            return Fitted(setting, steps, _note(chunk, setting, needed, free, tried))
        tried.append((chunk, needed))

    # Nothing fits.
    smaller = ", a smaller --persona_chunk" if config.persona_chunk not in (None, 1) else ""
    shared = platform == "cpu" and len(mesh.local_devices) > 1
    fewer = ", fewer --cpu_devices" if shared else ""
    raise ValueError(
        f"expected a step that takes at most {_gigabytes(_USABLE * free)} of the {_gigabytes(free)} "
        f"of free memory on each device, got one of {_gigabytes(needed)}, even {_named(chunk, setting)}; "
        f"{_ADVICE[bool(config.init_from)]}{smaller}{fewer}"
    )


def _settings(config, platform, share) -> Iterator[tuple[int, TrainConfig]]:
    """Yields (chunk, setting), fastest first: all personas at a time, fewer, recomputed layers."""
    if config.persona_chunk:
        chunks = [config.persona_chunk]
    elif platform == "cpu":
        chunks = [1]
    else:
        chunks = [n for n in range(share, 0, -1) if share % n == 0]
    remats = [] if config.model.remat else [(chunk, False) for chunk in chunks]
    for chunk, remat in [*remats, (chunks[-1], True)]:
        model = dataclasses.replace(config.model, remat=remat)
        yield min(chunk, share), dataclasses.replace(config, persona_chunk=chunk, model=model)


def _bytes_needed(compiled):
    """Returns the bytes on each device that a step needs in addition to its arguments."""
    memory = compiled.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes  # others reuse arguments
    return memory.temp_size_in_bytes + outputs


def _note(chunk, setting, needed, free, tried):
    note = (
        f"a step takes {_gigabytes(needed)} of {_gigabytes(free)} of free memory on each device: "
        f"{_named(chunk, setting)}"
    )
    if setting.model.remat:
        note += f", {REMAT_PRICE:.2g} times the operations"
    if tried:
        note += f"; the fastest way would take {_gigabytes(tried[0][1])}"
    return note


def _named(chunk, setting):
    who = "one persona" if chunk == 1 else f"{chunk} personas"
    return f"{who} at a time" + (", layers recomputed" if setting.model.remat else "")


def _gigabytes(count):
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def free_memory(devices: Sequence[jax.Device]) -> int:
    """Returns the bytes that are free on each of these devices of this process.

    An accelerator reports its own memory. Devices of a CPU share the memory that the machine
    has available within the limits of the control groups of this process.
    """
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return min(one["bytes_limit"] - one["bytes_in_use"] for one in stats)
    machine = psutil.virtual_memory().available
    return min([machine, *_left_by_groups(Path("/"))]) // len(devices)


def _left_by_groups(root: Path) -> Iterator[int]:
    """Yields the bytes that are free in every control group with a limit, from this process up."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, kind, path in (line.split(":", 2) for line in lines):
        if kind and "memory" not in kind.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if kind else "")
        own = top / path.lstrip("/")  # absent within a container, whose own group is the top
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                yield from _left_by_group(folder)


def _left_by_group(folder):
    for limit, held, files in _FILES:
        try:
            numbers = [int((folder / name).read_text()) for name in (limit, held)]
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or a limit that reads "max"
            continue
        yield max(numbers[0] - numbers[1] + int(stat.get(files, 0)), 0)
