"""Reads chats from the `result.json` that Telegram Desktop exports."""

import collections
import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtml_jax.data.reading import MEDIA, Message, ReadReport, clean_name, cut

FORM = '{"name": ..., "messages": [{"type": "message", "date": ..., "from": ..., "text": ...}]}'

# The sender did not write a message with one of these keys.
_NOT_WRITTEN = {"forwarded_from": "forwarded", "via_bot": "written by a bot"}


def read_telegram(path: str | os.PathLike, report: ReadReport) -> list[tuple[str, list[Message]]]:
    """Reads the chats of an export, which holds one chat or all of them.

    The report counts messages found, and those skipped: service messages, media without text,
    forwarded and malformed messages.

    Returns:
      (name of the chat, its messages) for each chat that has messages, in file order.

    Raises:
      ValueError: the file is not JSON, or not such an export.
    """
    try:
        record = json.loads(Path(path).read_bytes())
    except RecursionError:
        raise ValueError(f"{path}: expected {FORM}, got JSON nested too deeply") from None
    except ValueError as error:
        raise ValueError(
            f"{path}: expected the result.json of Telegram Desktop, got incomplete or invalid "
            f"JSON ({' '.join(str(error).split())}); export the chat again"
        ) from None
    chats = []
    for number, chat in enumerate(_chats(record, path), start=1):
        if not isinstance(chat, dict) or not isinstance(chat.get("messages"), list):
            raise ValueError(
                f"{path}: expected {FORM}, got chat {number} without a list 'messages'"
            )
        name = chat.get("name")
        messages = _messages(chat["messages"], report)
        if messages:
            chats.append((clean_name(name) if isinstance(name, str) else "", messages))
    return chats


def _chats(record: Any, path) -> list:
    if isinstance(record, dict) and "messages" in record:
        return [record]
    chats = record.get("chats") if isinstance(record, dict) else None
    if not isinstance(chats, dict) or not isinstance(chats.get("list"), list):
        raise ValueError(
            f"{path}: expected the result.json of Telegram Desktop, {FORM}, "
            "got JSON without 'messages' or a list of 'chats'"
        )
    return chats["list"]


def _messages(records: list, report: ReadReport) -> list[Message]:
    messages = []
    names: dict[str, str] = {}  # id -> name
    for record in records:
        report.found += 1
        message = _message(record, names, report)
        if isinstance(message, Message):
            messages.append(message)
        else:
            report.skipped[message] += 1
    return sorted(messages, key=lambda message: message.seconds)


def _message(record: Any, names: dict[str, str], report: ReadReport) -> Message | str:
    """Returns a message, or the reason for skipping it."""
    if not isinstance(record, dict):
        return "malformed"
    if record.get("type") != "message":
        return "written by Telegram"
    for key, reason in _NOT_WRITTEN.items():
        if record.get(key):
            return reason
    seconds, text, name = _seconds(record), _text(record.get("text")), _name(record, names)
    if seconds is None or text is None or name is None:
        return "malformed"
    return Message(seconds, name, cut(text, report)) if text.strip() else MEDIA


def _name(record: Mapping[str, Any], names: dict[str, str]) -> str | None:
    """Returns the sender's name; senders of the same name in a chat are numbered."""
    sender, identity = record.get("from"), record.get("from_id")
    if sender is not None and not isinstance(sender, str):
        return None
    name = clean_name(sender or "")
    identity = identity if isinstance(identity, str) else name
    name = name or clean_name(identity)
    if not name:
        return None
    if identity not in names:
        taken = collections.Counter(names.values())
        number = 1
        while taken[name if number == 1 else f"{name} {number}"]:
            number += 1
        names[identity] = name if number == 1 else f"{name} {number}"
    return names[identity]


def _text(value: Any) -> str | None:
    """Joins a text, or a list of texts and objects with a text; returns None for anything else."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) else part for part in value]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else None


def _seconds(record: Mapping[str, Any]) -> float | None:
    try:
        date = datetime.datetime.fromisoformat(record["date"])
        return date.replace(tzinfo=date.tzinfo or datetime.UTC).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
