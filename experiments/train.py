"""Meta-train a model: `python -m experiments.train --strategy=amtml`."""

import shlex
import signal
import sys

import jax
from absl import app, flags

from experiments import flags as settings
from experiments import startup, summary
from experiments.printing import say
from mtml_jax.checks import check_chunk, config_warnings
from mtml_jax.config import DataConfig
from mtml_jax.data.prepare import prepare
from mtml_jax.sharding import persona_mesh
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train.loop import train
from mtml_jax.train.run import open_run


def define_flags() -> None:
    settings.define_common_flags(
        "folder of the run, for settings, log and checkpoints (default: "
        "runs/DATA-PRESET-STRATEGY, such as runs/demo-small-amtml)"
    )
    settings.define_train_flags()
    settings.define_process_flags()
    flags.DEFINE_boolean(
        "shard_params",
        False,
        "split parameters and optimiser state over the devices instead of copying them to each: "
        "less memory, the same result",
    )
    flags.DEFINE_boolean(
        "debug_nans",
        False,
        "stop at the first step without a finite gradient, and find the operation that made the "
        "NaN by repeating the step one operation at a time",
    )


def main(argv) -> None:
    startup.start(argv, "--strategy=amtml")
    startup.join_processes()
    interrupted = "interrupted; the same command continues from the last checkpoint"
    with startup.all_or_none(), startup.one_sentence(interrupted):
        _train(flags.FLAGS)


def _train(values) -> None:
    config = settings.resolve_config()
    source = settings.read(DataConfig)
    mesh = persona_mesh(config.meta_batch)
    check_chunk(config, mesh.size)
    data = prepare(
        config, source.data, source.data_dir, split_seed=source.split_seed, skip_bad=source.skip_bad
    )
    preset = settings.preset_name()
    workdir = values.workdir or f"runs/{source.name}-{preset}-{config.strategy}"
    saved = {**source.to_saved(), "preset": preset}
    with open_run(workdir, config, data, saved) as run:
        _describe(config, source, preset, data, mesh, workdir, run.checkpoints.notes)
        outcome = train(
            config, data, run.log, run.checkpoints, say, debug_nans=values.debug_nans,
            shard_params=values.shard_params
        )
        step = int(outcome.state.step)
        if outcome.reason == "interrupted":
            say(f"interrupted at step {step:,}; the same command continues from there")
            sys.exit(128 + (outcome.signal or signal.SIGTERM))  # a scheduler knows these
        progress = outcome.progress
        if progress.skipped:
            say(f"{progress.skipped:,} steps were skipped because their gradients were not finite")
        say(
            f"{outcome.reason} at step {step:,}; best valid response PPL "
            f"{progress.best_score:.1f} at step {progress.best_step:,}"
        )
        if not outcome.steps:  # the run was over before; what it learnt was shown then
            say(f"next: python -m experiments.evaluate --workdir={shlex.quote(str(workdir))}")
            return
        summary.show(workdir, config, data)  # in every process, so that none waits for another


def _knows(config, data):
    if config.init_from:
        return f"adapters of {config.init_from}, {len(data.vocabulary):,} subwords"
    return f"{len(data.vocabulary):,} words"


def _describe(config, source, preset, data, mesh, workdir, repairs):
    alpha = f", alpha {config.alpha}" if STRATEGIES[config.strategy].reads_alpha else ""
    say(f"strategy {config.strategy}{alpha}, preset {preset}, data {source.data}")
    if source.data == "demo":
        say(
            "the demo corpus has invented speakers, so that this runs offline; for real dialogues, "
            "--data=personachat --data_dir=FOLDER, or your own: --data=PATH.jsonl"
        )
    for note in [*data.notes, *repairs, *config_warnings(config)]:
        say(note)
    say(
        f"{_knows(config, data)}; {config.meta_batch} personas a step on a mesh of "
        f"{mesh.size} device{'s' if mesh.size > 1 else ''} ({mesh.devices.flat[0].device_kind}); "
        f"workdir {workdir}"
    )
    if idle := jax.device_count() - mesh.size:
        say(
            f"{idle} of {jax.device_count()} devices stay idle, because {config.meta_batch} "
            f"personas do not divide by more than {mesh.size}; change --meta_batch to use them"
        )


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
