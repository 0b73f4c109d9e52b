"""Tests that chat logs of messengers become dialogues, whatever they contain."""

import json

import pytest

from mtml_jax.data import exports
from mtml_jax.data.exports import choose_speaker, read_chat
from mtml_jax.data.jsonl import read_jsonl
from mtml_jax.data.reading import ReadReport
from mtml_jax.data.whatsapp import read_whatsapp

ANDROID = """\
12/31/23, 9:40 PM - Messages and calls are end-to-end encrypted. Tap to learn more.
12/31/23, 9:41 PM - Ann: Hi! Who's
there?

12/31/23, 9:42\u202fPM - Bo Li: I'm Bo: the one.
12/31/23, 9:43 PM - Bo Li: <Media omitted>
12/31/23, 9:43 PM - Bo Li: <b>bold</b>
1/1/24, 12:10 AM - Ann: happy new year <This message was edited>
1/1/24, 9:00 AM - Bo Li: you too
1/1/24, 9:01 AM - Ann: This message was deleted
1/1/24, 9:02 AM - Ann: thanks
1/1/24, 9:03 AM - Ann: 12/31/23, that was a day
1/3/24, 9:04 AM - Ann: anyone?
"""
IOS = """\
\u200e[31.12.23, 21:40:05] Ann: \u200eMessages and calls are end-to-end encrypted.
[31.12.23, 21:41:05] Ann: Hi! Who's there?
[31.12.23, 21:42:07] ~\u202fBo Li: \u202aI'm Bo.\u202c
\u200e[31.12.23, 21:43:00] \u202aBo Li\u202c: \u200eBild weggelassen
\u200e[31.12.23, 21:44:00] Ann: IMG-1.jpg (file attached)
my caption
"""


