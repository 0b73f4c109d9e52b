"""Read the lines that a person types."""

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import TextIO

from experiments.printing import fold, terminal_width


def typed_lines(source: TextIO) -> Iterator[str]:
    """Yields the lines that a person types, with editing and history; or those of a pipe.

    Ctrl-C discards the current line. A second one in a row ends, as Ctrl-D does.
    """
    if not source.isatty():
        yield from source
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
