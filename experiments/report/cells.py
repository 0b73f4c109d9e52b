"""What `experiments.study` leaves in a folder, read and checked."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.study.rows import GROUPS, ROWS
from mtml_jax.eval.scores import Statistics

Stage = tuple[str, int, int]  # system, shots, epoch
# Systems of which there is only the likelihood of the gold replies, one's minus another's.
GAINS = {"own minus unadapted": ("own", "unadapted"),
         "other minus unadapted": ("other", "unadapted"),
         "own minus other": ("own", "other")}  # fmt: skip
_SETTINGS = ("preset", "data", "split", "seeds", "shots", "epochs", "settings", "endpoint")
_FOLLOW_UP = ("one", "other", "seeds", "fixed")
_CELL = ("row", "label", "group", "strategy", "seed", "personas", "folds", "turns", "training")


class Cell(NamedTuple):
    """One row of the study with one seed.

    Attributes:
      told: what the file says beside the statistics.
      statistics: by stage.
    """

    told: dict[str, Any]
    statistics: dict[Stage, Statistics]


class Study(NamedTuple):
    """All that was found.

    Attributes:
      folder: where.
      settings: of study.json.
      tuning: of the trials before the grid, with their names.
      rows: row -> seed -> cell; in the order of `study_rows`.
    """

    folder: Path
    settings: dict[str, Any]
    tuning: list[dict[str, Any]]
    rows: dict[str, dict[int, Cell]]

    def cells(self) -> list[Cell]:
        """All cells, row by row."""
        return [cell for seeds in self.rows.values() for cell in seeds.values()]

    def group(self, *names: str) -> list[str]:
        """The rows of some groups, in order."""
        return [row for row in self.rows if _any(self.rows[row]).told["group"] in names]

    def label(self, row: str) -> str:
        """What a row is called, whether it is there or not."""
        if row in self.rows:
            return _any(self.rows[row]).told["label"]
        return ROWS[row].label if row in ROWS else row

    def base(self, row: str) -> str | None:
        """The row that an ablation changes; None where there is none."""
        return _any(self.rows[row]).told.get("base") if row in self.rows else None

    def shots(self) -> int:
        """Of the endpoint."""
        return self.settings["endpoint"]["shots"]

    def last(self) -> int:
        """The last epoch."""
        return max(self.settings["epochs"])

    def has(self, name: str) -> bool:
        """Whether some cell has a statistic."""
        return any(name in found for cell in self.cells() for found in cell.statistics.values())

    def missing(self) -> dict[str, list[int]]:
        """Row -> the seeds without a cell, of the paper's rows, its control and what is there."""
        wanted = {row: None for row in (*GROUPS["paper"], *self.rows)}
        lacking = {
            row: [s for s in range(self.settings["seeds"]) if s not in self.rows.get(row, {})]
            for row in wanted
        }
        return {row: seeds for row, seeds in lacking.items() if seeds}


def read_study(folder: Path) -> Study:
    """Reads the folder of a study; cells that are not there yet are no error.

    Raises:
      ValueError: it is no such folder, holds no cell, or a file of it cannot be understood.
    """
    if not (folder / "study.json").is_file():
        raise ValueError(
            f"{folder}: found no study.json, want a folder that experiments.study has written"
        )
    settings = _read(folder / "study.json", _SETTINGS)
    for added in settings.get("follow_ups", []):
        if not isinstance(added, dict) or not set(_FOLLOW_UP) <= set(added):
            raise ValueError(
                f"{folder / 'study.json'}: found a follow-up {added!r}, want "
                f"{', '.join(_FOLLOW_UP)}: two rows, some seeds, and when they were chosen"
            )
    tuning = [
        {"name": path.stem, **_read(path, ("strategy", "inner_lr"))}
        for path in sorted((folder / "tuning").glob("*.json"))
    ]
    cells = [_cell(path) for path in sorted((folder / "cells").glob("*.json"))]
    if not cells:
        raise ValueError(
            f"{folder}: found no cells, want at least one file in its folder cells; run "
            "experiments.study first"
        )
    sizes = {len(s["dialogues"]) for c in cells for s in c.statistics.values()}
    if len(sizes) != 1:
        raise ValueError(
            f"{folder / 'cells'}: found cells of {' and '.join(map(str, sorted(sizes)))} personas, "
            "want all of one study, which tests the same personas; remove the others"
        )
    rows: dict[str, dict[int, Cell]] = {}
    for cell in sorted(cells, key=_place):
        rows.setdefault(cell.told["row"], {})[cell.told["seed"]] = cell
    return Study(folder, settings, tuning, rows)


def _place(cell):
    known = {name: place for place, name in enumerate(ROWS)}
    row = cell.told["row"]
    return known.get(row, len(known)), row, cell.told["seed"]


def _cell(path):
    told = _read(path, (*_CELL, "test"))
    try:
        statistics = {
            (row["system"], row["shots"], row["epoch"]): {
                # Numbers that JSON has not, such as infinity, are kept as strings.
                name: np.array(values, float)
                for name, values in row["statistics"].items()
            }
            for row in told.pop("test")
        }
        for found in statistics.values():
            if {len(values) for values in found.values()} != {len(found["dialogues"])}:
                raise ValueError("statistics of different lengths")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: found a test that cannot be read ({error!r}), want statistics with an entry "
            "a persona; remove the file and run the study again"
        ) from None
    statistics |= _gains(statistics)
    return Cell(told, statistics)


def _gains(statistics):
    found = {}
    for system, shots, epoch in statistics:
        for name, (one, other) in GAINS.items():
            left = statistics[system, shots, epoch]
            right = statistics.get((other, shots, epoch), statistics.get((other, 0, 0)))
            if system == one and right and "nll" in left and "nll" in right:
                found[name, shots, epoch] = {
                    "dialogues": left["dialogues"],
                    "nll": left["nll"] - right["nll"],
                    "tokens": left["tokens"],
                }
    return found


def _read(path, wanted):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: found no JSON ({error}), want what experiments.study writes; remove the "
            "file and run the study again"
        ) from None
    lacking = [name for name in wanted if not isinstance(value, dict) or name not in value]
    if lacking:
        raise ValueError(
            f"{path}: found no {lacking[0]!r}, want what experiments.study writes; remove the "
            "file and run the study again"
        )
    return value


def _any(seeds):
    return next(iter(seeds.values()))
