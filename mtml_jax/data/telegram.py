"""Reads the `result.json` that Telegram Desktop exports."""

import collections
import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtml_jax.data.reading import Message, ReadReport, clean_name

FORM = '{"name": ..., "messages": [{"type": "message", "date": ..., "from": ..., "text": ...}]}'
MAX_CHARACTERS = 10_000  # of a message

_NOT_THEIR_WORDS = {
    "forwarded_from": "forwarded",
    "via_bot": "written by a bot",
}


def read_telegram(
    path: str | os.PathLike, report: ReadReport
) -> list[tuple[str, list[Message]]]:
    """Reads the chats of an export: one chat, or all of them.

    Left out and counted are service messages, media without text, what was forwarded and
    what is malformed.

    Args:
      path: the file, UTF-8.
      report: counts messages found and skipped.

    Returns:
      (name of the chat, its messages) for each chat with messages, in file order.

    Raises:
      ValueError: it is not JSON, or not such an export.
    """
    try:
        record = json.loads(Path(path).read_bytes())
    except RecursionError:
        raise ValueError(f"{path}: found JSON nested too deeply, want {FORM}") from None
    except ValueError as error:
        raise ValueError(
            f"{path}: found no whole JSON ({' '.join(str(error).split())}), want the result.json "
            "of Telegram Desktop"
        ) from None
    chats = []
    for number, chat in enumerate(_chats(record, path), start=1):
        if not isinstance(chat, dict) or not isinstance(chat.get("messages"), list):
            raise ValueError(
                f"{path}: found chat {number} without a list 'messages', want {FORM}"
            )
        name = chat.get("name")
        messages = _messages(chat["messages"], report)
        if messages:
            chats.append((clean_name(name) if isinstance(name, str) else "", messages))
    return chats


def _chats(record: Any, path) -> list:
    if isinstance(record, dict) and "messages" in record:
        return [record]
    found = record.get("chats") if isinstance(record, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("list"), list):
        raise ValueError(
            f"{path}: found JSON without 'messages' or a list of 'chats', want the result.json "
            f"of Telegram Desktop: {FORM}"
        )
    return found["list"]


def _messages(records: list, report: ReadReport) -> list[Message]:
    messages = []
    names: dict[str, str] = {}  # of ids
    for record in records:
        report.found += 1
        reason = message = None
        if not isinstance(record, dict):
            reason = "malformed"
        elif record.get("type") != "message":
            reason = "written by Telegram"
        else:
            reason = next((why for key, why in _NOT_THEIR_WORDS.items() if record.get(key)), None)
        if reason is None:
            seconds, text, name = _seconds(record), _text(record.get("text")), _who(record, names)
            if seconds is None or text is None or name is None:
                reason = "malformed"
            elif not text.strip():
                reason = "media or a notice instead of text"
            else:
                if len(text) > MAX_CHARACTERS:
                    report.remarks[f"messages cut to {MAX_CHARACTERS:,} characters"] += 1
                message = Message(seconds, name, text[:MAX_CHARACTERS])
        if message is None:
            report.skipped[str(reason)] += 1
        else:
            messages.append(message)
    return sorted(messages, key=lambda message: message.seconds)


def _who(record: Mapping[str, Any], names: dict[str, str]) -> str | None:
    """The name; two of one name in a chat are told apart by a number."""
    found, identity = record.get("from"), record.get("from_id")
    if found is not None and not isinstance(found, str):
        return None
    name = clean_name(found or "")
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
    """A text, or a list of texts and of objects with a text; None for anything else."""
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
