"""Measures the speed of what runs long: `python -m experiments.benchmark`."""

import dataclasses
import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments import startup
from experiments.benchmark.peers import WAYS, compare_with_peers
from experiments.benchmark.steps import measure_steps, variants
from experiments.benchmark.tables import benchmark_tables
from experiments.checkout import commit
from mtml_jax.checks import check_chunk
from mtml_jax.config import PRESETS, TrainConfig
from mtml_jax.data.episodes import pack_rows
from mtml_jax.data.prepare import Prepared, prepare
from mtml_jax.data.vocab import START
from mtml_jax.eval.adaptation import score_stages
from mtml_jax.eval.folds import choose_folds, measure_folds, pack_folds
from mtml_jax.meta.inner import GRADIENTS
from mtml_jax.model import decoding, transformer
from mtml_jax.runs.files import write_json
from mtml_jax.runs.versions import versions
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.loop import initial_state
from mtml_jax.types import Tokens

_SHOTS, _EPOCHS, _SEED = 5, 1, 0
_CONTEXTS = 16  # decoded side by side


def define_flags() -> None:
    settings.define_device_flags()
    settings.define_data_flags()
    # Seconds to compile would be those of a look into the cache.
    flags.FLAGS.set_default("compilation_cache", "")
    flags.DEFINE_enum("preset", "small", list(PRESETS), "preset of model sizes and training settings")
    flags.DEFINE_list(
        "rows", ["steps", *CALLS], f"comma-separated list of what is measured: steps, {', '.join(CALLS)}; or none"
    )
    flags.DEFINE_list("strategies", ["std", "paml", "mtml", "amtml"], "strategies whose steps are timed")
    flags.DEFINE_list("gradients", ["first_order", "finite_difference", "mixed", "exact"], "gradient methods whose steps are timed")
    flags.DEFINE_list(
        "chunks", ["default"], "numbers of personas vmapped at a time on a device for which steps are timed, or default"
    )
    flags.DEFINE_list("remat", ["no"], "whether steps recompute layers in the backward pass: no, yes or no,yes")
    flags.DEFINE_integer("batches", 2, "number of real batches that steps are timed on", lower_bound=2)
    flags.DEFINE_list(
        "peers", [], f"PyTorch programs to compare with: {', '.join(WAYS)}; pip install -e '.[peers]'"
    )
    flags.DEFINE_string("peers_python", sys.executable, "path of a Python interpreter that has PyTorch")
    flags.DEFINE_integer("peers_chunk", 4, "number of personas vmapped at a time by the peer func", lower_bound=1)
    flags.DEFINE_integer("repeats", 7, "number of timings per row, of which the median is shown", lower_bound=2)
    flags.DEFINE_string("json", None, "file for all numbers, as JSON")
    flags.DEFINE_boolean("markdown", False, "print the tables as Markdown")


def main(argv) -> None:
    given = flags.FLAGS
    startup.start(argv, "--preset=small")
    with startup.one_sentence("interrupted"):
        benchmark(given)


def benchmark(given) -> None:
    """Runs the whole command; `given` has the flags as attributes."""
    kinds = [kind for kind in given.rows if kind != "none"]
    check_among("rows", kinds, ("steps", *CALLS))
    check_among("strategies", given.strategies, STRATEGIES)
    check_among("gradients", given.gradients, GRADIENTS)
    check_among("remat", given.remat, ("no", "yes"))
    check_among("peers", given.peers, WAYS)
    chunks = [_chunk(text) for text in given.chunks]
    config = PRESETS[given.preset]
    for chunk in chunks:
        check_chunk(
            dataclasses.replace(config, persona_chunk=chunk), persona_mesh(config.meta_batch).size
        )

    @functools.cache
    def prepared(strategy):
        return prepare(
            dataclasses.replace(config, strategy=strategy),
            given.data,
            given.data_dir,
            split_seed=given.split_seed,
            skip_bad=given.skip_bad,
        )

    def data_of(config):
        return prepared(config.strategy)

    data = data_of(config)
    say(
        f"preset {given.preset}, data {given.data}, {len(data.vocabulary):,} words, random "
        f"parameters, {len(jax.devices())} x {jax.devices()[0].device_kind}"
    )
    rows = []
    if "steps" in kinds:
        configs = variants(
            config, given.strategies, given.gradients, chunks, [w == "yes" for w in given.remat]
        )
        rows += measure_steps(configs, data_of, given.batches, given.repeats, say)
    params = initial_state(config, data).params
    for name in kinds:
        if name in CALLS:
            rows += [
                {"row": name, **row} for row in CALLS[name](config, data, params, given.repeats)
            ]
    if given.peers:
        mtml = dataclasses.replace(config, strategy="mtml")
        rows += compare_with_peers(
            mtml,
            data_of(mtml),
            given.peers,
            given.peers_python,
            given.repeats,
            given.peers_chunk,
            say,
        )
    say("\n" + benchmark_tables(rows, given.markdown))
    if given.json:
        write_json(given.json, {"rows": rows, **circumstances(given)})


def check_among(flag: str, given, allowed) -> None:
    """Checks the values of a flag that takes a list.

    Raises:
      ValueError: one is not allowed.
    """
    if unknown := set(given) - set(allowed):
        raise ValueError(f"got --{flag}={min(unknown)}, want some of {', '.join(allowed)}")


def _chunk(text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdigit() or not int(text):
        raise ValueError(f"got --chunks={text}, want numbers from 1, or default")
    return int(text)


def say(line: str) -> None:
    print(line, flush=True)


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


CALLS = {"adaptation": adaptation, "decoding": decoded}


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


def circumstances(given) -> dict:
    """Where and with what the numbers were measured."""
    return {
        "preset": given.preset,
        "data": given.data,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "versions": versions(),
        "commit": commit(),
    }


if __name__ == "__main__":
    define_flags()
    app.run(main)
