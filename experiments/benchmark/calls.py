"""Measure what runs long apart from training: adaptation at test time, and decoding."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.measuring import summarise, time_calls
from mtml_jax.config import TrainConfig
from mtml_jax.data.packing import pack_rows
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.vocab import START
from mtml_jax.eval.adaptation import score_stages
from mtml_jax.eval.folds import choose_folds, measure_folds, pack_folds
from mtml_jax.model import beam, decoding, transformer
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.types import Tokens

_SHOTS, _EPOCHS, _SEED = 5, 1, 0
_CONTEXTS = 16  # contexts that are decoded as one batch


def measure_adaptation(
    config: TrainConfig, data: Prepared, params, repeats: int
) -> Iterator[dict[str, Any]]:
    """Times one epoch of fine-tuning on five dialogues and the scoring of a sixth."""
    plans = choose_folds(data.valid, _SHOTS, _SEED, 2 * len(jax.devices()))
    sizes = measure_folds(plans, data.encoding, epochs=_EPOCHS, seed=_SEED)
    folds = pack_folds(plans, data.encoding, sizes, control=False, epochs=_EPOCHS, seed=_SEED)
    mesh = persona_mesh(len(plans))
    score = functools.partial(score_stages, stages=(_EPOCHS,), config=config.loss(), mesh=mesh)
    params, inner_lr = replicate((params, jnp.float32(config.inner_lr)), mesh)
    arguments = (params, split_personas(folds, mesh), inner_lr)
    used = [np.any(tiles.targets.inputs.segment, axis=(-1, -2)) for tiles in folds.batches]
    steps = int(np.any(used, axis=0).sum())
    what = f"{_SHOTS}-shot, {_EPOCHS} epoch, {steps / len(plans):.1f} SGD steps a fold"
    yield _measure(score, arguments, repeats, what, len(plans), "folds")


def measure_decoding(
    config: TrainConfig, data: Prepared, params, repeats: int
) -> Iterator[dict[str, Any]]:
    """Times replies of the greatest length to contexts of valid personas, on one device."""
    turns = [e for persona in data.valid for d in persona.dialogues[:1] for e in d.examples]
    shuffled = [turns[i].context for i in np.random.default_rng(_SEED).permutation(len(turns))]
    contexts = pack_rows(shuffled[:_CONTEXTS], config.shape.context, min(_CONTEXTS, len(turns)))
    ways = {
        "greedy, cached": decoding.greedy,
        "greedy, uncached": uncached_greedy,
        f"beam {beam.BEAMS}, cached": beam.beam_search,
    }
    for what, way in ways.items():
        decode = functools.partial(way, start=START, config=config.model)
        what = f"{what}, {decoding.MAX_TOKENS} tokens"
        yield _measure(decode, (params, contexts), repeats, what, len(contexts.ids), "replies")


def uncached_greedy(params, context, start, *, max_tokens=decoding.MAX_TOKENS, config):
    """Decodes greedily and recomputes the whole reply for every token, as without a cache."""
    matrix_VD = transformer.output_matrix(params, config)

    def one(context):
        memory_SD = transformer.encode(params, context, config)
        ones_T = jnp.ones(max_tokens, jnp.int32)
        position_T = jnp.arange(max_tokens)

        def step(ids_T, position):
            inputs = Tokens(ids_T, ones_T, position_T)
            memory = (memory_SD, context.segment)
            hidden_TD = transformer.decode(params, *memory, inputs, ones_T, config)
            best = jnp.argmax(matrix_VD @ hidden_TD[position]).astype(jnp.int32)
            return ids_T.at[position + 1].set(best, mode="drop"), best

        return jax.lax.scan(step, jnp.zeros(max_tokens, jnp.int32).at[0].set(start), position_T)[1]

    return jax.vmap(one)(context)


def _measure(function, arguments, repeats, what, count, units):
    """Compiles a function that makes `count` units, and times it; returns its row."""
    clock = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - clock
    _, seconds = time_calls(lambda: compiled(*arguments), repeats, what)
    times = summarise(seconds)
    return {
        "what": what,
        "unit": f"{units}/s",
        "rate": count / times["median"],
        **times,
        "compile": compile_seconds,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


CALLS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "adaptation": measure_adaptation,
    "decoding": measure_decoding,
}
