"""Keep the finished folds of an evaluation in a file, one line per fold."""

import json
import os
from pathlib import Path
from typing import Any

from mtml_jax.runs.files import write_json, write_text


class FoldsFile:
    """Finished folds, which a later start of the same evaluation reads instead of testing again.

    Args:
      path: `NAME.folds.jsonl`; the settings are next to it in `NAME.settings.json`.
      settings: everything that the rows depend on.

    Raises:
      ValueError: the file belongs to other settings, or a line is no row.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        path.parent.mkdir(parents=True, exist_ok=True)
        settings_path = path.with_name(path.name.removesuffix(".folds.jsonl") + ".settings.json")
        if settings_path.exists():
            _check_same(json.loads(settings_path.read_bytes()), json.loads(json.dumps(settings)), path)
        else:
            write_json(settings_path, settings)
        self.rows: dict[tuple, dict[str, Any]] = {}
        if path.exists():
            self._read(path)
        self._file = open(path, "a", encoding="utf-8")

    def _read(self, path):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        torn = lines.pop()  # empty unless the writer was killed within a line
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line.encode("ascii"))  # `add` escapes all other letters
                self.rows[key(row)] = row
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{path}:{number}: expected a finished fold, got {line[:40]!r}; remove the line"
                ) from None
        if torn:
            write_text(path, "".join(f"{line}\n" for line in lines))

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds finished folds and writes them to the disk."""
        for row in rows:
            self.rows[key(row)] = row
            self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "FoldsFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def key(row: dict[str, Any]) -> tuple[str, int, int, int]:
    """The key of a fold: (system, shots, persona, dialogue)."""
    return row["system"], row["shots"], row["persona"], row["dialogue"]


def _check_same(saved, current, path):
    differing = [
        f"{name} (saved {saved.get(name)!r}, now {current.get(name)!r})"
        for name in sorted(saved.keys() | current.keys())
        if saved.get(name) != current.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path.parent}: expected an evaluation with the same settings, got another "
            f"{', '.join(differing)}; name another folder with --output, or remove this one"
        )
