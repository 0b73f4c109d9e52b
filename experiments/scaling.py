"""Time and memory of a step against what makes it larger: `python -m experiments.scaling`."""

import dataclasses
import importlib.util
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments import startup
from experiments.benchmark.__main__ import check_among, circumstances, say
from experiments.benchmark.tables import megabytes, spread, table
from experiments.scaling_plot import draw
from mtml_jax.config import PRESETS, TrainConfig
from mtml_jax.data.episodes import EncodedDialogue, EncodedPersona, Example, tiles_needed
from mtml_jax.data.prepare import Prepared, prepare, training_batch
from mtml_jax.data.vocab import UNK
from mtml_jax.meta.inner import GRADIENTS
from mtml_jax.meta.outer import init_state
from mtml_jax.model import transformer
from mtml_jax.runs.files import write_json
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.train.loop import rates_at
from mtml_jax.train.memory_plan import jitted_steps


class Axis(NamedTuple):
    """What grows: a heading with its unit, and the sizes."""

    label: str
    values: tuple[int, ...]


AXES = {
    "personas": Axis("personas a step", (4, 8, 16, 32, 64)),
    "inner_steps": Axis("inner steps", (1, 2, 4, 8)),
    "context": Axis("context, tokens", (64, 128, 256, 512)),
    "vocabulary": Axis("vocabulary, words", (5_000, 10_000, 20_000, 50_000)),
}


def define_flags() -> None:
    settings.define_device_flags()
    settings.define_data_flags()
    # Seconds to compile would be those of a look into the cache.
    flags.FLAGS.set_default("compilation_cache", "")
    flags.DEFINE_enum("preset", "small", list(PRESETS), "preset whose sizes do not grow")
    flags.DEFINE_enum("gradient", None, GRADIENTS, "method of differentiating through the inner step of mtml (default: the preset's)")
    flags.DEFINE_list("axes", list(AXES), f"comma-separated list of what grows: {', '.join(AXES)}")
    flags.DEFINE_boolean("compile_only", False, "measure memory and seconds to compile, without timing steps")
    flags.DEFINE_integer("repeats", 3, "number of timed steps per point, after one to warm up", lower_bound=1)
    flags.DEFINE_string("json", None, "file for all numbers, as JSON")
    flags.DEFINE_string("plot", None, "file for a plot of the numbers, as PNG")
    flags.DEFINE_boolean("markdown", False, "print the table as Markdown")


def main(argv) -> None:
    given = flags.FLAGS
    startup.start(argv, "--preset=small")
    with startup.one_sentence("interrupted; nothing was written"):
        scale(given)


def scale(given) -> None:
    """Runs the whole command; `given` has the flags as attributes."""
    check_among("axes", given.axes, AXES)
    if given.plot and not importlib.util.find_spec("matplotlib"):
        raise ImportError("found no matplotlib for --plot; get it with pip install -e '.[plot]'")
    config = dataclasses.replace(PRESETS[given.preset], strategy="mtml")
    if given.gradient:
        config = dataclasses.replace(config, gradient=given.gradient)
    source = {"split_seed": given.split_seed, "skip_bad": given.skip_bad}
    data = prepare(config, given.data, given.data_dir, **source)
    say(
        f"mtml, {config.gradient}, preset {given.preset}, data {given.data}, "
        f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
    )
    points = [(axis, value) for axis in given.axes for value in AXES[axis].values]
    rows: list[dict[str, Any]] = []
    for axis, value in tqdm(points, desc="points", unit="point", leave=False, disable=None):
        repeats = 0 if given.compile_only else given.repeats
        found = _measured(*_grown(config, data, axis, value), repeats)
        rows.append({"axis": axis, "value": value, **found})
    say(scaling_table(rows, given.markdown))
    if given.json:
        write_json(given.json, {"rows": rows, "axes": AXES, **circumstances(given)})
    if given.plot:
        title = f"one outer step, mtml, {config.gradient}, preset {given.preset}"
        draw(rows, {name: AXES[name].label for name in given.axes}, title, given.plot)


