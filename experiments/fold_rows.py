"""Adapts to folds, scores and decodes them: rows that are never made twice."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.folds_file import FoldsFile
from experiments.tested import Run
from mtml_jax.data.vocab import START
from mtml_jax.eval.adaptation import score_stages
from mtml_jax.eval.folds import FoldPlan, measure_folds, pack_folds
from mtml_jax.model import beam, decoding
from mtml_jax.sharding import (
    fetch,
    from_first,
    own_share,
    persona_mesh,
    replicate,
    split_personas,
)

EPOCHS = (1, 3, 5, 7, 10)  # after which an adapted model is scored; 0 is the unadapted one
DECODERS = {
    "beam": beam.beam_search,
    "greedy": decoding.greedy,
    "nucleus": decoding.sample,
}


def run_folds(
    given,
    run: Run,
    plans: dict[int, list[FoldPlan]],
    done: FoldsFile | None,
    bar: tqdm | None = None,
) -> None:
    """Adapts, scores and decodes whatever fold is not done yet.

    All processes share every group of folds. The first one keeps the results in `done`,
    which the others have not, and goes on alone from here. `bar` is one of several
    evaluations, which a fold takes one further; None: of this one.
    """
    work = work_of(plans)
    rows = done.rows if done else {}
    waiting = {}
    for system, k in work:
        missing = [(system, k, p.persona, p.dialogue) not in rows for p in plans[k]]
        waiting[system, k] = [plans[k][i] for i in np.flatnonzero(from_first(np.array(missing)))]
    shape, longest = run.config.shape, max(plans)
    total = sum(len(plans[k]) for _, k in work)
    left = sum(map(len, waiting.values()))
    with contextlib.ExitStack() as stack:
        bar = bar or stack.enter_context(
            tqdm(total=total, initial=total - left, unit="fold", disable=None)
        )
        for several in (False, True):  # one program for all that adapt, whatever their k
            todo = [pair for pair in work if bool(pair[1]) == several and waiting[pair]]
            if not todo:
                continue
            bar.set_description("measuring")
            epochs = max(EPOCHS) if several else 1
            sizes = measure_folds(
                plans[longest if several else 0], shape, epochs=epochs, seed=given.seed
            )
            mesh, at_once, stages = _compiled(given, run, EPOCHS if several else (0,))
            for system, k in todo:
                bar.set_description(f"{system}, {k}-shot" if k else system)
                for some in _cut(waiting[system, k], at_once):
                    packed = pack_folds(
                        [some[i % len(some)] for i in range(at_once)][own_share(at_once)],
                        shape,
                        sizes,
                        control=system == "other",
                        epochs=epochs,
                        seed=given.seed,
                    )
                    found = stages(split_personas(packed, mesh))
                    if done:
                        done.add(_rows(run, system, k, some, found))
                    bar.update(len(some))
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def work_of(plans: dict[int, list[FoldPlan]]) -> list[tuple[str, int]]:
    """What every fold is tested as: (system, shots)."""
    return [("unadapted", 0), *((s, k) for k in plans if k for s in ("own", "other"))]


def _cut(plans, size):
    return [plans[begin : begin + size] for begin in range(0, len(plans), size)]


def _compiled(given, run, stages):
    """(mesh, folds at once, function of folds); the function returns whole numpy arrays."""
    devices = jax.devices()
    on_cpu = devices[0].platform == "cpu"
    each = given.folds_at_once or (2 if on_cpu else 16)
    mesh = persona_mesh(each * len(devices))
    how = {"beams": given.beams} if given.decoder == "beam" else {}
    if given.decoder == "nucleus":
        how = {"top_p": given.top_p, "seed": given.seed}
    program = _program(
        run.config.loss(), stages, mesh, 1 if on_cpu else each, given.decoder, **how
    )
    params = replicate(run.params, mesh)
    inner_lr = replicate(jnp.float32(inner_lr_of(given, run)), mesh)

    def score_folds(folds):
        return fetch(program(params, folds, inner_lr))

    return mesh, each * mesh.size, score_folds


@functools.lru_cache(maxsize=8)  # models that differ in their parameters alone share it
def _program(config, stages, mesh, chunk, decoder, *, seed=None, **how):
    if seed is not None:
        how["key"] = jax.random.key(seed)
    decode = functools.partial(DECODERS[decoder], start=START, config=config.model, **how)
    return jax.jit(
        functools.partial(
            score_stages, stages=stages, config=config, mesh=mesh, chunk=chunk, decode=decode
        )
    )


def _rows(run, system, shots, plans, found):
    """One row a fold: what `FoldsFile` keeps."""
    epochs = EPOCHS if shots else (0,)
    rows = []
    for n, plan in enumerate(plans):
        turns = len(plan.held_out.examples)
        texts = [
            [run.vocabulary.decode(ids) for ids in found.replies.ids[n, stage, :turns]]
            for stage in range(len(epochs))
        ]
        rows.append(
            {
                "system": system,
                "shots": shots,
                "persona": plan.persona,
                "dialogue": plan.dialogue,
                "effective_shots": len(plan.others if system == "other" else plan.own),
                "epochs": list(epochs),
                "nll": [float(x) for x in found.response.nll[n]],
                "tokens": int(found.response.tokens[n, 0]),
                "replies": texts,
                "log_prob": np.round(found.replies.log_prob[n, :, :turns], 4).tolist(),
            }
        )
    return rows


def inner_lr_of(given, run):
    return run.config.inner_lr if given.inner_lr is None else given.inner_lr


def parsed_shots(given: list[str]) -> list[int]:
    """The numbers of --shots, in order.

    Raises:
      ValueError: they are not whole numbers.
    """
    try:
        shots = sorted({int(k) for k in given})
    except ValueError:
        shots = [-1]
    if not shots or shots[0] < 0:
        raise ValueError(f"got --shots={','.join(given)}, want whole numbers such as 0,5,10")
    return shots
