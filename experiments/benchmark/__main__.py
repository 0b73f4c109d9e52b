"""Measure the speed of what runs long: `python -m experiments.benchmark`."""

import dataclasses
import functools
import sys

import jax
from absl import app, flags

from experiments import flags as settings
from experiments import startup
from experiments.benchmark.calls import CALLS
from experiments.benchmark.measuring import (
    check_among,
    circumstances,
    define_measuring_flags,
    read_corpus,
    say,
)
from experiments.benchmark.peers import DECODER_WAYS, WAYS, compare_with_peers
from experiments.benchmark.steps import measure_steps, variants
from experiments.benchmark.tables import benchmark_tables
from mtml_jax.checks import check_chunk
from mtml_jax.config import GRADIENTS
from mtml_jax.runs.files import write_json
from mtml_jax.sharding import persona_mesh
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.resume import initial_state

_SETTINGS = ("init_from", "meta_batch", "lora_layers", "row_tokens", "persona_after")


def define_flags() -> None:
    define_measuring_flags()
    settings.define_preset_flags(*_SETTINGS)
    flags.DEFINE_list(
        "rows", None, f"comma-separated list of what is measured: steps, {', '.join(CALLS)}; or none "
        "(default: all, of which a pretrained decoder has steps alone)"
    )
    flags.DEFINE_list("strategies", ["std", "paml", "mtml", "amtml"], "strategies whose steps are timed")
    flags.DEFINE_list("gradients", ["first_order", "finite_difference", "mixed", "exact"], "gradient methods whose steps are timed")
    flags.DEFINE_list(
        "chunks", ["default"], "numbers of personas vmapped at a time on a device for which steps are timed, or default"
    )
    flags.DEFINE_list("remat", ["no"], "whether steps recompute layers in the backward pass: no, yes or no,yes")
    flags.DEFINE_integer("batches", 2, "number of real batches that steps are timed on", lower_bound=2)
    flags.DEFINE_list("peers", [], f"PyTorch programs to compare with: {', '.join(WAYS)}; pip install -e '.[peers]'")
    flags.DEFINE_string("peers_python", sys.executable, "path of a Python interpreter that has PyTorch")
    flags.DEFINE_integer("peers_chunk", 4, "number of personas vmapped at a time by the peer func", lower_bound=1)
    flags.DEFINE_integer("repeats", 7, "number of timings per row, of which the median is shown", lower_bound=2)


def main(argv) -> None:
    startup.start(argv, "--preset=small")
    with startup.one_sentence("interrupted"):
        benchmark(flags.FLAGS)


def benchmark(given) -> None:
    """Measures what the flags, the attributes of `given`, ask for; prints and writes the rows."""
    # Check every flag before anything is compiled.
    kinds = [kind for kind in given.rows or () if kind != "none"]
    check_among("rows", kinds, ("steps", *CALLS))
    check_among("strategies", given.strategies, STRATEGIES)
    check_among("gradients", given.gradients, GRADIENTS)
    check_among("remat", given.remat, ("no", "yes"))
    check_among("peers", given.peers, WAYS)
    chunks = [_parse_chunk(text) for text in given.chunks]
    config = settings.resolve_config(*_SETTINGS)
    if config.init_from:
        _check_decoder(kinds, given.peers)
    if given.rows is None:
        kinds = ["steps"] if config.init_from else ["steps", *CALLS]
    devices = persona_mesh(config.meta_batch).size
    for chunk in chunks:
        check_chunk(dataclasses.replace(config, persona_chunk=chunk), devices)

    # Read the corpus, once for each strategy that is measured.
    @functools.cache
    def prepared(strategy):
        return read_corpus(dataclasses.replace(config, strategy=strategy), given)

    def data_of(config):
        return prepared(config.strategy)

    data = data_of(config)
    model = f"new adapters of {config.init_from}" if config.init_from else "random parameters"
    say(
        f"preset {settings.preset_name()}, data {given.data}, {len(data.vocabulary):,} words, "
        f"{model}, {len(jax.devices())} x {jax.devices()[0].device_kind}"
    )

    # Measure the outer steps, then the other calls, then the peers.
    rows = []
    if "steps" in kinds:
        configs = variants(
            config, given.strategies, given.gradients, chunks, [w == "yes" for w in given.remat]
        )
        rows += measure_steps(configs, data_of, given.batches, given.repeats, say)
    for name in kinds:
        if name in CALLS:
            params = initial_state(config, data).params
            rows += [{"row": name, **r} for r in CALLS[name](config, data, params, given.repeats)]
    if given.peers:
        mtml = dataclasses.replace(config, strategy="mtml")
        rows += compare_with_peers(
            mtml, data_of(mtml), given.peers, given.peers_python, given.repeats,
            given.peers_chunk, say,
        )  # fmt: skip

    say("\n" + benchmark_tables(rows, given.markdown))
    if given.json:
        settled = {"preset": settings.preset_name(), "config": dataclasses.asdict(config)}
        write_json(given.json, {"rows": rows, **circumstances(given), **settled})


def _check_decoder(kinds, peers):
    """Raises a ValueError if something is to be measured that a pretrained decoder has not."""
    for flag, values, allowed in (("rows", kinds, ["steps"]), ("peers", peers, DECODER_WAYS)):
        if unknown := set(values) - set(allowed):
            raise ValueError(
                f"expected --{flag}={','.join(allowed)} with a pretrained decoder, got "
                f"--{flag}={min(unknown)}, which measures presets from scratch alone"
            )


def _parse_chunk(text: str) -> int | None:
    if text == "default":
        return None
    if not text.isdigit() or not int(text):
        raise ValueError(f"expected --chunks of whole numbers from 1, or default, got --chunks={text}")
    return int(text)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
