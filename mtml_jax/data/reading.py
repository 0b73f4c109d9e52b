"""What the readers of dialogue files share: lines as text, and a report of what was read."""

import collections
import dataclasses
from typing import NamedTuple

from tqdm import tqdm

_SHOWN = 3  # skipped lines that a report repeats word for word


class Message(NamedTuple):
    """One message of a chat that was exported from a messenger.

    Attributes:
      seconds: when, since 1970 by the clock of who exported it.
      name: who.
      text: what, as it was written.
    """

    seconds: float
    name: str
    text: str


@dataclasses.dataclass
class ReadReport:
    """What became of everything that a file holds.

    Attributes:
      path: the file.
      unit: what is counted, in the plural.
      found: units in the file, counted as they begin and before they are judged.
      read: units that became dialogues.
      skipped: units that did not, by reason; `read` and these add up to `found`.
      remarks: what was changed on the way, by kind.
      errors: the first messages of malformed units.
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
        """The report for a reader: one line, and one for each message kept."""
        count = f"{self.path}: {self.found:,} {self.unit}, {self.read:,} read"
        parts = [f"{n:,} skipped ({reason})" for reason, n in sorted(self.skipped.items())]
        parts += [f"{n:,} {remark}" for remark, n in sorted(self.remarks.items())]
        return ["; ".join([count, *parts]), *(f"skipped {error}" for error in self.errors)]


def decoded(line: bytes, where: str) -> str:
    """A line of a file as text, without its end and without a byte order mark.

    Raises:
      ValueError: it is not UTF-8; the message begins with `where`.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: found the byte 0x{line[error.start]:02x} at column {error.start + 1}, "
            "want UTF-8 text"
        ) from error
    return text.removeprefix("\ufeff").rstrip("\r\n")


def waiting(size: int, what: str) -> tqdm:
    """A progress bar over a file's bytes, shown on a terminal after two seconds."""
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, delay=2, disable=None)


def clean_name(text: str) -> str:
    """A name with nothing invisible in it, single blanks within and none around."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def excerpt(text: str) -> str:
    """The beginning of a text in quotes, short enough for a message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
