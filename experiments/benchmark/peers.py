"""The same meta-gradient here and in PyTorch processes: agreement first, then times."""

import dataclasses
import functools
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import jax
import numpy as np

from experiments.benchmark.memory import most_resident, reset_most_resident
from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import EncodedDialogue
from mtml_jax.data.episodes import sample_episodes, training_batch
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.loop import initial_state, rates_at

# Of the meta-gradient, relative to its norm. At preset paper float32 is 1.4e-4 (here) and 0.5e-4
# (PyTorch) away from float64, and a first-order gradient 830e-4.
_TOLERANCE = 3e-4


_STEP = 0  # the batch
WAYS = {
    "loop": "loop with create_graph",
    "higher": "higher",
    "func": "torch.func, vmap of grad",
}


def compare_with_peers(
    config: TrainConfig, data: Prepared, ways, python: str, repeats: int, chunk: int, say
) -> list[dict]:
    """Times the meta-gradient of one batch of mtml, here in three settings and in PyTorch.

    Args:
      config: of mtml; the smallest setting is one persona at a time, rematerialised,
        forward over reverse, and the fastest one takes finite differences.
      data: prepared for it.
      ways: of `WAYS`.
      python: interpreter that has PyTorch.
      repeats: timed steps of each, after one to warm up.
      chunk: personas at a time of the way "func".
      say: takes lines for the user, without times.

    Returns:
      A row each; all of them agree.

    Raises:
      ValueError: no peer runs, or a loss or meta-gradient is another than ours.
    """
    smallest = dataclasses.replace(
        config,
        gradient="mixed",
        persona_chunk=1,
        model=dataclasses.replace(config.model, remat=True),
    )
    params = jax.device_get(initial_state(config, data).params)
    settings = {"smallest": smallest, "default": config}
    if config.model.activation != "relu":  # whose kinks a finite difference does not see
        settings["fastest"] = dataclasses.replace(config, gradient="finite_difference")
    rows, agreed = [], None
    for name, ours in settings.items():
        what = f"ours, {name} ({ours.gradient.replace('_', ' ')})"
        say(f"{what}: compiling and {repeats + 1} steps")
        row, loss, grads = _time_ours(ours, data, params, repeats)
        if agreed:
            row["difference"] = _compare(what, *agreed, loss, grads)
        agreed = agreed or (loss, grads)
        rows.append({"row": "peers", "what": what, "difference": 0.0, **row})
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        _write_problem(folder, config, data, _STEP, params)
        for way in ways:
            command = [python, "-u", "-m", "experiments.benchmark.peer_torch", str(folder), f"--way={way}"]
            if not _run([*command, f"--repeats={repeats}", f"--chunk={chunk}"], way, say):
                continue
            report = json.loads((folder / f"{way}.json").read_text())
            with np.load(folder / f"{way}.npz", allow_pickle=False) as theirs:
                prefix = "grads/"
                named = {n.removeprefix(prefix): theirs[n] for n in theirs if n.startswith(prefix)}
                loss = float(theirs["loss"])
            rows.append(
                {
                    "row": "peers",
                    "what": f"PyTorch {report['torch']}, {WAYS[way]}",
                    "difference": _compare(f"PyTorch {way}", loss, named, *agreed),
                    "resident_bytes": report["resident_bytes"],
                    "threads": report["threads"],
                    **_times(report["seconds"]),
                }
            )
    if len(rows) == len(settings):
        raise ValueError("no PyTorch way ran, so there is nothing to compare; see --peers_python")
    for row in rows:
        row["to_ours"] = {name: row["median"] / one["median"] for name, one in zip(settings, rows)}
    return rows


