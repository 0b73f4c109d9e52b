"""Keep the finished folds of an evaluation in a file, one line per fold."""

import json
import os
from pathlib import Path
from typing import Any

from mtml_jax.runs.files import Closing, write_json
from mtml_jax.runs.folder import differing_settings
from mtml_jax.runs.journal import read_journal


class FoldsFile(Closing):
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
            if differing := differing_settings(json.loads(settings_path.read_bytes()), settings):
                raise ValueError(
                    f"{path.parent}: expected an evaluation with the same settings, got another "
                    f"{differing}; name another folder with --output, or remove this one"
                )
        else:
            write_json(settings_path, settings)
        self.rows: dict[tuple, dict[str, Any]] = {}
        read_journal(
            path, self._keep, expected="a finished fold", remedy="remove the line", mend=True
        )
        self._file = open(path, "a", encoding="utf-8")

    def _keep(self, row):
        self.rows[key(row)] = row

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Adds finished folds and writes them to the disk."""
        for row in rows:
            self._keep(row)
            self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def key(row: dict[str, Any]) -> tuple[str, int, int, int]:
    """The key of a fold: (system, shots, persona, dialogue)."""
    return row["system"], row["shots"], row["persona"], row["dialogue"]
