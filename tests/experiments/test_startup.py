"""How commands begin and end: their list, and one sentence for an error or an interruption."""

import signal
from pathlib import Path

import pytest

from experiments.__main__ import commands
from experiments.samples import drawn_places
from experiments.startup import one_sentence, sentence_of


def test_every_command_is_listed_with_what_it_does():
    found = commands()
    assert {"train", "evaluate", "chat", "study"} < found.keys() and "printing" not in found
    for name, what in found.items():
        assert what[0].isupper() and not what.endswith((".", ":")) and len(what) < 75, name


@pytest.mark.parametrize(
    "name, expected",
    [
        ("nowhere", "nowhere: expected a file or folder, got nothing of that name"),
        ("folder", "folder: expected a file, got a folder"),
        ("file/below", "file/below: expected a folder on the way there, got a file"),
    ],
)
def test_an_error_of_the_system_names_the_file_and_the_reason(tmp_path, monkeypatch, name, expected):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    with pytest.raises(OSError) as caught:
        open(name)
    assert sentence_of(caught.value) == expected


def test_a_sentence_of_ours_stays_as_it_is():
    assert sentence_of(FileNotFoundError("w: expected a run")) == "w: expected a run"
    assert sentence_of(ValueError("expected 1, got 2")) == "expected 1, got 2"


@pytest.mark.parametrize("arguments, status", [((), 130), ((signal.SIGTERM,), 143)])
def test_a_training_that_was_interrupted_ends_with_the_signals_status(capsys, arguments, status):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as ended:
        with one_sentence("interrupted; go on with the same command"):
            raise KeyboardInterrupt(*arguments)
    assert ended.value.code == status
    assert capsys.readouterr().err == "interrupted; go on with the same command\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_places_are_drawn_one_of_each_third():
    drawn = {tuple(drawn_places(9, seed)) for seed in range(20)}
    assert len(drawn) > 5
    for first, second, third in drawn:
        assert first in range(3) and second in range(3, 6) and third in range(6, 9)
    assert drawn_places(2, 0) == [0, 1] and drawn_places(0, 0) == []
