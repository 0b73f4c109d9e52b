"""How the pictures of a report look: colours, axes, legends, the bytes of a PNG."""

import io
import math

import numpy as np

# Okabe and Ito's colours, told apart by every kind of colour vision; markers differ besides.
SKY, BLUE = "#56b4e9", "#0072b2"
STYLES = {  # row -> colour, marker
    "std": ("#000000", "p"),
    "std_p": ("#e69f00", "s"),
    "paml": ("#d55e00", "D"),
    "mtml-0.5": (SKY, "v"),
    "mtml-0.6": (SKY, "^"),
    "mtml-0.7": (SKY, "<"),
    "mtml-0.8": (BLUE, "o"),
    "mtml-0.9": (SKY, ">"),
    "amtml": ("#009e73", "P"),
    "multitask": ("#cc79a7", "X"),
}
QUIET = "#666666"  # what is not ours
_WIDTH = 5.4  # inches: a column, and a phone's screen
DRAWN = {"markersize": 5.5, "linewidth": 1.4}
BARS = {"elinewidth": 0.9, "capsize": 2}


def style_of(study, row):
    """Colour and marker of a row; an ablation has those of the row that it changes."""
    return STYLES.get(row) or STYLES.get(study.base(row), (QUIET, "d"))


def strategies_and_alphas(study):
    """The rows of two panels: the strategies, and the alphas of MTML where there are several."""
    rows = study.group("paper", "control")
    alphas = [row for row in rows if row.startswith("mtml-")]
    panels = [[row for row in rows if row not in alphas or row == "mtml-0.8"]]
    if len(alphas) > 1:
        panels.append([row for row in rows if row in alphas or row == "paml"])
    return panels


def new_figure(panels, height):
    """A column of so many panels, each so many inches high: (figure, its axes)."""
    # Here, so that nothing else needs it; no pyplot, so that no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height * panels), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(hspace=0.12 / panels, h_pad=0.1)
    axes = list(figure.subplots(panels, 1, squeeze=False).flat)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=9)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, axes


def png(figure):
    """The bytes of its file, the same for the same numbers."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=120, metadata={"Software": None})
    return whole.getvalue()


def errors(found, values):
    """Distances to the ends of intervals; none where there is no interval."""
    ends = np.array([[v - e.low, e.high - v] for e, v in zip(found, values)]).T
    return np.clip(np.nan_to_num(ends, posinf=0.0), 0.0, None)


def log_where_wide(axis, which="x"):
    """A logarithmic axis with plain numbers, where values are more than thrice apart."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    line = getattr(axis, f"{which}axis")
    low, high = line.get_data_interval()
    if not (0 < 3 * low < high < math.inf):
        return
    getattr(axis, f"set_{which}scale")("log")
    line.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 20 * low else (1, 2, 5)))
    line.set_major_formatter(StrMethodFormatter("{x:g}"))
    line.set_minor_formatter(NullFormatter())


def name_rows(axis, labels):
    """Rows from below, one a label."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(-0.6, len(labels) - 0.4)
    axis.grid(axis="y", visible=False)


def legend(axis):
    """A legend inside, where it hides least."""
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=8, frameon=False, loc="best")


def legend_below(figure, axes):
    """One legend for all panels, with what any of them has."""
    known = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            known.setdefault(label, handle)
    figure.legend(
        list(known.values()), list(known), loc="outside lower center", ncols=3, fontsize=8.5,
        frameon=False,
    )  # fmt: skip
