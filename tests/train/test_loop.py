"""Check the loop: resuming gives the same bits, a run stops when it should, the log is right."""

import dataclasses
import os
import signal
import time

import jax
import numpy as np
import pytest
from jax._src.array import ArrayImpl

from mtml_jax.config import ModelConfig, TileShape, TrainConfig
from mtml_jax.data.episodes import training_batch, training_names, validation_batch
from mtml_jax.data.prepare import prepare
from mtml_jax.data.vocab import PAD
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.log import RunLog, read_log
from mtml_jax.sharding import persona_mesh
from mtml_jax.train import loop as training
from mtml_jax.train import resume

CONFIG = TrainConfig(
    model=ModelConfig(
        encoder_layers=1, decoder_layers=1, heads=2, width=6, feed_forward=10, activation="relu"
    ),
    shape=TileShape(rows=2, context=31, response=41, persona=61),
    strategy="amtml",
    meta_batch=2,
    inner_lr=0.1,
    warmup=3,
    iterations=7,
    validate_every=3,
    validation_episodes=2,
    gradient="first_order",  # compiles in half the time; the loop is the same
)


class Stop(BaseException):
    """Stands for a process that is killed: nothing after it runs."""


@pytest.fixture(scope="module")
def data():
    return prepare(CONFIG, "demo")


@pytest.fixture(autouse=True)
def compile_once(monkeypatch):
    monkeypatch.setattr(training, "fit_steps", _fit_steps)


_rates_at = training.rates_at


_fitted = {}
_original_fit = training.fit_steps


def _fit_steps(config, placement, arguments):
    # Rates and counts are not compiled in, so that all runs here share two programs.
    if (key := config.strategy) not in _fitted:
        _fitted[key] = _original_fit(config, placement, arguments)
    return _fitted[key]._replace(config=config)


def run(workdir, data, config=CONFIG, at_row=lambda step, kind: None, **more):
    class Log(RunLog):
        def row(self, step, kind, **numbers):
            super().row(step, kind, **numbers)
            at_row(step, kind)

    with Checkpoints(workdir) as checkpoints:
        with Log(workdir, checkpoints.latest_step() or 0) as log:
            return training.train(config, data, log, checkpoints, lambda text: None, **more)


def assert_same_bits(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def rows(workdir):
    timing = {"seconds", "tokens_per_second"}
    return [
        {name: value for name, value in row.items() if name not in timing}
        for row in read_log(workdir / "log.jsonl")
    ]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, data):
    jax.config.update("jax_disable_most_optimizations", True)
    patch = pytest.MonkeyPatch()
    patch.setattr(training, "fit_steps", _fit_steps)
    workdir = tmp_path_factory.mktemp("whole")
    outcome = run(workdir, data)
    patch.undo()
    return workdir, outcome


def test_a_whole_run_logs_every_step_and_validates(whole_run):
    workdir, outcome = whole_run
    assert outcome.reason == "finished" and int(outcome.state.step) == 7
    train = [row for row in rows(workdir) if row["kind"] == "train"]
    assert [row["step"] for row in train] == [1, 2, 3, 4, 5, 6, 7]
    # Odd iterations adapt on personas and are judged on responses, even ones the reverse.
    for row in train:
        inner, outer = ("response", "persona") if row["step"] % 2 == 0 else ("persona", "response")
        names = {name for name in row if name.endswith("_loss")}
        assert names == {f"support_{inner}_loss", f"query_{outer}_loss"}
        assert row["loss"] == pytest.approx(row[f"query_{outer}_loss"], rel=0.2)
    valid = [row for row in rows(workdir) if row["kind"] == "valid"]
    assert [row["step"] for row in valid] == [3, 6, 7]
    best = min(valid, key=lambda row: row["adapted_response_ppl"])
    assert outcome.progress.best_score == best["adapted_response_ppl"]
    assert outcome.progress.best_step == best["step"]


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_terminated_run_goes_on_with_the_same_bits(tmp_path, data, whole_run, step):
    def terminate(at, kind):
        if (at, kind) == (step, "train"):
            os.kill(os.getpid(), signal.SIGTERM)

    first = run(tmp_path, data, at_row=terminate)
    assert first.reason == "interrupted" and int(first.state.step) == step
    second = run(tmp_path, data)
    assert second.reason == "finished"
    assert_same_bits(second.state, whole_run[1].state)
    assert second.progress._replace(seconds=0) == whole_run[1].progress._replace(seconds=0)
    assert rows(tmp_path) == rows(whole_run[0])