def scaling_table(rows: Sequence[dict[str, Any]], markdown: bool) -> str:
    """The points, each beside how much more it is than the first of its axis."""
    first = {row["axis"]: row for row in reversed(rows)}
    cells = []
    for row in rows:
        base = first[row["axis"]]
        timed = "median" in row
        cells.append(
            [
                AXES[row["axis"]].label,
                f"{row['value']:,}",
                f"{row['value'] / base['value']:g}",
                spread(row) if timed else "",
                f"{row['median'] / base['median']:.2f}" if timed else "",
                megabytes(row["temporary_bytes"]),
                f"{row['temporary_bytes'] / base['temporary_bytes']:.2f}",
                f"{row['compile']:.1f}",
            ]
        )
    header = ["what grows", "to", "times", "seconds", "times", "temporary MB", "times"]
    return table([*header, "compiled in s"], cells, markdown)


def _grown(config: TrainConfig, data: Prepared, axis: str, value: int):
    """(config, data, words) with one size changed; dialogues stay real but for what is said."""
    words = len(data.vocabulary)
    if axis == "personas":
        return dataclasses.replace(config, meta_batch=value), data, words
    if axis == "inner_steps":
        return dataclasses.replace(config, inner_steps=value), data, words
    if axis == "vocabulary":
        # Words beyond are unknown; where there are fewer, the rest of the matrix is never read.
        return config, _with_examples(data, lambda e: _clipped(e, value)), value
    shape = dataclasses.replace(config.shape, rows=1, context=value, small=None)
    data = _with_examples(
        data, lambda e: dataclasses.replace(e, context=_lengthened(e.context, value))
    )
    dialogues = [d for persona in data.train for d in persona.dialogues]
    data = dataclasses.replace(data, tiles=tiles_needed(dialogues, shape))
    return dataclasses.replace(config, shape=shape), data, words


def _with_examples(data, change):
    """The corpus with every example of train changed."""
    return dataclasses.replace(
        data,
        train=[
            EncodedPersona(
                persona.name,
                tuple(
                    EncodedDialogue(d.conversation, tuple(change(e) for e in d.examples))
                    for d in persona.dialogues
                ),
            )
            for persona in data.train
        ],
    )


def _clipped(example: Example, words: int) -> Example:
    def clip(ids):
        return tuple(i if i < words else UNK for i in ids)

    return Example(clip(example.context), clip(example.response), clip(example.persona))


def _lengthened(context: tuple[int, ...], length: int) -> tuple[int, ...]:
    """The context again and again, to exactly so many tokens."""
    return (context * -(-length // len(context)))[:length]


def _measured(config, data, words, repeats):
    """Memory and seconds to compile of the outer step; and the seconds of some."""
    if len(data.train) < config.meta_batch:
        raise ValueError(
            f"the data have {len(data.train)} personas, want {config.meta_batch} for the largest "
            "step; choose a larger --data, or --axes without personas"
        )
    mesh = persona_mesh(config.meta_batch)
    params = transformer.init(jax.random.key(config.seed), words, config.model)
    state = replicate(init_state(params), mesh)
    batch = split_personas(training_batch(data, config, 0, devices=mesh.size), mesh)
    rates = replicate(rates_at(config, 0), mesh)
    [step] = jitted_steps(config, mesh)
    clock = time.perf_counter()
    compiled = step.lower(state, batch, rates).compile()
    memory = compiled.memory_analysis()
    found = {
        "compile": time.perf_counter() - clock,
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "words": words,
    }
    if not repeats:
        return found
    seconds = []
    for _ in range(repeats + 1):
        clock = time.perf_counter()
        state, metrics = compiled(state, batch, rates)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - clock)
    seconds = seconds[1:]
    return {
        **found,
        "seconds": seconds,
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
    }


if __name__ == "__main__":
    define_flags()
    app.run(main)
