"""Log a run's numbers and notes as JSON Lines and as TensorBoard scalars."""

import contextlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, Literal

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from mtml_jax.runs.files import Closing, plain, write_text
from mtml_jax.runs.journal import read_journal

Kind = Literal["train", "valid", "note"]


class RunLog(Closing):
    """Rows of numbers, in `log.jsonl` and as TensorBoard scalars `kind/name`.

    Each line is one JSON object: step, kind, numbers. JSON has no NaN and no infinity: they
    are written as the strings "nan", "inf" and "-inf", which `read_log` turns back.

    Args:
      workdir: folder of the run; it is created if it does not exist.
      first_step: finished steps of the state that the run starts from. Rows of later
        steps were written before a restart and are cut, and so is an unfinished last line.

    Raises:
      ValueError: a finished line is not a row.
    """

    def __init__(self, workdir: str | os.PathLike, first_step: int):
        self._path = path = Path(workdir) / "log.jsonl"
        (path.parent / "tensorboard").mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = (row for row in _rows(path) if row["step"] <= first_step)
            write_text(path, "".join(f"{json.dumps(row)}\n" for row in kept))
        self._file = open(path, "a", encoding="utf-8")
        # tensorboardX's SummaryWriter writes in a thread, and the run hangs if that fails.
        # The random part of the name is for a clock that has jumped back.
        name = f"events.out.tfevents.{int(time.time())}.{secrets.token_hex(4)}"
        self._events = RecordWriter(str(path.parent / "tensorboard" / name))
        self._event(file_version="brain.Event:2")
        # TensorBoard drops this step and later ones that were written before.
        started = SessionLog(status=SessionLog.START)
        self._event(step=first_step + 1, session_log=started)

    def _event(self, **parts):
        self._events.write(Event(wall_time=time.time(), **parts).SerializeToString())

    def row(self, step: int, kind: Kind, **numbers: Any) -> None:
        """Appends a row and hands it to the operating system.

        `numbers` are numbers or scalar arrays of any library; strings go to the JSON only.

        Raises:
          OSError: the disk is full.
        """
        # Arrays of one number, NumPy's and JAX's alike, have a method that makes it Python's.
        numbers = {n: v.item() if hasattr(v, "item") else v for n, v in numbers.items()}
        row = {"step": int(step), "kind": kind, **numbers}
        try:
            self._file.write(json.dumps(plain(row)) + "\n")
            self._file.flush()
            for name, value in numbers.items():
                if isinstance(value, (int, float)):
                    self._event(step=int(step), summary=summary.scalar(f"{kind}/{name}", value))
            self._events.flush()
        except OSError as error:
            raise OSError(
                f"{self._path}: the row of step {step:,} could not be written ({error.strerror}); "
                "free disk space and run the same command again"
            ) from None

    def note(self, step: int, text: str) -> None:
        """Appends a row of kind "note" that holds a text."""
        self.row(step, "note", text=text)

    def close(self) -> None:
        """Closes the files."""
        with contextlib.closing(self._file), contextlib.closing(self._events):
            self._events.flush()


def read_log(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a `log.jsonl`, without an unfinished last line.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a finished line is not a row; the message names it.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: expected the log of a run, got no such file")
    return [{name: _number(value) for name, value in row.items()} for row in _rows(path)]


def _rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    return read_journal(
        path, _parsed, expected="a JSON object with a step",
        remedy="correct the line or choose another --workdir"
    )


def _parsed(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError
    return row


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value
