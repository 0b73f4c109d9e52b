"""Generate broken files for every reader, which must refuse them in one sentence or count them.

`python -m experiments.soak --parts=fuzz` runs any number of them.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

from mtml_jax.data.exports import read_chat
from mtml_jax.data.glove import load_glove
from mtml_jax.data.jsonl import read_jsonl
from mtml_jax.data.parlai import read_parlai
from mtml_jax.data.vocab import SPECIALS, Vocabulary
from mtml_jax.eval.folds_file import FoldsFile
from mtml_jax.inference.delta import read_settings
from mtml_jax.nli.dialogue_nli import read_dialogue_nli
from mtml_jax.runs.folder import load_run, restored_config
from mtml_jax.runs.log import read_log

# Contents of broken data: nothing, blanks of all kinds, no text, right-to-left text, emoji, half
# of a surrogate pair (as JSON can write it), tabs, line breaks inside, and very long text.
_NASTY = [
    "", " ", "\t", "\x00", "\x0b", "\x1c", "\x85", "\u2028", "\ufeff", "\u200f\u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627", "\U0001f600\u200d\U0001f525", "e\u0301", "__SILENCE__", "your persona: ",
    "partner's persona: ", "1", "2", "1 ", "0", "-1", "99999999999999999999", "\u00b2", "\u0661", "NaN",
    "null", "{", "}", "[", '"', "\\", "\\ud800", "</s>", "entailment", ":", "- ", "[1/2/20, 3:04:05 PM]",
    "31/12/99, 23:59 - ", "x" * 20_000, "\U0001f600" * 3_000,
]  # fmt: skip
_TEXT = st.one_of(st.sampled_from(_NASTY), st.text(max_size=9), st.sampled_from(["hi", "i sail ."]))
_ENDS = st.sampled_from(["\n"] * 6 + ["\r\n"] * 3 + ["\r", "\n\n", ""])
_VALUE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(), _TEXT,
        st.sampled_from(["message", "2020-01-02T03:04:05", "1577934245", "ann", "bo"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def _mostly(usual, rare):
    return st.integers(0, 9).flatmap(lambda n: usual if n else rare)


def _lines(*forms: str):
    """Generates files of lines in these forms, with texts for `{}`, and some other lines."""

    def line(form):
        texts = st.lists(_TEXT, min_size=form.count("{}"), max_size=form.count("{}"))
        return texts.map(lambda drawn: form.replace("{{", "\0").format(*drawn).replace("\0", "{"))

    usual = st.one_of(*map(line, forms))
    some = st.lists(st.tuples(_mostly(usual, _TEXT), _ENDS), max_size=7)
    return some.map(lambda lines: "".join(text + end for text, end in lines))


def _objects(keys: str, good: list, *, lines: bool = True):
    """Generates files of JSON objects, some good, some with missing or wrong keys and values."""

    def changed(drawn):
        base, changes, missing = drawn
        record = json.loads(json.dumps(base)) | changes
        return json.dumps({k: v for k, v in record.items() if k not in missing})

    names, base, other = st.sampled_from(keys.split()), st.sampled_from(good), _VALUE.map(json.dumps)
    changes = st.dictionaries(names, _VALUE, max_size=2)
    record = st.tuples(base, changes, st.sets(names, max_size=1)).map(changed)
    record = st.one_of(_mostly(base.map(json.dumps), record), record)
    if not lines:
        return _mostly(record, other)
    some = st.lists(st.tuples(_mostly(record, st.one_of(_TEXT, other)), _ENDS), max_size=6)
    return some.map(lambda drawn: "".join(text + end for text, end in drawn))


@st.composite
def _damaged(draw, texts):
    """Encodes a text, sometimes not in UTF-8, and sometimes cuts, doubles or changes bytes."""
    text = draw(texts)
    encoding = draw(st.sampled_from(["utf-8"] * 20 + ["utf-16", "latin-1", "utf-8-sig"]))
    data = text.encode(encoding, errors="surrogatepass" if encoding == "utf-16" else "replace")
    for _ in range(draw(st.sampled_from([0] * 8 + [1, 2]))):
        place = draw(st.integers(0, len(data)))
        put = draw(st.sampled_from([b"", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\n", b"\t"]))
        data = data[:place] + put + data[place + draw(st.sampled_from([0, 0, 1, 9])) :]
    return data


def _counted(read):
    """Makes a reader that also checks that malformed units are counted, unless a file is empty."""

    def read_twice(path):
        try:
            _add_up(*read(path, skip_bad=True))
        except ValueError as error:
            assert "empty file" in str(error), error
        return read(path)

    return read_twice


def _pairs(path):
    pairs = read_dialogue_nli(path.parent, "valid")
    if path.suffix == ".txt":  # this reader skips nothing
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        wanted = sum(bool(line.decode().removeprefix("\ufeff").strip()) for line in lines)
        assert len(pairs) == wanted, (len(pairs), wanted)


def _glove(path):
    vectors, covered = load_glove(path, Vocabulary((*SPECIALS, "hi", "sail")), 0)
    assert len(vectors) == len(SPECIALS) + 2 and 1 <= covered <= len(vectors)


def _folds(path):
    FoldsFile(path, {"seed": 0}).close()


def _log(path):
    read_log(path)


def _config(path):
    (path.parent / "vocabulary.txt").write_text("gull\n")
    restored_config(load_run(path.parent)[0])


def _adapted(path):
    read_settings(path.parent)


_TALK = {
    "conversation": "c1",
    "utterances": [{"speaker": "ann", "text": "hi"}, {"speaker": "bo", "text": "ho"}],
    "statements": {"ann": ["i sail ."]},
}
_SYNTHETIC = {
    "id": 1, "persona_1": ["i sail ."], "persona_2": ["i row ."],
    "dialogue": [{"speaker": 1, "text": "hi"}, {"speaker": 2, "text": "ho"}],
}  # fmt: skip
_SAID = {
    "id": 1, "type": "message", "date": "2020-01-02T03:04:05", "date_unixtime": "1577934245",
    "from": "ann", "from_id": "user1", "text": "hi",
}  # fmt: skip
_TELEGRAM = {"name": "bo", "messages": [_SAID, {**_SAID, "from": "bo", "from_id": "user2"}]}
_FOLD = {"system": "own", "shots": 5, "persona": 0, "dialogue": 1, "replies": []}
_KEYS = "conversation utterances statements id persona_1 persona_2 dialogue speaker text"

# reader -> (name of its file, function that reads it, generator of files).
READERS: dict[str, tuple[str, Callable, st.SearchStrategy[bytes]]] = {
    name: (file, read, _damaged(texts))
    for name, file, read, texts in [
        ("parlai", "d.txt", _counted(read_parlai), _lines(
            "1 your persona: {}", "1 {}\t{}", "1 hi\tho", "1 hi\t{}\r\n2 {}\tho", "2 {}\t{}\t\t{}",
            "1 your persona: i sail .\n2 {}\tho\n3 hi\t{}", "1 partner's persona: {}\n2 {}\tho",
        )),
        ("jsonl", "d.jsonl", _counted(read_jsonl), _objects(_KEYS, [{**_TALK, "conversation": n} for n in range(20)])),
        ("synthetic", "d.jsonl", _counted(read_jsonl), _objects(_KEYS, [{**_SYNTHETIC, "id": n} for n in range(20)])),
        ("whatsapp", "chat.txt", read_chat, _lines(
            "1/2/20, 3:04 PM - ann: {}", "[02.01.20, 15:04:05] bo: {}", "31/12/2020, 3:04 - {}: {}",
            "1/2/20, 3:04 PM - bo: {}", "{}",
        )),
        ("telegram", "result.json", read_chat, st.one_of(
            _objects("name type id messages chats", [_TELEGRAM], lines=False),
            _objects("type date from from_id text action id", [_SAID], lines=False).map(
                lambda said: '{"name": "x", "messages": [%s, %s]}' % (json.dumps(_SAID), said)
            ),
        )),
        ("chat", "talk.jsonl", read_chat, _objects(_KEYS, [{**_TALK, "conversation": f"c{n}"} for n in range(20)])),
        ("nli", "nli-valid.txt", _pairs, _lines("{}</s>{}</s>neutral", "{}</s>{}</s>{}", "a</s>b</s>positive")),
        ("nli_release", "dialogue_nli_dev.jsonl", _pairs, _objects(
            "sentence1 sentence2 label", [{"sentence1": "a", "sentence2": "b", "label": "neutral"}],
        )),
        ("glove", "g.txt", _glove, _lines("hi 0.5 1", "sail 1e400 {}", "{} 1 2", "2 2")),
        ("folds", "test.folds.jsonl", _folds, _objects("system shots persona dialogue", [_FOLD])),
        ("log", "log.jsonl", _log, _objects("step kind loss", [{"step": 1, "kind": "train", "loss": 2.0}])),
        ("config", "config.json", _config, _objects("model shape seed", [{"seed": 0}], lines=False)),
        ("adapted", "adapted.json", _adapted, _objects(
            "format delta delta_sha256 base_sha256", [{"format": 1, "delta": "delta-000000000000.npz"}],
            lines=False,
        )),
    ]
}  # fmt: skip


def check(name: str, data: bytes, folder: str | os.PathLike) -> str:
    """Passes a file to a reader.

    Args:
      name: one of `READERS`.
      data: contents of the file.
      folder: folder for the file; its other files are deleted.

    Returns:
      "read" or "refused".

    Raises:
      AssertionError: the reader lost something without counting it, or its error was not one
        sentence.
      Exception: any other exception of the reader.
    """
    file, read, _ = READERS[name]
    for left in Path(folder).iterdir():
        left.unlink()
    path = Path(folder) / file
    path.write_bytes(data)
    try:
        result = read(path)
    except (ValueError, OSError) as error:
        message = str(error)
        assert "\n" not in message and len(message) < 900, message
        assert str(folder) in message or name == "config", message
        return "refused"
    if result is not None:
        _add_up(*result)
    return "read"


def _add_up(dialogues, report):
    """Checks that the counts of a reader's report are consistent."""
    assert report.found == report.read + report.skipped.total(), report
    assert all(dialogue.turns for dialogue in dialogues)
    if report.unit == "dialogues":
        assert len(dialogues) == report.read
    elif report.unit == "conversations":
        assert report.read == len({d.conversation for d in dialogues})
    else:
        assert bool(report.read) == bool(dialogues)
