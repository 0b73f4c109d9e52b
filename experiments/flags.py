"""The absl flags of all commands, and the settings that they resolve to."""

import contextlib
import dataclasses
import faulthandler
import logging
import math
import os
import pathlib
import signal
import sys

import jax
from absl import flags
from absl import logging as absl_logging

from mtml_jax.config import PRESETS, TrainConfig
from mtml_jax.data.load import CORPORA
from mtml_jax.meta.inner import GRADIENTS
from mtml_jax.strategies import STRATEGIES

DEAD_SECONDS = 30  # a process that was not heard of for so long is dead


def define_common_flags() -> None:
    """Flags that every command with a run has."""
    flags.DEFINE_string(
        "workdir", None, "folder of the run: settings, log, checkpoints (default: runs/STRATEGY)"
    )
    define_device_flags()


def define_device_flags() -> None:
    """What `start_jax` reads."""
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    flags.DEFINE_string(
        "compilation_cache",
        os.environ.get("JAX_COMPILATION_CACHE_DIR", str(caches / "mtml_jax")),
        "folder where compiled programs are kept for the next start; empty: nowhere",
    )
    flags.DEFINE_integer(
        "cpu_devices",
        len(os.sched_getaffinity(0)),
        "without an accelerator, how many devices the CPU's cores count as; the personas "
        "or pairs of a step are shared among them",
        lower_bound=1,
    )


