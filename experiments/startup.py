"""Start a command: JAX's settings, several processes, and errors of one sentence."""

import contextlib
import errno
import faulthandler
import logging
import os
import re
import signal
import sys
import warnings

import jax
from absl import flags
from absl import logging as absl_logging

from experiments import end

DEAD_SECONDS = 30  # a process that sends no heartbeat for this long counts as dead


def parsed(argv: list[str]) -> list[str]:
    """Reads the flags of a command line, and ends with one sentence where one is wrong."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        wrong = str(error).rstrip(" .?")
        for what, reason in (("whole number", "invalid literal"), ("number", "could not convert")):
            wrong = re.sub(f"flag (--.*?): {reason}.*", rf"expected a {what}, got \1", wrong)
        sys.exit(f"error: {wrong}; --help shows the settings")


def start(argv: list[str], example: str) -> None:
    """Starts a command that takes flags only, such as `example`."""
    if len(argv) > 1:
        sys.exit(f"error: expected flags only, such as {example}, got {argv[1]!r}")
    start_jax()
    sys.stdout.reconfigure(line_buffering=True)  # a batch job's log is a pipe
    # TFDS and Orbax log each of their steps, and the whole stack behind an error.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger().setLevel(logging.CRITICAL)
    # After a save has failed, what remains of it is dropped. The failure itself is reported.
    sys.unraisablehook = _report_unraisable
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _report_unraisable(unraisable):
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def start_jax() -> None:
    """Applies the flags that JAX has to know before its first use."""
    jax.config.update("jax_num_cpu_devices", flags.FLAGS.cpu_devices)
    if flags.FLAGS.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", flags.FLAGS.compilation_cache)


_EXPECTED = {
    errno.ENOENT: "expected a file or folder, got nothing of that name",
    errno.EEXIST: "expected a folder, got a file",
    errno.EISDIR: "expected a file, got a folder",
    errno.ENOTDIR: "expected a folder on the way there, got a file",
    errno.EACCES: "expected the permission to read or write it, got none",
    errno.EROFS: "expected a disk that can be written, got one that can only be read",
    errno.ENOSPC: "expected space on the disk, got none",
    errno.ENAMETOOLONG: "expected a shorter name",
}


def sentence_of(error: Exception) -> str:
    """What an error says to a person; an error of the system names its file and the reason."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    reason = _EXPECTED.get(error.errno, (error.strerror or str(error)).lower())
    return f"{error.filename}: {reason}" if error.filename else reason


@contextlib.contextmanager
def one_sentence(interrupted: str, *, unwind: bool = False):
    """Ends the program with one sentence after a wrong input or an interruption.

    SIGINT and SIGTERM end it with 130 or 143 and where it is, because whatever a command writes
    is whole or not there at all, and an exception in the midst of JAX can crash the program. With
    `unwind` they raise KeyboardInterrupt, as a training does that has saved its state.
    """

    def stop(number, _):
        if unwind:
            raise KeyboardInterrupt(number)
        end(interrupted, number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"error: {sentence_of(error)}")
    except KeyboardInterrupt as error:
        print(interrupted, file=sys.stderr)
        sys.exit(128 + (error.args or [signal.SIGINT])[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def join_processes() -> None:
    """Joins the other processes of the job, if flags or the launcher's environment name some.

    Only process 0 prints from then on. If one process dies, the others end too.
    """
    values = flags.FLAGS
    place = (values.coordinator, values.num_processes, values.process_id)
    if place == (None, None, None) and not _launched_with_others(os.environ):
        return
    by_flags = values.coordinator not in (None, "auto")
    if (None in place) if by_flags else (place[1:] != (None, None)):
        sys.exit(
            "error: expected HOST:PORT and two numbers, or only --coordinator=auto, got "
            f"--coordinator={place[0]}, --num_processes={place[1]} and --process_id={place[2]}"
        )
    if by_flags and values.process_id >= values.num_processes:
        sys.exit(
            f"error: expected a number from 0 to {values.num_processes - 1}, got "
            f"--process_id={place[2]} (--num_processes={values.num_processes})"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        *(place if by_flags else ()), cluster_detection_method="deactivate" if by_flags else None,
        heartbeat_timeout_seconds=DEAD_SECONDS, shutdown_timeout_seconds=DEAD_SECONDS
    )
    faulthandler.disable()  # its stacks would hide JAX's message that another process died
    if jax.process_index():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    print(
        f"{jax.process_count()} processes; if one dies, the others end within {DEAD_SECONDS} "
        "seconds, and the same command continues from the last checkpoint",
        flush=True,
    )


def _launched_with_others(environment) -> bool:
    """Whether srun, mpirun or GKE, for TPUs, started more than this process."""
    count = environment.get("OMPI_COMM_WORLD_SIZE", 1)
    if "SLURM_STEP_NODELIST" in environment:  # within srun, not only within a job's shell
        count = environment.get("SLURM_NTASKS", 1)
    return int(count) > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


@contextlib.contextmanager
def all_or_none():
    """Ends this process at once, with one sentence, when another one has died."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        print(
            f"error: process {jax.process_index()} lost another one or failed "
            f"({str(error).splitlines()[0]}); the same command continues from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # a regular exit would wait for the others
