"""Take twenty outer steps of a strategy on some of eight virtual devices; run by its tests.

python tests/experiments/twenty_steps.py STRATEGY DTYPE PLACEMENT...

A placement is a number of devices, followed by s if parameters are split: 1 2 4 8 8s. With
8s-2 half of the steps are taken on eight devices and saved, and the other half on two. The
program prints one JSON object: for each placement the losses, the parameters at the end, and
what the compiled steps communicate.
"""

import json
import sys
import tempfile

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.communication import traffic
from mtml_jax.config import ModelConfig, TileShape, TrainConfig
from mtml_jax.data.encode import Example
from mtml_jax.data.packing import pack, stack
from mtml_jax.data.vocab import END, SPECIALS
from mtml_jax.meta.outer import init_state
from mtml_jax.model import transformer
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.sharding import PERSONAS, Placement, replicate, split_personas
from mtml_jax.train.memory_plan import lower_steps
from mtml_jax.train.rates import rates_at
from mtml_jax.types import Episode

STEPS, VOCABULARY = 20, 23
_QUICK = {"xla_cpu_use_fusion_emitters": False}  # halves the time to compile
SHAPE, TILES = TileShape(rows=2, context=11, response=7, persona=13), 2


def draw_batch(step: int, personas: int) -> Episode:
    """Dialogues of two turns, drawn from the number of the step."""
    rng = np.random.default_rng(step)

    def words(most):
        return tuple(map(int, rng.integers(len(SPECIALS), VOCABULARY, rng.integers(1, most + 1))))

    def side():
        persona = words(4) + (END,)
        turns = [Example(words(8), words(3) + (END,), persona) for _ in range(2)]
        return pack(turns, SHAPE, TILES)

    return Episode(*(stack([side() for _ in range(personas)]) for _ in range(2)))


def train(config: TrainConfig, params, placement: str) -> dict:
    first, _, last = placement.rpartition("-")
    if not first:
        return train_on(last, config, params, 0, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        losses = train_on(first, config, params, 0, STEPS // 2, folder)["losses"]
        found = train_on(last, config, params, STEPS // 2, STEPS, folder)
    return {**found, "losses": losses + found["losses"]}


def train_on(placement, config, params, begin, end, folder=None):
    """Takes the steps from `begin` to `end`, from the checkpoint in the folder if begin > 0."""
    split = placement.endswith("s")
    devices = jax.devices()[: int(placement.rstrip("s"))]
    mesh = Mesh(np.array(devices), (PERSONAS,))
    placement = Placement(mesh, split)
    state = placement.place(init_state(params))
    if begin:
        with Checkpoints(folder) as checkpoints:
            state, _ = checkpoints.restore(begin, state)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    steps, texts, losses = lower_steps(config, placement), {}, []
    for step in range(begin, end):
        batch = split_personas(draw_batch(step, config.meta_batch), mesh)
        arguments = (state, batch, replicate(rates_at(config, step), mesh))
        phase = (step + 1) % len(steps)
        if phase not in texts:
            before = jax.tree.map(lambda leaf: leaf.sharding, state)
            steps[phase] = steps[phase](*arguments).compile(_QUICK)
            texts[phase] = traffic(steps[phase].as_text(), len(devices))
        state, metrics = steps[phase](*arguments)
        losses.append(float(metrics.loss))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == before  # the state stays where it was
    if end < STEPS:
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(end, state, {}, best=True)
    return {
        "losses": losses,
        "params": np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)]).tolist(),
        "traffic": [found._asdict() for _, found in sorted(texts.items())],
        "params_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
        "state_bytes": whole,
        "state_bytes_a_device": held,
    }


def main() -> None:
    strategy, dtype, *placements = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    model = ModelConfig(
        encoder_layers=1, decoder_layers=1, heads=2, width=16, feed_forward=24, dtype=dtype
    )
    config = TrainConfig(model=model, shape=SHAPE, strategy=strategy, inner_lr=0.1, warmup=5)
    shapes = jax.eval_shape(lambda: transformer.init(jax.random.key(0), VOCABULARY, model))
    rng = np.random.default_rng(0)
    params = jax.tree.map_with_path(
        lambda path, leaf: (
            0.3 * rng.standard_normal(leaf.shape) + (path[-1].key == "scale")
        ).astype(dtype),
        shapes,
    )
    print(json.dumps({placement: train(config, params, placement) for placement in placements}))


if __name__ == "__main__":
    main()
