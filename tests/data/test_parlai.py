"""Tests the ParlAI reader: contents, the two sides of conversations, and errors."""

import collections
import hashlib

import pytest

from mtml_jax.data.parlai import find_split, read_parlai
from mtml_jax.data.records import Turn


@pytest.fixture
def read(tmp_path):
    def write_and_read(text):
        path = tmp_path / "dialogues.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_parlai(path)[0]

    return write_and_read


def test_reads_statements_and_turns(read):
    (dialogue,) = read(
        "1 your persona:  my boat is blue, mostly. \n"
        "2 partner's persona: i sell maps.\n"
        "3 your persona: i fear seagulls.\n"
        "4 __SILENCE__\thello  from\u00a0the harbour !\n"
        "5  who is there ?\tthe captain .\t\tfirst|second\n"
    )
    assert dialogue.speaker == ""
    assert dialogue.statements == ("my boat is blue, mostly.", "i fear seagulls.")
    assert dialogue.turns == (
        Turn(context="", response="hello from the harbour !"),
        Turn(context="who is there ?", response="the captain ."),
    )


def test_number_one_begins_a_dialogue_and_the_last_is_kept(read):
    dialogues = read("1 ahoy\tgood day\n2 any fish ?\tplenty\n\n1 psst\twhat ?\n1 knock\tenter")
    assert [len(d.turns) for d in dialogues] == [2, 1, 1]
    assert dialogues[-1].turns == (Turn(context="knock", response="enter"),)


@pytest.mark.parametrize("change", [
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("\n", "\n\n \n"),
    lambda text: text.rstrip("\n"),
    lambda text: "\ufeff" + text,
], ids=["crlf", "blank lines", "no last newline", "byte order mark"])
def test_line_ends_do_not_matter(read, change):
    text = "1 your persona: i whistle.\n2 ça va ?\toui .\n3 bien\tadieu\n1 hm\tho hum\n"
    assert read(change(text)) == read(text)


def _file(*sequences):
    """A file of sides; a side is a sequence of context and response, "" for silence."""
    lines = []
    for said in sequences:
        turns = zip(said[::2], said[1::2], strict=True)
        for n, (context, response) in enumerate(turns, start=1):
            lines.append(f"{n} {context or '__SILENCE__'}\t{response}\n")
    return "".join(lines)


def test_both_sides_share_an_id_whichever_lacks_the_last_utterance(read):
    ids = [d.conversation for d in read(_file(
        ["hi", "hey", "tea ?", "yes"],  # the opener lacks "yes"
        ["", "hi", "hey", "tea ?"],
        ["", "hi", "hey", "jam ?", "no", "why ?"],  # begins alike; the opener has one more
        ["hi", "hey", "jam ?", "no"],
        ["", "psst"],  # a single reply
        ["psst", "who are you ?"],
        ["hi", "hey", "rum ?", "arr"],  # the other side is not in the file
    ))]
    assert ids[0::2][:3] == ids[1::2][:3]
    assert len(set(ids)) == 4


def test_indistinguishable_conversations_share_an_id(read):
    opener, one, other = ["", "hi"], ["hi", "hey"], ["hi", "ahoy"]
    assert len({d.conversation for d in read(_file(opener, one, other))}) == 1
    assert len({d.conversation for d in read(_file(one, other))}) == 2
    chain = [opener, one, ["", "hi", "hey", "tea ?"]]
    assert len({d.conversation for d in read(_file(*chain))}) == 1


def test_ids_are_digests_of_the_shared_text(read):
    harbour, forest = ["", "hi", "hey", "gulls ?"], ["", "hi", "hey", "owls ?"]
    first, second = (d.conversation for d in read(_file(harbour, forest)))
    assert first == hashlib.sha256(b"hi\nhey\ngulls ?").hexdigest()[:16]
    assert [d.conversation for d in read(_file(forest, harbour))] == [second, first]


@pytest.mark.parametrize(("text", "line", "parts"), [
    ("", 1, ["an empty file", "dialogues"]),
    ("\n\n", 1, ["an empty file", "dialogues"]),
    ("1 a\tb\nno number here\n", 2, ["'no number here'", "without a number", "'N text'"]),
    ("2 a\tb\n", 1, ["expected line number 1 first", "got line number 2"]),
    ("1 a\tb\n\n3 c\td\n", 3, ["line number 3 after 1", "expected line number 2", "1 for a new dialogue"]),
    ("1 a\tb\n2 c\td\n2 e\tf\n", 3, ["line number 2 after 2", "expected line number 3"]),
    ("1 a\tb\n2 only one column\n", 2, ["'only one column'", "without a tab", "<TAB>"]),
    ("1 a\tb\n2\n", 2, ["''", "without a tab", "<TAB>"]),
    ("1 a\tb\n2 anyone ?\t \t\tyes|no\n", 2, ["an empty response", "'anyone ?'", "<TAB>"]),
    ("1 a\tb\n2 your persona: i dig.\n", 2, ["'your persona: i dig.'", "after a turn", "before"]),
    ("1 a\tb\n2 partner's persona: i dig.\n", 2, ["after a turn", "before"]),
    ("1 your persona: \n2 a\tb\n", 1, ["without text", "your persona: statement"]),
    ("1 your persona: i dig.\n1 a\tb\n", 1, ["a dialogue without a turn", "<TAB>"]),
    ("1 a\tb\n1 your persona: i dig.\n2 your persona: i nap.\n", 2, ["without a turn", "<TAB>"]),
    (b"1 a\tb\n2 caf\xe9\tb\n", 2, ["0xe9", "column 6", "UTF-8"]),
    ("1 a\tb\n" + "9" * 5000 + " c\td\n", 2, ["a line number of 5000 digits", "expected 2"]),
])
def test_errors_name_file_and_line(read, tmp_path, text, line, parts):
    with pytest.raises(ValueError) as error:
        read(text)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'dialogues.txt'}:{line}: expected ")
    assert ", got " in message and "\n" not in message
    for part in parts:
        assert part in message


