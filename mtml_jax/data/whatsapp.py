"""Reads a chat from the text file that WhatsApp exports."""

import datetime
import os
import re
from collections.abc import Iterator

from mtml_jax.data.reading import MEDIA, Message, ReadReport, clean_name, cut, decoded, waiting

FORMS = "'12/31/23, 9:41 PM - Name: text' or '[31.12.23, 21:41:05] Name: text'"

_MARK = "\u200e"  # WhatsApp puts it before text that no person typed
_OTHER_MARKS = re.compile("[\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_DATE = r"(\d{1,4})[./-] ?(\d{1,2})[./-] ?(\d{1,4})\.?,?\s+(?:[^\W\d]{1,3}\.?\s+)?"
_CLOCK = (
    r"(上午|下午|오전|오후)?\s?(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?"
    r"(?:\s?([AaPp])\.?\s?[Mm]\.?)?"
)
_HEADERS = (
    re.compile(rf"{_DATE}{_CLOCK}\s+[-\u2013]\s+(.*)", re.DOTALL),
    re.compile(rf"\[{_DATE}{_CLOCK}\]\s*(.*)", re.DOTALL),
)
_BODY = re.compile(r"([^:\"\u201c]{1,80}): ?(.*)", re.DOTALL)  # quotes: "Ann named it "a: b""
_ATTACHED = re.compile(r"\S+\.\w{2,4} \([^()]+\)|<[^<>]*(?:[^<>\S]|[^\x00-\x7f])[^<>]*>")
_EDITED = re.compile(r"\s*\u200e?<This message was edited>\s*$|\s*\u200e<[^<>]{3,60}>\s*$")
_NOTICES = frozenset(
    "null|this message was deleted|you deleted this message|diese nachricht wurde gelöscht|"
    "du hast diese nachricht gelöscht|ce message a été supprimé|vous avez supprimé ce message|"
    "se eliminó este mensaje|eliminaste este mensaje|mensagem apagada|"
    "questo messaggio è stato eliminato|missed voice call|missed video call|"
    "verpasster sprachanruf|verpasster videoanruf".split("|")
)

_1970 = datetime.date(1970, 1, 1).toordinal()

# The places of year, month and day among a date's three numbers; likelier orders first.
_ORDERS = {"day first": (2, 1, 0), "month first": (2, 0, 1), "year first": (0, 1, 2)}


def looks_like_whatsapp(line: str) -> bool:
    """Whether a line begins a message of a WhatsApp export."""
    return _header(line) is not None


def read_whatsapp(path: str | os.PathLike, report: ReadReport) -> list[Message]:
    """Reads the messages of a chat exported from Android or iOS, in many languages.

    A line that does not begin a message continues the previous one. Text that WhatsApp
    wrote itself is skipped and counted in the report: lines without a name, omitted media,
    calls, deleted messages. The order of day, month and year is inferred from all dates of the file: in
    the right order they are valid and do not decrease. The messages are in file order.

    Raises:
      ValueError: the file is not UTF-8, or no line begins a message.
    """
    entries: list[list] = []  # [three numbers of the date, seconds of the day, lines]
    with open(path, "rb") as lines, waiting(os.path.getsize(path), f"reading {path}") as bar:
        for number, line in enumerate(lines, start=1):
            bar.update(len(line))
            text = decoded(line, f"{path}:{number}")
            header = _header(text)
            if header is not None:
                entries.append([*header[:2], [header[2]]])
            elif entries:
                entries[-1][2].append(text)
            elif text.strip():
                report.remarks["lines before the first message"] += 1
    if not entries:
        raise ValueError(f"{path}:1: expected lines {FORMS} of a WhatsApp export, got no message")
    report.found += len(entries)
    days = _days([date for date, _, _ in entries])
    messages = []
    for day, (_, seconds, lines) in zip(days, entries):
        said = _written("\n".join(lines), report)
        if said is not None:
            messages.append(Message(day * 86400.0 + seconds, *said))
    return messages


def _header(line: str):
    """Returns (date as three numbers, seconds of the day, rest of the line), or None."""
    line = line.lstrip(f"{_MARK}\ufeff")
    if not line[:1] == "[" and not line[:1].isdigit() and not _OTHER_MARKS.match(line):
        return None
    line = _OTHER_MARKS.sub("", line)
    match = next(filter(None, (header.match(line) for header in _HEADERS)), None)
    if match is None:
        return None
    *date, before, hour, minute, second, after, rest = match.groups()
    hour, minute, second = int(hour), int(minute), int(second or 0)
    if hour > 24 or minute > 59 or second > 59:
        return None
    if before or after:
        afternoon = before in ("下午", "오후") or (after or "").lower() == "p"
        hour = hour % 12 + 12 * afternoon
    return tuple(map(int, date)), hour * 3600 + minute * 60 + second, rest


def _days(dates: list[tuple[int, int, int]]) -> Iterator[int]:
    """Yields day numbers in the order that fits best; an impossible date repeats the previous day."""

    def numbers(order):
        return [_day(*(date[place] for place in order)) for date in dates]

    def badness(days):
        known = [day for day in days if day is not None]
        backwards = sum(later < earlier for earlier, later in zip(known, known[1:]))
        # Of orders that tie, the one in which the chat spans the least time.
        return len(days) - len(known), backwards, known[-1] - known[0] if known else 0

    best = min((numbers(order) for order in _ORDERS.values()), key=badness)
    last = next((day for day in best if day is not None), 0)
    for day in best:
        last = last if day is None else day
        yield last


def _day(year: int, month: int, day: int) -> int | None:
    try:
        return datetime.date(year + 2000 * (year < 100), month, day).toordinal() - _1970
    except ValueError:
        return None


def _written(body: str, report: ReadReport) -> tuple[str, str] | None:
    """Returns (name, text) of a message that a person wrote; counts all others and returns None."""
    match = _BODY.match(body.lstrip(_MARK))
    name = clean_name(match[1].replace(_MARK, "").lstrip("~")) if match else ""
    if not match or not name:
        report.skipped["written by WhatsApp"] += 1
        return None
    text = _EDITED.sub("", match[2])
    first, _, rest = text.partition("\n")
    attached = _ATTACHED.fullmatch(first.strip(f"{_MARK} \r"))
    if attached or first.startswith(_MARK):
        text = rest  # the next lines are a caption
        if not text.strip():
            report.skipped[MEDIA] += 1
            return None
    if text.strip(f"{_MARK} \n.").lower() in _NOTICES:
        report.skipped[MEDIA] += 1
        return None
    return name, cut(text, report).replace(_MARK, "")
