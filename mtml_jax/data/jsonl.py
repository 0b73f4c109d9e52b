"""Reads dialogues from JSON lines, in our own layout or that of Synthetic-Persona-Chat."""

import collections
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mtml_jax.data.reading import ReadReport, decoded, excerpt, waiting
from mtml_jax.data.records import Dialogue, both_sides
from mtml_jax.data.text import PLACEHOLDER, tokenize

SCHEMA = (
    '{"conversation": ID, "utterances": [{"speaker": ID, "text": TEXT}, ...], '
    '"statements": {ID: [TEXT, ...]}}'
)
_MAX_INTEGER = 2**63 - 1
# A persona's statements are repeated in each of its conversations.
_tokenized_statement = functools.lru_cache(maxsize=65536)(tokenize)


def read_jsonl(
    path: str | os.PathLike, *, skip_bad: bool = False
) -> tuple[list[Dialogue], ReadReport]:
    """Reads a whole file, as `iterate_jsonl` does, and returns (dialogues, report)."""
    report = ReadReport(str(path), "conversations")
    return list(iterate_jsonl(path, report, skip_bad=skip_bad)), report


def iterate_jsonl(
    path: str | os.PathLike, report: ReadReport, *, skip_bad: bool = False
) -> Iterator[Dialogue]:
    """Reads a file of conversations, one JSON object a line, a line at a time.

    All lines have the same one of two layouts; unknown keys are ignored and counted.
    `SCHEMA`: ids are texts or whole numbers, a number and its digits are the same id,
    the speaker's id defines the persona, and statements are optional.
    Synthetic-Persona-Chat: {"id", "persona_1", "persona_2", "dialogue": [{"speaker":
    1 or 2, "text"}]}; its speaker numbers identify nobody, so the statements define the
    persona.

    Every conversation has two speakers. Utterances without text are left out, and
    consecutive utterances of one speaker are joined; the report counts both.
    Conversations without any text are well-formed and skipped.

    Args:
      path: the file, UTF-8; blank lines are ignored.
      report: counts the conversations found, read and skipped.
      skip_bad: skip and count malformed lines instead of raising.

    Yields:
      Both sides of each conversation, in the order in which they first speak, with
      tokenized text and statements; a side that never speaks is left out.

    Raises:
      ValueError: a line is malformed or the file is empty; the message names the file,
        the line, what was expected and what was found.
    """
    line_of: dict[str, int] = {}
    layout = None
    with open(path, "rb") as lines, waiting(os.path.getsize(path), f"reading {path}") as bar:
        for line_number, line in enumerate(lines, start=1):
            bar.update(len(line))
            if not line.removeprefix(b"\xef\xbb\xbf").strip():
                continue
            report.found += 1
            where = f"{path}:{line_number}"
            try:
                text = decoded(line, where)
                try:
                    record = _parsed(text)
                    own = _layout(record, layout)
                    key = "id" if own is _synthetic else "conversation"
                    conversation = _name(record.get(key), f"{key!r}")
                    if conversation in line_of:
                        raise _wrong(
                            "a new id for every conversation",
                            f"the id {excerpt(conversation)} of line {line_of[conversation]}",
                        )
                    sides, remarks = own(record, conversation)
                except _Malformed as error:
                    raise ValueError(f"{where}: {error}") from None
            except ValueError as error:
                if not skip_bad:
                    raise
                report.skip_malformed(error)
                continue
            layout = own
            line_of[conversation] = line_number
            report.remarks.update(remarks)
            if sides:
                report.read += 1
                yield from sides
            else:
                report.skipped["nothing said"] += 1
    if not report.found:
        raise ValueError(f"{path}:1: expected a JSON object per line, got an empty file: {SCHEMA}")


class _Malformed(ValueError):
    """An error whose message does not yet name the file and the line."""


def _wrong(expected: str, got: str) -> _Malformed:
    return _Malformed(f"expected {expected}, got {got}")


def _parsed(text: str) -> Mapping[str, Any]:
    """Parses a line strictly: Python accepts constants and repeated keys that JSON forbids."""

    def unique(pairs):
        keys = dict(pairs)
        if len(keys) < len(pairs):
            twice = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise _wrong("every key once", f"the key {excerpt(twice)} twice")
        return keys

    def no_constant(name):
        raise _wrong("a number that JSON allows", name)

    def integer(digits):
        if len(digits) > 20 or abs(int(digits)) > _MAX_INTEGER:
            raise _wrong("whole numbers below 2^63", f"the number {excerpt(digits)}")
        return int(digits)

    try:
        record = json.loads(
            text, object_pairs_hook=unique, parse_constant=no_constant, parse_int=integer
        )
    except json.JSONDecodeError as error:
        raise _wrong(
            f"a JSON object on one line, {SCHEMA}",
            f"{excerpt(text)}, which is not JSON from column {error.colno} on ({error.msg})",
        ) from None
    except RecursionError:
        raise _wrong(f"an object {SCHEMA}", f"{excerpt(text)}, nested too deeply") from None
    if not isinstance(record, dict):
        raise _wrong(f"an object per line, {SCHEMA}", f"{_kind(record)} {excerpt(text)}")
    return record


def _layout(record: Mapping[str, Any], layout: Callable | None) -> Callable:
    """Chooses the function for this object, whose layout must be that of the earlier lines."""
    own = _synthetic if "dialogue" in record and "utterances" not in record else _general
    if layout not in (None, own):
        names = {_synthetic: "'dialogue'", _general: "'utterances'"}
        raise _wrong(
            "one layout in a file", f"a line with {names[own]} after lines with {names[layout]}"
        )
    return own


