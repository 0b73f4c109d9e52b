"""Keeps prepared copies of dialogue files, whose turns are read from disk on access."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mtml_jax.data.reading import ReadReport
from mtml_jax.data.records import Dialogue, Turn

_FORM = 1  # raise it when the files of a copy, or the readers' treatment of text, change
_UNFINISHED = ".unfinished-"


class _File:
    """A file for random access that is closed with the last reference to it."""

    def __init__(self, path: Path):
        self._number = os.open(path, os.O_RDONLY)

    def __del__(self, close=os.close):  # bound early, as modules may be unloaded first
        close(self._number)

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._number, size, offset)


class StoredTurns(Sequence):
    """The turns of a dialogue, read from the prepared copy at every access."""

    __slots__ = ("_file", "_offset", "_size")

    def __init__(self, file: _File, offset: int, size: int):
        self._file, self._offset, self._size = file, offset, size

    def _read(self) -> tuple[Turn, ...]:
        turns = json.loads(self._file.read(self._size, self._offset))
        return tuple(
            Turn(context, response, tuple(written) or None) for context, response, *written in turns
        )

    def __len__(self):
        return len(self._read())

    def __getitem__(self, index):
        return self._read()[index]

    def __iter__(self):
        return iter(self._read())

    def __eq__(self, other):
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self):
        return hash(self._read())


def store_home() -> Path:
    """Returns the folder of prepared copies: $TFDS_DATA_DIR, or a folder in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("TFDS_DATA_DIR") or cache / "mtml_jax" / "tfds")


def load_stored(
    path: str | os.PathLike,
    read: Callable[[ReadReport], Iterable[Dialogue]],
    *,
    skip_bad: bool = False,
) -> tuple[list[Dialogue], list[str]]:
    """Reads a dialogue file through its prepared copy, which is made at the first call.

    The copy's folder is named by a digest of the file's content, its path and `skip_bad`,
    so that a changed file is prepared again. Conversation ids, speakers and statements are
    kept in memory; the turns are read from the copy at every access.

    Args:
      path: the file.
      read: (report) -> the file's dialogues one by one, counted in the report.
      skip_bad: whether malformed units are skipped.

    Returns:
      (the dialogues of `read`, sentences on units that were skipped or changed).

    Raises:
      ValueError: the file is malformed, or no dialogue is left.
      OSError: the file cannot be read, or the copy cannot be written.
    """
    with open(path, "rb") as whole:
        content = hashlib.file_digest(whole, "sha256").hexdigest()
    key = f"{_FORM} {content} {skip_bad} {Path(path).resolve()}"
    folder = store_home() / "dialogues" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.is_dir():
        report = ReadReport(str(path), "conversations")
        _write(folder, read(report), report)
    file = _File(folder / "turns.jsonl")
    dialogues = []
    same: dict[tuple[str, ...], tuple[str, ...]] = {}  # shared by a persona's dialogues
    offset, last = 0, ""
    with open(folder / "dialogues.jsonl", encoding="utf-8") as lines:
        for line in lines:
            size, conversation, speaker, statements = json.loads(line)
            last = conversation = last if conversation == last else conversation
            statements = same.setdefault(tuple(statements), tuple(statements))
            turns = StoredTurns(file, offset, size)
            dialogues.append(Dialogue(conversation, speaker, statements, turns))
            offset += size
    return dialogues, json.loads((folder / "report.json").read_bytes())


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Creates a temporary folder next to `folder` and renames it to `folder` at the end.

    `folder` is therefore complete whenever it exists; if another process creates it first, the
    result of that process stays. Temporary folders of killed processes, which no longer hold
    their lock, are removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f"{_UNFINISHED}*"):
        _remove_if_left(leftover)
    workspace = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_UNFINISHED))
    held = os.open(workspace, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield workspace
        try:
            workspace.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    finally:
        os.close(held)
        shutil.rmtree(workspace, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError):  # its owner may finish at the same time
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)


def _write(folder: Path, dialogues: Iterable[Dialogue], report: ReadReport) -> None:
    with unfinished(folder) as workspace:
        with (
            open(workspace / "turns.jsonl", "wb") as turns,
            open(workspace / "dialogues.jsonl", "w", encoding="utf-8") as index,
            open(workspace / "report.json", "w", encoding="utf-8") as notes,
        ):
            count = 0
            for count, dialogue in enumerate(dialogues, start=1):
                texts = json.dumps(
                    [[turn.context, turn.response, *(turn.written or ())] for turn in dialogue.turns]
                )
                size = turns.write(texts.encode() + b"\n")
                entry = [size, dialogue.conversation, dialogue.speaker, dialogue.statements]
                index.write(json.dumps(entry) + "\n")
            sentences = report.sentences()
            if not count:
                raise ValueError(f"expected dialogues to train on, got none: {'; '.join(sentences)}")
            eventful = report.found > report.read or report.remarks
            json.dump(sentences if eventful else [], notes)
            for file in (turns, index, notes):
                file.flush()
                os.fsync(file.fileno())