@pytest.mark.parametrize("step", [1, 5])
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, data, whole_run, step):
    def kill(at, kind):
        if (at, kind) == (step, "train"):
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path, data, at_row=kill)
    second = run(tmp_path, data)
    assert_same_bits(second.state, whole_run[1].state)
    assert rows(tmp_path) == rows(whole_run[0])


def test_signal_handlers_are_given_back(tmp_path, data, whole_run):
    before = signal.getsignal(signal.SIGTERM)
    run(tmp_path, data, dataclasses.replace(CONFIG, iterations=1))
    assert signal.getsignal(signal.SIGTERM) is before


def test_training_stops_when_no_score_is_better(tmp_path, data, whole_run):
    config = dataclasses.replace(
        CONFIG, outer_lr=0.0, validate_every=1, patience=2, iterations=50
    )
    outcome = run(tmp_path, data, config)
    assert outcome.reason == "no better score"
    assert outcome.progress.best_step == 1 and int(outcome.state.step) == 3
    again = run(tmp_path, data, config)
    assert again.reason == "no better score" and int(again.state.step) == 3
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.best_step(), checkpoints.latest_step()) == (1, 3)


@pytest.mark.long
def test_steps_without_a_finite_gradient_are_skipped_told_and_end_the_run(
    tmp_path, data, whole_run
):
    config = dataclasses.replace(CONFIG, inner_lr=1e30, max_skipped=4)
    message = "the last 4 steps up to 4, .*state before them is saved; lower --outer_lr or --inner_lr"
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, data, config)
    template = jax.tree.map(np.array, resume.initial_state(config, data))
    with Checkpoints(tmp_path) as checkpoints:
        state, counters = checkpoints.restore(checkpoints.latest_step(), template)
    assert int(state.step) == 4 and int(state.opt_state[1].count) == 0
    assert_same_bits(state.params, template.params)
    assert (counters["skipped"], counters["skipped_in_a_row"]) == (4, 4)
    notes = [row for row in rows(tmp_path) if row["kind"] == "note"]
    assert [row["step"] for row in notes] == [1, 2, 3, 4]
    for step, row in enumerate(notes):
        names = training_names(data, config, step, devices=persona_mesh(config.meta_batch).size)
        assert f"skipped, because of {', '.join(names)}: loss " in row["text"]
    with pytest.raises(FloatingPointError, match="up to 4, "):  # it is no better the next time
        run(tmp_path, data, config)


@pytest.mark.long
def test_a_run_goes_on_after_a_step_that_was_skipped(tmp_path, data, monkeypatch, whole_run):
    def poisoned(config, step):
        rates = _rates_at(config, step)
        return rates.replace(inner_lr=np.float32(1e30)) if step in (1, 4) else rates

    monkeypatch.setattr(training, "rates_at", poisoned)
    config = dataclasses.replace(CONFIG, max_skipped=2)

    def stop(step, kind):
        if (step, kind) == (5, "train"):
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "killed", data, config, at_row=stop)
    outcomes = [run(tmp_path / name, data, config) for name in ("killed", "whole")]
    assert_same_bits(*(outcome.state for outcome in outcomes))
    assert repr(rows(tmp_path / "killed")) == repr(rows(tmp_path / "whole"))  # NaNs among them
    for outcome in outcomes:
        assert (outcome.reason, int(outcome.state.opt_state[1].count)) == ("finished", 5)
        assert (outcome.progress.skipped, outcome.progress.skipped_in_a_row) == (2, 0)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path, data, whole_run):
    assert_same_bits(run(tmp_path / "same", data).state, whole_run[1].state)
    other = run(tmp_path / "other", data, dataclasses.replace(CONFIG, seed=1))
    assert not np.array_equal(
        other.state.params["embedding"], whole_run[1].state.params["embedding"]
    )


