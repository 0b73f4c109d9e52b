"""Format the rows of the benchmark as tables, in plain text or Markdown."""

import math
from collections.abc import Sequence
from typing import Any


def benchmark_tables(rows: Sequence[dict[str, Any]], markdown: bool) -> str:
    """Formats one table for each kind of row that was measured."""
    parts = []
    groups = ((("steps",), _STEPS), (("adaptation", "decoding"), _CALLS), (("peers",), _PEERS))
    for kinds, columns in groups:
        shown = [row for row in rows if row["row"] in kinds]
        if kinds == ("steps",) and shown:
            columns = columns | {f"real %: {', '.join(shown[0]['real_shares'])}": _shares}
        if shown:
            cells = [[cell(row) for cell in columns.values()] for row in shown]
            parts.append(table(list(columns), cells, markdown))
        if shown and kinds == ("steps",):
            ceiling = next(row for row in rows if row["row"] == "ceiling")
            speed = ceiling["operations_per_second"] / 1e9
            parts.append(f"Ceiling: {speed:,.0f} GFLOP/s, {ceiling['what']}.")
    return "\n\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """Formats cells in columns, aligned for a terminal or as Markdown."""
    if markdown:
        lines = [header, ["---"] * len(header), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in [header, *rows]
    )


def spread(row: dict[str, Any]) -> str:
    """Formats the median with the least and the most."""
    return f"{row['median']:.3g} ({row['least']:.3g} to {row['most']:.3g})"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.0f}"


def _ratio(name):
    form = "{measured:.2f} ({counted:.2f})".format
    return lambda row: form(**row[name]) if name in row else ""


def _shares(row):
    return ", ".join(f"{100 * share:.0f}" for share in row["real_shares"].values())


_STEPS = {
    "step": lambda row: row["what"],
    "gradient": lambda row: row["gradient"].replace("_", " "),
    "chunk": lambda row: f"{row['persona_chunk'] or 'default'}{', remat' * row['remat']}",
    "seconds": spread,
    "real tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}",
    "temporary MB": lambda row: megabytes(row["temporary_bytes"]),
    "compiled in s": lambda row: f"{row['compile']:.1f}",
    "counted GFLOP": lambda row: f"{row['operations'] / 1e9:,.1f}",
    "of the ceiling": lambda row: f"{row['achieved_share']:.2f}",
    "to first order (counted)": _ratio("to_first_order"),
    "to mtml (counted)": _ratio("to_mtml"),
}
_CALLS = {
    "row": lambda row: row["row"],
    "what": lambda row: row["what"],
    "rate": lambda row: f"{row['rate']:,.1f} {row['unit']}",
    "seconds": spread,
    "temporary MB": lambda row: megabytes(row["temporary_bytes"]),
    "compiled in s": lambda row: f"{row['compile']:.1f}",
}
_PEERS = {
    "way": lambda row: row["what"],
    "seconds": spread,
    "over our fastest": lambda row: f"{row['to_ours'].get('fastest', math.nan):.2f}",
    "over our default": lambda row: f"{row['to_ours']['default']:.2f}",
    "over our smallest": lambda row: f"{row['to_ours']['smallest']:.2f}",
    "resident MB, whole process": lambda row: megabytes(row["resident_bytes"]),
    "temporary MB": lambda r: megabytes(r["temporary_bytes"]) if "temporary_bytes" in r else "",
    "difference of meta-gradients": lambda row: f"{row['difference']:.0e}" if row["difference"] else "",
}
