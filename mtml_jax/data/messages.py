"""Defines a message of an exported chat, and the rules that both export readers share."""

from typing import NamedTuple

from mtml_jax.data.reading import ReadReport

MEDIA = "media or a notice instead of text"  # the reason for which such messages are skipped
_MAX_CHARACTERS = 10_000  # of a message


class Message(NamedTuple):
    """One message of a chat exported from a messenger.

    Attributes:
      seconds: time since 1970, by the clock of whoever exported the chat.
      name: the author.
      text: the text as it was written.
    """

    seconds: float
    name: str
    text: str


def cut(text: str, report: ReadReport) -> str:
    """Returns the first 10,000 characters of a text; the report counts texts that were cut."""
    if len(text) > _MAX_CHARACTERS:
        report.remarks[f"messages cut to {_MAX_CHARACTERS:,} characters"] += 1
    return text[:_MAX_CHARACTERS]


def clean_name(text: str) -> str:
    """Returns a name without invisible characters, its words separated by single blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