def test_a_clock_that_jumps_changes_nothing(tmp_path, data, monkeypatch, whole_run):
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    def jump(step, kind):
        ahead[0] = {2: -1e9, 3: 1e9, 5: -1e5, 6: 3600.0}.get(step, ahead[0])

    def scalars():
        return {path: path.read_bytes() for path in (tmp_path / "tensorboard").iterdir()}

    outcome = run(tmp_path, data, at_row=jump)
    assert_same_bits(outcome.state, whole_run[1].state)
    assert rows(tmp_path) == rows(whole_run[0])
    monkeypatch.setattr(time, "time", lambda: 1e9)
    for _ in range(2):  # nothing is written over what is there
        before = scalars()
        run(tmp_path, data)
        assert len(scalars()) == len(before) + 1 and before.items() <= scalars().items()
    with Checkpoints(tmp_path) as found, Checkpoints(whole_run[0]) as wanted:
        assert found.latest_step() == wanted.latest_step() and found.notes == []


def test_rates_warm_up_linearly():
    config = dataclasses.replace(CONFIG, outer_lr=0.6, warmup=3, alpha=0.7, inner_lr=0.2)
    outer = [float(training.rates_at(config, step).outer_lr) for step in range(5)]
    np.testing.assert_allclose(outer, [0.2, 0.4, 0.6, 0.6, 0.6], rtol=1e-6)
    rates = training.rates_at(dataclasses.replace(config, warmup=0), 0)
    np.testing.assert_allclose(
        [rates.alpha, rates.inner_lr, rates.outer_lr], [0.7, 0.2, 0.6], rtol=1e-6
    )


def test_batches_are_functions_of_seed_and_step(data):
    one = training_batch(data, CONFIG, 4)
    assert_same_bits(one, training_batch(data, CONFIG, 4))
    other = training_batch(data, CONFIG, 6)  # the same phase
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


def test_validation_has_no_persona_targets_and_is_fixed(data):
    episode = validation_batch(data, dataclasses.replace(CONFIG, validation_episodes=19))
    (support,), (query,) = episode.support, episode.query
    assert not support.targets.task.any() and not query.targets.task.any()
    assert query.targets.ids.shape[0] == 19  # more than there are personas
    assert (query.targets.ids != PAD).any(axis=(1, 2)).all()


def test_a_step_fetches_its_metrics_once_and_sends_nothing_unasked(tmp_path, data, monkeypatch):
    fetched, steps = [], []
    value = ArrayImpl._value

    def counted(array):
        fetched.append(array.shape)
        return value.fget(array)

    def at_row(step, kind):
        # JAX's guard does not see what the host reads of a CPU's arrays, so that is counted.
        jax.config.update("jax_transfer_guard_host_to_device", "disallow")
        steps.append((kind, len(fetched), set(fetched)))
        fetched.clear()

    monkeypatch.setattr(ArrayImpl, "_value", property(counted))
    try:
        run(tmp_path, data, dataclasses.replace(CONFIG, validate_every=5), at_row)
    finally:
        jax.config.update("jax_transfer_guard_host_to_device", "allow")
    # Loss, norm of the gradient, and both tasks' sums and counts of support and query.
    assert steps[1:5] == [("train", 10, {()})] * 4


def test_minutes_end_a_run_that_more_of_them_finish(tmp_path, data, whole_run):
    for _ in range(2):  # what is over stays so
        outcome = run(tmp_path, data, minutes=1e-9)
        assert outcome.reason == "out of minutes" and int(outcome.state.step) == 1
        assert outcome.progress.best_step == 1 and outcome.progress.seconds > 0
    outcome = run(tmp_path, data, minutes=60.0)
    assert outcome.reason == "finished"
    assert_same_bits(outcome.state, whole_run[1].state)
    seconds = [row["seconds"] for row in read_log(tmp_path / "log.jsonl") if row["kind"] == "train"]
    assert outcome.progress.seconds == pytest.approx(sum(seconds), rel=1e-6)
