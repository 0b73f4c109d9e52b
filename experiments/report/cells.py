"""Read and check the folder that `experiments.study` writes."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.study.rows import GROUPS, ROWS
from mtml_jax.eval.scores import Statistics

Stage = tuple[str, int, int]  # system, shots, epoch
# Pairs of systems whose log-likelihoods of the human replies are subtracted.
GAINS = {"own minus unadapted": ("own", "unadapted"),
         "other minus unadapted": ("other", "unadapted"),
         "own minus other": ("own", "other")}  # fmt: skip
_SETTINGS = ("preset", "data", "split", "seeds", "shots", "epochs", "settings", "endpoint")
_FOLLOW_UP = ("one", "other", "seeds", "fixed")
_CELL = ("row", "label", "group", "strategy", "seed", "personas", "folds", "turns", "training")


class Cell(NamedTuple):
    """One row of the study with one seed."""

    record: dict[str, Any]  # the contents of the file without the statistics
    statistics: dict[Stage, Statistics]  # of the personas


class Study(NamedTuple):
    """The results of a study."""

    folder: Path  # that they were read from
    settings: dict[str, Any]  # the contents of study.json
    tuning: list[dict[str, Any]]  # the contents of tuning/*.json, each with its name
    rows: dict[str, dict[int, Cell]]  # row -> seed -> cell, in the order of `study.rows.ROWS`

    def cells(self) -> list[Cell]:
        return [cell for seeds in self.rows.values() for cell in seeds.values()]

    def group(self, *names: str) -> list[str]:
        """Lists the rows of some groups, in order."""
        return [row for row in self.rows if _any(self.rows[row]).record["group"] in names]

    def label(self, row: str) -> str:
        """Returns the name of a row in tables, whether it has cells or not."""
        if row in self.rows:
            return _any(self.rows[row]).record["label"]
        return ROWS[row].label if row in ROWS else row

    def base(self, row: str) -> str | None:
        """Returns the row that an ablation changes; None for other rows."""
        return _any(self.rows[row]).record.get("base") if row in self.rows else None

    def shots(self) -> int:
        """The number of shots of the endpoint."""
        return self.settings["endpoint"]["shots"]

    def last(self) -> int:
        return max(self.settings["epochs"])

    def has(self, name: str) -> bool:
        """Whether any cell has this statistic."""
        return any(name in of for cell in self.cells() for of in cell.statistics.values())

    def missing(self) -> dict[str, list[int]]:
        """Maps rows to their seeds without a cell: the paper's rows, the control, and all present."""
        lacking = {}
        for row in (*GROUPS["paper"], *self.rows):
            made = self.rows.get(row, {})
            lacking[row] = [seed for seed in range(self.settings["seeds"]) if seed not in made]
        return {row: seeds for row, seeds in lacking.items() if seeds}


def read_study(folder: Path) -> Study:
    """Reads the folder of a study, in which some cells may still be missing.

    Raises:
      ValueError: the folder is not that of a study or has no cells, or a file is malformed.
    """
    if not (folder / "study.json").is_file():
        raise ValueError(
            f"{folder}: expected a folder written by experiments.study, got no study.json"
        )
    settings = _read(folder / "study.json", _SETTINGS)
    for added in settings.get("follow_ups", []):
        if not isinstance(added, dict) or not set(_FOLLOW_UP) <= set(added):
            raise ValueError(
                f"{folder / 'study.json'}: expected a follow-up with {', '.join(_FOLLOW_UP)} (two "
                f"rows, some seeds, and when they were fixed), got {added!r}"
            )
    tuning = [
        {"name": path.stem, **_read(path, ("strategy", "inner_lr"))}
        for path in sorted((folder / "tuning").glob("*.json"))
    ]
    cells = [_cell(path) for path in sorted((folder / "cells").glob("*.json"))]
    if not cells:
        raise ValueError(
            f"{folder}: expected at least one file in the folder cells, got none; run "
            "experiments.study first"
        )
    sizes = {len(s["dialogues"]) for c in cells for s in c.statistics.values()}
    if len(sizes) != 1:
        raise ValueError(
            f"{folder / 'cells'}: expected cells of one study, which tests the same personas, got "
            f"cells with {' and '.join(map(str, sorted(sizes)))} personas; remove those of another "
            "study"
        )
    rows: dict[str, dict[int, Cell]] = {}
    for cell in sorted(cells, key=_place):
        rows.setdefault(cell.record["row"], {})[cell.record["seed"]] = cell
    return Study(folder, settings, tuning, rows)


def _place(cell):
    """The sorting key of a cell: rows that are no longer known come last."""
    known = {name: place for place, name in enumerate(ROWS)}
    row = cell.record["row"]
    return known.get(row, len(known)), row, cell.record["seed"]


def _cell(path):
    record = _read(path, (*_CELL, "test"))
    try:
        statistics = {}
        for row in record.pop("test"):
            # Numbers that JSON lacks, such as infinity, are stored as strings.
            found = {name: np.array(v, float) for name, v in row["statistics"].items()}
            statistics[row["system"], row["shots"], row["epoch"]] = found
        for found in statistics.values():
            if {len(values) for values in found.values()} != {len(found["dialogues"])}:
                raise ValueError("statistics of different lengths")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected test statistics with one entry for each persona, got {error!r}; "
            "remove the file and run the study again"
        ) from None
    return Cell(record, statistics | _gains(statistics))


def _gains(statistics):
    """Computes the statistics of the pairs in `GAINS`."""
    found = {}
    for system, shots, epoch in statistics:
        for name, (one, other) in GAINS.items():
            left = statistics[system, shots, epoch]
            right = statistics.get((other, shots, epoch), statistics.get((other, 0, 0)))
            if system == one and right and "nll" in left and "nll" in right:
                kept = {name: left[name] for name in ("dialogues", "tokens")}
                found[name, shots, epoch] = {**kept, "nll": left["nll"] - right["nll"]}
    return found


def _read(path, wanted):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected JSON from experiments.study, got {error}; remove the file and run the "
            "study again"
        ) from None
    lacking = [name for name in wanted if not isinstance(value, dict) or name not in value]
    if lacking:
        raise ValueError(
            f"{path}: expected {lacking[0]!r} as experiments.study writes it, got none; remove the "
            "file and run the study again"
        )
    return value


def _any(seeds):
    return next(iter(seeds.values()))
