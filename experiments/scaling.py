"""Measure how time and memory of a step grow with its sizes: `python -m experiments.scaling`."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import app, flags

from experiments import plots, startup
from experiments.benchmark.measuring import (
    check_among,
    circumstances,
    define_measuring_flags,
    read_corpus,
    say,
    summarise,
    time_calls,
)
from experiments.benchmark.tables import megabytes, spread, table
from mtml_jax.config import FROM_SCRATCH, GRADIENTS, PRESETS, TrainConfig
from mtml_jax.data.encode import EncodedDialogue, EncodedPersona, Example
from mtml_jax.data.episodes import training_batch
from mtml_jax.data.packing import tiles_needed
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.vocab import UNK
from mtml_jax.meta.outer import init_state
from mtml_jax.model import transformer
from mtml_jax.progress import ProgressBar
from mtml_jax.runs.files import write_bytes, write_json
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import TASKS
from mtml_jax.train.memory_plan import lower_steps
from mtml_jax.train.rates import rates_at


class Axis(NamedTuple):
    """A size that grows."""

    label: str  # its name with the unit
    values: tuple[int, ...]


AXES = {
    "personas": Axis("personas a step", (4, 8, 16, 32, 64)),
    "inner_steps": Axis("inner steps", (1, 2, 4, 8)),
    "context": Axis("context, tokens", (64, 128, 256, 512)),
    "vocabulary": Axis("vocabulary, words", (5_000, 10_000, 20_000, 50_000)),
}
_TIME = {"color": plots.BLUE, "marker": "o", "linestyle": "-"}
_MEMORY = {"color": plots.VERMILION, "marker": "s", "linestyle": "--"}


def define_flags() -> None:
    define_measuring_flags()
    flags.DEFINE_enum("preset", "small", FROM_SCRATCH, "preset whose sizes do not grow")
    flags.DEFINE_enum("gradient", None, GRADIENTS, "method of differentiating through the inner step of mtml (default: the preset's)")
    flags.DEFINE_list("axes", list(AXES), f"comma-separated list of what grows: {', '.join(AXES)}")
    flags.DEFINE_boolean("compile_only", False, "measure memory and seconds to compile, without timing steps")
    flags.DEFINE_integer("repeats", 3, "number of timed steps per point, after one to warm up", lower_bound=1)
    flags.DEFINE_string("plot", None, "file for a plot of the numbers, as PNG")


def main(argv) -> None:
    startup.start(argv, "--preset=small")
    with startup.one_sentence("interrupted; nothing was written"):
        scale(flags.FLAGS)


def scale(given) -> None:
    """Measures every point, and prints, writes and draws them as the flags in `given` ask for."""
    check_among("axes", given.axes, AXES)
    if given.plot:
        plots.require_matplotlib("--plot")
    base = PRESETS[given.preset]
    config = dataclasses.replace(base, strategy="mtml", gradient=given.gradient or base.gradient)
    data = read_corpus(config, given)
    say(
        f"mtml, {config.gradient}, preset {given.preset}, data {given.data}, "
        f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
    )
    points = [(axis, value) for axis in given.axes for value in AXES[axis].values]
    rows = []
    for axis, value in ProgressBar(points, desc="points", unit="point", leave=False):
        repeats = 0 if given.compile_only else given.repeats
        found = _measured(*_grown(config, data, axis, value), repeats)
        rows.append({"axis": axis, "value": value, **found})
    say(scaling_table(rows, given.markdown))
    if given.json:
        write_json(given.json, {"rows": rows, "axes": AXES, **circumstances(given)})
    if given.plot:
        labels = {name: AXES[name].label for name in given.axes}
        title = f"one outer step, mtml, {config.gradient}, preset {given.preset}"
        write_bytes(given.plot, plots.png(draw(rows, labels, title), dpi=130))


def scaling_table(rows: Sequence[dict[str, Any]], markdown: bool) -> str:
    """Formats all points, each with its ratios to the first point of its axis."""
    first = {row["axis"]: row for row in reversed(rows)}
    cells = []
    for row in rows:
        base = first[row["axis"]]
        timed = "median" in row
        times = [spread(row), f"{row['median'] / base['median']:.2f}"] if timed else ["", ""]
        cells.append([
            AXES[row["axis"]].label, f"{row['value']:,}", f"{row['value'] / base['value']:g}",
            *times, megabytes(row["temporary_bytes"]),
            f"{row['temporary_bytes'] / base['temporary_bytes']:.2f}", f"{row['compile']:.1f}",
        ])  # fmt: skip
    header = ["what grows", "to", "times", "seconds", "times", "temporary MB", "times"]
    return table([*header, "compiled in s"], cells, markdown)


def draw(rows: Sequence[dict[str, Any]], labels: Mapping[str, str], title: str):
    """Draws seconds on the left scale and megabytes on the right, one panel for each axis.

    The labels map each axis to its name with the unit, in the order of the panels.
    """
    figure = plots.new_figure(10, 7)
    panels = figure.subplots(2, 2).flat
    for (axis, label), panel in zip(labels.items(), panels):
        points = [row for row in rows if row["axis"] == axis]
        values = [row["value"] for row in points]
        if "median" in points[0]:
            median, *ends = ([row[k] for row in points] for k in ("median", "least", "most"))
            panel.plot(values, median, **_TIME)
            panel.fill_between(values, *ends, color=_TIME["color"], alpha=0.2, linewidth=0)
            panel.set_ylabel("seconds a step", color=_TIME["color"])
            memory = panel.twinx()
        else:
            memory = panel
        memory.plot(values, [row["temporary_bytes"] / 1e6 for row in points], **_MEMORY)
        memory.set_ylabel("temporary memory, MB", color=_MEMORY["color"])
        for scale in {panel, memory}:
            scale.set_ylim(bottom=0, top=1.1 * max(scale.dataLim.y1, 1e-9))
        panel.set_xlabel(label)
        panel.set_xlim(left=0)
        panel.set_xticks(values, [f"{v // 1000}k" if v >= 1000 else str(v) for v in values])
        panel.grid(alpha=0.3)
    for panel in panels:
        panel.set_visible(False)
    figure.suptitle(f"{title} (both scales start at 0)")
    return figure


def _grown(config: TrainConfig, data: Prepared, axis: str, value: int):
    """Changes one size; returns the config, the data, otherwise real, and the number of words."""
    words = len(data.vocabulary)
    if axis == "personas":
        return dataclasses.replace(config, meta_batch=value), data, words
    if axis == "inner_steps":
        return dataclasses.replace(config, inner_steps=value), data, words
    if axis == "vocabulary":
        # Rarer words become unknown; if there are fewer words, the other embeddings are not read.
        return config, _with_examples(data, lambda e: _clipped(e, value)), value
    shape = dataclasses.replace(config.shape, rows=1, context=value, small=None)
    data = _with_examples(data, lambda e: _lengthened(e, value))
    dialogues = [d for persona in data.train for d in persona.dialogues]
    encoding = dataclasses.replace(data.encoding, shape=shape)
    sizes = {TASKS: (tiles_needed(dialogues, shape),)}
    data = dataclasses.replace(data, encoding=encoding, sizes=sizes)
    return dataclasses.replace(config, shape=shape), data, words


def _with_examples(data, change):
    """Returns the corpus with every training example changed."""

    def changed(dialogue):
        return EncodedDialogue(dialogue.conversation, tuple(map(change, dialogue.examples)))

    train = [EncodedPersona(p.name, tuple(map(changed, p.dialogues))) for p in data.train]
    return dataclasses.replace(data, train=train)


def _clipped(example: Example, words: int) -> Example:
    def clip(ids):
        return tuple(i if i < words else UNK for i in ids)

    return Example(clip(example.context), clip(example.response), clip(example.persona))


def _lengthened(example: Example, length: int) -> Example:
    """Repeats the context to exactly this number of tokens."""
    repeated = example.context * -(-length // len(example.context))
    return dataclasses.replace(example, context=repeated[:length])


def _measured(config, data, words, repeats):
    """Measures memory and compile time of the outer step, and the time of some steps."""
    if len(data.train) < config.meta_batch:
        raise ValueError(
            f"expected at least {config.meta_batch} train personas for the largest step, got "
            f"{len(data.train)}; choose a larger --data, or --axes without personas"
        )
    mesh = persona_mesh(config.meta_batch)
    params = transformer.init(jax.random.key(config.seed), words, config.model)
    state, rates = replicate((init_state(params), rates_at(config, 0)), mesh)
    batch = split_personas(training_batch(data, config, 0, devices=mesh.size), mesh)
    [lower] = lower_steps(config, Placement(mesh))
    clock = time.perf_counter()
    compiled = lower(state, batch, rates).compile()
    memory = compiled.memory_analysis()
    found = {
        "compile": time.perf_counter() - clock,
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "words": words,
    }
    if not repeats:
        return found

    def step_once():
        nonlocal state  # a step donates the memory of its state
        state, metrics = compiled(state, batch, rates)
        return state, metrics

    _, seconds = time_calls(step_once, repeats)
    return {**found, "seconds": seconds, **summarise(seconds)}


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
