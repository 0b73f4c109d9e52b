"""The fastest setting of an outer step that fits the memory that is free, compiled."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mtml_jax.config import StepConfig, TrainConfig
from mtml_jax.meta.outer import outer_step
from mtml_jax.sharding import fetch
from mtml_jax.strategies import STRATEGIES, Phase
from mtml_jax.train.memory import free_memory

_TAKEN = 0.9  # of the free memory: the loop's own arrays and others' need some too
_REMAT_PRICE = 1.2  # in operations, counted: a gradient takes 3.5 passes for 3, its own 9.5 for 8


class Fitted(NamedTuple):
    """Steps that fit.

    Attributes:
      config: the settings, with those that were left open.
      steps: compiled (state, batch, rates) -> (state, metrics), one a phase.
      told: a sentence on what was chosen, and its price.
    """

    config: TrainConfig
    steps: list
    told: str


def phases(config: TrainConfig, mesh: Mesh) -> list[tuple[Phase, StepConfig]]:
    """What each phase of a strategy computes, and how; iteration i runs i modulo their count."""
    step_config = config.step(mesh.devices.flat[0].platform)
    return [(phase, step_config) for phase in STRATEGIES[config.strategy].phases]


def jitted_steps(config: TrainConfig, mesh: Mesh, shard_params: bool = False) -> list:
    """One jitted outer step a phase.

    Args:
      config: TrainConfig.
      mesh: devices that share the personas.
      shard_params: whether the state is split over them, by `split_params`.
    """
    return [
        _jitted_step(phase=phase, config=step_config, mesh=mesh, shard_params=shard_params)
        for phase, step_config in phases(config, mesh)
    ]


@functools.lru_cache(maxsize=16)  # runs that differ in seed, alpha and rates alone share it
def _jitted_step(**settings):
    return jax.jit(functools.partial(outer_step, **settings), donate_argnums=0)


def fit_steps(
    config: TrainConfig, mesh: Mesh, arguments: Sequence[tuple], shard_params: bool = False
) -> Fitted:
    """Compiles the fastest steps that fit; what `config` sets of chunk and remat stays.

    Every process finds the same: the one with the least memory speaks for all.

    Args:
      config: TrainConfig.
      mesh: devices that share the personas.
      arguments: (state, batch, rates) of each phase, in place.
      shard_params: as for `jitted_steps`.

    Returns:
      Fitted.

    Raises:
      ValueError: none fits; in one sentence with what to lower.
    """
    free = float(fetch(np.asarray([free_memory(mesh.local_devices)], np.float32)).min())
    share = config.meta_batch // mesh.size
    platform = mesh.devices.flat[0].platform
    tried: list[tuple[int, int]] = []  # (personas at a time, bytes)
    for chunk, setting in _settings(config, platform, share):
        # Memory grows with the chunk at most in proportion, so that some need not be compiled.
        least = max((needed * chunk / other for other, needed in tried), default=0)
        if least > _TAKEN * free and not setting.model.remat:
            continue
        steps, needed = [], 0
        for step, those in zip(jitted_steps(setting, mesh, shard_params), arguments):
            leaves, structure = jax.tree.flatten(those)
            shapes = tuple(
                jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves
            )
            steps.append(_compiled(step, structure, shapes))
            needed = max(needed, _bytes_needed(steps[-1]))
            if needed > _TAKEN * free:
                break
        else:
            return Fitted(setting, steps, _told(chunk, setting, needed, free, tried))
        tried.append((chunk, needed))
    smaller = ", a smaller --persona_chunk" if config.persona_chunk not in (None, 1) else ""
    shared = platform == "cpu" and len(mesh.local_devices) > 1
    fewer = ", fewer --cpu_devices" if shared else ""
    raise ValueError(
        f"a step needs {_gigabytes(needed)} of memory on each device, even {_named(chunk, setting)}, "
        f"and {_gigabytes(_TAKEN * free)} of the {_gigabytes(free)} that are free may be taken; lower "
        "--width, --encoder_layers, --decoder_layers, --context_tokens or --tile_rows, or use "
        f"--min_count for fewer words{smaller}{fewer}"
    )


@functools.lru_cache(maxsize=16)
def _compiled(step, structure, shapes):
    return step.lower(*structure.unflatten(shapes)).compile()


def _settings(config, platform, share) -> Iterator[tuple[int, TrainConfig]]:
    """Fastest first: as many personas at a time as there are, fewer, and layers recomputed."""
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
    """On each device, beside the arguments: what a step makes and does not put in their place."""
    memory = compiled.memory_analysis()
    made = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.temp_size_in_bytes + made


def _told(chunk, setting, needed, free, tried):
    told = (
        f"a step takes {_gigabytes(needed)} of {_gigabytes(free)} of free memory on each device: "
        f"{_named(chunk, setting)}"
    )
    if setting.model.remat:
        told += f", {_REMAT_PRICE:g} times the operations"
    if tried:
        told += f"; the fastest way would take {_gigabytes(tried[0][1])}"
    return told


def _named(chunk, setting):
    who = "one persona" if chunk == 1 else f"{chunk} personas"
    return f"{who} at a time" + (", layers recomputed" if setting.model.remat else "")


def _gigabytes(count):
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
