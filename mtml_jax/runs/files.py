"""Write text, bytes and JSON files so that readers see the old contents or the new, never a part."""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any, Self


class Closing:
    """A context that closes what it holds when its block ends."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # An error that already ends the block matters more than one of closing.
        with contextlib.suppress(*() if kind is None else (OSError,)):
            self.close()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a whole UTF-8 file, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes a whole file to the disk under another name, then gives it its own.

    Raises:
      OSError: it cannot be written; its old contents are intact.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"{path}: the file could not be written ({error.strerror or error}); free disk space, "
            "check the folder's permissions or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 2) -> None:
    """Writes a JSON file, as `write_bytes` does; NaN and infinities as `plain` writes them."""
    separators = None if indent else (",", ":")
    text = json.dumps(plain(value), indent=indent, sort_keys=True, separators=separators)
    write_text(path, text + "\n")


def plain(value: Any) -> Any:
    """Replaces what JSON lacks: NaN and infinities become "nan", "inf" and "-inf"."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
