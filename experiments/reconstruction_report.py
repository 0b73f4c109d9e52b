"""The scores of persona reconstruction as a table, a plot and a sample."""

from collections.abc import Sequence
from pathlib import Path

from experiments import plots
from mtml_jax.data.records import Dialogue
from mtml_jax.eval.reconstruction import BOTH_SIDES, VARIANTS, Scored
from mtml_jax.runs.files import write_bytes

_TITLES = {"both_sides": "both sides", "own_only": "own utterances only"}
_COLOURS = {"both_sides": plots.BLUE, "own_only": plots.VERMILION}
_HEADINGS = {"token_f1": "F1", "statement_recall": "recall", "ppl": "PPL"}
_LABELS = {"token_f1": "token F1", "statement_recall": "statement recall", "ppl": "PPL"}


def table(report: dict) -> str:
    """Rows of each variant, own beside shuffled; then the intervals of their difference."""
    heading = f"{'turns':>5}{'dialogues':>11}" + "".join(
        f"{title:>9}{'shuffled':>10}" for title in _HEADINGS.values()
    )
    lines = []
    for variant in VARIANTS:
        rows = _shown(report, variant)
        lines += ["", f"context: {_TITLES[variant]}", heading]
        lines += [
            f"{row['turns_seen']:>5}{row['dialogues']:>11,}"
            + "".join(
                f"{_number(row, name):>9}{_number(row, f'{name}_shuffled'):>10}"
                for name in _HEADINGS
            )
            for row in rows
        ]
        last = [row for row in rows if 2 * row["dialogues"] >= report["dialogues"]][-1]
        differences = ", ".join(
            f"{title} {_interval(last, f'{name}_own_minus_shuffled')}"
            for name, title in _HEADINGS.items()
        )
        lines.append(f"own minus shuffled after {last['turns_seen']} turns: {differences}")
    lines += [
        "",
        "turns: up to the current one; of own utterances those of the turns before it",
        "shuffled: F1 and recall against another persona's statements, PPL of the true persona "
        + "after another persona's dialogue",
        "95 % intervals resample personas",
    ]
    if len(_shown(report, VARIANTS[0])) * len(VARIANTS) < len(report["rows"]):
        lines.append("more turns, which fewer than 5 % of the dialogues have: in the JSON alone")
    return "\n".join(lines)


def _shown(report, variant):
    """The rows that do not stand on a few dialogues."""
    return [
        row
        for row in report["rows"]
        if row["variant"] == variant and 20 * row["dialogues"] >= report["dialogues"]
    ]


def _number(row, name, part="value"):
    return f"{row['scores'][name][part]:.{2 if name.startswith('ppl') else 3}f}"


def _interval(row, name):
    value, low, high = (_number(row, name, part) for part in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def sample_text(dialogue: Dialogue, scored: Sequence[Scored]) -> str:
    """A true persona, and what is made of it after one turn, half of them and all."""
    texts = {s.turns_seen: s.text for s in scored if s.variant == BOTH_SIDES}
    every = len(texts)
    lines = ["", "true persona", *(f"  {statement}" for statement in sorted(dialogue.statements))]
    for seen in sorted({1, (every + 1) // 2, every}):
        lines += [f"reconstructed after {seen} of {every} turns", f"  {texts[seen]}"]
    return "\n".join(lines)


def draw(report: dict, path: Path) -> None:
    """Draws the scores against the turns seen; writes the file completely or not at all."""
    figure = plots.new_figure(11, 4)
    panels = figure.subplots(1, len(_LABELS))
    for panel, (name, label) in zip(panels, _LABELS.items()):
        for variant in VARIANTS:
            rows = _shown(report, variant)
            for suffix, whose, style in (("", "own", "-"), ("_shuffled", "shuffled", ":")):
                _line(panel, rows, name + suffix, style, f"{_TITLES[variant]}, {whose}")
        panel.set_xlabel("turns seen")
        panel.set_ylabel(label)
        panel.locator_params(axis="x", integer=True)
        panel.grid(alpha=0.3)
    for panel in panels[:-1]:
        panel.set_ylim(bottom=0, top=max(panel.get_ylim()[1], 0.1))
    plots.log_where_wide(panels[-1], "y")
    plots.legend_below(figure, ncols=2 * len(VARIANTS))
    given = report["settings"]
    figure.suptitle(
        f"persona reconstruction: {given['strategy']}, step {given['step']:,}, {given['split']}, "
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
