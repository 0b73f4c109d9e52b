"""A histogram as self-contained SVG: numbers in, text out."""

import collections
import html
from collections.abc import Sequence

# Okabe and Ito's blue and vermilion, told apart by every kind of colour vision; the limit
# is dashed and named besides.
_BAR, _LIMIT, _INK = "#0072b2", "#d55e00", "#222"
_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 30, 46
_BINS = 40


def histogram_svg(
    values: Sequence[int], *, title: str, x_label: str, y_label: str, limit: int | None = None
) -> str:
    """Draws how often each value occurs, in at most 40 bins of equal, round width.

    Args:
      values: whole numbers, 0 or more; at least one.
      title: above the chart.
      x_label: of the values, with their unit.
      y_label: of the counts, with their unit.
      limit: a value to mark with a dashed line, where it is in sight.

    Returns:
      One <svg> element that refers to nothing outside.
    """
    width = _round_up(max(1, -(-(max(values) + 1) // _BINS)))
    counts = collections.Counter(value // width for value in values)
    bins = max(counts) + 1
    step = _round_up(max(1, -(-max(counts.values()) // 4)))
    top = step * -(-max(counts.values()) // step)
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value):
        return _LEFT + across * value / (bins * width)

    def y(count):
        return _TOP + up * (1 - count / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="11" '
        f'fill="{_INK}"><title>{html.escape(title)}</title>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18" font-size="13">{html.escape(title)}</text>',
    ]
    for count in range(0, top + 1, step):
        parts.append(
            f'<path d="M{_LEFT} {y(count):.1f}h{across}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(count) + 4:.1f}" text-anchor="end">{count:,}</text>'
        )
    for place, count in sorted(counts.items()):
        span = f"{place * width:,}" + (f" to {(place + 1) * width - 1:,}" if width > 1 else "")
        parts.append(
            f'<rect x="{x(place * width) + 0.5:.1f}" y="{y(count):.1f}" '
            f'width="{max(across / bins - 1, 0.5):.1f}" height="{_TOP + up - y(count):.1f}" '
            f'fill="{_BAR}"><title>{span}: {count:,}</title></rect>'
        )
    tick = _round_up(max(1, -(-bins * width // 6)))
    for value in range(0, bins * width + 1, tick):
        parts.append(
            f'<text x="{x(value):.1f}" y="{_TOP + up + 15}" text-anchor="middle">{value:,}</text>'
        )
    parts.append(
        f'<path d="M{_LEFT} {_TOP + up}h{across}" stroke="{_INK}"/>'
        f'<text x="{_LEFT + across / 2}" y="{_HEIGHT - 10}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
        f'<text transform="translate(14 {_TOP + up / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>"
    )
    if limit is not None and limit < bins * width:
        side = -4 if x(limit) > _LEFT + across / 2 else 4
        parts.append(
            f'<path d="M{x(limit):.1f} {_TOP}v{up}" stroke="{_LIMIT}" stroke-width="2" '
            f'stroke-dasharray="5 3"/><text x="{x(limit) + side:.1f}" y="{_TOP + 12}" '
            f'text-anchor="{"end" if side < 0 else "start"}">cut beyond {limit:,}</text>'
        )
    return "".join(parts) + "</svg>"


def _round_up(number: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    scale = 1
    while True:
        for first in (1, 2, 5):
            if first * scale >= number:
                return first * scale
        scale *= 10
