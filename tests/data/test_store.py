"""Tests prepared copies: the dialogues of the reader, with text on disk, never outdated."""

import dataclasses
import hashlib
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

from mtml_jax.config import PRESETS
from mtml_jax.data import store
from mtml_jax.data.episodes import training_batch
from mtml_jax.data.jsonl import iterate_jsonl, read_jsonl
from mtml_jax.data.load import load_split
from mtml_jax.data.prepare import prepare
from mtml_jax.data.records import Dialogue, Turn

# A file, and the copy that an earlier version prepared from it.
OLD = Path(__file__).resolve().parent / "old"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


def write(path, texts):
    lines = [
        {
            "conversation": f"c{n}",
            "utterances": [
                {"speaker": f"s{n % 5}", "text": text},
                {"speaker": f"s{(n + 1) % 5}", "text": "indeed"},
                {"speaker": f"s{n % 5}", "text": "quite so"},
            ],
            "statements": {f"s{n % 5}": ["i sail"]},
        }
        for n, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def stored(path, **settings):
    return store.load_stored(path, lambda report: iterate_jsonl(path, report), **settings)


def test_the_copy_gives_the_dialogues_of_the_reader(tmp_path):
    path = write(tmp_path / "d.jsonl", ["hello Ünï \u2028 you", "good day", "ahoy", "hm", "so"])
    first, _ = stored(path)
    again, _ = stored(path)
    plain, _ = read_jsonl(path)
    assert first == again == plain
    assert [hash(d) for d in again] == [hash(d) for d in plain]
    assert [len(d.turns) for d in again] == [len(d.turns) for d in plain]
    assert again[0].turns[0] == Turn("", "hello ünï you")
    assert again[0].turns[0].written == ("", "hello Ünï \u2028 you")
    for one, other in zip(again, plain):
        assert [turn.written for turn in one.turns] == [turn.written for turn in other.turns]
    assert again[0] != dataclasses.replace(plain[0], turns=(Turn("", "other"),))


def test_a_changed_file_is_read_anew(tmp_path, home):
    path = write(tmp_path / "d.jsonl", ["one", "two"])
    assert stored(path)[0][0].turns[0].response == "one"
    status = path.stat()
    write(path, ["wun", "two"])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert stored(path)[0][0].turns[0].response == "wun"
    assert len(list((home / "dialogues").iterdir())) == 2
    stored(path)
    stored(path, skip_bad=True)
    assert len(list((home / "dialogues").iterdir())) == 3


def test_a_copy_of_an_earlier_version_is_read_and_not_prepared_anew(tmp_path, home):
    path = shutil.copy(OLD / "talk.jsonl", tmp_path)
    # The name that earlier versions gave to the copy of this file, written out.
    content = hashlib.sha256((OLD / "talk.jsonl").read_bytes()).hexdigest()
    name = hashlib.sha256(f"1 {content} False {Path(path).resolve()}".encode()).hexdigest()[:16]
    shutil.copytree(OLD / "prepared", home / "dialogues" / name)

    def prepared_anew(report):
        raise AssertionError("the old copy was not found")

    dialogues, notes = store.load_stored(path, prepared_anew)
    assert dialogues == read_jsonl(path)[0] and len(dialogues) == 24
    assert notes == json.loads((OLD / "prepared" / "report.json").read_text())
    assert [folder.name for folder in (home / "dialogues").iterdir()] == [name]


def test_an_interrupted_preparation_leaves_no_copy(tmp_path, home):
    path = write(tmp_path / "d.jsonl", ["one"])

    def broken(report):
        yield Dialogue("c", "s", (), (Turn("a", "b"),))
        raise ValueError("line 2 is malformed")

    with pytest.raises(ValueError, match="line 2 is malformed"):
        store.load_stored(path, broken)
    assert not list((home / "dialogues").iterdir())
    assert len(stored(path)[0]) == 2


def test_only_the_leftovers_of_a_killed_preparation_are_removed(tmp_path, home):
    path = write(tmp_path / "d.jsonl", ["one"])
    left = home / "dialogues" / ".unfinished-of-a-dead-one"
    left.mkdir(parents=True)
    (left / "turns.jsonl").write_text("[[")
    with store.unfinished(home / "dialogues" / "busy") as busy:
        stored(path)
        assert not left.exists() and busy.is_dir()
        (busy / "it").write_text("goes on")
    assert (home / "dialogues" / "busy" / "it").read_text() == "goes on"
    assert not list((home / "dialogues").glob(".unfinished-*"))


def test_nothing_left_is_an_error(tmp_path):
    path = write(tmp_path / "d.jsonl", ["one"])

    def none(report):
        report.found = 1
        report.skip_malformed(ValueError("bad"))
        yield from ()

    with pytest.raises(ValueError, match="expected dialogues to train on, got none: .*1 skipped .malformed"):
        store.load_stored(path, none)


def test_skipped_units_are_reported_each_time(tmp_path):
    path = write(tmp_path / "d.jsonl", [""] + ["good day"] * 14)
    notes = [load_split(str(path), None, "train")[1] for _ in range(2)]
    assert notes[0] == notes[1]
    assert any("1 utterances without text left out" in sentence for sentence in notes[0])


@pytest.mark.long
def test_text_is_not_held_in_memory(tmp_path):
    """Ten times the text of the same speakers and conversations needs almost the same memory."""
    config = dataclasses.replace(PRESETS["tiny"], strategy="paml", meta_batch=2, min_count=1)

    def held(words):
        texts = [" ".join([f"w{n % 7}"] * words) for n in range(60)]
        path = write(tmp_path / f"{words}.jsonl", texts)
        prepare(config, str(path))  # the copy is made here
        tracemalloc.start()
        data = prepare(config, str(path))
        batch = training_batch(data, config, 0)
        now, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert batch.support[0].context.ids.any()
        return now

    assert held(20_000) < held(2_000) + 1_000_000  # bytes; the text grew by 3 MB
