"""Turns a person's chat logs into dialogues: WhatsApp, Telegram or JSON lines.

    dialogues, report = read_chat("chat.txt")
    mine, others = choose_speaker(dialogues, "Ann")
"""

import collections
import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path

from mtml_jax.data.jsonl import SCHEMA, read_jsonl
from mtml_jax.data.reading import Message, ReadReport, excerpt
from mtml_jax.data.records import Dialogue, both_sides
from mtml_jax.data.telegram import read_telegram
from mtml_jax.data.text import tokenize
from mtml_jax.data.whatsapp import FORMS, looks_like_whatsapp, read_whatsapp

MAX_BYTES = 100 * 1024 * 1024
PAUSE_HOURS = 6.0
MAX_TURNS = 15

_LINES_CHECKED = 200  # at the beginning of a file, to recognise its format
_WANTED = f"JSON lines {SCHEMA}, WhatsApp's text {FORMS}, or Telegram Desktop's result.json"


def read_chat(
    path: str | os.PathLike, *, pause_hours: float = PAUSE_HOURS, max_turns: int = MAX_TURNS
) -> tuple[list[Dialogue], ReadReport]:
    """Reads a file of dialogues and recognises its format by its content.

    JSON lines are read by `jsonl.read_jsonl`. A chat of two people is tokenized in the
    same way; consecutive messages of one person are one utterance. The chat is cut into
    dialogues at long pauses, and long dialogues into pieces of about equal length.

    Args:
      path: the file.
      pause_hours: a longer silence in a chat ends a dialogue.
      max_turns: the largest number of turns of a piece.

    Returns:
      (dialogues, report): both sides of each conversation, in chronological order; the
      report counts the conversations of JSON lines, and the messages of chats.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is too large, malformed or of an unknown format, a setting is
        out of its range, or a chat does not have two speakers; one sentence.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected {_WANTED}, got no such file")
    if not pause_hours > 0 or max_turns < 1:
        raise ValueError(
            "expected --pause_hours above 0 and --max_turns of 1 or more, "
            f"got --pause_hours={pause_hours} and --max_turns={max_turns}"
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"{path}: expected {MAX_BYTES / 2**20:,.0f} MB or less, got {size / 2**20:,.0f} MB; "
            "export without media or for a shorter time, or keep a part of the file"
        )
    kind = _kind(path)
    if kind == "jsonl":
        return read_jsonl(path)
    report = ReadReport(str(path), "messages")
    if kind == "whatsapp":
        chats = [("", read_whatsapp(path, report))]
    else:
        chats = read_telegram(path, report)
    return _dialogues(chats, report, pause_hours * 3600, max_turns), report


def choose_speaker(
    dialogues: Sequence[Dialogue], speaker: str | None
) -> tuple[list[Dialogue], list[Dialogue]]:
    """Separates the dialogues of one speaker from the other sides of the same conversations.

    Args:
      dialogues: both sides of conversations.
      speaker: name, in upper or lower case; None: the one with the most dialogues.

    Returns:
      (dialogues from the speaker's side, dialogues from the other sides).

    Raises:
      ValueError: the name matches no speaker or several; the message lists the names.
    """
    counts = collections.Counter(d.speaker for d in dialogues if d.speaker)
    if not counts:
        raise ValueError(
            "expected a speaker's name in every utterance, got dialogues without speakers; use "
            f"the layout {SCHEMA}"
        )
    names = _joined([f"{excerpt(name)} ({n:,})" for name, n in counts.most_common()])
    if speaker is None:
        (chosen, most), *rest = counts.most_common(2)
        if rest and rest[0][1] == most:
            raise ValueError(f"expected a speaker, got several; choose one with --speaker: {names}")
    else:
        exact = [name for name in counts if name == " ".join(speaker.split())]
        matches = exact or [n for n in counts if n.casefold() == " ".join(speaker.casefold().split())]
        if len(matches) != 1:
            raise ValueError(
                f"expected one of the speakers, got --speaker={excerpt(speaker)}; the speakers and "
                f"their dialogues are {names}"
            )
        chosen = matches[0]
    mine = [d for d in dialogues if d.speaker == chosen]
    conversations = {d.conversation for d in mine}
    others = [d for d in dialogues if d.conversation in conversations and d.speaker != chosen]
    return mine, others


def _kind(path: Path) -> str:
    """Returns jsonl, whatsapp or telegram, by the content of the file."""
    with open(path, "rb") as file:
        head = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        first = next((line for line in file if line.strip(b"\xef\xbb\xbf\r\n\t ")), b"")
    if head.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: expected a text file, got a zip archive; unpack it first")
    if head[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError(
            f"{path}: expected {_WANTED}, got a web page; in Telegram Desktop choose the format JSON"
        )
    if head.startswith((b"{", b"[")) and not _any_whatsapp(head):
        try:
            record = json.loads(first)
        except (ValueError, RecursionError):
            # Either an object of several lines, or a malformed line that read_jsonl reports.
            return "telegram" if first.strip() == b"{" or b'"messages":' in head else "jsonl"
        several = isinstance(record, dict) and ("messages" in record or "chats" in record)
        return "telegram" if several else "jsonl"
    if _any_whatsapp(head):
        return "whatsapp"
    shown = excerpt(" ".join(head[:200].decode(errors="replace").split()))
    raise ValueError(f"{path}: expected {_WANTED}, got a file that begins with {shown}")


def _any_whatsapp(head: bytes) -> bool:
    lines = head.decode(errors="replace").splitlines()[:_LINES_CHECKED]
    return any(looks_like_whatsapp(line) for line in lines)


def _dialogues(chats, report, pause, max_turns):
    """Cuts chats of two people into dialogues; every message is counted as read or skipped."""
    dated = []  # (seconds, both sides of a conversation)
    several = len(chats) > 1
    for number, (chat, messages) in enumerate(chats, start=1):
        names = list(dict.fromkeys(message.name for message in messages))
        if len(names) != 2:
            if several:
                report.skipped["in a chat that does not have two people"] += len(messages)
                continue
            raise _not_two(report.path, names)
        prefix = f"{number} {chat} " if several else ""
        for piece in _pieces(messages, report, pause, max_turns):
            seconds = piece[0][0][0].seconds
            said = [(run[0][0].name, " ".join(tokens for _, tokens in run)) for run in piece]
            written = ["\n".join(message.text.strip() for message, _ in run) for run in piece]
            count = sum(map(len, piece))
            if len(said) < 2:
                report.skipped["not answered before a long pause"] += count
                continue
            report.read += count
            date = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            conversation = f"{prefix}{date:%Y-%m-%d %H:%M} {len(dated) + 1}"
            dated.append((seconds, both_sides(conversation, said, lambda name: (name, ()), written)))
    if not dated:
        raise ValueError(
            f"{report.path}: expected a chat in which both people write, "
            f"got no dialogue of two people in {report.found:,} messages"
        )
    return [side for _, sides in sorted(dated, key=lambda pair: pair[0]) for side in sides]


def _pieces(messages, report, pause, max_turns):
    """Yields dialogues as lists of utterances, each a list of (message, tokens)."""
    dialogues: list[list[list[tuple[Message, str]]]] = []
    last = None
    # Cut at long pauses, and join consecutive messages of one person.
    for message in messages:
        if not (tokens := tokenize(message.text)):
            report.skipped["without a word"] += 1
            continue
        if last is None or message.seconds - last.seconds > pause:
            dialogues.append([])
        if dialogues[-1] and dialogues[-1][-1][0][0].name == message.name:
            report.remarks["messages joined to the same speaker's previous one"] += 1
            dialogues[-1][-1].append((message, tokens))
        else:
            dialogues[-1].append([(message, tokens)])
        last = message
    # Cut long dialogues into pieces of whole turns.
    for utterances in dialogues:
        pairs = -(-len(utterances) // 2)
        pieces = -(-pairs // max_turns)
        ends = [2 * (pairs * n // pieces) for n in range(pieces + 1)]
        for begin, end in zip(ends, ends[1:]):
            yield utterances[begin:end]


def _not_two(path, names):
    if not names:
        return ValueError(f"{path}: expected a chat of two people, got no message that one wrote")
    shown = _joined([excerpt(name) for name in names])
    plural = "s" if len(names) > 1 else ""
    return ValueError(
        f"{path}: expected two speakers in a chat, got {len(names):,} speaker{plural} ({shown}); "
        "export a chat of two people, as group chats cannot be read"
    )


def _joined(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
