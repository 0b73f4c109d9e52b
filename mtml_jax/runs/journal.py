"""Read JSON Lines files that rows are only ever appended to, by processes that may be killed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mtml_jax.runs.files import write_bytes

Row = TypeVar("Row")


def read_journal(
    path: str | os.PathLike, parse: Callable[[Any], Row], *, expected: str, remedy: str,
    mend: bool = False
) -> list[Row]:
    """Reads all rows, without a last line that its writer did not finish.

    Only the last line can be unfinished, and only if no newline ends it; `mend` cuts it off in
    the file, so that rows can be appended. A file that does not exist has no rows.

    Args:
      parse: turns the JSON value of a line into a row; it raises ValueError, KeyError or
        TypeError if the value is not a row.
      expected: what a line holds, for the error message; `remedy` says what to do about others.

    Raises:
      ValueError: a finished line is not a row; the message names it.
    """
    path = Path(path)
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate([*lines, last], start=1):
        try:
            rows.append(parse(json.loads(line.decode())))
        except (ValueError, KeyError, TypeError, RecursionError):
            if number > len(lines):
                break
            raise ValueError(
                f"{path}:{number}: expected {expected}, got {line[:60].decode(errors='replace')!r}; "
                f"{remedy}"
            ) from None
    if mend and last:
        whole = [*lines, last][: len(rows)]
        write_bytes(path, b"".join(line + b"\n" for line in whole))
    return rows
