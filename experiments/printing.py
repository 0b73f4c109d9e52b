"""Print text within the terminal's width, as the terminal shows it."""

import itertools
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator

from tqdm import tqdm

_UNFOLDED = 10_000  # columns of a file or a pipe


def say(text: str, label: str = "") -> None:
    """Prints a line without disturbing a progress bar, folded if a terminal shows it."""
    tqdm.write(fold(harmless(text), terminal_width(_UNFOLDED), label))


def harmless(text: str) -> str:
    """Replaces characters that a terminal acts on, or does not show, by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def terminal_width(otherwise: int = 80) -> int:
    """Returns the columns of the terminal, or what they are `otherwise`, without one."""
    return max(shutil.get_terminal_size((otherwise, 24)).columns, 1)


def columns(text: str) -> int:
    """Returns the columns that a text takes: most East Asian characters and emoji take two."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def fold(text: str, width: int, label: str = "") -> str:
    """Breaks a text into lines; see `fold_stream`."""
    return "".join(fold_stream([text], width, label))


def fold_stream(pieces: Iterable[str], width: int, label: str = "") -> Iterator[str]:
    """Breaks a text that arrives in pieces into lines that are never wider than `width`.

    Lines break at spaces, and within words that are longer than a line or that continue
    with the next piece.

    Args:
      pieces: joined, they are the text; a piece that begins with a space begins a word.
      width: columns of a line.
      label: precedes the text; later lines are indented by as much, up to a quarter line.

    Yields:
      The label, then each piece, with line breaks; spaces that end a line are left out.
    """
    indent = " " * min(columns(label), width // 4)
    column, waiting = 0, ""
    for piece in itertools.chain([label], pieces):
        shown = ""
        for space, word in re.findall("( *)([^ ]+|$)", piece):
            waiting += space
            if not word:
                continue
            # One column stays free for a comma that may follow in the next piece.
            wide = column + columns(waiting + word) >= width
            if waiting and wide and column > len(indent):
                shown += f"\n{indent}"
                column, waiting = len(indent), ""
            for character in waiting + word:
                if column + columns(character) > width and column > len(indent):
                    shown += f"\n{indent}"
                    column = len(indent)
                shown += character
                column += columns(character)
            waiting = ""
        yield shown
