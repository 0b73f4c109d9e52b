"""Test the terminal chat, through a pipe and as a conversation."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import printing
from experiments.chat import __main__ as command
from experiments.chat import terminal
from mtml_jax.data.jsonl import read_jsonl
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.inference.adapt import adapt_to_dialogues, save_adapted
from mtml_jax.inference.responder import Responder
from mtml_jax.runs.trained import load_trained

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(save_tiny_run, tmp_path_factory):
    return load_trained(save_tiny_run(tmp_path_factory.mktemp("run"), distinct_start=True))


@pytest.fixture(scope="module")
def adapted(model, tmp_path_factory):
    """(folder, parameters) adapted to a speaker with a name that tries things."""
    turns = (Turn("hi ! who are you ?", "tea tea , my dog !"),) * 3
    found = adapt_to_dialogues(model, [Dialogue("c", "x", (), turns)], epochs=30)
    folder = tmp_path_factory.mktemp("adapted")
    save_adapted(folder, model, found, {"speaker": "Ann\x1b[31m", "workdir": model.workdir})
    return folder, found.params


def run(model, lines, monkeypatch, width=80, echo=True, **changes):
    monkeypatch.setenv("COLUMNS", str(width))
    given = {"workdir": model.workdir, "adapted": None, "checkpoint": "best", "decoder": "greedy",
             "top_p": 0.9, "temperature": 1.0, "seed": 0}  # fmt: skip
    out = io.StringIO()
    command.chat(SimpleNamespace(**given | changes), iter(lines), out, echo=echo)
    assert "\x1b" not in out.getvalue()
    assert max(map(printing.columns, out.getvalue().splitlines())) <= width
    return out.getvalue()


def unfolded(text):
    return " ".join(text.split())


def test_a_chat_through_a_pipe(model, adapted, tmp_path):
    """The whole command, with what a terminal would not like in the input."""
    lines = b"Hi! \x1b[2J\x07\n\n/persona\nwho are \xff you?\n/quit\nnever read\n"
    done = subprocess.run(
        [sys.executable, "-m", "experiments.chat", f"--adapted={adapted[0]}", "--compilation_cache="],
        input=lines, capture_output=True, cwd=ROOT, timeout=120,
        env={**os.environ, "COLUMNS": "72", "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    shown = done.stdout.decode()
    assert done.returncode == 0 and done.stderr == b""
    assert "\x1b" not in shown and "\x07" not in shown
    assert "adapted to Ann [31m" in shown and "you: Hi!  [2J" in shown
    reply = Responder(model, "greedy").reply(adapted[1], ["Hi! \x1b[2J\x07"])
    assert f"Ann [31m: {reply}" in unfolded(shown)
    assert "persona: " in shown and "never read" not in shown
    assert not list(tmp_path.iterdir())  # what comes through a pipe is nobody's history


def test_a_wrong_folder_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.chat", f"--workdir={tmp_path}"],
        input=b"", capture_output=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("columns", [80, 40])
def test_replies_are_compared(model, adapted, monkeypatch, columns):
    said = ["hi! who are you?", "/compare", "what do you like?", "/compare", "not tea"]
    shown = run(model, said, monkeypatch, columns, adapted=str(adapted[0]))
    respond = Responder(model, "greedy").reply
    first = respond(adapted[1], said[:1])
    history = [said[0], first, said[2]]
    initial, learnt = (respond(params, history) for params in (model.params, adapted[1]))
    assert initial != learnt
    table = shown.split("what do you like?")[1].split("you: /compare")[0]
    if columns == 40:
        assert unfolded(table) == f"initial: {initial} Ann [31m: {learnt}"
    else:
        rows = [[part.strip() for part in row.split("|")] for row in table.strip().splitlines()]
        left, right = (" ".join(column).strip() for column in zip(*rows))
        assert (left, right) == (f"initial {initial}", f"Ann [31m {learnt}")
    last = respond(adapted[1], [*history, learnt, said[4]])  # the adapted reply counts
    assert unfolded(shown).endswith(f"not tea Ann [31m: {last}")


# What a reply may be made of: no space to break at, long words, characters of two columns.
REPLIES = {
    "commas": ["Tea", *[","] * 60, " and", " tea", "."],
    "one word": ["gull" * 30],
    "a long word": ["a", " b", " " + "gull" * 30, ",", " c"],
    "wide": ["海鷗" * 40, "。", " 海", " 🐕" * 30],
    "words": [" tea"] * 100,
}


@pytest.mark.parametrize("width", [1, 7, 20, 39, 40, 100])
@pytest.mark.parametrize("reply", REPLIES)
def test_nothing_is_wider_than_the_terminal(model, monkeypatch, reply, width):
    monkeypatch.setattr(Responder, "stream", lambda *_: iter(REPLIES[reply]))
    monkeypatch.setattr(Responder, "reply", lambda *_: "".join(REPLIES[reply]).strip())
    if width > 1:  # one column shows no wide character
        said = ["/help", "hi", "/wat", "/compare", "," * 60, "/persona", "/save", "/reset"]
        shown = run(model, said, monkeypatch, width)
        assert "".join(REPLIES[reply]).replace(" ", "") in "".join(shown.split())
        talk = command.Conversation(model, model.params, Responder(model), "a" * 20, io.StringIO())
        for line in ("/compare", "hi"):
            talk.answer(line)
        assert max(map(printing.columns, talk._out.getvalue().splitlines())) <= width
    elif reply != "wide":
        assert set(map(len, printing.fold("".join(REPLIES[reply]), width).split())) == {1}


def test_lines_break_at_spaces_where_they_can():
    text = "a gull and a tern sail to the island , they say"
    shown = printing.fold(text, 20, "Ann: ")
    assert shown == "Ann: a gull and a\n     tern sail to\n     the island ,\n     they say"
    pieces = ["A", " gull", ",", " 1234567", ",", " 1"]
    assert "".join(printing.fold_stream(pieces, 17, "x: ")) == "x: A gull,\n   1234567, 1"
    assert printing.fold("", 20, "Ann: ") == "Ann:" and printing.fold("ab" * 7, 5) == "ababa\nbabab\nabab"


def test_without_an_adaptation_there_is_nothing_to_compare(model, monkeypatch):
    shown = run(model, ["/compare", "hi"], monkeypatch, echo=False)
    assert "nothing to compare" in shown and "not adapted" in shown
    reply = Responder(model, "greedy").reply(model.params, ["hi"])
    assert shown.rstrip().endswith(f"model: {reply}")


def test_commands(model, monkeypatch, tmp_path):
    file = tmp_path / "talk.jsonl"
    lines = ["/save", f"/save {file}", "hi \x1bthere", f"/save {file}", f"/save {file}",
             f"/save {tmp_path}/none/x", "/wat\x07", "/persona", "/reset", "/persona", "/help"]  # fmt: skip
    shown = unfolded(run(model, lines, monkeypatch, 40))
    for part in ("(expected /save FILE)", "(nothing was said yet)", "(saved in", "already exists",
                 "could not write", "no command /wat ;", "persona: ", "(a new conversation)"):  # fmt: skip
        assert part in shown
    assert shown.count("(nothing was said yet)") == 2
    assert all(f"/{name}" in shown for name in ("compare", "persona", "save", "reset", "quit"))
    (you, other), _ = read_jsonl(file)  # what was said can be learnt from
    assert (you.speaker, other.speaker) == ("you", "model")
    assert you.turns[0].response == "hi there"
    assert len(json.loads(file.read_text())["utterances"]) == 2


def test_a_run_without_the_task_says_so(model, monkeypatch, save_tiny_run, tmp_path):
    paml = load_trained(save_tiny_run(tmp_path / "run", strategy="paml"))
    shown = unfolded(run(paml, ["hi", "/persona"], monkeypatch))
    assert "never learned to reconstruct personas" in shown and "persona: " not in shown


def test_a_multitask_run_reconstructs_a_persona(model, monkeypatch, save_tiny_run, tmp_path):
    run_of_both = load_trained(save_tiny_run(tmp_path / "run", strategy="multitask"))
    shown = unfolded(run(run_of_both, ["hi", "/persona"], monkeypatch))
    assert "never learned" not in shown and "persona: " in shown
    assert "train with --distinct_start" in shown  # the run has one start token for both tasks


def test_control_c_ends_a_reply_and_keeps_the_conversation(model, monkeypatch):
    out = io.StringIO()
    talk = command.Conversation(model, None, Responder(model, "greedy"), "model", out)

    def stream(params, history):
        yield "Well"
        raise KeyboardInterrupt

    monkeypatch.setattr(talk._responder, "stream", stream)
    assert talk.answer("hi")
    assert out.getvalue() == "model: Well\n" and talk._history == ["hi", "Well"]


def test_typed_lines_end_at_control_d_or_a_second_control_c(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    events = iter(["a", KeyboardInterrupt, "b", KeyboardInterrupt, KeyboardInterrupt, "c"])

    def typed(prompt):
        event = next(events)
        if isinstance(event, str):
            return event
        raise event

    monkeypatch.setattr("builtins.input", typed)
    keyboard = SimpleNamespace(isatty=lambda: True)
    assert list(terminal.typed_lines(keyboard)) == ["a", "b"]
    events = iter(["a", EOFError, "c"])
    assert list(terminal.typed_lines(keyboard)) == ["a"]
    kept = tmp_path / "mtml_jax" / "chat_history"
    assert kept.stat().st_mode & 0o777 == 0o600