def define_process_flags() -> None:
    """What `join_processes` reads."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT at which process 0 of several is found by the others; auto where JAX finds "
        "them itself, as on a Cloud TPU (srun, mpirun and GKE's TPUs need no such flag)",
    )
    flags.DEFINE_integer("num_processes", None, "with --coordinator: of the job", lower_bound=1)
    flags.DEFINE_integer(
        "process_id", None, "with --coordinator: of this process, from 0", lower_bound=0
    )


def define_data_flags() -> None:
    """What says which dialogues are read."""
    flags.DEFINE_string(
        "data",
        "demo",
        f"the corpus: {' or '.join(CORPORA)}; your own dialogues as PATH.jsonl, split by "
        "persona; or a folder of train.jsonl, valid.jsonl and test.jsonl",
    )
    flags.DEFINE_string(
        "data_dir", None, "folder of the PersonaChat text files (default: download them)"
    )
    flags.DEFINE_integer(
        "split_seed", 0, "where --data is one file: of its split by persona", lower_bound=0
    )
    flags.DEFINE_boolean(
        "skip_bad", False, "count and report malformed conversations instead of stopping"
    )


def define_train_flags() -> None:
    """A flag for every setting of `TrainConfig`."""
    flags.DEFINE_enum(
        "strategy", "amtml", list(STRATEGIES), "what is adapted on and what is optimised"
    )
    flags.DEFINE_enum(
        "preset", "small", list(PRESETS), "sizes and rates that other flags change one by one"
    )
    define_data_flags()
    number, count = flags.DEFINE_float, flags.DEFINE_integer
    number("alpha", None, "weight of the response loss in mtml and multitask, 0 to 1 (eq. 6; paper: 0.5 to 0.9)")
    number("inner_lr", None, "SGD step of the inner update (eq. 11; paper: 0.005)")
    number("outer_lr", None, "Adam step of the outer update (eq. 14; paper: 0.003)")
    count("inner_steps", None, "SGD steps of the inner update (paper: 1)")
    count("meta_batch", None, "distinct personas a step (section 3.2; paper: 16)")
    count("iterations", None, "outer steps")
    count("warmup", None, "outer steps in which outer_lr rises linearly")
    count("seed", None, "of parameters, episodes and validation")
    flags.DEFINE_enum(
        "reduction", None, ["mean", "sum"], "of a loss over its tokens (eqs. 2 and 5 print sums)"
    )
    flags.DEFINE_enum(
        "gradient",
        None,
        GRADIENTS,
        "how the gradient passes the inner step: exact second order by reverse over reverse, "
        "the same number by forward over reverse (mixed), the same to 1e-4 from one more "
        "gradient (finite_difference, fastest), or first order",
    )
    count(
        "persona_chunk",
        None,
        "personas vmapped at a time on a device; more is more memory (default: 1 on a CPU, "
        "elsewhere as many as fit)",
    )
    flags.DEFINE_boolean(
        "distinct_start", None, "give the persona task a start token of its own"
    )
    flags.DEFINE_enum(
        "persona_context", None, ["both", "own"], "whose utterances the persona task reads"
    )
    flags.DEFINE_string("glove", None, "text file of word vectors, GloVe's format, any width")
    count("min_count", None, "words rarer than this in train are unknown")
    count("validate_every", None, "iterations between validations; each one is saved")
    count("validation_episodes", None, "fixed support/query pairs of valid personas")
    count("patience", None, "validations without a better score before stopping")
    count("max_skipped", None, "steps in a row without a finite gradient before stopping")
    flags.DEFINE_boolean(
        "debug_nans", False, "stop at the first step without a finite gradient and find the "
        "operation that made the NaN, by doing it again one by one",
    )  # fmt: skip
    count("encoder_layers", None, "(section 3.2; paper: 6)")
    count("decoder_layers", None, "(section 3.2; paper: 6)")
    count("heads", None, "attention heads (section 3.2; paper: 4)")
    count("width", None, "of words and layers (section 3.2; paper: 300)")
    count("feed_forward", None, "width inside the feed-forward layers (paper: 1200)")
    flags.DEFINE_enum("activation", None, ["relu", "gelu"], "of the feed-forward layers")
    flags.DEFINE_enum(
        "dtype", None, ["float32", "bfloat16"], "of the products; parameters stay float32"
    )
    flags.DEFINE_boolean(
        "remat", None, "recompute layers in the backward pass: less memory, more time (default: "
        "where a step does not fit otherwise)",
    )
    count("context_tokens", None, "tokens of a context that are read; older ones are cut")
    count("tile_rows", None, "context rows a tile; more is more memory, see mtml_jax.types")
    count("response_tokens", None, "response slots a tile; longer responses are cut")
    count("persona_tokens", None, "persona slots a tile; longer personas are cut")


def resolve_config() -> TrainConfig:
    """The preset, changed by the flags that were given.

    Raises:
      ValueError: a value is out of its range; one sentence with the flag to change.
    """
    given = flags.FLAGS
    base = PRESETS[given.preset]

    def changed(settings, **names):
        values = {field: given[flag].value for field, flag in names.items()}
        return dataclasses.replace(
            settings, **{field: value for field, value in values.items() if value is not None}
        )

    same = {f.name: f.name for f in dataclasses.fields(TrainConfig)}
    same.pop("model"), same.pop("shape")
    shape = changed(
        base.shape,
        rows="tile_rows",
        context="context_tokens",
        response="response_tokens",
        persona="persona_tokens",
    )
    if shape != base.shape:
        shape = dataclasses.replace(shape, small=None)  # it goes with the preset's own
    config = dataclasses.replace(
        changed(base, **same),
        model=changed(base.model, **{f.name: f.name for f in dataclasses.fields(base.model)}),
        shape=shape,
    )
    check_config(config)
    return config


def check_config(config: TrainConfig) -> None:
    """Checks ranges, before anything is read or compiled.

    Raises:
      ValueError: in one sentence: what was got, what is wanted, which flag to change.
    """
    if not 0.0 <= config.alpha <= 1.0:
        raise ValueError(f"got --alpha={config.alpha}, want a number from 0 to 1")
    for name in ("inner_lr", "outer_lr"):
        if not (math.isfinite(rate := getattr(config, name)) and rate >= 0):
            raise ValueError(f"got --{name}={rate}, want a finite number, 0 or more")
    counts = {
        name: getattr(config, name)
        for name in (
            "inner_steps meta_batch iterations min_count validate_every "
            "validation_episodes patience persona_chunk max_skipped"
        ).split()
    }
    counts |= dataclasses.asdict(config.model) | {
        "tile_rows": config.shape.rows,
        "context_tokens": config.shape.context,
        "response_tokens": config.shape.response,
        "persona_tokens": config.shape.persona,
    }
    for name, value in counts.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"got --{name}={value}, want 1 or more")
    for name in ("warmup", "seed"):
        if getattr(config, name) < 0:
            raise ValueError(f"got --{name}={getattr(config, name)}, want 0 or more")
    if config.model.width % config.model.heads:
        raise ValueError(
            f"got --width={config.model.width} and --heads={config.model.heads}, "
            "want a width that the heads divide"
        )
    if config.gradient == "finite_difference" and config.model.dtype != "float32":
        raise ValueError(
            f"got --gradient=finite_difference and --dtype={config.model.dtype}, want float32: "
            "the difference would be lost in rounding"
        )
    if config.gradient == "finite_difference" and config.model.activation == "relu":
        raise ValueError(
            "expected a smooth activation with --gradient=finite_difference, got "
            "--activation=relu, whose gradient jumps; use --activation=gelu"
        )
    if config.model.width % 2:
        raise ValueError(f"got --width={config.model.width}, want an even number")


def odd_settings(config: TrainConfig) -> list[str]:
    """Sentences on settings that are allowed and hardly meant."""
    told = []
    if config.inner_lr == 0:
        told.append(
            "--inner_lr=0 adapts to nobody: all scores after an inner step are those before it"
        )
    if config.outer_lr == 0:
        told.append("--outer_lr=0 trains nothing")
    if STRATEGIES[config.strategy].reads_alpha and config.alpha in (0, 1):
        on = ("persona statements alone, never on a reply", "replies alone, as paml and std do")
        told.append(f"--alpha={config.alpha:g} trains {config.strategy} on {on[int(config.alpha)]}")
    if config.max_skipped > config.iterations:
        told.append("--max_skipped is more than --iterations: nothing stops a run without a gradient")
    return [f"warning: {sentence}" for sentence in told]


def start(argv: list[str], example: str) -> None:
    """Begins a command that takes flags only, such as `example`."""
    if len(argv) > 1:
        sys.exit(f"error: got {argv[1]!r}, want flags only, such as {example}")
    start_jax()
    # TFDS and Orbax tell of each of their steps, and of an error with all that led to it.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger().setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable


def _unraisable(what):
    # The other arrays of a save that failed come back to a loop that is over. The failure
    # itself is told.
    if str(what.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(what)


@contextlib.contextmanager
def one_sentence(interrupted: str):
    """Ends the program with one sentence for a wrong input, or where it is interrupted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(interrupted)
    finally:
        signal.signal(signal.SIGTERM, before)