def written(folder, text, name="chat.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def said(dialogue):
    return [(turn.context, turn.response) for turn in dialogue.turns]


def adds_up(report):
    return report.read + sum(report.skipped.values()) == report.found


def test_an_android_export(tmp_path):
    dialogues, report = read_chat(written(tmp_path, ANDROID))
    assert [d.speaker for d in dialogues] == ["Ann", "Bo Li", "Bo Li", "Ann"]
    ann, bo, bo_next, ann_next = dialogues
    assert said(ann) == [
        ("", "hi ! who is there ?"),
        ("i am bo : the one . < b > bold < / b >", "happy new year"),
    ]
    assert said(bo) == [("hi ! who is there ?", "i am bo : the one . < b > bold < / b >")]
    assert said(ann_next) == [("you too", "thanks 12 / 31 / 23 , that was a day")]
    assert [turn.written for turn in ann.turns] == [
        ("", "Hi! Who's\nthere?"), ("I'm Bo: the one.\n<b>bold</b>", "happy new year")
    ]  # fmt: skip
    assert bo.turns[0].written == ("Hi! Who's\nthere?", "I'm Bo: the one.\n<b>bold</b>")
    assert ann.conversation == bo.conversation != bo_next.conversation == ann_next.conversation
    assert ann.statements == ()
    assert (report.found, report.read) == (11, 7) and adds_up(report)
    assert report.skipped == {
        "written by WhatsApp": 1,
        "media or a notice instead of text": 2,
        "not answered before a long pause": 1,
    }
    assert report.remarks == {"messages joined to the same speaker's previous one": 2}


def test_an_ios_export(tmp_path):
    dialogues, report = read_chat(written(tmp_path, b"\xef\xbb\xbf" + IOS.encode()))
    ann, bo = dialogues
    assert said(ann) == [("", "hi ! who is there ?"), ("i am bo .", "my caption")]
    assert bo.speaker == "Bo Li"
    assert (report.found, report.read) == (5, 3) and adds_up(report)


@pytest.mark.parametrize(
    "lines, hours",
    [
        (("31.12.23, 21:41 - A: x", "01.01.24, 09:41 - A: x"), 12),
        (("31/12/2023 à 21:41 - A: x", "01/01/2024 à 09:41 - A: x"), 12),
        (("2023-12-31, 21:41 - A: x", "2024-01-01, 09:41 - A: x"), 12),
        (("12/31/23, 9:41 p.\u00a0m. - A: x", "1/1/24, 9:41 a.\u00a0m. - A: x"), 12),
        (("[2023/12/31 下午9:41:00] A: x", "[2024/1/1 上午9:41:00] A: x"), 12),
        (("[31\u200f/12\u200f/2023, 9:41:00 PM] A: x", "[1/1/2024, 9:41:00 AM] A: x"), 12),
        (("1/2/24, 9:41 - A: x", "1/3/24, 9:41 - A: x", "1/4/24, 9:41 - A: x"), 24),  # days
        (("1/12/23, 9:41 - A: x", "1/1/24, 9:41 - A: x"), 31 * 24),  # not backwards
        (("12/12/23, 12:30 AM - A: x", "12/12/23, 12:30 PM - A: x"), 12),
        (("31/12/23, 9:00 - A: x", "99/99/99, 10:00 - A: x"), 1),
    ],
)
def test_dates_of_many_places(tmp_path, lines, hours):
    messages = read_whatsapp(written(tmp_path, "\n".join(lines)), ReadReport("", ""))
    assert len(messages) == len(lines)
    assert {m.name for m in messages} == {"A"}
    assert (messages[1].seconds - messages[0].seconds) / 3600 == hours


def test_pauses_and_lengths_cut(tmp_path):
    lines = [f"31/12/23, {n // 60:02}:{n % 60:02} - {'AB'[n % 2]}: word{n}" for n in range(70)]
    path = written(tmp_path, "\n".join(lines))
    dialogues, report = read_chat(path)
    assert [len(d.turns) for d in dialogues] == [11, 11, 12, 12, 12, 12]  # 35 pairs in 3
    texts = [t for d in dialogues[1::2] for turn in d.turns for t in (turn.context, turn.response)]
    assert [t for t in texts if t] == [f"word{n}" for n in range(70)]
    assert report.read == 70
    lines[35:] = [line.replace("31/12/23, 0", "31/12/23, 1") for line in lines[35:]]
    path = written(tmp_path, "\n".join(lines))
    assert [len(d.turns) for d in read_chat(path, max_turns=99)[0]] == [18, 17, 18, 17]
    assert len(read_chat(path, max_turns=99, pause_hours=11)[0]) == 2
    assert max(len(d.turns) for d in read_chat(path, max_turns=1)[0]) == 1
    with pytest.raises(ValueError, match="--pause_hours=0"):
        read_chat(path, pause_hours=0)


def message(name, text, minute=0, **more):
    return {"id": 1, "type": "message", "date": f"2023-12-31T21:{minute:02}:05", "from": name,
            "from_id": f"user{name}", "text": text, **more}  # fmt: skip


CHAT = [
    {"id": 1, "type": "service", "date": "2023-12-31T21:00:00", "action": "phone_call"},
    message("Ann", ["Hi ", {"type": "bold", "text": "Bo"}, "!"], 1),
    message("Bo", "I'm in.", 3),
    message("Bo", "yes", 2),
    message("Bo", "", 4, photo="x.jpg"),
    message("Ann", "news", 5, forwarded_from="Paper"),
    message("Ann", "fine", 6),
]


@pytest.mark.parametrize("indent", [1, None])
def test_a_telegram_export(tmp_path, indent):
    text = json.dumps({"name": "Bo", "type": "personal_chat", "messages": CHAT}, indent=indent)
    (ann, bo), report = read_chat(written(tmp_path, text, "x.bin"))
    assert said(ann) == [("", "hi bo !"), ("yes i am in .", "fine")]
    assert said(bo) == [("hi bo !", "yes i am in .")]
    assert (report.found, report.read) == (7, 4) and adds_up(report)


def test_all_chats_of_telegram(tmp_path):
    """Groups are skipped, malformed messages counted, and people of the same name numbered."""
    group = [message(name, "hi") for name in ("Ann", "Bo", "Cy")]
    broken = ["x", {"type": "message"}, message(7, "x"), message("Ann", {"a": 1}),
              message("Ann", "x", date="yesterday"), message("Ann", [3]), message(None, "")]  # fmt: skip
    same = [message("Ann", "one"), message("Ann", "two \ud83d", 1, from_id="other")]
    chats = [{"name": n, "messages": m} for n, m in ((3, CHAT), ("g", group), ("s", same + broken))]
    path = written(tmp_path, json.dumps({"about": "x", "chats": {"list": chats}}))
    dialogues, report = read_chat(path)
    assert [d.speaker for d in dialogues] == ["Ann", "Ann 2", "Ann", "Bo"]
    assert len({d.conversation for d in dialogues}) == 2
    assert report.skipped["in a chat that does not have two people"] == 3
    assert report.skipped["malformed"] == 6
    assert adds_up(report)


def test_json_lines_are_read_by_their_own_reader(tmp_path):
    line = {"conversation": 1, "utterances": [{"speaker": "a", "text": "Hi"},
                                              {"speaker": "b", "text": "Yo"}]}  # fmt: skip
    path = written(tmp_path, json.dumps(line))  # recognised by its content
    assert read_chat(path) == read_jsonl(path)


NAMED = {"name": "x", "messages": None}


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "begins with ''"),
        (b"hello\nworld", "begins with 'hello world'"),
        (b"\xff\xfe1\x002\x00", "expected JSON lines"),
        (b"PK\x03\x04rest", "unpack it first"),
        (b"<!DOCTYPE html><html>", "choose the format JSON"),
        (b"{\n \"name\": 3", "incomplete or invalid JSON"),
        (b"{\n\"a\": " + b"[" * 99999, "nested too deeply"),
        (b'{"a": 1}', "expected"),
        (b"[1, 2]", "expected an object per line"),
        (json.dumps(NAMED).encode(), "without a list 'messages'"),
        (b'{"chats": [1]}', "without 'messages' or a list of 'chats'"),
        (b'{"chats": {"list": [1]}}', "chat 1"),
        (b'{"messages": []}', "no dialogue of two people"),
        (b"1/1/24, 9:00 - A: \xff", "0xff"),
        (b"1/1/24, 9:00 - A: hi\n1/1/24, 9:00 - A: hi", "expected two speakers in a chat, got 1 speaker ('A')"),
        (b"1/1/24, 9:00 - system\n", "no message that one wrote"),
        (b"1/1/24, 9:00 - A: hi\n9/1/24, 9:00 - B: hi", "no dialogue of two people in 2"),
        ("".join(f"1/1/24, 9:00 - N{n}: hi\n" for n in range(20)).encode(), "'N9' and 10 more"),
    ],
)
def test_a_file_that_is_not_a_chat_gets_one_sentence(tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        read_chat(written(tmp_path, text))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "chat.txt" in str(caught.value)


def test_a_large_file_is_refused_unread(tmp_path, monkeypatch):
    path = written(tmp_path, ANDROID)
    monkeypatch.setattr(exports, "MAX_BYTES", path.stat().st_size)
    read_chat(path)
    monkeypatch.setattr(exports, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ValueError, match="expected 0 MB or less, got 0 MB; export without media"):
        read_chat(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_chat(tmp_path)


def test_a_long_message_is_cut(tmp_path):
    text = "1/1/24, 9:00 - A: " + "a " * 9000 + "\n1/1/24, 9:00 - B: \x1b[31mhi\u200b\n"
    dialogues, report = read_chat(written(tmp_path, text))
    assert len(dialogues[0].turns[0].response) == 9999
    assert dialogues[1].turns[0].response == "[ 31mhi"
    assert report.remarks["messages cut to 10,000 characters"] == 1


def test_the_speaker_is_chosen_by_name(tmp_path):
    dialogues, _ = read_chat(written(tmp_path, ANDROID))
    mine, others = choose_speaker(dialogues, " bo  LI")
    assert [d.speaker for d in mine + others] == ["Bo Li"] * 2 + ["Ann"] * 2
    assert [d.conversation for d in mine] == [d.conversation for d in others]
    for name in (None, "Cy"):
        with pytest.raises(ValueError, match=r"--speaker.*'Ann' \(2\), 'Bo Li' \(2\)"):
            choose_speaker(dialogues, name)
    assert choose_speaker(dialogues[:3], None)[0][0].speaker == "Bo Li"
    with pytest.raises(ValueError, match="got dialogues without speakers"):
        choose_speaker([], None)
