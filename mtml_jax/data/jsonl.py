"""Reads dialogues from JSON lines: a user's own, or the layout of Synthetic-Persona-Chat."""

import collections
import functools
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mtml_jax.data.reading import ReadReport, decoded, excerpt, waiting
from mtml_jax.data.records import Dialogue, Turn

SCHEMA = (
    '{"conversation": ID, "utterances": [{"speaker": ID, "text": TEXT}, ...], '
    '"statements": {ID: [TEXT, ...]}}'
)
_MAX_INTEGER = 2**63 - 1

_STRAIGHT = str.maketrans("\u2018\u2019\u02bc\u201c\u201d", "'''\"\"")
_PLACEHOLDER = re.compile(r"\[\s*((?:[\w'-]+\s+){0,4}[\w'-]+)\s*\]")
_WHOSE = re.compile(r"^(?:(?:user|speaker|person|your|my|the)\s*\d*(?:\s*'s)?(?:\s+|$))+")
_CONTRACTION = re.compile(r"\b([^\W_]+?)(n't|'(?:m|re|ve|ll|d|s))\b")
_WHOLE = {"won't": "will not", "can't": "can not", "shan't": "shall not", "let's": "let us"}
_ENDS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_IS = frozenset(
    "it that what he she there here who where how when why everything something nothing".split()
)
_TOKEN = re.compile(r"\[\w+\]|'s\b|\w+|\S")


def tokenize(text: str) -> str:
    """Writes a text as PersonaChat writes its own: lower case, blanks between tokens.

    In this order: curly quotes become straight ones and invisible characters blanks;
    a placeholder in square brackets becomes one token without the speaker's number
    ("[User 1's name]" and "[user 2]" are "[name]", "[your city]" is "[city]");
    contractions are written out ("don't" is "do not", "it's" is "it is"), the
    possessive 's is a token of its own; so is every other character that belongs to
    no word.

    Args:
      text: any text.

    Returns:
      Tokens with one blank between; empty where nothing is to be seen. Tokenising
      again changes nothing.
    """
    text = text.lower()  # first: the lower case of some letters is not yet composed
    text = unicodedata.normalize("NFC", text).translate(_STRAIGHT)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    if "[" in text:
        text = _PLACEHOLDER.sub(_one_token, text)
    if "'" in text:
        text = _CONTRACTION.sub(_written_out, text)
    return " ".join(_TOKEN.findall(text))


def read_jsonl(
    path: str | os.PathLike, *, skip_bad: bool = False
) -> tuple[list[Dialogue], ReadReport]:
    """Reads a whole file, as `iterate_jsonl` does.

    Returns:
      (dialogues, report).

    Raises:
      ValueError: as `iterate_jsonl`.
    """
    report = ReadReport(str(path), "conversations")
    return list(iterate_jsonl(path, report, skip_bad=skip_bad)), report


