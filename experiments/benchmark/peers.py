"""Compare the meta-gradient with PyTorch processes: agreement first, then times."""

import dataclasses
import functools
import json
import math
import pathlib
import subprocess
import tempfile

import jax
import numpy as np

from experiments.benchmark.measuring import summarise, time_calls
from experiments.benchmark.memory import most_resident, reset_most_resident
from experiments.benchmark.problems import named_leaves, write_problem
from mtml_jax.config import TrainConfig
from mtml_jax.data.episodes import training_batch
from mtml_jax.data.prepare import Prepared
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.rates import rates_at
from mtml_jax.train.resume import initial_state, read_base

# The largest difference of two meta-gradients over the norm of one. At preset paper, float32
# differs from float64 by 1.4e-4 here and by 0.5e-4 in PyTorch, and first order by 830e-4.
_TOLERANCE = 3e-4
_STEP = 0  # the training step whose batch is used
WAYS = {  # name of a PyTorch implementation -> how tables call it
    "loop": "loop with create_graph",
    "higher": "higher",
    "func": "torch.func, vmap of grad",
}
DECODER_WAYS = ("loop", "func")  # those of a pretrained decoder


def compare_with_peers(
    config: TrainConfig, data: Prepared, ways, python: str, repeats: int, chunk: int, say
) -> list[dict]:
    """Times the meta-gradient of one batch of mtml, in three configurations here and in PyTorch.

    Args:
      config: the configuration of mtml, which is measured as "default". The "smallest" computes
        one persona at a time in mixed mode and recomputes layers; the "fastest" takes finite
        differences.
      data: the corpus, prepared for `config`.
      ways: names of `WAYS`, or of `DECODER_WAYS`.
      python: path of a Python interpreter that has PyTorch.
      repeats: number of timed steps of each, after one that warms up.
      chunk: number of personas that the way "func" computes at a time.
      say: prints a line for the user.

    Returns:
      One row for each; all meta-gradients agree. Finite differences, which approximate, are left
      out where they do not.

    Raises:
      ValueError: no peer ran, or its loss or meta-gradient differs from ours.
    """
    model = dataclasses.replace(config.model, remat=True)
    smallest = dataclasses.replace(config, gradient="mixed", persona_chunk=1, model=model)
    base = read_base(config)
    params = jax.device_get(initial_state(config, data, base).params)
    settings = {"smallest": smallest, "default": config}
    if getattr(config.model, "activation", "") != "relu":  # finite differences do not see its kinks
        settings["fastest"] = dataclasses.replace(config, gradient="finite_difference")

    # Measure our own configurations; the first one is what all others have to agree with.
    rows, agreed, measured = [], None, []
    for name, ours in settings.items():
        what = f"ours, {name} ({ours.gradient.replace('_', ' ')})"
        say(f"{what}: compiling and {repeats + 1} steps")
        row, loss, grads = _time_ours(ours, data, params, base, repeats)
        try:
            agreed = agreed or (loss, grads)
            row["difference"] = _compare(what, loss, grads, *agreed)
        except ValueError as error:
            if ours.gradient != "finite_difference":
                raise
            say(f"{what}: left out; {error}")
            continue
        measured.append(name)
        rows.append({"row": "peers", "what": what, "difference": 0.0, **row})

    # Run each peer in a process of its own on the same batch and the same parameters.
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_problem(folder, config, data, _STEP, params, base)
        program = f"experiments.benchmark.peer_torch{'_decoder' * bool(config.init_from)}"
        for way in ways:
            command = [python, "-u", "-m", program, str(folder), f"--way={way}"]
            if not _run([*command, f"--repeats={repeats}", f"--chunk={chunk}"], way, say):
                continue
            report = json.loads((folder / f"{way}.json").read_text())
            with np.load(folder / f"{way}.npz", allow_pickle=False) as theirs:
                prefix = "grads/"
                named = {n.removeprefix(prefix): theirs[n] for n in theirs if n.startswith(prefix)}
                loss = float(theirs["loss"])
            row = {
                "row": "peers",
                "what": f"PyTorch {report.pop('torch')}, {WAYS[way]}",
                "difference": _compare(f"PyTorch {way}", loss, named, *agreed),
            }
            rows.append({**row, **report, **summarise(report["seconds"])})
    if len(rows) == len(measured):
        raise ValueError(
            "expected at least one PyTorch implementation to run, got none; see --peers_python"
        )
    for row in rows:
        row["to_ours"] = {name: row["median"] / one["median"] for name, one in zip(measured, rows)}
    return rows


def _time_ours(config, data, params, base, repeats):
    """Returns (times and memory, loss, meta-gradient by name) of this process."""
    mesh = persona_mesh(config.meta_batch)
    gradient = functools.partial(
        mean_gradient,
        phase=STRATEGIES[config.strategy].phases[0],
        config=config.step(mesh.devices.flat[0].platform),
        placement=Placement(mesh),
    )
    batch = split_personas(training_batch(data, config, _STEP, devices=mesh.size), mesh)
    params, rates, base = replicate((params, rates_at(config, _STEP), base), mesh)
    arguments = (params, batch, rates, base)
    compiled = jax.jit(gradient).lower(*arguments).compile()
    reset_most_resident()
    (grads, metrics), seconds = time_calls(lambda: compiled(*arguments), repeats)
    times = {
        "seconds": seconds,
        **summarise(seconds),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "resident_bytes": most_resident(),
    }
    return times, float(metrics.loss), named_leaves(grads)


def _run(command, way, say) -> bool:
    """Runs a peer and prints its lines as they come; returns whether it succeeded."""
    with tempfile.TemporaryFile("w+") as errors:
        root = pathlib.Path(__file__).resolve().parents[2]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=root
        ) as running:
            for line in running.stdout:
                say(f"PyTorch {line.rstrip()}")
        if not running.returncode:
            return True
        errors.seek(0)
        last = (errors.read().strip() or "killed, perhaps for memory").splitlines()[-1]
    say(f"PyTorch {way}: did not run ({last}); see --peers_python")
    return False


def _compare(who, loss, grads, our_loss, ours):
    """Returns the difference of two meta-gradients relative to the norm of ours."""
    if not abs(loss - our_loss) <= 1e-4 * abs(our_loss):
        raise ValueError(
            f"expected loss {our_loss:.6f} from {who}, got {loss:.6f}; it computes another step, "
            "so its time cannot be compared"
        )
    gaps = {name: grads[name] - mine for name, mine in ours.items()}
    difference = _norm(gaps) / _norm(ours)
    if not difference <= _TOLERANCE:
        worst = max(gaps, key=lambda name: _norm({name: gaps[name]}))
        raise ValueError(
            f"expected the meta-gradient of {who} within {_TOLERANCE:.0e} of the norm of ours, got "
            f"a difference of {difference:.1e}; most of it is in {worst}"
        )
    return difference


def _norm(arrays):
    return math.sqrt(sum(float(np.vdot(x, x)) for x in arrays.values()))