def _general(record: Mapping[str, Any], conversation: str):
    """Reads both sides of a conversation in the layout of `SCHEMA`."""
    said, written, remarks = _said(_list(record, "utterances"), "utterances", _name)
    statements = {}
    if record.get("statements") is not None:
        by_speaker = record["statements"]
        if not isinstance(by_speaker, dict):
            raise _wrong("an object {speaker: [text, ...]}", f"{_kind(by_speaker)} as 'statements'")
        for speaker, texts in by_speaker.items():
            what = f"the statements of {excerpt(speaker)}"
            if not isinstance(texts, list):
                raise _wrong("a list of texts", f"{_kind(texts)} as {what}")
            statements[_name(speaker, "a speaker in 'statements'")] = _statements(texts, what)
        strangers = sorted(statements.keys() - {speaker for speaker, _ in said})
        if strangers and said:
            raise _wrong(
                "statements of speakers of the conversation",
                f"statements of {excerpt(strangers[0])}, who says nothing in it",
            )
    remarks.update(_unknown_keys(record, {"conversation", "utterances", "statements"}))
    sides = both_sides(
        conversation, said, lambda speaker: (speaker, statements.get(speaker, ())), written
    )
    return sides, remarks


def _synthetic(record: Mapping[str, Any], conversation: str):
    """Reads both sides of a conversation in Synthetic-Persona-Chat's layout."""
    statements = {}
    for number in (1, 2):
        key = f"persona_{number}"
        statements[str(number)] = _statements(_list(record, key), f"{key!r}")
        if not statements[str(number)]:
            raise _wrong("at least one statement to define the persona", f"none in {key!r}")
    said, written, remarks = _said(_list(record, "dialogue"), "dialogue", _one_or_two)
    remarks.update(_unknown_keys(record, {"id", "persona_1", "persona_2", "dialogue"}))
    sides = both_sides(conversation, said, lambda speaker: ("", statements[speaker]), written)
    return sides, remarks


def _said(utterances: list, key: str, speaker_of: Callable[[Any, str], str]):
    """Reads utterances without empty texts.

    Returns:
      (alternating (speaker, tokens) pairs, the same texts as written, counts of the changes).
    """
    remarks: collections.Counter[str] = collections.Counter()
    said: list[tuple[str, str]] = []
    written: list[str] = []
    for number, utterance in enumerate(utterances, start=1):
        place = f"{key}[{number - 1}]"
        if not isinstance(utterance, dict):
            raise _wrong('an object {"speaker": ID, "text": TEXT}', f"{_kind(utterance)} as {place}")
        speaker = speaker_of(utterance.get("speaker"), f"the speaker of {place}")
        text = _text(utterance.get("text"), f"the text of {place}")
        if "[" in text:
            remarks["placeholders made one token each"] += len(PLACEHOLDER.findall(text))
        raw, text = text.strip(), tokenize(text)
        if not text:
            remarks["utterances without text left out"] += 1
        elif said and said[-1][0] == speaker:
            remarks["utterances joined to the same speaker's previous one"] += 1
            said[-1] = (speaker, f"{said[-1][1]} {text}")
            written[-1] += f"\n{raw}"
        else:
            said.append((speaker, text))
            written.append(raw)
    speakers = list(dict.fromkeys(speaker for speaker, _ in said))
    if said and len(speakers) != 2:
        names = ", ".join(excerpt(speaker) for speaker in speakers[:4])
        count = f"{len(speakers)} speaker{'s' * (len(speakers) > 1)}"
        raise _wrong("two speakers in a conversation", f"{count} ({names})")
    return said, written, +remarks


def _one_or_two(value: Any, what: str) -> str:
    if isinstance(value, bool) or value not in (1, 2) or not isinstance(value, int):
        raise _wrong("1 or 2", f"{_shown(value)} as {what}")
    return str(value)


def _name(value: Any, what: str) -> str:
    """Returns an id as text; it may be a text or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _wrong("a text or a whole number", f"{_shown(value)} as {what}")
    name = " ".join(_text(value, what).split())
    if not name:
        raise _wrong("a text or a whole number", f"a blank text as {what}")
    return name


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _wrong("a text", f"{_shown(value)} as {what}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _wrong("whole characters", f"half a surrogate pair in {what}") from None
    return value


def _statements(texts: Iterable[Any], what: str) -> tuple[str, ...]:
    statements = tuple(_tokenized_statement(_text(text, f"one of {what}")) for text in texts)
    if not all(statements):
        raise _wrong("statements of one word or more", f"a blank text among {what}")
    return statements


def _list(record: Mapping[str, Any], key: str) -> list:
    if not isinstance(record.get(key), list):
        raise _wrong("a list", f"{_shown(record.get(key))} as {key!r}")
    return record[key]


def _unknown_keys(record: Mapping[str, Any], known: set[str]) -> dict[str, int]:
    return {f"values of the unknown key {excerpt(key)}": 1 for key in record.keys() - known}


def _shown(value: Any) -> str:
    """Describes a wrong value for an error: a number in full, anything else by its kind."""
    return f"{_kind(value)} {value!r}" if isinstance(value, (int, float)) else _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {int: "the number", float: "the number", str: "a text", list: "a list"}
    return "an object" if isinstance(value, dict) else names.get(type(value), "nothing")
