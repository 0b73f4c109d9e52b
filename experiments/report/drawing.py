"""Draw the parts that the figures of a report share: styles of rows, panels, intervals."""

import numpy as np

from experiments import plots

QUIET = "#666666"  # for numbers that are not ours
STYLES = {  # row -> colour, marker
    "std": (plots.BLACK, "p"),
    "std_p": (plots.ORANGE, "s"),
    "paml": (plots.VERMILION, "D"),
    "mtml-0.5": (plots.SKY, "v"),
    "mtml-0.6": (plots.SKY, "^"),
    "mtml-0.7": (plots.SKY, "<"),
    "mtml-0.8": (plots.BLUE, "o"),
    "mtml-0.9": (plots.SKY, ">"),
    "amtml": (plots.GREEN, "P"),
    "multitask": (plots.PINK, "X"),
}
# For rows of strategies without a style above: Tol's muted colours, and markers not used above.
_COLOURS = ("#882255", "#117733", "#332288", "#999933", "#44aa99")
_MARKERS = ("h", "d", "*", "8", "H")
_WIDTH = 5.4  # inches: a column of text, or the screen of a phone
DRAWN = {"markersize": 5.5, "linewidth": 1.4}
BARS = {"elinewidth": 0.9, "capsize": 2}


def style_of(study, row: str) -> tuple[str, str]:
    """Returns the colour and the marker of a row.

    An ablation has the style of the row that it changes. Other rows without an entry in `STYLES`
    take colours and markers from a cycle, in the order of the study.
    """
    base = study.base(row) or row
    if base in STYLES:
        return STYLES[base]
    rows = dict.fromkeys(study.base(row) or row for row in study.rows)
    new = [row for row in rows if row not in STYLES]
    turn, place = divmod(new.index(base), len(_COLOURS))
    return _COLOURS[place], _MARKERS[(place + turn) % len(_MARKERS)]


def strategies_and_alphas(study) -> list[list[str]]:
    """Splits the rows over two panels: the strategies, and MTML by alpha if it has several."""
    rows = study.group("paper", "control")
    alphas = [row for row in rows if row.startswith("mtml-")]
    panels = [[row for row in rows if row not in alphas or row == "mtml-0.8"]]
    if len(alphas) > 1:
        panels.append([row for row in rows if row in alphas or row == "paml"])
    return panels


def new_panels(count: int, height: float):
    """Makes a column of panels, each of this height in inches; returns the figure and its axes."""
    figure = plots.new_figure(_WIDTH, height * count)
    figure.get_layout_engine().set(hspace=0.12 / count, h_pad=0.1)
    panels = list(figure.subplots(count, 1, squeeze=False).flat)
    for axis in panels:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=9)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, panels


def draw_point(axis, found, place, style, fill="full"):
    """Draws an estimate with its interval in a row of a panel."""
    colour, marker = style
    axis.errorbar(
        [found.value], [place], xerr=errors([found], [found.value]), fmt=marker, color=colour,
        fillstyle=fill, **DRAWN, **BARS,
    )  # fmt: skip


def draw_curve(axis, x, y, style, label, *, ends_only=False):
    """Draws estimates x and y along the epochs, from a small dot for the unadapted model.

    Intervals are drawn at every epoch, or with `ends_only` at the last one.
    """
    colour, marker = style
    values = [[estimate.value for estimate in curve] for curve in (x, y)]
    axis.plot(
        *values, color=colour, marker=marker, label=label, markevery=range(1, len(x)), **DRAWN
    )
    axis.plot(values[0][:1], values[1][:1], ".", color=colour, markersize=5)
    some = slice(-1, None) if ends_only else slice(None)
    points = [part[some] for part in values]
    for place, curve, part in zip("xy", (x, y), points):
        axis.errorbar(
            *points, fmt="none", ecolor=colour, alpha=0.6 if ends_only else 0.45, **BARS,
            **{f"{place}err": errors(curve[some], part)},
        )  # fmt: skip


def errors(estimates, values):
    """Returns the distances of values to the ends of their intervals, 0 without an interval."""
    ends = np.array([[v - e.low, e.high - v] for e, v in zip(estimates, values)]).T
    return np.clip(np.nan_to_num(ends, posinf=0.0), 0.0, None)


def name_rows(axis, labels) -> None:
    """Labels the rows of a panel from the bottom."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(-0.6, len(labels) - 0.4)
    axis.grid(axis="y", visible=False)


def legend(axis) -> None:
    """Puts a legend inside a panel, where it hides least."""
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8, frameon=False, loc="best")
