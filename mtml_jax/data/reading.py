"""Provides what all readers of dialogue files share: decoding, progress, a report of the outcome."""

import collections
import dataclasses

from tqdm import tqdm

_SHOWN = 3  # skipped units whose errors a report repeats


@dataclasses.dataclass
class ReadReport:
    """Counts what became of every unit in a file.

    Attributes:
      path: the file.
      unit: name of the units counted, in the plural.
      found: units in the file, counted before they are checked.
      read: units that became dialogues.
      skipped: all other units, by reason; `read` and these counts add up to `found`.
      remarks: changes made while reading, by kind.
      errors: the first messages about malformed units.
    """

    path: str
    unit: str
    found: int = 0
    read: int = 0
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    remarks: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    errors: list[str] = dataclasses.field(default_factory=list)

    def skip_malformed(self, error: ValueError) -> None:
        """Counts a unit that could not be read."""
        self.skipped["malformed"] += 1
        if len(self.errors) < _SHOWN:
            self.errors.append(str(error))

    def sentences(self) -> list[str]:
        """Returns the report as text: a line of counts, then a line for each error kept."""
        count = f"{self.path}: {self.found:,} {self.unit}, {self.read:,} read"
        parts = [f"{n:,} skipped ({reason})" for reason, n in sorted(self.skipped.items())]
        parts += [f"{n:,} {remark}" for remark, n in sorted(self.remarks.items())]
        return ["; ".join([count, *parts]), *(f"skipped {error}" for error in self.errors)]


def decoded(line: bytes, where: str) -> str:
    """Returns a line of a file as text, without its line end and without a byte order mark.

    Raises:
      ValueError: the line is not UTF-8; the message begins with `where`.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: expected UTF-8 text, got the byte 0x{line[error.start]:02x} at column "
            f"{error.start + 1}"
        ) from error
    return text.removeprefix("\ufeff").rstrip("\r\n")


def waiting(size: int, what: str) -> tqdm:
    """Returns a progress bar over a file's bytes; a terminal shows it after two seconds."""
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, delay=2, disable=None)


def excerpt(text: str) -> str:
    """Returns the beginning of a text in quotes, short enough for an error message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
