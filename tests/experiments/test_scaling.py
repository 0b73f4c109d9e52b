"""Check that any number of devices and processes gives the same numbers and ends in a clear way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from jax.sharding import PartitionSpec

from experiments import flags as settings
from experiments import startup
from experiments import train as command
from experiments.communication import traffic
from mtml_jax import sharding
from mtml_jax.data.episodes import training_batch, training_names, validation_batch
from mtml_jax.data.prepare import prepare
from mtml_jax.runs.checkpoint import Checkpoints, restore_params
from mtml_jax.runs.folder import load_run, restored_config
from mtml_jax.runs.log import read_log
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train import loop as training

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SIZES = (
    "--strategy=std --preset=tiny --width=6 --feed_forward=10 --tile_rows=2 --context_tokens=31 "
    "--response_tokens=41 --persona_tokens=61 --meta_batch=4 --validation_episodes=3 --warmup=3 "
    "--validate_every=3 --compilation_cache="
).split()
PROGRAM = """
import jax
from absl import app
from experiments import train
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_default_matmul_precision", "highest")
train.summary.show = lambda *arguments: None
train.define_flags()
app.run(train.main)
"""


def twenty_steps(strategy, dtype, *placements):
    program = [sys.executable, "tests/experiments/twenty_steps.py", strategy, dtype, *placements]
    done = subprocess.run(program, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def assert_same_run(found, dtype):
    one = found.pop("1")
    assert one["losses"][-1] < 0.95 * one["losses"][0]  # it trained
    for other in found.values():
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-4)
        if dtype == "float64":
            np.testing.assert_allclose(other["params"], one["params"], rtol=0, atol=1e-10)


@pytest.mark.long
def test_eight_devices_give_the_numbers_of_one_and_send_the_gradient_once():
    found = twenty_steps("std", "float64", "1", "8", "8s", "8s-2")
    (whole,), (split,) = found["8"]["traffic"], found["8s"]["traffic"]
    size = found["8"]["params_bytes"]
    numbers = 1000  # bytes, of the losses and counts that are summed beside it
    assert whole["payload"].keys() == {"all-reduce"}
    assert size <= whole["payload"]["all-reduce"] < size + numbers
    assert split["payload"]["all-gather"] == split["payload"]["reduce-scatter"] == size
    assert split["payload"].keys() == {"all-gather", "reduce-scatter", "all-reduce"}
    assert split["payload"]["all-reduce"] < numbers
    for one in (whole, split):
        assert one["looped"] == one["host"] == 0  # nothing a persona, nothing to the host
    assert found["8"]["state_bytes_a_device"] == found["8"]["state_bytes"]
    assert found["8s"]["state_bytes_a_device"] < 1.01 * found["8s"]["state_bytes"] / 8
    assert_same_run(found, "float64")


@pytest.mark.parametrize(
    "strategy, dtype, placements",
    [
        *(
            pytest.param(name, "float64", ("1", "2", "4s", "8"), marks=pytest.mark.long)
            for name in STRATEGIES
        ),
        # Single precision agrees less closely, for one strategy as for all.
        *(
            pytest.param(
                name, "float32", ("1", "2s", "4", "8s"),
                marks=pytest.mark.long if name == "amtml" else pytest.mark.slow,
            )
            for name in STRATEGIES
        ),
    ],
)
def test_every_strategy_is_the_same_on_any_number_of_devices(strategy, dtype, placements):
    found = twenty_steps(strategy, dtype, *placements)
    for placement, one in found.items():
        for phase in one["traffic"]:
            assert phase["looped"] == phase["host"] == 0
            assert bool(phase["payload"]) == (placement != "1")
    assert_same_run(found, dtype)


def test_loops_and_the_host_are_noticed():
    text = """HloModule m