def start_jax() -> None:
    """Applies the flags that JAX has to know before its first use."""
    jax.config.update("jax_num_cpu_devices", flags.FLAGS.cpu_devices)
    if flags.FLAGS.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", flags.FLAGS.compilation_cache)


def join_processes() -> None:
    """Becomes one of several processes, where flags or the launcher's environment say so.

    Only process 0 prints from then on. Where one dies, the others end too.
    """
    given = flags.FLAGS
    place = (given.coordinator, given.num_processes, given.process_id)
    if place == (None, None, None) and not _launched_with_others(os.environ):
        return
    told = given.coordinator not in (None, "auto")
    if (None in place) if told else (place[1:] != (None, None)):
        sys.exit(
            f"error: got --coordinator={place[0]}, --num_processes={place[1]} and "
            f"--process_id={place[2]}, want HOST:PORT and two numbers, or only --coordinator=auto"
        )
    if told and given.process_id >= given.num_processes:
        sys.exit(
            f"error: got --process_id={place[2]}, want one from 0 to {given.num_processes - 1} "
            f"(--num_processes={given.num_processes})"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        *(place if told else ()),
        cluster_detection_method="deactivate" if told else None,
        heartbeat_timeout_seconds=DEAD_SECONDS,
        shutdown_timeout_seconds=DEAD_SECONDS,
    )
    faulthandler.disable()  # its stacks would hide JAX's message that another process died
    if jax.process_index():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    print(
        f"{jax.process_count()} processes; if one dies, the others end within {DEAD_SECONDS} "
        "seconds, and the same command goes on from the last checkpoint",
        flush=True,
    )


def _launched_with_others(environment) -> bool:
    """Whether srun, mpirun or GKE, for TPUs, started more than this process."""
    count = environment.get("OMPI_COMM_WORLD_SIZE", 1)
    if "SLURM_STEP_NODELIST" in environment:  # within srun, not just within a job's shell
        count = environment.get("SLURM_NTASKS", 1)
    return int(count) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


@contextlib.contextmanager
def all_or_none():
    """Ends this process at once, with one sentence, where another one is gone."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        print(
            f"error: process {jax.process_index()} lost another one or failed "
            f"({str(error).splitlines()[0]}); the same command goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # leaving by the front door would wait for the others


def check_chunk(config: TrainConfig, devices: int) -> None:
    """Checks that chunks of personas fill each device evenly.

    Raises:
      ValueError: they do not.
    """
    share = config.meta_batch // devices
    if config.persona_chunk and share % min(config.persona_chunk, share):
        raise ValueError(
            f"got --persona_chunk={config.persona_chunk} for the {share} personas of each of "
            f"{devices} devices (--meta_batch={config.meta_batch}), want a divisor of {share}"
        )