def iterate_jsonl(
    path: str | os.PathLike, report: ReadReport, *, skip_bad: bool = False
) -> Iterator[Dialogue]:
    """Reads a file of conversations, one JSON object a line, a line at a time.

    Either `SCHEMA`: ids are texts or whole numbers, a number and its digits are the
    same id, the speaker's id defines the persona, and statements are optional. Or
    Synthetic-Persona-Chat's {"id", "persona_1", "persona_2", "dialogue": [{"speaker":
    1 or 2, "text"}]}, where numbers say nothing of who speaks: there the statements
    define the persona. All lines are of one layout; other keys are left aside.

    Every conversation has two speakers. Utterances without text are left out, and what
    one speaker says in a row is one utterance; both are counted in the report.
    Conversations in which nothing is said are well-formed and skipped.

    Args:
      path: the file, UTF-8; blank lines are ignored.
      report: counts what was found and what became of it, in conversations.
      skip_bad: leave out and count malformed lines instead of raising.

    Yields:
      Of each conversation both sides in the order in which they begin to speak, text
      and statements through `tokenize`; a side without a reply is left out.

    Raises:
      ValueError: a line is malformed or the file is empty; the message names file and
        line, what was found and what is wanted.
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
                    conversation = _identity(record, "id" if own is _synthetic else "conversation")
                    if conversation in line_of:
                        raise _wrong(
                            f"the id {excerpt(conversation)} of line {line_of[conversation]}",
                            "another id for every conversation",
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
        raise ValueError(f"{path}:1: found an empty file, want a JSON object a line: {SCHEMA}")


class _Malformed(ValueError):
    """What was found and what is wanted, yet without file and line."""


def _wrong(found: str, want: str) -> _Malformed:
    return _Malformed(f"found {found}, want {want}")


def _written_out(match: re.Match) -> str:
    whole, word, end = match.group(0, 1, 2)
    if whole in _WHOLE:
        return _WHOLE[whole]
    if end == "'s":
        return f"{word} is" if word in _IS else whole
    if end == "'m":
        return f"{word} am" if word == "i" else whole
    return f"{word} {_ENDS[end]}"


def _one_token(match: re.Match) -> str:
    if not re.search(r"\w", match.group(1)):
        return match.group()
    words = re.findall(r"\w+", _WHOSE.sub("", match.group(1)))
    what = "_".join(words)
    return " [name] " if what in ("", "name", "username") else f" [{what}] "


def _parsed(text: str) -> Mapping[str, Any]:
    """A line as an object of plain JSON, without what JSON forbids but Python reads."""

    def unique(pairs):
        keys = dict(pairs)
        if len(keys) < len(pairs):
            twice = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise _wrong(f"the key {excerpt(twice)} twice", "every key once")
        return keys

    def no_constant(name):
        raise _wrong(name, "JSON, which has no such number")

    def integer(digits):
        if len(digits) > 20 or abs(int(digits)) > _MAX_INTEGER:
            raise _wrong(f"the number {excerpt(digits)}", "whole numbers below 2^63")
        return int(digits)

    try:
        record = json.loads(
            text, object_pairs_hook=unique, parse_constant=no_constant, parse_int=integer
        )
    except json.JSONDecodeError as error:
        raise _wrong(
            f"{excerpt(text)}, no JSON from column {error.colno} on ({error.msg})",
            f"an object on one line: {SCHEMA}",
        ) from None
    except RecursionError:
        raise _wrong(f"{excerpt(text)}, nested too deeply", f"an object: {SCHEMA}") from None
    if not isinstance(record, dict):
        raise _wrong(f"{_kind(record)} {excerpt(text)}", f"an object a line: {SCHEMA}")
    return record


def _layout(record: Mapping[str, Any], layout: Callable | None) -> Callable:
    """The function that reads this object: its layout has to be that of the lines before."""
    own = _synthetic if "dialogue" in record and "utterances" not in record else _general
    if layout not in (None, own):
        names = {_synthetic: "'dialogue'", _general: "'utterances'"}
        raise _wrong(
            f"a line with {names[own]} after lines with {names[layout]}", "one layout in a file"
        )
    return own


def _general(record: Mapping[str, Any], conversation: str):
    """Both sides of a conversation in the layout of `SCHEMA`."""
    said, remarks = _said(_list(record, "utterances"), "utterances", _name)
    statements = {}
    if record.get("statements") is not None:
        given = record["statements"]
        if not isinstance(given, dict):
            raise _wrong(f"{_kind(given)} as 'statements'", "an object {speaker: [text, ...]}")
        for speaker, texts in given.items():
            if not isinstance(texts, list):
                raise _wrong(
                    f"{_kind(texts)} as the statements of {excerpt(speaker)}", "a list of texts"
                )
            what = f"the statements of {excerpt(speaker)}"
            statements[_name(speaker, "a speaker in 'statements'")] = _statements(texts, what)
        strangers = sorted(statements.keys() - {speaker for speaker, _ in said})
        if strangers and said:
            raise _wrong(
                f"statements of {excerpt(strangers[0])}, who says nothing in the conversation",
                "statements of its speakers",
            )
    remarks.update(_aside(record, {"conversation", "utterances", "statements"}))
    sides = both_sides(conversation, said, lambda speaker: (speaker, statements.get(speaker, ())))
    return sides, remarks


def _synthetic(record: Mapping[str, Any], conversation: str):
    """Both sides of a conversation in Synthetic-Persona-Chat's layout."""
    statements = {}
    for number in (1, 2):
        key = f"persona_{number}"
        statements[str(number)] = _statements(_list(record, key), f"{key!r}")
        if not statements[str(number)]:
            raise _wrong(f"no statements in {key!r}", "at least one: they define the persona")
    said, remarks = _said(_list(record, "dialogue"), "dialogue", _one_or_two)
    remarks.update(_aside(record, {"id", "persona_1", "persona_2", "dialogue"}))
    return both_sides(conversation, said, lambda speaker: ("", statements[speaker])), remarks


