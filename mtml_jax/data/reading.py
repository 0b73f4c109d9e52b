"""Provides what readers of dialogue files share: decoding, messages, progress, a report."""

import collections
import dataclasses
from typing import NamedTuple

from tqdm import tqdm

MEDIA = "media or a notice instead of text"  # the reason for which such messages are skipped
_MAX_CHARACTERS = 10_000  # of a message
_SHOWN = 3  # skipped units whose errors a report repeats


class Message(NamedTuple):
    """A message of an exported chat: seconds since 1970 by the exporter's clock, author, text."""

    seconds: float
    name: str
    text: str


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


def cut(text: str, report: ReadReport) -> str:
    """Returns the first 10,000 characters of a text; the report counts texts that were cut."""
    if len(text) > _MAX_CHARACTERS:
        report.remarks[f"messages cut to {_MAX_CHARACTERS:,} characters"] += 1
    return text[:_MAX_CHARACTERS]


def clean_name(text: str) -> str:
    """Returns a name without invisible characters, its words separated by single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def waiting(size: int, what: str) -> tqdm:
    """Returns a progress bar over a file's bytes; a terminal shows it after two seconds."""
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, delay=2, disable=None)


def excerpt(text: str) -> str:
    """Returns the beginning of a text in quotes, short enough for an error message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
