"""Compute tables 4 and 5 of the paper from human ratings: means, intervals, agreement."""

import collections
import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.ratings.store import CRITERIA, RatingStore
from mtml_jax.eval.statistics import bootstrap_interval

VALUES = (-1, 0, 1)
_TABLES = {10: "Table 4", 5: "Table 5"}
_COLUMNS = (
    "rater generated persona conversation turn system shots text consistency fluency coherence at"
).split()


def alpha(counts: Sequence[Sequence[int]]) -> float:
    """Computes Krippendorff's alpha for ordinal data (Krippendorff, 2018, ch. 12).

    Args:
      counts: [units, values], the number of raters that gave a unit each ordered value.

    Returns:
      1 for perfect agreement, 0 for chance agreement; NaN if no unit has two raters, or all
      ratings are equal.

    Raises:
      ImportError: the library is not installed.
    """
    try:
        import krippendorff
    except ImportError:
        raise ImportError(
            "expected krippendorff, which computes the raters' agreement, got no such package; "
            "run pip install -e '.[app]'"
        ) from None
    counts = np.array([unit for unit in counts if sum(unit) > 1], np.int64)
    if not counts.size or np.count_nonzero(counts.sum(axis=0)) < 2:
        return math.nan
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="ordinal"))


def summarise(store: RatingStore, *, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Computes everything that the tables show, with `resamples` bootstrap samples.

    Returns:
      tables: for every number of shots, the rows of the systems, with ratings, and for
        every criterion value, low and high; alpha: the same for every criterion, with
        the units that two or more rated; raters: name, generated, ratings; replies: how
        many there are to rate; notes: sentences to be shown with the numbers.

    Raises:
      ImportError: see `alpha`.
    """
    rows, systems = store.rows(), store.systems()
    personas = {name: n for n, name in enumerate(sorted({row["persona"] for row in rows}))}
    generated = store.raters()
    active = {row["rater"] for row in rows}
    raters = {name: n for n, name in enumerate(name for name in generated if name in active)}
    sums = np.zeros((len(systems), len(CRITERIA), len(personas), len(raters)))
    counts = np.zeros(sums.shape)
    for row in rows:
        place = systems.index((row["system"], row["shots"])), slice(None)
        place += personas[row["persona"]], raters[row["rater"]]
        sums[place] += row["scores"]
        counts[place] += 1

    def mean(system, criterion):
        added, number = sums[system, criterion], counts[system, criterion]

        def of(drawn, drawn_raters=slice(None)):
            n = number[drawn][:, drawn_raters].sum()
            return added[drawn][:, drawn_raters].sum() / n if n else math.nan

        groups = (len(personas), len(raters)) if len(raters) > 1 else len(personas)
        return _interval(of, groups, len(personas), seed, resamples)

    def result(system):
        scores = {name: mean(system, n) for n, name in enumerate(CRITERIA)}
        ratings = int(counts[system, 0].sum())
        return {"system": systems[system][0], "ratings": ratings, "scores": scores}

    tables = []
    for shots in sorted({k for _, k in systems} - {0}, reverse=True) or [0]:
        title = f"{_TABLES.get(shots, 'Human evaluation')} ({shots}-shot)"
        results = [result(s) for s, (_, k) in enumerate(systems) if k in (shots, 0)]
        tables.append({"title": title, "shots": shots, "rows": results})
    rated = collections.Counter(row["rater"] for row in rows)
    return {
        "tables": tables,
        "alpha": {
            name: _agreement(rows, n, personas, seed, resamples) for n, name in enumerate(CRITERIA)
        },
        "raters": [
            {"name": name, "generated": generated[name], "ratings": rated[name]} for name in raters
        ],
        "replies": store.count(),
        "personas": len(personas),
        "notes": _notes(raters, generated, personas, rows, store),
    }


def _agreement(rows, criterion, personas, seed, resamples):
    units: dict[int, np.ndarray] = {}
    persona_of = {}
    for row in rows:
        unit = units.setdefault(row["reply"], np.zeros(len(VALUES), np.int64))
        unit[VALUES.index(row["scores"][criterion])] += 1
        persona_of[row["reply"]] = personas[row["persona"]]
    by_persona = [
        [units[reply] for reply in units if persona_of[reply] == p] for p in personas.values()
    ]

    def of(drawn):
        return alpha([unit for p in drawn for unit in by_persona[p]])

    found = _interval(of, len(personas), len(personas), seed, resamples)
    return found | {"units": sum(int(unit.sum() > 1) for unit in units.values())}


def _interval(score, groups, personas, seed, resamples):
    value = score(np.arange(personas))
    low = high = math.nan
    if not math.isnan(value):
        low, high = bootstrap_interval(score, groups, seed=seed, resamples=resamples)
    return {"value": float(value), "low": low, "high": high}


def _notes(raters, generated, personas, rows, store):
    notes = []
    made_up = [name for name in raters if generated[name]]
    if made_up:
        notes.append(
            f"GENERATED: a program answered as {', '.join(made_up)}; these numbers are no "
            "human evaluation"
        )
    if not rows:
        return notes + ["no ratings yet"]
    drawn = f"{len(personas)} personas and {len(raters)} raters"
    if len(raters) == 1:
        drawn = f"{len(personas)} personas, of a single rater"
    notes.append(f"means of -1, 0, 1 with 95 % bootstrap intervals over {drawn}")
    short = [name for name in raters if sum(r["rater"] == name for r in rows) < store.count()]
    if short:
        notes.append(f"not finished: {', '.join(short)}")
    notes.append("Krippendorff's alpha is ordinal, over the replies that two or more rated")
    return notes


def as_text(report: dict[str, Any]) -> str:
    """Formats the tables for a terminal."""
    width = max(
        [len(row["system"]) for table in report["tables"] for row in table["rows"]], default=0
    )
    width = max(width, len("alpha")) + 2
    lines = [f"{note}\n" for note in report["notes"] if note.startswith("GENERATED")]
    for table in report["tables"]:
        lines += [table["title"]]
        lines += [" " * width + "".join(f"{c.capitalize():<24}" for c in CRITERIA) + "ratings"]
        for row in table["rows"]:
            cells = "".join(f"{cell(row['scores'][c]):<24}" for c in CRITERIA)
            lines.append(f"{row['system']:<{width}}{cells}{row['ratings']:>7,}")
        lines.append("")
    cells = "".join(f"{cell(report['alpha'][c]):<24}" for c in CRITERIA)
    units = max(found["units"] for found in report["alpha"].values())
    lines += [f"{'alpha':<{width}}{cells}{units:>7,} replies of {report['replies']:,}", ""]
    lines += [
        f"{r['name']}: {r['ratings']:,} of {report['replies']:,}"
        + (" (generated)" if r["generated"] else "")
        for r in report["raters"]
    ]
    return "\n".join(lines + [n for n in report["notes"] if not n.startswith("GENERATED")])


def cell(score: dict[str, float]) -> str:
    """Formats a number with its interval; a dash if there is none."""
    if math.isnan(score["value"]):
        return "-"
    text = f"{score['value']:.2f}"
    if not math.isnan(score["low"]):
        text += f" [{score['low']:.2f}, {score['high']:.2f}]"
    return text


def as_csv(store: RatingStore) -> str:
    """Formats every answer that counts as a line of CSV.

    Texts that a spreadsheet would take for a formula are preceded by an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in store.rows():
        row |= row.pop("scores")._asdict()
        writer.writerow([_inert(row[name]) for name in _COLUMNS])
    return out.getvalue()


def _inert(value):
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
