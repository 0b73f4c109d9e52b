"""The benchmark's commands on a model of a few words: what is compared, refused and printed."""

import dataclasses
import functools
import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from experiments import plots, scaling
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import peers, steps
from experiments.benchmark.tables import benchmark_tables, table
from mtml_jax.config import PRESETS, ModelConfig, TileShape
from mtml_jax.data.prepare import prepare

CONFIG = dataclasses.replace(
    PRESETS["tiny"],
    model=ModelConfig(
        encoder_layers=1, decoder_layers=1, heads=2, width=8, feed_forward=16, activation="gelu"
    ),
    shape=TileShape(rows=1, context=48, response=40, persona=80),
    strategy="mtml",
    meta_batch=2,
)


@pytest.fixture(scope="module")
def data():
    return prepare(CONFIG, "demo")


def test_variants_have_gradient_modes_where_there_is_an_inner_step():
    found = list(steps.variants(CONFIG, ["std", "mtml"], ["mixed", "exact"], [None, 2], [False]))
    assert [(c.strategy, c.gradient, c.persona_chunk) for c in found] == [
        ("std", "mixed", None),
        ("std", "mixed", 2),
        ("mtml", "mixed", None),
        ("mtml", "mixed", 2),
        ("mtml", "exact", None),
        ("mtml", "exact", 2),
    ]


@pytest.fixture(scope="module")
def rows(data):
    configs = [
        dataclasses.replace(CONFIG, strategy=strategy, gradient="first_order")
        for strategy in ("mtml", "amtml")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "product_ceiling", lambda *_: 1e12)
        return steps.measure_steps(configs, lambda config: data, 2, 3, lambda line: None)


@pytest.mark.long
def test_steps_compare_what_is_measured_with_what_is_counted(rows):
    ceiling, mtml, first, second, mean = rows
    assert (ceiling["row"], mean["what"]) == ("ceiling", "amtml, mean")
    assert mtml["batches"] == mean["batches"] == 2
    assert first["batches"] == second["batches"] == 1
    assert np.isclose(mean["operations"], (first["operations"] + second["operations"]) / 2)
    assert mean["to_mtml"]["counted"] == mean["operations"] / mtml["operations"] < 1
    assert mean["to_mtml"]["measured"] == mean["median"] / mtml["median"]
    assert np.isclose(mtml["achieved_share"], mtml["operations"] / mtml["median"] / 1e12)
    assert mtml["least"] <= mtml["median"] <= mtml["most"]
    assert np.shape(mtml["seconds"]) == (3, 2)
    assert 0 < mtml["real_shares"]["attention"] < mtml["real_shares"]["products"] <= 1


@pytest.mark.long
def test_a_step_that_copies_from_the_host_is_refused(data, monkeypatch):
    """Rates as Python numbers would be sent anew with every step."""
    replicate = steps.replicate

    def left_on_host(tree, mesh):
        return jax.device_get(tree) if hasattr(tree, "inner_lr") else replicate(tree, mesh)

    monkeypatch.setattr(steps, "product_ceiling", lambda *_: 1e12)
    monkeypatch.setattr(steps, "replicate", left_on_host)
    config = dataclasses.replace(CONFIG, gradient="first_order")
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        steps.measure_steps([config], lambda config: data, 2, 2, lambda line: None)


@pytest.mark.long
def test_tables_are_text_or_markdown(rows):
    text = benchmark_tables(rows, markdown=False)
    assert "amtml, mean" in text and "Ceiling: 1,000 GFLOP/s" in text
    marked = table(["a", "b"], [["1", "22"]], markdown=True)
    assert marked == "| a | b |\n| --- | --- |\n| 1 | 22 |"
    assert table(["a", "b"], [["123", "4"]], markdown=False) == "a    b\n123  4"


@pytest.fixture
def fake_peer(monkeypatch):
    """A peer that answers with our own gradient times a factor."""

    def use(factor):
        ours = {}

        def time_ours(config, data, params, base, repeats):
            ours["grads"] = peers.named_leaves(params)
            return {"median": 1.0, "least": 1.0, "most": 1.0}, 2.0, ours["grads"]

        def run(command, way, say):
            folder = pathlib.Path(command[4])
            grads = {f"grads/{name}": factor * g for name, g in ours["grads"].items()}
            np.savez(folder / f"{way}.npz", loss=2.0, **grads)
            report = {"torch": "9", "resident_bytes": 7, "threads": 2, "seconds": [3.0, 2.0, 4.0]}
            (folder / f"{way}.json").write_text(json.dumps(report))
            return True

        monkeypatch.setattr(peers, "_time_ours", time_ours)
        monkeypatch.setattr(peers, "_run", run)

    return use


