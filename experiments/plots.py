"""Draws figures with matplotlib, an optional package that is imported at the first figure."""

import importlib.util
import io
import math

# Okabe and Ito's colours, which every kind of colour vision distinguishes.
BLUE, VERMILION = "#0072b2", "#d55e00"
BLACK, ORANGE, SKY, GREEN, YELLOW, PINK = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7",
)  # fmt: skip


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
    """Makes an axis logarithmic, with plain numbers, if its values spread by more than a factor 3.

    Args:
      axes: the panel.
      which: "x" or "y".
    """
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
    figure.legend(
        list(handle_of.values()), list(handle_of), loc="outside lower center", ncols=ncols,
        fontsize=8.5, frameon=False,
    )  # fmt: skip
