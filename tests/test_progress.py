"""Progress on a terminal and in a log."""

import io
import itertools

import pytest

from mtml_jax import progress
from mtml_jax.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by 25 seconds each time it is read."""
    monkeypatch.setattr(progress.time, "monotonic", itertools.count(0, 25).__next__)


def test_a_log_has_a_line_a_minute(clock):
    out = io.StringIO()
    with ProgressBar(total=20, unit="step", file=out) as bar:
        for _ in range(20):
            bar.update()
            bar.refresh()
            ProgressBar.write("a line of the run", file=io.StringIO())
    lines = out.getvalue().splitlines()
    assert 2 <= len(lines) <= 10 and len(set(lines)) == len(lines)
    assert all(" of 20 steps, " in line and "left" in line for line in lines)


def test_what_is_short_says_nothing_to_a_log():
    out = io.StringIO()
    with ProgressBar(total=3, file=out) as bar:
        bar.update(3)
    assert out.getvalue() == ""
    again = ProgressBar(total=1, file=out)
    again.close()
    assert not [each for each in ProgressBar._instances if each in (bar, again)]


def test_a_terminal_has_a_bar():
    out = Terminal()
    with ProgressBar(total=3, file=out) as bar:
        bar.update(3)
    assert "100%" in out.getvalue()
