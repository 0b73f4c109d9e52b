"""Test the lock of a run's folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mtml_jax
from mtml_jax.runs.lock import WorkdirLock

_ROOT = Path(mtml_jax.__file__).parents[1]


def test_the_lock_is_exclusive(tmp_path):
    workdir = tmp_path / "runs" / "one"
    with WorkdirLock(workdir):
        assert (workdir / "lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(ValueError, match=rf"{workdir}.* process {os.getpid()},.* --workdir"):
            with WorkdirLock(workdir):
                pass
        with WorkdirLock(tmp_path / "runs" / "two"):
            pass
    with WorkdirLock(workdir):
        pass
    with pytest.raises(ZeroDivisionError):
        with WorkdirLock(workdir):
            1 / 0
    with WorkdirLock(workdir):
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    program = (
        "import sys, time\n"
        "from mtml_jax.runs.lock import WorkdirLock\n"
        "with WorkdirLock(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=_ROOT, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(ValueError, match=rf"{tmp_path}.* process {holder.pid},"):
                with WorkdirLock(tmp_path):
                    pass
            assert (tmp_path / "lock").read_text() == f"{holder.pid}\n"
        finally:
            holder.kill()
    with WorkdirLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
