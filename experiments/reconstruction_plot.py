"""Plot the scores of persona reconstruction against the number of turns seen."""

import os
from pathlib import Path

from mtml_jax.eval.reconstruction import VARIANTS
from mtml_jax.eval.table import VARIANT_TITLES, common_rows

_COLOURS = {"both_sides": "tab:blue", "own_only": "tab:orange"}
_LABELS = {"token_f1": "token F1", "statement_recall": "statement recall", "ppl": "PPL"}


def draw(report: dict, path: Path) -> None:
    """Draws the scores into a PNG file, which is written whole or not at all."""
    # Imported here because only the plot needs it; without pyplot, no display is opened.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(_LABELS))
    for panel, (name, label) in zip(panels, _LABELS.items()):
        for variant in VARIANTS:
            rows = common_rows(report, variant)
            for suffix, whose, style in (("", "own", "-"), ("_shuffled", "shuffled", ":")):
                _line(panel, rows, name + suffix, style, f"{VARIANT_TITLES[variant]}, {whose}")
        panel.set_xlabel("turns seen")
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    for panel in panels[:-1]:
        panel.set_ylim(bottom=0, top=max(panel.get_ylim()[1], 0.1))
    panels[-1].set_yscale("log")
    panels[-1].yaxis.set_major_formatter(ScalarFormatter())
    panels[-1].yaxis.set_minor_formatter(ScalarFormatter())
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
    settings = report["settings"]
    figure.suptitle(
        f"persona reconstruction: {settings['strategy']}, step {settings['step']:,}, {settings['split']}, "
        f"{report['dialogues']:,} dialogues of {report['personas']:,} personas (95 % intervals)"
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=130)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _line(panel, rows, name, style, label):
    scores = [row["scores"][name] for row in rows]
    turns = [row["turns_seen"] for row in rows]
    colour = _COLOURS[rows[0]["variant"]]
    marker = "o" if style == "-" else None
    panel.plot(
        turns, [s["value"] for s in scores], style, color=colour, label=label, marker=marker,
        markersize=3,
    )  # fmt: skip
    panel.fill_between(
        turns, [s["low"] for s in scores], [s["high"] for s in scores], color=colour,
        alpha=0.18 if style == "-" else 0.07,
        linewidth=0,
    )  # fmt: skip
