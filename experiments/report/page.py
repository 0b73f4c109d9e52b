"""Hold a report as blocks and write it as Markdown, with all text from models escaped."""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Heading(NamedTuple):
    text: str
    level: int = 2


class Text(NamedTuple):
    text: str


class Code(NamedTuple):
    text: str


class Number(NamedTuple):
    """A cell of a table: a text and a smaller one next to it, such as an interval."""

    text: str
    small: str = ""


class Table(NamedTuple):
    """Rows of texts and numbers; the first column has the names of the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Number]]
    words: bool = False  # whether the cells are sentences


class Figure(NamedTuple):
    """A picture file in the folder of the report."""

    file: str
    caption: str


class Said(NamedTuple):
    """Utterances as (speaker, text)."""

    utterances: Sequence[tuple[str, str]]


Block = Heading | Text | Code | Table | Figure | Said


def to_markdown(blocks: Sequence[Block]) -> str:
    """Writes blocks as Markdown."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def _markdown(block):
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Code(text):
            return "\n".join(f"    {line}" for line in text.splitlines())
        case Figure(file, caption):
            return f"![{_plain(caption)}]({file})"
        case Said(utterances):
            return "\n".join(f"- {_plain(who)}: {_plain(text)}" for who, text in utterances)
        case Table(head, rows, words):
            rule = ["---", *(("---" if words else "---:") for _ in head[1:])]
            lines = [[_plain(text) for text in head], rule]
            lines += [[_cell(cell) for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell):
    if isinstance(cell, str):
        return _plain(cell)
    return _plain(f"{cell.text} ({cell.small})" if cell.small else cell.text)


def _plain(text):
    """Escapes all markup of Markdown and HTML."""
    text = " ".join(str(text).split())
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)
    text = re.sub(r"^([-+>]|\d+[.)])(?=\s)", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
