"""Run programs, kill them at a random moment, and read the state that they leave."""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from mtml_jax.inference.delta import digest
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.runs.log import read_log

_PROGRAM_SECONDS = 900  # a program that takes longer counts as hanging


def run(command, kill=None, **more):
    """Runs a program; kills it with SIGKILL as soon as `kill()` is true.

    Args:
      command: program and arguments.
      kill: function that says when to kill the program; None lets it end.
      **more: `environment`, added to this process's, and arguments of `subprocess.Popen`.

    Returns:
      (exit code, everything that it printed).
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **more.pop("environment", {})}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        with subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, **more,
        ) as program:  # fmt: skip
            end = time.monotonic() + _PROGRAM_SECONDS
            while program.poll() is None and time.monotonic() < end and not (kill and kill()):
                time.sleep(0.003)
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
        said.seek(0)
        return program.returncode, said.read()


def kill_and_resume(rng, command, path, whole, **more):
    """Kills a program at a random moment, and runs it again to its end.

    Returns:
      (fields of the trial, exit code and output of the second run).
    """
    kill, moment = random_moment(rng, path, whole)
    kills = run(command, kill, **more)[0] == -signal.SIGKILL
    return {"kills": kills, "after": moment}, *run(command, **more)


def random_moment(rng, path, whole):
    """Draws a moment to kill a program: a number of bytes written, and a delay after that.

    The bytes are those in `path`, a file or folder, of as many as the whole run wrote into `whole`.
    Returns a function that says whether the moment has come, and a description.
    """
    size, delay, since = rng.randint(0, size_of(whole)), rng.uniform(0.0, 0.5), []

    def kill():
        if not since and size_of(path) >= size:
            since.append(time.monotonic())
        return since and time.monotonic() - since[0] >= delay

    return kill, f"{delay:.3f} s after {size:,} bytes"


def size_of(path):
    """Counts the bytes of a file or of a folder's files, which may change meanwhile."""
    total = 0
    inside = [pathlib.Path(at, name) for at, _, names in os.walk(path) for name in names]
    for one in inside or [path]:
        with contextlib.suppress(OSError):
            total += one.stat().st_size if one.is_file() else 0
    return total


def state_of(workdir):
    """Returns digests of the latest and of the best parameters, and the log without times."""
    timing = {"seconds", "tokens_per_second"}
    rows = [row for row in read_log(workdir / "log.jsonl") if row["kind"] != "note"]
    rows = [{k: repr(v) for k, v in row.items() if k not in timing} for row in rows]
    return [digest(restore_params(workdir, which).params) for which in ("latest", "best")] + [rows]
