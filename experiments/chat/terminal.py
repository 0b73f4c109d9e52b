"""Read typed lines, and break text into lines that a terminal shows as they are."""

import contextlib
import itertools
import os
import pathlib
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TextIO


def typed_lines(source: TextIO) -> Iterator[str]:
    """Yields the lines that a person types, with editing and history; or those of a pipe.

    Ctrl-C discards the current line. A second one in a row ends, as Ctrl-D does.
    """
    if not source.isatty():
        yield from source
        return
    interrupted = False
    with _history():
        while True:
            try:
                yield input("you: ")
                interrupted = False
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                if interrupted:
                    return
                interrupted = True
                print(fold("(Ctrl-C again, or Ctrl-D, ends the chat)", terminal_width()))


@contextlib.contextmanager
def _history():
    """Edits lines, and keeps earlier inputs in a file that only its owner may read."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = pathlib.Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    path = state / "mtml_jax" / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            readline.write_history_file(path)
            path.chmod(0o600)


def harmless(text: str) -> str:
    """Replaces characters that a terminal acts on, or does not show, by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def terminal_width() -> int:
    """Returns the columns of the terminal; 80 without one."""
    return max(shutil.get_terminal_size((80, 24)).columns, 1)


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
