"""The commands, each of which is `python -m experiments.NAME`."""

import contextlib
import importlib
import importlib.util
import os
import signal
import sys

try:
    importlib.import_module("mtml_jax")  # which says where it does not run
except ImportError as _error:
    sys.exit(f"error: {_error}")


def end(sentence: str, number: int) -> None:
    """Ends the program at once with a sentence, and with a signal's exit status."""
    with contextlib.suppress(OSError, RuntimeError):  # a closed pipe, or a write that is under way
        sys.stdout.flush()
    os.write(2, f"{chr(10) * os.isatty(2)}{sentence}\n".encode())
    os._exit(128 + number)


if sys.argv[0] == "-m":
    for _name in ("absl", "jax"):
        if importlib.util.find_spec(_name) is None:
            sys.exit(
                f"error: expected the packages of requirements.txt, got no {_name}; activate their "
                "environment, or run pip install -e ."
            )
    # A command imports for seconds before it can say how it ends.
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda number, _: end("interrupted; nothing was begun", number))
