"""Measures the speed of what runs long: `python -m experiments.benchmark`."""

import functools
import pathlib
import statistics
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from mtml_jax import decoding, transformer
from mtml_jax.config import PRESETS, TrainConfig
from mtml_jax.data.episodes import pack_rows
from mtml_jax.data.folds import choose_folds, measure_folds, pack_folds
from mtml_jax.data.prepare import Prepared, prepare
from mtml_jax.data.vocab import START
from mtml_jax.evaluation import score_stages
from mtml_jax.runlog import versions, write_json
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.training import initial_state
from mtml_jax.types import Tokens

_SHOTS, _EPOCHS, _SEED = 5, 1, 0
_CONTEXTS = 16  # decoded side by side


def define_flags() -> None:
    settings.define_common_flags()
    settings.define_data_flags()
    flags.DEFINE_enum("preset", "small", list(PRESETS), "sizes of the model")
    flags.DEFINE_list("rows", list(ROWS), f"what is measured, of {', '.join(ROWS)}")
    flags.DEFINE_integer("repeats", 7, "timings a row; the median is shown", lower_bound=2)
    flags.DEFINE_string("json", None, "also write all numbers to this file")


def main(argv) -> None:
    given = flags.FLAGS
    settings.start(argv, "--preset=small")
    with settings.one_sentence("interrupted"):
        benchmark(given)


def benchmark(given) -> None:
    """Runs the whole command; `given` has the flags as attributes."""
    if unknown := set(given.rows) - set(ROWS):
        raise ValueError(f"got --rows={min(unknown)}, want some of {', '.join(ROWS)}")
    config = PRESETS[given.preset]
    data = prepare(
        config, given.data, given.data_dir, split_seed=given.split_seed, skip_bad=given.skip_bad
    )
    params = initial_state(config, data).params
    print(
        f"preset {given.preset}, data {given.data}, {len(data.vocabulary):,} words, random "
        f"parameters, {len(jax.devices())} x {jax.devices()[0].device_kind}",
        flush=True,
    )
    rows = []
    for name in given.rows:
        for row in ROWS[name](config, data, params, given.repeats):
            rows.append({"row": name, **row})
            print(_line(rows[-1]), flush=True)
    if given.json:
        write_json(given.json, {"rows": rows, **_circumstances(given)})


def adaptation(config: TrainConfig, data: Prepared, params, repeats: int):
    """One epoch of test-time fine-tuning on five dialogues, and the score of a sixth."""
    plans = choose_folds(data.valid, _SHOTS, _SEED, 2 * len(jax.devices()))
    sizes = measure_folds(plans, config.shape, epochs=_EPOCHS, seed=_SEED)
    folds = pack_folds(
        plans, config.shape, sizes, control=False, epochs=_EPOCHS, seed=_SEED
    )
    mesh = persona_mesh(len(plans))
    score = jax.jit(
        functools.partial(score_stages, stages=(_EPOCHS,), config=config.loss(), mesh=mesh)
    )
    arguments = (
        replicate(params, mesh),
        split_personas(folds, mesh),
        replicate(jnp.float32(config.inner_lr), mesh),
    )
    used = [np.any(tiles.targets.inputs.segment, axis=(-1, -2)) for tiles in folds.batches]
    steps = int(np.any(used, axis=0).sum())
    times = measured(score, arguments, repeats, "adaptation")
    yield {
        "what": f"{_SHOTS}-shot, {_EPOCHS} epoch, {steps / len(plans):.1f} SGD steps a fold",
        "unit": "folds/s",
        "rate": len(plans) / times["median"],
        **times,
    }


def decoded(config: TrainConfig, data: Prepared, params, repeats: int):
    """Replies of the greatest length to contexts of valid personas, on one device."""
    turns = [e for persona in data.valid for d in persona.dialogues[:1] for e in d.examples]
    some = [turns[i].context for i in np.random.default_rng(_SEED).permutation(len(turns))]
    contexts = pack_rows(some[:_CONTEXTS], config.shape.context, min(_CONTEXTS, len(some)))
    ways = {
        "greedy, cached": decoding.greedy,
        "greedy, uncached": uncached_greedy,
        f"beam {decoding.BEAMS}, cached": decoding.beam_search,
    }
    for what, way in ways.items():
        decode = jax.jit(functools.partial(way, start=START, config=config.model))
        times = measured(decode, (params, contexts), repeats, what)
        yield {
            "what": f"{what}, {decoding.MAX_TOKENS} tokens",
            "unit": "replies/s",
            "rate": len(contexts.ids) / times["median"],
            **times,
        }


def uncached_greedy(params, context, start, *, max_tokens=decoding.MAX_TOKENS, config):
    """Greedy decoding that reads all of a reply again for every token: what a cache saves."""
    matrix_VD = transformer.output_matrix(params, config)

    def one(context):
        memory_SD = transformer.encode(params, context, config)
        ones_T = jnp.ones(max_tokens, jnp.int32)
        position_T = jnp.arange(max_tokens)

        def step(ids_T, position):
            inputs = Tokens(ids_T, ones_T, position_T)
            hidden_TD = transformer.decode(params, memory_SD, context.segment, inputs, config)
            best = jnp.argmax(matrix_VD @ hidden_TD[position]).astype(jnp.int32)
            return ids_T.at[position + 1].set(best, mode="drop"), best

        return jax.lax.scan(step, jnp.zeros(max_tokens, jnp.int32).at[0].set(start), position_T)[1]

    return jax.vmap(one)(context)


ROWS = {"adaptation": adaptation, "decoding": decoded}


def measured(function, arguments, repeats: int, what: str) -> dict[str, float]:
    """Seconds to compile, and the median, least and most of several calls after it."""
    clock = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - clock
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in tqdm(range(repeats), desc=what, leave=False, disable=None):
        clock = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - clock)
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "compile": compile_seconds,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def _line(row):
    return (
        f"{row['row']:<11} {row['what']:<44} {row['rate']:>8.2f} {row['unit']:<10}"
        f"{row['median']:>8.3f} s ({row['least']:.3f} to {row['most']:.3f}), "
        f"{row['temporary_bytes'] / 1e6:,.0f} MB, compiled in {row['compile']:.1f} s"
    )


def _circumstances(given):
    root = pathlib.Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "preset": given.preset,
        "data": given.data,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "versions": versions(),
        "commit": commit,
    }


if __name__ == "__main__":
    define_flags()
    app.run(main)
