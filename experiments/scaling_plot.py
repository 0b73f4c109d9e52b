"""The points of `experiments.scaling` as a picture: a panel for everything that grows."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's blue and vermilion, told apart by every kind of colour vision; line and marker
# differ besides.
_TIME = {"color": "#0072b2", "marker": "o", "linestyle": "-"}
_MEMORY = {"color": "#d55e00", "marker": "s", "linestyle": "--"}


def draw(
    rows: Sequence[dict[str, Any]], labels: Mapping[str, str], title: str, path: str | os.PathLike
) -> None:
    """Draws seconds on the left scale and megabytes on the right; the file is whole or not there.

    Args:
      rows: with axis, value, temporary_bytes and, where it was timed, median, least and most.
      labels: axis -> what grows, with its unit; in the order of the panels.
      title: above all panels.
      path: of the PNG.
    """
    # Here, so that nothing else needs it; no pyplot, so that no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).flat
    for (axis, label), panel in zip(labels.items(), panels):
        points = [row for row in rows if row["axis"] == axis]
        values = [row["value"] for row in points]
        if "median" in points[0]:
            panel.plot(values, [row["median"] for row in points], label="time", **_TIME)
            panel.fill_between(
                values,
                [row["least"] for row in points],
                [row["most"] for row in points],
                color=_TIME["color"],
                alpha=0.2,
                linewidth=0,
            )
            panel.set_ylabel("seconds a step", color=_TIME["color"])
            memory = panel.twinx()
        else:
            memory = panel
        megabytes = [row["temporary_bytes"] / 1e6 for row in points]
        memory.plot(values, megabytes, label="temporary memory", **_MEMORY)
        memory.set_ylabel("temporary memory, MB", color=_MEMORY["color"])
        for scale in {panel, memory}:
            scale.set_ylim(bottom=0, top=1.1 * max(scale.dataLim.y1, 1e-9))
        panel.set_xlabel(label)
        panel.set_xlim(left=0)
        panel.set_xticks(values, [f"{v // 1000}k" if v >= 1000 else str(v) for v in values])
        panel.grid(alpha=0.3)
    for panel in panels:
        panel.set_visible(False)
    figure.suptitle(f"{title} (both scales start at 0)")
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=130)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
