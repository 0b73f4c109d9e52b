"""The same outer step in PyTorch, in processes of their own: agreement first, then times."""

import dataclasses
import json
import math
import pathlib
import subprocess
import tempfile

import jax
import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.data.episodes import EncodedDialogue, sample_episodes
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.vocab import START, START_PERSONA

_TOLERANCE = 1e-4  # of the meta-gradient, relative to its norm: float32 in two orders of summing


@dataclasses.dataclass(frozen=True)
class PeerTimes:
    """One way's seconds of each step, and the most memory that its process held."""

    way: str
    seconds: tuple[float, ...]
    resident_bytes: int
    difference: float
    versions: str


def run_peers(
    ways,
    python: str,
    config: TrainConfig,
    data: Prepared,
    step: int,
    params,
    loss: float,
    grads,
    repeats: int,
    say=print,
):
    """Yields PeerTimes of each way of `experiments.peer_torch`.

    Args:
      ways: of "loop", "higher" and "func".
      python: interpreter that has PyTorch.
      config: of an mtml step.
      data: prepared corpus.
      step: number of the batch.
      params: the initial parameters, on the host.
      loss: our meta-objective at them.
      grads: our meta-gradient, shaped like params.
      repeats: timed steps.
      say: takes lines for the user.

    Raises:
      ValueError: a peer does not run, or its loss or meta-gradient is another.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        _write_problem(folder, config, data, step, params)
        for way in ways:
            command = [python, "-m", "experiments.peer_torch", str(folder), f"--way={way}"]
            done = subprocess.run(
                [*command, f"--repeats={repeats}"],
                capture_output=True,
                text=True,
                cwd=pathlib.Path(__file__).resolve().parents[1],
            )
            if done.returncode:
                last = (done.stderr.strip() or "killed, perhaps for memory").splitlines()[-1]
                say(f"PyTorch {way}: did not run ({last}); see --peers_python")
                continue
            report = json.loads((folder / f"{way}.json").read_text())
            difference = _compare(way, folder / f"{way}.npz", loss, grads)
            yield PeerTimes(
                way,
                tuple(report["seconds"]),
                report["resident_bytes"],
                difference,
                f"torch {report['torch']}, {report['threads']} threads",
            )


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


def _compare(way, path, loss, grads):
    """How far the two meta-gradients are apart, relative to the norm of ours."""
    ours = named_leaves(grads)
    with np.load(path) as theirs:
        if abs(theirs["loss"] - loss) > 1e-4 * abs(loss):
            raise ValueError(
                f"PyTorch {way} got loss {theirs['loss']:.6f}, we got {loss:.6f}: not the same "
                "step, so its time says nothing"
            )
        apart = {name: theirs[f"grads/{name}"] - mine for name, mine in ours.items()}
    difference = _norm(apart) / _norm(ours)
    if difference > _TOLERANCE:
        worst = max(apart, key=lambda name: _norm({name: apart[name]}))
        raise ValueError(
            f"PyTorch {way} got another meta-gradient than we did: {difference:.1e} of its norm "
            f"apart, want at most {_TOLERANCE:.0e}; most of it in {worst}"
        )
    return difference


def _norm(arrays):
    return math.sqrt(sum(float(np.vdot(x, x)) for x in arrays.values()))
