"""The benchmark of a pretrained decoder: steps with its base, and PyTorch processes that agree."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import peers, problems, slots, steps
from experiments.benchmark.tables import benchmark_tables
from mtml_jax.config import PRESETS
from mtml_jax.config_decoder import LoraConfig, RowShape
from mtml_jax.data.episodes import sample_episodes, training_batch
from mtml_jax.data.prepare import prepare
from mtml_jax.meta.cost_decoder import count_decoder_step
from mtml_jax.model.pretrained import with_decoder
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.resume import read_base

(MTML,) = STRATEGIES["mtml"].phases


@pytest.fixture(scope="module")
def config(tiny_decoder):
    """Two of the three layers are adapted, so that one is frozen."""
    preset = PRESETS["pretrained"]
    model = dataclasses.replace(preset.model, lora=LoraConfig(rank=2, layers=2))
    shaped = dataclasses.replace(
        preset, model=model, shape=RowShape(256), strategy="mtml", meta_batch=2, inner_lr=0.1
    )
    return with_decoder(shaped, str(tiny_decoder))


@pytest.fixture(scope="module")
def data(config):
    return prepare(config, "demo")


@pytest.mark.long
def test_steps_of_a_decoder_are_timed_and_counted(config, data, monkeypatch):
    monkeypatch.setattr(steps, "product_ceiling", lambda *_: 1e12)
    [config] = steps.variants(config, ["mtml"], ["first_order"], [None], [False])
    rows = steps.measure_steps([config], lambda config: data, 2, 2, lambda line: None)
    _, row = rows
    triples = [sample_episodes(data.train, 2, config.seed, step) for step in range(2)]
    counts = [count_decoder_step(some, MTML, config.model) for some in triples]
    assert row["operations"] == np.mean([count.operations("first_order") for count in counts])
    tokens = np.mean([count.tokens for count in counts])
    assert np.isclose(row["tokens_per_second"], tokens / row["median"])
    assert row["temporary_bytes"] > 0 and np.shape(row["seconds"]) == (2, 2)
    header = benchmark_tables(rows, markdown=False).splitlines()[0]
    assert header.endswith("real %: slots, predicted")


def test_real_shares_of_rows_are_those_without_padding(config, data):
    shares = slots.real_row_shares(training_batch(data, config, 0))
    triples = sample_episodes(data.train, config.meta_batch, config.seed, 0)
    room = np.array(data.size(MTML.inner)) * 2 * len(triples)
    real = np.zeros(2)
    for _, *sides in triples:
        for dialogue in sides:
            for window in dialogue.examples:
                for strand in window.strands(MTML.inner):
                    real += len(strand.ids), len(strand.predicted)
    assert np.allclose([shares["slots"], shares["predicted"]], real / room)
    assert 0 < shares["slots"] < 1


@pytest.fixture
def python():
    """A Python interpreter that has PyTorch."""
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    program = "import sys, importlib.util; sys.exit(not importlib.util.find_spec('torch'))"
    if subprocess.run([python, "-c", program]).returncode:
        pytest.skip("no PyTorch: pip install -e '.[peers]', or set PEERS_PYTHON=ENV/bin/python")
    return python


@pytest.mark.long
@pytest.mark.parametrize("way", ["loop", "func"])
def test_pytorch_agrees_with_the_meta_gradient_of_a_decoder(config, data, python, monkeypatch, way):
    # One of our configurations stands for all, whose agreement meta/test_adapters.py proves.
    time_ours, taken = peers._time_ours, []

    def time_once(*arguments):
        taken.append(taken[0] if taken else time_ours(*arguments))
        return taken[0]

    monkeypatch.setattr(peers, "_time_ours", time_once)
    rows = peers.compare_with_peers(config, data, [way], python, 2, 2, lambda line: None)
    assert len(rows) == 4 and rows[3]["what"].endswith(peers.WAYS[way])
    assert rows[3]["difference"] < 1e-5 and rows[3]["resident_bytes"] > 0
    assert len(rows[3]["seconds"]) == 2 and rows[3]["to_ours"].keys() == {"smallest", "default", "fastest"}


def test_a_decoder_that_the_peer_does_not_know_is_refused(config):
    base = read_base(config)
    layers = base["layers"] | {"query_bias": np.zeros((2, 40))}
    with pytest.raises(ValueError, match="without biases .* got .* with query_bias"):
        problems._decoder(config.model, config.init_from, base | {"layers": layers})


@pytest.fixture
def measured(monkeypatch, tiny_decoder):
    """(flags) -> (configurations, peers) that would be measured with the tiny decoder."""

    def measure(*arguments):
        found = []

        def compare(config, data, ways, *_):
            found.append((config, ways))
            return []

        monkeypatch.setattr(benchmark, "measure_steps", lambda configs, *_: found.extend(configs) or [])
        monkeypatch.setattr(benchmark, "compare_with_peers", compare)
        with flagsaver.flagsaver():
            benchmark.define_flags()
            flags.FLAGS(["benchmark", f"--init_from={tiny_decoder}", *arguments])
            benchmark.benchmark(flags.FLAGS)
        return found

    return measure


def test_flags_name_the_decoder_and_what_is_measured(measured, tiny_decoder):
    sizes = ("--lora_layers=1", "--row_tokens=300", "--persona_after=every", "--meta_batch=2")
    step, (peer, ways) = measured(
        *sizes, "--strategies=paml", "--gradients=mixed", "--peers=loop"
    )
    assert (step.strategy, step.gradient, peer.strategy, ways) == ("paml", "mixed", "mtml", ["loop"])
    for config in (step, peer):
        assert config.init_from == str(tiny_decoder) and config.model.layers == 3
        assert (config.model.lora.layers, config.meta_batch) == (1, 2)
        assert config.shape == RowShape(300, "every")


@pytest.mark.parametrize("flag, value", [("rows", "decoding"), ("peers", "higher")])
def test_what_a_decoder_has_not_is_refused(measured, flag, value):
    with pytest.raises(ValueError, match=f"with a pretrained decoder, got --{flag}={value}"):
        measured(f"--{flag}={value}")
