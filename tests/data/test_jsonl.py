"""Tests the JSON-lines reader: both layouts, and the errors for malformed lines."""

import collections
import json
import random

import pytest

from mtml_jax.data.jsonl import read_jsonl
from mtml_jax.data.records import Dialogue, Turn

GOOD = {
    "conversation": "c1",
    "utterances": [
        {"speaker": "ann", "text": "Ahoy! Who's there?"},
        {"speaker": "bo", "text": "I'm Bo."},
        {"speaker": "ann", "text": "Don't sink."},
    ],
    "statements": {"ann": ["I sail, mostly."]},
}


@pytest.fixture
def read(tmp_path):
    def write_and_read(*lines, skip_bad=False):
        path = tmp_path / "talk.jsonl"
        texts = [line if isinstance(line, (str, bytes)) else json.dumps(line) for line in lines]
        path.write_bytes(
            b"\n".join(t if isinstance(t, bytes) else t.encode() for t in texts) + b"\n"
        )
        return read_jsonl(path, skip_bad=skip_bad)

    return write_and_read


def talk(conversation, *said, **more):
    """A conversation of pairs (speaker, text)."""
    utterances = [{"speaker": speaker, "text": text} for speaker, text in said]
    return {"conversation": conversation, "utterances": utterances, **more}


def test_a_conversation_has_two_sides(read):
    dialogues, report = read(GOOD)
    opener = (Turn("", "ahoy ! who is there ?"), Turn("i am bo .", "do not sink ."))
    assert dialogues == [
        Dialogue("c1", "ann", ("i sail , mostly .",), opener),
        Dialogue("c1", "bo", (), (Turn("ahoy ! who is there ?", "i am bo ."),)),
    ]
    assert (report.found, report.read, sum(report.skipped.values())) == (1, 1, 0)
    as_written = [("", "Ahoy! Who's there?"), ("I'm Bo.", "Don't sink.")]
    assert [turn.written for turn in dialogues[0].turns] == as_written


def test_numbers_and_texts_are_the_same_id(read):
    (side, other, *_), _ = read(
        talk(7, (3, "hi"), ("4", "ho"), statements={"4": ["i row."]}),
        talk("8", ("3", "hey"), (4, "hm")),
    )
    assert (side.conversation, side.speaker, other.speaker) == ("7", "3", "4")
    assert other.statements == ("i row .",)


def test_consecutive_utterances_are_joined_and_blank_ones_left_out(read):
    (ann, bo), report = read(
        talk("c", ("ann", "hi"), ("ann", "there"), ("bo", " "), ("bo", "ho"), ("bo", "hum"))
    )
    assert ann.turns == (Turn("", "hi there"),)
    assert bo.turns == (Turn("hi there", "ho hum"),)
    assert bo.turns[0].written == ("hi\nthere", "ho\nhum")
    assert report.remarks == {
        "utterances joined to the same speaker's previous one": 2,
        "utterances without text left out": 1,
    }


def machine(number, said, first=("I row.",), second=("I knit.",)):
    dialogue = [{"speaker": speaker, "text": text} for speaker, text in said]
    return {"id": number, "persona_1": first, "persona_2": second, "dialogue": dialogue}


def test_the_layout_of_synthetic_persona_chat(read):
    dialogues, report = read(
        machine(1, [(1, "Hi [user 2's name]"), (2, "Hey [name]!")]),
        machine(2, []),
        machine(3, [(2, "Yo"), (1, "Yes?"), (2, "No.")]),
    )
    assert dialogues == [
        Dialogue("1", "", ("i row .",), (Turn("", "hi [name]"),)),
        Dialogue("1", "", ("i knit .",), (Turn("hi [name]", "hey [name] !"),)),
        Dialogue("3", "", ("i knit .",), (Turn("", "yo"), Turn("yes ?", "no ."))),
        Dialogue("3", "", ("i row .",), (Turn("yo", "yes ?"),)),
    ]
    assert (report.found, report.read, report.skipped) == (3, 2, {"nothing said": 1})
    assert report.remarks == {"placeholders made one token each": 2}
    (line,) = report.sentences()
    assert "3 conversations, 2 read; 1 skipped (nothing said); 2 placeholders" in line


BAD = GOOD | {"conversation": "bad"}


def without(key):
    return {k: v for k, v in BAD.items() if k != key}


