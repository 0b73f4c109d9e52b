"""Detect damaged files of a folder by a manifest of their SHA-256, in the format of sha256sum."""

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

NAME = "manifest.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)\n")


def write_manifest(folder: str | os.PathLike, aside: Collection[str] = ()) -> None:
    """Writes the manifest of complete files, which `sha256sum -c manifest.sha256` reads, too.

    Files directly in the folder whose names are in `aside` are left out.
    """
    folder = Path(folder)
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _files(folder, aside)]
    with open(folder / NAME, "w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def find_damage(folder: str | os.PathLike, aside: Collection[str] = ()) -> str | None:
    """Compares a folder with its manifest, whose `write_manifest` left out the files `aside`.

    Returns:
      The first damage, such as "state/d/1 is not there"; None if there is none.
    """
    folder = Path(folder)
    try:
        text = (folder / NAME).read_text(encoding="utf-8", errors="replace")
        names = _files(folder, aside)
        wanted = {}
        for line in text.splitlines(keepends=True):
            if not (match := _LINE.fullmatch(line)):
                return f"{NAME} is cut off or changed"
            wanted[match[2]] = match[1]
        if unlisted := sorted(set(names) - wanted.keys()):  # first, because a changed name is also missing
            return f"{NAME} does not list {unlisted[0]}"
        for name in sorted(wanted):
            if name not in names:
                return f"{name} is not there"
            if _digest(folder / name) != wanted[name]:
                return f"{name} is not what was written"
    except OSError as error:
        name = os.path.relpath(error.filename, folder) if error.filename else "a file"
        missing = isinstance(error, FileNotFoundError)
        return f"{name} {'is not there' if missing else f'cannot be read: {error.strerror}'}"
    return None


def _files(folder: Path, aside: Collection[str]) -> list[str]:
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in names if name not in aside and name != NAME)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