%body (x: f32[3]) -> f32[3] {
  ROOT %a = (f32[2,5]{1,0}, bf16[]) all-reduce(%x, %y), replica_groups={}
}
ENTRY %main (x: f32[3]) -> f32[3] {
  %b = f32[7]{0} reduce-scatter(%x), dimensions={0}
  %c = f32[3] custom-call(%x), custom_call_target="xla_ffi_python_cpu_callback"
  %d = s64[4]{0} all-gather(%x), dimensions={0}
}"""
    found = traffic(text, 8)
    assert found == ({"all-reduce": 42, "reduce-scatter": 224, "all-gather": 32}, 1, 1)
    assert found.sent(8) == pytest.approx(7 / 8 * (2 * 42 + 224 + 32))


def test_parameters_are_split_along_the_longest_even_axis():
    mesh = sharding.persona_mesh(2)
    assert mesh.size == 2
    tree = {"a": np.zeros((3, 4, 6)), "b": np.zeros((5, 7)), "c": np.zeros(()), "d": np.zeros(2)}
    assert sharding.split_specs(tree, mesh) == {
        "a": PartitionSpec(None, None, "personas"),
        "b": PartitionSpec(),
        "c": PartitionSpec(),
        "d": PartitionSpec("personas"),
    }


@pytest.fixture
def of_two(monkeypatch):
    """As in the second of two processes with half of the devices each."""
    devices = [
        type("Device", (), {"process_index": index % 2, "id": index}) for index in (2, 1, 0, 3)
    ]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(sharding, "Mesh", lambda devices, axes: devices)


def test_a_process_has_one_run_of_personas(of_two):
    assert [device.id for device in sharding.persona_mesh(8)] == [0, 2, 1, 3]
    assert sharding.own_share(8) == slice(4, 8)


def test_processes_whose_devices_would_stay_idle_are_refused(of_two):
    with pytest.raises(ValueError, match="--meta_batch to be a multiple of 4, .* of 2 processes, got 6"):
        sharding.persona_mesh(6)


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    """The settings of `SIZES`, and their data."""
    with flagsaver.flagsaver():
        command.define_flags()
        flags.FLAGS(["train", *SIZES])
        config = settings.resolve_config()
    return config, prepare(config, "demo")


def test_a_share_holds_those_of_the_whole(settled):
    config, data = settled
    whole = training_batch(data, config, 5)
    parts = [training_batch(data, config, 5, slice(n, n + 2)) for n in (0, 2)]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    names = [training_names(data, config, 5, slice(n, n + 2)) for n in (0, 2)]
    all_names = training_names(data, config, 5)
    order = [sum(names, []).index(name) for name in all_names]  # each share is dealt by itself
    assert sorted(order) == [0, 1, 2, 3]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b), joined, whole)


def test_padded_validation_counts_what_there_is(settled):
    config, data = settled
    whole, padded = validation_batch(data, config), validation_batch(data, config, 8)
    assert len(padded.query[0].targets.ids) == 8
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:3], b), padded, whole)
    assert not any(leaf[3:].any() for leaf in jax.tree.leaves(padded.query))
    assert padded.support[0].targets.ids[3:].any(axis=(1, 2)).all()
    last = validation_batch(data, config, 8, slice(2, 4))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2:4], b), padded, last)


@pytest.mark.parametrize(
    "environment, several",
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # in a job's shell, without srun
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[1-4]"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "t-0"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t-0,t-1"}, True),
    ],
)
def test_the_launcher_tells_of_other_processes(environment, several):
    assert startup._launched_with_others(environment) == several


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["--coordinator=here:1"], "HOST:PORT and two numbers, or only --coordinator=auto"),
        (["--process_id=1"], "HOST:PORT and two numbers, or only --coordinator=auto, got --coordinator=None, --num_processes=None and --process_id=1"),
        (["--coordinator=auto", "--num_processes=2"], "only --coordinator=auto"),
        (["--coordinator=here:1", "--num_processes=2", "--process_id=2"], "from 0 to 1"),
    ],
)
def test_half_told_places_are_refused(arguments, wanted):
    with flagsaver.flagsaver():
        command.define_flags()
        flags.FLAGS(["train", *arguments])
        with pytest.raises(SystemExit) as ended:
            startup.join_processes()
    assert str(ended.value).startswith("error: ") and wanted in str(ended.value)


def start_two(workdir, iterations, devices=1):
    """Two processes over loopback: the command with small sizes and no summary."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    return [
        subprocess.Popen(
            [
                sys.executable, "-c", PROGRAM, *SIZES, f"--workdir={workdir}",
                f"--iterations={iterations}", f"--cpu_devices={devices}", "--patience=1000",
                f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={n}",
            ],
            cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for n in range(2)
    ]  # fmt: skip


def finish(processes):
    """(exit status, output, errors) of each."""
    texts = [process.communicate() for process in processes]
    return [(p.returncode, *text) for p, text in zip(processes, texts)]


def assert_as_one_process(workdir, data, tmp_path):
    """That the run has the parameters of one in this process, never interrupted."""
    config = restored_config(load_run(workdir)[0])
    rows = [row for row in read_log(workdir / "log.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, config.iterations + 1))
    with Checkpoints(tmp_path / "one") as checkpoints:
        alone = training.train(config, data, None, checkpoints, say=lambda text: None)
    found = restore_params(workdir, "latest")
    assert found.step == int(alone.state.step) == config.iterations
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(alone.state.params)):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@pytest.mark.long
def test_two_processes_are_one_run(tmp_path, settled):
    ended = finish(start_two(tmp_path / "w", 5))
    for status, _, errors in ended:
        assert status == 0, errors[-3000:]
    first, second = (output for _, output, _ in ended)
    assert "2 processes; if one dies" in first and "4 personas a step on a mesh of 2 devices" in first
    assert "finished at step 5" in first and "finished" not in second
    assert_as_one_process(tmp_path / "w", settled[1], tmp_path)


def until_step(workdir, step, processes):
    while all(process.poll() is None for process in processes):
        if (workdir / "log.jsonl").exists():
            rows = read_log(workdir / "log.jsonl")
            if rows and rows[-1]["step"] >= step:
                return
        time.sleep(0.1)
    raise AssertionError(finish(processes))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_job_which_goes_on(
    tmp_path, settled, devices, victim
):
    processes = start_two(tmp_path / "w", 100_000, devices)
    until_step(tmp_path / "w", 8, processes)
    processes[victim].kill()
    clock = time.monotonic()
    ended = finish(processes)
    assert time.monotonic() - clock < 60
    status, _, errors = ended[1 - victim]
    assert status != 0
    assert "goes on from the last checkpoint" in errors or "another task died" in errors
    last = read_log(tmp_path / "w" / "log.jsonl")[-1]["step"]
    ended = finish(start_two(tmp_path / "w", last + 5, devices))
    assert [status for status, *_ in ended] == [0, 0] and "going on from step" in ended[0][1]
    assert_as_one_process(tmp_path / "w", settled[1], tmp_path)


@pytest.mark.slow
def test_a_termination_of_one_process_saves_and_ends_both(tmp_path, settled):
    processes = start_two(tmp_path / "w", 100_000)
    until_step(tmp_path / "w", 4, processes)
    processes[1].send_signal(signal.SIGTERM)
    ended = finish(processes)
    assert [status for status, *_ in ended] == [143] * 2
    saved = restore_params(tmp_path / "w", "latest").step
    assert f"interrupted at step {saved:,}" in ended[0][1]
    ended = finish(start_two(tmp_path / "w", saved + 3))
    assert [status for status, *_ in ended] == [0, 0], ended[0][2][-2000:]
    assert_as_one_process(tmp_path / "w", settled[1], tmp_path)