HEAD = '{"conversation": "x", "utterances": [], '
MALFORMED = [
    ("not json", ["'not json'", "column 1", "conversation"]),
    ("[1, 2]", ["a list '[1, 2]'", "an object"]),
    ('"text"', ["a text", "an object"]),
    ("null", ["nothing 'null'", "an object"]),
    (HEAD + '"a": NaN}', ["NaN", "a number that JSON allows"]),
    (HEAD + '"a": -Infinity}', ["-Infinity", "a number that JSON allows"]),
    (HEAD + '"a": ' + "9" * 5000 + "}", ["the number", "2^63"]),
    ('{"conversation": 9223372036854775808, "utterances": []}', ["9223372036854775808", "2^63"]),
    (HEAD + '"utterances": []}', ["'utterances' twice", "once"]),
    ("[" * 100_000, ["", "an object"]),
    (b'{"conversation": "caf\xe9"}', ["0xe9", "column 22", "UTF-8"]),
    (without("conversation"), ["nothing as 'conversation'", "a text or a whole number"]),
    (BAD | {"conversation": True}, ["true or false True", "a whole number"]),
    (BAD | {"conversation": 1.5}, ["the number 1.5", "a whole number"]),
    (BAD | {"conversation": " "}, ["blank text as 'conversation'", "a text"]),
    (without("utterances"), ["nothing as 'utterances'", "a list"]),
    (BAD | {"utterances": {}}, ["an object as 'utterances'", "a list"]),
    (BAD | {"utterances": ["hi"]}, ["a text as utterances[0]", "an object"]),
    (talk("x", ("ann", "hi"), (None, "ho")), ["nothing as the speaker of utterances[1]"]),
    (talk("x", ("ann", 5)), ["the number 5 as the text of utterances[0]", "a text"]),
    (talk("x", ("ann", "\ud800"), ("bo", "a")), ["surrogate", "utterances[0]", "whole"]),
    (talk("x", ("ann", "hi")), ["1 speaker ('ann')", "two"]),
    (talk("x", ("a", "1"), ("b", "2"), ("c", "3")), ["3 speakers ('a', 'b', 'c')", "two"]),
    (BAD | {"statements": ["i row"]}, ["a list as 'statements'", "an object"]),
    (BAD | {"statements": {"bo": "i row"}}, ["a text as the statements of 'bo'", "a list"]),
    (BAD | {"statements": {"bo": [3]}}, ["the number 3", "statements of 'bo'", "a text"]),
    (BAD | {"statements": {"bo": [" "]}}, ["a blank text", "statements of 'bo'"]),
    (BAD | {"statements": {"cy": ["a"]}}, ["statements of 'cy'", "says nothing"]),
    (machine(4, [(1, "a"), (2, "b")]), ["'dialogue' after", "'utterances'", "one layout"]),
]  # fmt: skip


@pytest.mark.parametrize(
    "line, parts", MALFORMED, ids=[parts[0][:30] or "deep" for _, parts in MALFORMED]
)
def test_errors_name_file_and_line_and_may_be_skipped(read, tmp_path, line, parts):
    other = talk("c2", ("ann", "hi"), ("bo", "ho"))
    with pytest.raises(ValueError) as error:
        read(GOOD, "", line, other)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'talk.jsonl'}:3: expected ")
    assert ", got " in message and "\n" not in message and len(message) < 500
    for part in parts:
        assert part in message
    dialogues, report = read(GOOD, "", line, other, skip_bad=True)
    assert [d.conversation for d in dialogues] == ["c1", "c1", "c2", "c2"]
    assert (report.found, report.read, report.skipped) == (3, 2, {"malformed": 1})
    assert report.errors == [message]


@pytest.mark.parametrize("change, parts", [
    ({"id": None}, ["nothing as 'id'"]),
    ({"persona_1": []}, ["none in 'persona_1'", "at least one statement to define the persona"]),
    ({"persona_2": "i row"}, ["a text as 'persona_2'", "a list"]),
    ({"persona_2": [""]}, ["a blank text among 'persona_2'"]),
    ({"dialogue": [{"speaker": 3, "text": "a"}]}, ["the number 3", "1 or 2"]),
    ({"dialogue": [{"speaker": True, "text": "a"}]}, ["True", "1 or 2"]),
    ({"dialogue": [{"speaker": 1.0, "text": "a"}]}, ["1.0", "1 or 2"]),
])  # fmt: skip
def test_errors_of_the_synthetic_layout(read, change, parts):
    with pytest.raises(ValueError) as error:
        read(machine(1, [(1, "a"), (2, "b")]) | change)
    for part in ["talk.jsonl:1: expected ", *parts]:
        assert part in str(error.value)


def test_a_conversation_id_is_used_once(read):
    with pytest.raises(ValueError, match="jsonl:2: expected a new id for every conversation, got the id 'c1' of line 1"):
        read(GOOD, GOOD)
    dialogues, report = read(GOOD, GOOD, skip_bad=True)
    assert len(dialogues) == 2 and report.skipped == {"malformed": 1}


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(read, text):
    with pytest.raises(ValueError, match="jsonl:1: expected a JSON object per line, got an empty file"):
        read(text, skip_bad=True)


def test_unknown_keys_are_ignored_and_counted(read):
    _, report = read(GOOD | {"statement": {"ann": ["a"]}})
    assert report.remarks == {"values of the unknown key 'statement'": 1}


def test_read_and_skipped_add_up_on_any_garbage(read):
    rng = random.Random(11)
    whole = json.dumps(GOOD)
    for _ in range(60):
        lines = []
        for n in range(rng.randint(1, 13)):
            line = whole.replace('"c1"', f'"c{n}"')
            if rng.random() < 0.6:
                at = rng.randrange(len(line))
                line = line[:at] + rng.choice(['"', "}", "9", "", "\u00e9", "[{"]) + line[at + 1:]
            lines.append(line)
        dialogues, report = read(*lines, skip_bad=True)
        assert report.found == len(lines) == report.read + sum(report.skipped.values())
        assert len(dialogues) == 2 * report.read


@pytest.mark.parametrize("split, found, empty", [pytest.param("train", 8938, 36, marks=pytest.mark.long), ("valid", 1000, 3)])
def test_the_real_layout(shared_data, split, found, empty):
    dialogues, report = read_jsonl(shared_data / "synthetic_persona_chat" / f"{split}.jsonl")
    assert (report.found, report.skipped["nothing said"]) == (found, empty)
    assert report.read == found - empty and len(dialogues) == 2 * report.read
    sides = collections.Counter(d.conversation for d in dialogues)
    assert set(sides.values()) == {2}
    assert all(d.statements and d.turns and not d.speaker for d in dialogues)