def test_long_lines_are_cut_in_errors(read):
    with pytest.raises(ValueError, match=r"got 'x{37}\.\.\.' without a tab"):
        read("1 " + "x" * 500 + "\n")


@pytest.mark.parametrize("bad, dialogues", [
    ("1 a\tb\n2 no tab\n3 c\td\n", 1),
    ("1 your persona: i dig.\n", 1),
    ("nothing numbered\n2 at all\n", 1),  # before the first dialogue
    (b"1 caf\xe9\tb\n2 c\td\n1 a\n", 2),
    ("1 a\tb\n" + "9" * 5000 + " c\td\n7 d\te\n", 1),
])
def test_bad_dialogues_are_skipped_and_counted(tmp_path, bad, dialogues):
    path = tmp_path / "dialogues.txt"
    good = b"1 knock\tenter\n2 who ?\tme\n1 psst\twhat ?\n"
    path.write_bytes((bad if isinstance(bad, bytes) else bad.encode()) + good)
    with pytest.raises(ValueError) as error:
        read_parlai(path)
    kept, report = read_parlai(path, skip_bad=True)
    assert [d.turns[0].context for d in kept] == ["knock", "psst"]
    assert (report.found, report.read) == (2 + dialogues, 2)
    assert report.skipped == {"malformed": dialogues}
    assert report.errors[0] == str(error.value)
    assert f"{dialogues} skipped (malformed)" in report.sentences()[0]


def test_find_split_prefers_original_wording_without_candidates(tmp_path):
    order = [
        "valid_self_original_no_cands.txt",
        "valid_self_original.txt",
        "valid_self_revised_no_cands.txt",
        "valid_self_revised.txt",
        "valid_both_original_no_cands.txt",
        "valid_none_revised.txt",
    ]
    (tmp_path / "train_self_original_no_cands.txt").touch()
    for name in reversed(order):
        (tmp_path / name).touch()
        assert find_split(tmp_path, "valid") == tmp_path / name
        assert find_split(str(tmp_path), "valid") == tmp_path / name


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_find_split_names_what_it_looked_for(tmp_path, folder):
    (tmp_path / "train_self_original.txt").touch()
    with pytest.raises(FileNotFoundError) as error:
        find_split(tmp_path / folder, "test")
    message = str(error.value)
    assert message.startswith(str(tmp_path / folder))
    assert ("no such folder" in message) == (folder == "nowhere")
    assert "test_self_original_no_cands.txt" in message and "test_self_revised.txt" in message
    assert "--data_dir" in message and "\n" not in message


@pytest.mark.parametrize(("split", "sides", "pairs", "alone"), [
    ("train", 4710, 2355, 0),
    ("valid", 2000, 1000, 0),
    ("test", 961, 250, 461),  # the other sides are of personas that the file lacks
])
def test_real_conversations_have_two_sides(shared_data, split, sides, pairs, alone):
    dialogues = read_parlai(find_split(shared_data / "personachat", split))[0]
    assert len(dialogues) == sides
    conversations = collections.defaultdict(list)
    for dialogue in dialogues:
        said = [text for turn in dialogue.turns for text in (turn.context, turn.response) if text]
        conversations[dialogue.conversation].append((said, dialogue.turns[0].context == ""))
    assert collections.Counter(map(len, conversations.values())) == +collections.Counter(
        {2: pairs, 1: alone}
    )
    for both in conversations.values():
        if len(both) == 2:
            (first, first_opens), (second, second_opens) = sorted(both, key=lambda b: len(b[0]))
            assert second[:-1] == first
            assert first_opens != second_opens


def test_no_two_real_conversations_begin_with_the_same_three_utterances(shared_data):
    """Otherwise, sides that differ in more than the last utterance would remain unnoticed."""
    for split in ("train", "valid", "test"):
        beginnings = collections.defaultdict(set)
        for dialogue in read_parlai(find_split(shared_data / "personachat", split))[0]:
            said = [t for turn in dialogue.turns for t in (turn.context, turn.response) if t]
            beginnings[tuple(said[:3])].add(dialogue.conversation)
        assert {len(ids) for ids in beginnings.values()} == {1}
