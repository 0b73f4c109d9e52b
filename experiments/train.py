"""Meta-trains a model: `python -m experiments.train --strategy=amtml`."""

import contextlib
import dataclasses
import pathlib
import sys

import jax
from absl import app, flags

from experiments import flags as settings
from experiments import summary
from mtml_jax.data.load import CORPORA
from mtml_jax.data.prepare import prepare
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.files import RunLog, WorkdirLock
from mtml_jax.runs.folder import save_run
from mtml_jax.sharding import persona_mesh
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.loop import train

settings.define_common_flags()
settings.define_train_flags()
settings.define_process_flags()
flags.DEFINE_boolean(
    "shard_params",
    False,
    "split parameters and optimiser over the devices, instead of a copy on each: less memory, "
    "the same result",
)

INTERRUPTED = 143  # 128 + SIGTERM: tells a scheduler to start the job again


def main(argv) -> None:
    settings.start(argv, "--strategy=amtml")
    settings.join_processes()
    with settings.all_or_none(), contextlib.ExitStack() as stack:
        try:
            _train(stack)
        except (ValueError, OSError, FloatingPointError) as error:
            sys.exit(f"error: {error}")


def _train(stack) -> None:
    given = flags.FLAGS
    first = jax.process_index() == 0  # it writes what is not an array
    config = settings.resolve_config()
    mesh = persona_mesh(config.meta_batch)
    settings.check_chunk(config, mesh.size)
    data = prepare(
        config,
        given.data,
        given.data_dir,
        split_seed=given.split_seed,
        skip_bad=given.skip_bad,
    )
    corpus = given.data if given.data in CORPORA else pathlib.Path(given.data).stem
    workdir = given.workdir or f"runs/{corpus}-{given.preset}-{given.strategy}"
    if first:
        stack.enter_context(WorkdirLock(workdir))
        save_run(
            workdir,
            {**dataclasses.asdict(config), **_source(), "preset": given.preset},
            data.vocabulary.to_text(),
        )
    checkpoints = stack.enter_context(Checkpoints(workdir))
    log = None
    if first:
        log = stack.enter_context(RunLog(workdir, checkpoints.latest_step() or 0))
    _describe(config, data, mesh, workdir, checkpoints.notes)
    for note in [*data.notes, *checkpoints.notes] if log else ():
        log.note(0, note)
    outcome = train(
        config,
        data,
        log,
        checkpoints,
        debug_nans=given.debug_nans,
        shard_params=given.shard_params,
    )
    step = int(outcome.state.step)
    if outcome.reason == "interrupted":
        print(f"interrupted at step {step:,}; the same command goes on from there", flush=True)
        sys.exit(INTERRUPTED)
    progress = outcome.progress
    if progress.skipped:
        print(f"{progress.skipped:,} steps were skipped, their gradients not being finite")
    print(
        f"{outcome.reason} at step {step:,}; best valid response PPL "
        f"{progress.best_score:.1f} at step {progress.best_step:,}"
    )
    summary.show(workdir, config, data)  # in every process, so that none waits for another


def _source():
    """The flags that say which dialogues are read, for the run's settings."""
    given = flags.FLAGS
    if given.data in CORPORA:
        return {"data": given.data}
    path = str(pathlib.Path(given.data).resolve())
    return {"data": path, "split_seed": given.split_seed, "skip_bad": given.skip_bad}


def _describe(config, data, mesh, workdir, found):
    given = flags.FLAGS
    kind = mesh.devices.flat[0].device_kind
    alpha = f", alpha {config.alpha}" if STRATEGIES[config.strategy].reads_alpha else ""
    print(f"strategy {config.strategy}{alpha}, preset {given.preset}, data {given.data}")
    if given.data == "demo":
        print(
            "the demo corpus: invented speakers, so that this runs offline; for real dialogues "
            "--data=personachat --data_dir=FOLDER, or your own: --data=PATH.jsonl"
        )
    for note in [*data.notes, *found, *settings.odd_settings(config)]:
        print(note)
    print(
        f"{len(data.vocabulary):,} words; {config.meta_batch} personas a step on a mesh of "
        f"{mesh.size} device{'s' if mesh.size > 1 else ''} ({kind}); workdir {workdir}"
    )
    if idle := jax.device_count() - mesh.size:
        print(
            f"{idle} of {jax.device_count()} devices stay idle, as {config.meta_batch} personas "
            f"do not divide by more than {mesh.size}; change --meta_batch to use them"
        )
    print("compiling; the first step takes a minute", flush=True)


if __name__ == "__main__":
    app.run(main)
