"""Tests the figures that commands share."""

import re
import xml.dom.minidom

import pytest

from experiments import plots

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("values", [[0], [3, 3, 5], list(range(1000)), [7] * 12345])
def test_histograms_are_complete_and_self_contained(values):
    figure = plots.histogram(
        values, title="a < b", x_label="tokens & more", y_label="turns", limit=4
    )
    (axes,) = figure.axes
    bars = axes.patches
    assert sum(bar.get_height() for bar in bars) == len(values) and len(bars) <= 40
    for bar in bars:
        inside = [bar.get_x() <= value < bar.get_x() + bar.get_width() for value in values]
        assert sum(inside) == bar.get_height()
    text = plots.as_svg(figure, "a < b")
    root = xml.dom.minidom.parseString(text).documentElement
    assert root.getAttribute("aria-label") == "a < b"
    texts = [t.firstChild.data for t in root.getElementsByTagName("text")]
    assert {"a < b", "tokens & more", "turns"} <= set(texts)
    assert ("cut beyond 4" in texts) == (max(values) >= 4)
    addresses = re.findall(r"""(?:href=["']|url\()([^"')]*)""", text)
    assert addresses and all(address.startswith("#") for address in addresses)