def _said(utterances: list, key: str, speaker_of: Callable[[Any, str], str]):
    """(speaker, text) in turn, none empty and nobody twice in a row; and what was changed."""
    remarks: collections.Counter[str] = collections.Counter()
    said: list[tuple[str, str]] = []
    for number, utterance in enumerate(utterances, start=1):
        place = f"{key}[{number - 1}]"
        if not isinstance(utterance, dict):
            raise _wrong(
                f"{_kind(utterance)} as {place}", 'an object {"speaker": ID, "text": TEXT}'
            )
        speaker = speaker_of(utterance.get("speaker"), f"the speaker of {place}")
        text = _text(utterance.get("text"), f"the text of {place}")
        if "[" in text:
            remarks["placeholders made one token each"] += len(_PLACEHOLDER.findall(text))
        text = tokenize(text)
        if not text:
            remarks["utterances left out for want of text"] += 1
        elif said and said[-1][0] == speaker:
            remarks["utterances joined to the same speaker's last"] += 1
            said[-1] = (speaker, f"{said[-1][1]} {text}")
        else:
            said.append((speaker, text))
    speakers = list(dict.fromkeys(speaker for speaker, _ in said))
    if said and len(speakers) != 2:
        names = ", ".join(excerpt(speaker) for speaker in speakers[:4])
        raise _wrong(
            f"{len(speakers)} speaker{'s' * (len(speakers) > 1)} ({names}) in a conversation",
            "two",
        )
    return said, +remarks


def both_sides(
    conversation: str,
    said: Sequence[tuple[str, str]],
    who: Callable[[str], tuple[str, tuple[str, ...]]],
) -> list[Dialogue]:
    """A conversation seen from each of its sides.

    Args:
      conversation: its id.
      said: (speaker, tokens) of two speakers in turn, nobody twice in a row.
      who: speaker -> (id, persona statements).

    Returns:
      Dialogues in the order in which the speakers begin; who says nothing has none.
    """
    texts = [text for _, text in said]
    sides = []
    for first, (speaker, _) in enumerate(said[:2]):
        turns = tuple(
            Turn(context=context, response=response)
            for context, response in zip(["", *texts][first::2], texts[first::2])
        )
        sides.append(Dialogue(conversation, *who(speaker), turns))
    return sides


def _identity(record: Mapping[str, Any], key: str) -> str:
    return _name(record.get(key), f"{key!r}")


def _one_or_two(value: Any, what: str) -> str:
    if isinstance(value, bool) or value not in (1, 2) or not isinstance(value, int):
        raise _wrong(f"{_shown(value)} as {what}", "1 or 2")
    return str(value)


def _name(value: Any, what: str) -> str:
    """An id: a text or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise _wrong(f"{_shown(value)} as {what}", "a text or a whole number")
    name = " ".join(_text(value, what).split())
    if not name:
        raise _wrong(f"a blank text as {what}", "a text or a whole number")
    return name


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _wrong(f"{_shown(value)} as {what}", "a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _wrong(f"half a surrogate pair in {what}", "whole characters") from None
    return value


def _statements(texts: Iterable[Any], what: str) -> tuple[str, ...]:
    statements = tuple(_tokenized_statement(_text(text, f"one of {what}")) for text in texts)
    if not all(statements):
        raise _wrong(f"a blank text among {what}", "statements of one word or more")
    return statements


@functools.lru_cache(maxsize=65536)
def _tokenized_statement(text: str) -> str:
    # A persona talks often, and its statements stand in every conversation of the file.
    return tokenize(text)


def _list(record: Mapping[str, Any], key: str) -> list:
    if not isinstance(record.get(key), list):
        raise _wrong(f"{_shown(record.get(key))} as {key!r}", "a list")
    return record[key]


def _aside(record: Mapping[str, Any], known: set[str]) -> dict[str, int]:
    return {f"values of the key {excerpt(key)} left aside": 1 for key in record.keys() - known}


def _shown(value: Any) -> str:
    """A wrong value for a message: what is short is shown, the rest is named."""
    return f"{_kind(value)} {value!r}" if isinstance(value, (int, float)) else _kind(value)


def _kind(value: Any) -> str:
    for kind, name in (
        (bool, "true or false"),
        ((int, float), "the number"),
        (str, "a text"),
        (list, "a list"),
        (dict, "an object"),
    ):
        if isinstance(value, kind):
            return name
    return "nothing"