def test_peers_that_agree_are_compared(data, fake_peer):
    fake_peer(1.0 + 1e-6)
    rows = peers.compare_with_peers(CONFIG, data, ["func"], "python", 3, 2, lambda line: None)
    assert [row["what"] for row in rows][:3] == [
        "ours, smallest (mixed)", "ours, default (mixed)", "ours, fastest (finite difference)"
    ]  # fmt: skip
    assert (rows[3]["median"], rows[3]["to_ours"]["fastest"]) == (3.0, 3.0)
    assert np.isclose(rows[3]["difference"], 1e-6, rtol=0.2)


def test_a_peer_that_disagrees_is_no_peer(data, fake_peer):
    fake_peer(1.001)
    with pytest.raises(ValueError, match="expected the meta-gradient of PyTorch loop within"):
        peers.compare_with_peers(CONFIG, data, ["loop"], "python", 3, 2, lambda line: None)


@pytest.mark.parametrize("gradient", ["finite_difference", "exact"])
def test_finite_differences_that_do_not_agree_are_left_out(data, fake_peer, monkeypatch, gradient):
    fake_peer(1.0)
    time_ours, lines = peers._time_ours, []

    def time_wrongly(config, *others):
        row, loss, grads = time_ours(config, *others)
        return row, loss + (config.gradient == gradient), grads

    monkeypatch.setattr(peers, "_time_ours", time_wrongly)
    config = dataclasses.replace(CONFIG, gradient="exact")
    compare = functools.partial(peers.compare_with_peers, config, data, ["loop"], "python", 3, 2)
    if gradient == "exact":  # no approximation
        with pytest.raises(ValueError, match=r"expected loss 2.0.* from ours, default \(exact\)"):
            compare(lines.append)
        return
    rows = compare(lines.append)
    assert any("ours, fastest (finite difference): left out; expected loss 2.0" in x for x in lines)
    assert rows[-1]["what"].startswith("PyTorch") and len(rows) == 3
    assert rows[-1]["to_ours"] == {"smallest": 3.0, "default": 3.0}


def test_a_peer_that_does_not_run_is_told():
    lines = []
    program = "import sys; print('step 1'); sys.exit('no torch here')"
    assert not peers._run([sys.executable, "-c", program], "loop", lines.append)
    assert lines[0] == "PyTorch step 1"
    assert "no torch here" in lines[1] and "--peers_python" in lines[1]


@pytest.mark.parametrize(
    "flag, value", [("chunks", "0"), ("chunks", "many"), ("peers", "tensorflow"), ("rows", "x")]
)
def test_wrong_values_are_named(flag, value):
    given = {
        "rows": ["none"], "strategies": ["mtml"], "gradients": ["mixed"], "remat": ["no"],
        "peers": [], "chunks": ["default"], "preset": "tiny", flag: [value],
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"--{flag}={value}"):
        benchmark.benchmark(type("Given", (), given))


def test_what_grows_is_what_was_asked(data):
    config, grown, words = scaling._grown(CONFIG, data, "context", 64)
    lengths = {len(e.context) for p in grown.train for d in p.dialogues for e in d.examples}
    assert (config.shape.context, lengths, words) == (64, {64}, len(data.vocabulary))
    _, clipped, words = scaling._grown(CONFIG, data, "vocabulary", 50)
    ids = {i for p in clipped.train for d in p.dialogues for e in d.examples for i in e.response}
    assert words == 50 and max(ids) < 50 <= len(data.vocabulary)
    assert scaling._grown(CONFIG, data, "inner_steps", 4)[0].inner_steps == 4
    assert scaling._grown(CONFIG, data, "personas", 8)[0].meta_batch == 8


@pytest.mark.long
def test_a_point_is_measured(data):
    config = dataclasses.replace(CONFIG, gradient="first_order")
    found = scaling._measured(config, data, len(data.vocabulary), 2)
    assert found["temporary_bytes"] > 0 and len(found["seconds"]) == 2
    row = {"axis": "personas", "value": 4, **found}
    more = {**row, "value": 8, "median": 3 * found["median"]}
    last = scaling.scaling_table([row, more], markdown=True).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")][3:6:2] == ["2", "3.00"]


def test_the_plot_is_a_picture():
    timed = {"temporary_bytes": 2e6, "median": 1.0, "least": 0.9, "most": 1.1}
    rows = [{"axis": "personas", "value": n, **timed} for n in (4, 8)]
    rows += [{"axis": "context", "value": n, "temporary_bytes": 1e6 * n} for n in (64, 128)]
    labels = {name: scaling.AXES[name].label for name in ("personas", "context")}
    figure = scaling.draw(rows, labels, "a title")
    assert plots.png(figure).startswith(b"\x89PNG")