def _time_ours(config, data, params, repeats):
    """(times and memory, loss, meta-gradient by name) of this process."""
    mesh = persona_mesh(config.meta_batch)
    gradient = jax.jit(
        functools.partial(
            mean_gradient,
            phase=STRATEGIES[config.strategy].phases[0],
            config=config.step(mesh.devices.flat[0].platform),
            placement=Placement(mesh),
        )
    )
    arguments = (
        replicate(params, mesh),
        split_personas(training_batch(data, config, _STEP, devices=mesh.size), mesh),
        replicate(rates_at(config, _STEP), mesh),
    )
    compiled = gradient.lower(*arguments).compile()
    reset_most_resident()
    seconds = []
    for _ in range(repeats + 1):
        clock = time.perf_counter()
        grads, metrics = jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - clock)
    times = {
        **_times(seconds[1:]),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "resident_bytes": most_resident(),
    }
    return times, float(metrics.loss), named_leaves(grads)


def _times(seconds):
    return {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
    }


def _run(command, way, say) -> bool:
    """Whether the way ran; its lines are said as they come."""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=pathlib.Path(__file__).resolve().parents[2],
        ) as running:
            for line in running.stdout:
                say(f"PyTorch {line.rstrip()}")
        if not running.returncode:
            return True
        errors.seek(0)
        last = (errors.read().strip() or "killed, perhaps for memory").splitlines()[-1]
    say(f"PyTorch {way}: did not run ({last}); see --peers_python")
    return False


def named_leaves(tree) -> dict[str, np.ndarray]:
    """Arrays by their path, like "encoder/0/feed_forward/hidden"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _write_problem(folder, config, data, step, params):
    triples = sample_episodes(data.train, config.meta_batch, config.seed, step)
    arrays = {f"params/{name}": leaf for name, leaf in named_leaves(params).items()}
    for number, (_, *sides) in enumerate(triples):
        for side, dialogue in zip(("support", "query"), sides):
            for field, ids in _padded(dialogue, config.distinct_start).items():
                arrays[f"data/{number}/{side}/{field}"] = ids
    np.savez(folder / "problem.npz", **arrays)
    problem = {
        "heads": config.model.heads,
        "layers": [config.model.encoder_layers, config.model.decoder_layers],
        "activation": config.model.activation,
        "personas": len(triples),
        "alpha": config.alpha,
        "inner_lr": config.inner_lr,
    }
    (folder / "problem.json").write_text(json.dumps(problem))


def _padded(dialogue: EncodedDialogue, distinct_start: bool) -> dict[str, np.ndarray]:
    """Ids of all turns, padded to the longest of the dialogue."""
    start = START_PERSONA if distinct_start else START
    turns = tuple(dialogue.examples)
    fields = {
        "context": [e.context for e in turns],
        "response_inputs": [(START, *e.response[:-1]) for e in turns],
        "response": [e.response for e in turns],
        "persona_inputs": [(start, *e.persona[:-1]) for e in turns],
        "persona": [e.persona for e in turns],
    }
    padded = {}
    for field, rows in fields.items():
        padded[field] = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for n, ids in enumerate(rows):
            padded[field][n, : len(ids)] = ids
    return padded


def _compare(who, loss, grads, our_loss, ours):
    """How far two meta-gradients are apart, relative to the norm of ours."""
    if not abs(loss - our_loss) <= 1e-4 * abs(our_loss):
        raise ValueError(
            f"{who} got loss {loss:.6f}, we got {our_loss:.6f}: not the same step, so its time "
            "says nothing"
        )
    apart = {name: grads[name] - mine for name, mine in ours.items()}
    difference = _norm(apart) / _norm(ours)
    if not difference <= _TOLERANCE:
        worst = max(apart, key=lambda name: _norm({name: apart[name]}))
        raise ValueError(
            f"{who} got another meta-gradient than we did: {difference:.1e} of its norm apart, "
            f"want at most {_TOLERANCE:.0e}; most of it in {worst}"
        )
    return difference


def _norm(arrays):
    return math.sqrt(sum(float(np.vdot(x, x)) for x in arrays.values()))
