"""What a run leaves behind: rows of numbers, TensorBoard, versions; and its folder's lock."""

import contextlib
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import secrets
import time
from pathlib import Path
from typing import IO, Any, Literal

import jax
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

Kind = Literal["train", "valid", "note"]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "mtml_jax")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a whole UTF-8 file or nothing: readers see the old text or the new."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a whole file or nothing, as `write_text` does.

    Raises:
      OSError: it cannot be written; what was there before is whole.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path}: could not be written ({error.strerror or error}), want a folder that can be "
            "written to and a disk with room; free some or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 2) -> None:
    """Writes a JSON file as `write_text` does; NaN and infinities as `RunLog` does."""
    separators = None if indent else (",", ":")
    text = json.dumps(_plain(value), indent=indent, sort_keys=True, separators=separators)
    write_text(path, text + "\n")


class InUse(ValueError):
    """A folder that another process holds."""


class WorkdirLock:
    """Holds a run's folder for one process; the lock dies with its holder.

    The file `lock` stays when the lock is gone: only the kernel's flock on it counts.

    Args:
      workdir: folder of the run; made if it is not there.

    Raises:
      InUse: on entering, where another process holds the folder.
      OSError: on entering, where it cannot be written to.
    """

    def __init__(self, workdir: str | os.PathLike):
        self._workdir = Path(workdir)
        self._file: IO[str] | None = None

    def __enter__(self) -> "WorkdirLock":
        try:
            self._workdir.mkdir(parents=True, exist_ok=True)
            self._file = self._locked(open(self._workdir / "lock", "a+", encoding="utf-8"))
        except OSError as error:
            raise OSError(
                f"{self._workdir}: found a folder that cannot be written to ({error.strerror}), "
                "want one that can and room on its disk; free some or choose another --workdir"
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
                f"{self._workdir}: found a run in use by process {pid}, "
                "want that process to end first or another --workdir"
            ) from None
        except OSError:
            with contextlib.suppress(OSError):  # closing writes what is left
                file.close()
            raise

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()


class RunLog:
    """Rows of numbers, in `log.jsonl` and as TensorBoard scalars `kind/name`.

    One JSON object a line: step, kind, numbers. JSON has no NaN and no infinity: they
    are written as the strings "nan", "inf" and "-inf", which `read_log` turns back.

    Args:
      workdir: folder of the run; made if it is not there.
      first_step: finished steps of the state that the run starts from. Rows of later
        steps are from before a restart and are cut, and so is a torn last line.

    Raises:
      ValueError: a line other than the last is not a row.
    """

    def __init__(self, workdir: str | os.PathLike, first_step: int):
        self._path = path = Path(workdir) / "log.jsonl"
        (path.parent / "tensorboard").mkdir(parents=True, exist_ok=True)
        if path.exists():
            rows = _rows(path)
            kept = (line for line, row in rows if row["step"] <= first_step)
            write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = open(path, "a", encoding="utf-8")
        # Not by its SummaryWriter: there a thread writes, and where that fails, the run hangs.
        # A name of its own, since the clock may have jumped back.
        name = f"events.out.tfevents.{int(time.time())}.{secrets.token_hex(4)}"
        self._events = RecordWriter(str(path.parent / "tensorboard" / name))
        self._event(file_version="brain.Event:2")
        started = SessionLog(status=SessionLog.START)  # it drops this step and later ones
        self._event(step=first_step + 1, session_log=started)

    def _event(self, **parts):
        self._events.write(Event(wall_time=time.time(), **parts).SerializeToString())

    def row(self, step: int, kind: Kind, **numbers: Any) -> None:
        """Adds a row and hands it to the operating system.

        Args:
          step: finished outer updates.
          kind: "train", "valid" or "note".
          **numbers: numbers of any library, scalar arrays among them; strings go to
            the JSON only.

        Raises:
          OSError: the disk is full.
        """
        numbers = {name: _scalar(value) for name, value in numbers.items()}
        row = {"step": int(step), "kind": kind, **numbers}
        try:
            self._file.write(json.dumps(_plain(row)) + "\n")
            self._file.flush()
            for name, value in numbers.items():
                if isinstance(value, (int, float)):
                    told = summary.scalar(f"{kind}/{name}", value)
                    self._event(step=int(step), summary=told)
            self._events.flush()
        except OSError as error:
            raise OSError(
                f"{self._path}: the row of step {step:,} could not be written ({error.strerror}), "
                "want a disk with room; free some and give the same command again"
            ) from None

    def note(self, step: int, text: str) -> None:
        """Adds a row of kind "note" that holds a text."""
        self.row(step, "note", text=text)

    def close(self) -> None:
        """Closes the files."""
        with contextlib.closing(self._file), contextlib.closing(self._events):
            self._events.flush()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # What ends the block already matters more than what cannot be written at its end.
        with contextlib.suppress(*() if kind is None else (OSError,)):
            self.close()


def read_log(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a `log.jsonl`, without a torn last line.

    Raises:
      ValueError: a line other than the last is not a row; the message names it.
    """
    return [
        {name: _number(value) for name, value in row.items()} for _, row in _rows(Path(path))
    ]


def versions() -> dict[str, str]:
    """Returns the versions that a run depends on, and its devices; starts the backend."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["backend"] = jax.default_backend()
    found["device_kind"] = jax.devices()[0].device_kind
    found["device_count"] = str(jax.device_count())
    return found


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    # Lines with what they hold. Only the last one can be torn: rows are only appended.
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if not lines[-1]:
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError
        except ValueError:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}:{number}: found {line[:60]!r}, want a JSON object with a step; "
                "mend the line or choose another --workdir"
            ) from None
        rows.append((line, row))
    return rows


def _scalar(value: Any) -> Any:
    # Arrays of one number, numpy's and JAX's alike, know how to become Python's.
    return value.item() if hasattr(value, "item") else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value
