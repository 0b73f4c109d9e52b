"""Lock a run's folder, so that one process at a time writes into it."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO


class InUse(ValueError):
    """Another process holds the lock of the folder."""


class WorkdirLock:
    """Holds the lock of a run's folder; the kernel releases it when the process ends.

    The file `lock` stays behind: only the kernel's flock on it counts.

    Args:
      workdir: folder of the run; it is created if it does not exist.

    Raises:
      InUse: on entering, if another process holds the lock.
      OSError: on entering, if the folder cannot be written to.
    """

    def __init__(self, workdir: str | os.PathLike):
        self._workdir = Path(workdir)
        self._file: IO[str] | None = None

    def __enter__(self) -> "WorkdirLock":
        if self._workdir.is_file():
            raise NotADirectoryError(f"{self._workdir}: expected a folder, got a file; choose another")
        try:
            self._workdir.mkdir(parents=True, exist_ok=True)
            self._file = self._locked(open(self._workdir / "lock", "a+", encoding="utf-8"))
        except OSError as error:
            raise OSError(
                f"{self._workdir}: the folder cannot be written to ({error.strerror}); free disk "
                "space, check its permissions or choose another --workdir"
            ) from None
        return self

    def _locked(self, file):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            return file
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            file.close()
            raise InUse(
                f"{self._workdir}: expected a run that no other process uses, got one in use by "
                f"process {pid}, which must end first; or choose another --workdir"
            ) from None
        except OSError:
            with contextlib.suppress(OSError):  # closing writes what is still buffered
                file.close()
            raise

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()
