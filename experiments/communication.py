"""Count what a training step sends between devices: `python -m experiments.communication`."""

import dataclasses
import math
import re
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import flags as settings
from experiments import startup
from experiments.benchmark.measuring import read_corpus
from mtml_jax.config import FROM_SCRATCH, PRESETS, TrainConfig
from mtml_jax.data.episodes import training_batch
from mtml_jax.data.prepare import Prepared
from mtml_jax.sharding import PERSONAS, Placement, split_specs
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.memory_plan import lower_steps
from mtml_jax.train.rates import rates_at
from mtml_jax.train.resume import initial_state

_COLLECTIVE = re.compile(
    r"= (?P<shape>.*?) (?P<name>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute|collective-broadcast)\("
)
_HOST = re.compile(r" (infeed|outfeed|send|recv)\(|custom_call_target=\"[^\"]*callback[^\"]*\"")
_ARRAY = re.compile(r"\b[a-z]+(?P<bits>\d+)\[(?P<sizes>[\d,]*)\]")


class Traffic(NamedTuple):
    """The communication of a compiled step."""

    payload: dict[str, int]  # name of a collective -> bytes of its whole arrays in one step
    looped: int  # number of collectives inside a loop, which run more than once a step
    host: int  # number of transfers to or from the host

    def sent(self, devices: int) -> float:
        """Counts the bytes that each device sends in a step if collectives run around a ring."""
        rounds = {"all-reduce": 2}  # a reduce-scatter, then an all-gather
        return sum(
            rounds.get(name, 1) * (devices - 1) / devices * payload
            for name, payload in self.payload.items()
        )


def traffic(hlo: str, devices: int) -> Traffic:
    """Counts the communication in the text of a compiled program, as XLA writes it for a CPU."""
    payload, looped, host, computation = {}, 0, 0, ""
    for line in hlo.splitlines():
        if line and not line[0].isspace():
            computation = line.split(" ")[0]
        host += bool(_HOST.search(line))
        if not (collective := _COLLECTIVE.search(line)):
            continue
        looped += computation != "ENTRY"
        size = sum(
            int(array["bits"]) // 8 * math.prod(map(int, filter(None, array["sizes"].split(","))))
            for array in _ARRAY.finditer(collective["shape"])
        )
        name = collective["name"]
        if name == "reduce-scatter":
            size *= devices  # its result is one device's part
        payload[name] = payload.get(name, 0) + size
    return Traffic(payload, looped, host)


def compiled_text(
    config: TrainConfig, data: Prepared, mesh: Mesh, shard_params: bool, phase: int = 0
) -> str:
    """Compiles one phase of the training step from shapes alone; returns the program's text."""

    def shape(x, spec=PartitionSpec()):
        return jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=NamedSharding(mesh, spec))

    state = jax.eval_shape(lambda: initial_state(config, data))
    specs = (split_specs(state, mesh),) if shard_params else ()
    arguments = (
        jax.tree.map(shape, state, *specs),
        jax.tree.map(lambda x: shape(x, PartitionSpec(PERSONAS)), training_batch(data, config, 0)),
        jax.tree.map(shape, rates_at(config, 0)),
    )
    lower = lower_steps(config, Placement(mesh, shard_params))[phase]
    return lower(*arguments).compile().as_text()


def define_flags() -> None:
    settings.define_device_flags()
    settings.define_data_flags()
    flags.FLAGS.set_default("cpu_devices", 8)
    flags.DEFINE_enum("preset", "tiny", FROM_SCRATCH, "preset of model sizes and training settings")
    flags.DEFINE_enum("strategy", "mtml", list(STRATEGIES), "strategy whose outer step is compiled")


def main(argv) -> None:
    given = flags.FLAGS
    startup.start(argv, "--preset=paper")
    # The collectives do not depend on optimisations, and compiling takes half as long without.
    jax.config.update("jax_disable_most_optimizations", True)
    with startup.one_sentence("interrupted"):
        config = dataclasses.replace(PRESETS[given.preset], strategy=given.strategy)
        show(config, read_corpus(config, given))


def show(config: TrainConfig, data: Prepared) -> None:
    """Prints a table: strong scaling with 16 personas in total, weak scaling with 2 per device."""
    params = jax.eval_shape(lambda: initial_state(config, data)).params
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    print(f"{config.strategy}, {count:,} parameters, {4 * count / 1e6:.3f} MB in float32\n")
    print("| parameters | devices | personas | a step | sent by each device | loops | host |")
    print("|---|---|---|---|---|---|---|")
    sizes = [n for n in (2, 4, 8) if n <= len(jax.devices())]
    for shard_params in (False, True):
        for devices, personas in sorted({(n, m) for n in sizes for m in (16, 2 * n)}):
            mesh = Mesh(np.array(jax.devices()[:devices]), (PERSONAS,))
            resized = dataclasses.replace(config, meta_batch=personas)
            sent = traffic(compiled_text(resized, data, mesh, shard_params), devices)
            what = ", ".join(f"{k} {v / 1e6:.3f} MB" for k, v in sorted(sent.payload.items()))
            print(
                f"| {'split' if shard_params else 'whole'} | {devices} | {personas} | {what} | "
                f"{sent.sent(devices) / 1e6:.3f} MB | {sent.looped} | {sent.host} |",
                flush=True,
            )


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
