"""Plot the scores of persona reconstruction against the number of turns seen."""

from pathlib import Path

from experiments import plots
from mtml_jax.eval.reconstruction import VARIANTS
from mtml_jax.eval.table import VARIANT_TITLES, common_rows
from mtml_jax.runs.files import write_bytes

_COLOURS = {"both_sides": plots.BLUE, "own_only": plots.ORANGE}
_LABELS = {"token_f1": "token F1", "statement_recall": "statement recall", "ppl": "PPL"}


def draw(report: dict, path: Path) -> None:
    """Draws the scores into a PNG file, which is written whole or not at all."""
    figure = plots.new_figure(11, 4)
    panels = figure.subplots(1, len(_LABELS))
    for panel, (name, label) in zip(panels, _LABELS.items()):
        for variant in VARIANTS:
            rows = common_rows(report, variant)
            for suffix, whose, style in (("", "own", "-"), ("_shuffled", "shuffled", ":")):
                _line(panel, rows, name + suffix, style, f"{VARIANT_TITLES[variant]}, {whose}")
        panel.set_xlabel("turns seen")
        panel.set_ylabel(label)
        panel.locator_params(axis="x", integer=True)
        panel.grid(alpha=0.3)
    for panel in panels[:-1]:
        panel.set_ylim(bottom=0, top=max(panel.get_ylim()[1], 0.1))
    plots.log_where_wide(panels[-1], "y")
    plots.legend_below(figure, ncols=2 * len(VARIANTS))
    settings = report["settings"]
    figure.suptitle(
        f"persona reconstruction: {settings['strategy']}, step {settings['step']:,}, {settings['split']}, "
        f"{report['dialogues']:,} dialogues of {report['personas']:,} personas (95 % intervals)"
    )
    write_bytes(path, plots.png(figure, dpi=130))


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
