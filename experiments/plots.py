"""Draws figures with matplotlib, an optional package that is imported at the first figure."""

import html
import importlib.util
import io
import math
from collections.abc import Sequence

# Okabe and Ito's colours, which every kind of colour vision distinguishes.
BLUE, VERMILION = "#0072b2", "#d55e00"
BLACK, ORANGE, SKY, GREEN, PINK = "#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7"
_BINS = 40


def require_matplotlib(purpose: str) -> None:
    """Checks that matplotlib is installed.

    Raises:
      ImportError: it is not; the message names the purpose and the command that installs it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            f"expected matplotlib for {purpose}, got no such package; pip install -e '.[plot]' "
            "installs it"
        )


def new_figure(width: float, height: float):
    """Returns an empty figure of this size in inches; it needs no display, as pyplot would."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure, dpi: int = 120) -> bytes:
    """Returns a figure as a PNG file; the same numbers give the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def log_where_wide(axes, which: str = "x") -> None:
    """Makes the axis "x" or "y" logarithmic if its values spread by more than a factor 3."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_data_interval()
    if not (0 < 3 * low < high < math.inf):
        return
    getattr(axes, f"set_{which}scale")("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if high < 20 * low else (1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure, ncols: int = 3) -> None:
    """Puts one legend below all panels, with each label of any panel once."""
    handle_of: dict[str, object] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            handle_of.setdefault(label, handle)
    place = {"loc": "outside lower center", "ncols": ncols}
    figure.legend(list(handle_of.values()), list(handle_of), fontsize=8.5, frameon=False, **place)


def histogram(
    values: Sequence[int], *, title: str, x_label: str, y_label: str, limit: int | None = None
):
    """Draws how often each value occurs, in at most 40 bins of equal, round width.

    Args:
      values: whole numbers, 0 or more; at least one.
      title: title of the figure.
      x_label: name of the values, with their unit.
      y_label: name of the counts, with their unit.
      limit: a value to mark with a dashed line, if the axis reaches it.

    Returns:
      The matplotlib figure.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure = new_figure(4.4, 2.5)
    axes = figure.subplots()
    locator = MaxNLocator(_BINS, integer=True, steps=[1, 2, 5, 10])
    edges = locator.tick_values(0, max(values) + 1)
    axes.hist(values, bins=edges, color=BLUE, edgecolor="white", linewidth=0.5)
    if limit is not None and limit < edges[-1]:
        axes.axvline(limit, color=VERMILION, linestyle="--")
        shift, side = (-4, "right") if limit > edges[-1] / 2 else (4, "left")
        axes.annotate(
            f"cut beyond {limit:,}", (limit, 0.97), xycoords=("data", "axes fraction"),
            xytext=(shift, 0), textcoords="offset points", ha=side, va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, edges[-1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def as_svg(figure, title: str) -> str:
    """Returns a figure as one <svg> element that refers to nothing outside of itself."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    metadata = dict.fromkeys(["Date", "Creator", "Format", "Type"])
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(
        "<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1
    )
