"""Talks with a model, as it is or adapted to a speaker.

    python -m experiments.chat --workdir=W --adapted=adapted/
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from typing import TextIO

from absl import app, flags

from experiments import flags as settings
from mtml_jax.inference.adapt import load_adapted
from mtml_jax.inference.delta import read_settings
from mtml_jax.inference.responder import (
    DECODERS,
    Responder,
    believed_persona,
    detokenize,
    persona_caveat,
)
from mtml_jax.runs.trained import Trained, load_trained
from mtml_jax.types import Params

HELP = """\
/compare     show what the initial and the adapted model say, or one again
/persona     what the model believes of its speaker so far
/save FILE   keep the conversation as a JSON line, to be adapted to
/reset       forget the conversation
/quit        end; so does Ctrl-D"""

_SIDE_BY_SIDE = 64  # columns; on a narrower terminal replies are stacked
_MAX_LINE = 10_000  # characters of one input


def define_flags() -> None:
    settings.define_common_flags()
    flags.FLAGS.set_default("cpu_devices", 1)  # one conversation is not shared among devices
    flags.DEFINE_string(
        "adapted", None, "folder from experiments.adapt (default: the initial model alone)"
    )
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "of the run")
    flags.DEFINE_enum(
        "decoder", "greedy", list(DECODERS), "how replies are found; beam shows them whole only"
    )
    flags.DEFINE_float("top_p", 0.9, "probability of the nucleus", 1e-6, 1.0)
    flags.DEFINE_float("temperature", 1.0, "of the nucleus", 1e-3)
    flags.DEFINE_integer("seed", 0, "of the nucleus", lower_bound=0)


def main(argv) -> None:
    settings.start(argv, "--workdir=runs/x")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        stream.reconfigure(errors=errors)
    try:
        chat(flags.FLAGS, typed_lines(sys.stdin), sys.stdout, echo=not sys.stdin.isatty())
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # Nobody reads any more; the interpreter would complain when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print()


def chat(given, lines: Iterable[str], out: TextIO, *, echo: bool) -> None:
    """Runs the whole command; `given` has the flags as attributes.

    Args:
      given: flags.
      lines: what is typed, a line each.
      out: where everything goes to.
      echo: whether to repeat what is typed: it is seen only where it is typed.
    """
    if not given.workdir:
        raise ValueError("got no --workdir, want the folder of a training run")
    model = load_trained(given.workdir, given.checkpoint)
    adapted = speaker = None
    if given.adapted:
        adapted = load_adapted(given.adapted, model)
        known = read_settings(given.adapted).get("provenance")
        speaker = known.get("speaker") if isinstance(known, dict) else None
    responder = Responder(
        model,
        given.decoder,
        top_p=given.top_p,
        temperature=given.temperature,
        seed=given.seed,
    )
    name = harmless(speaker)[:20].strip() if isinstance(speaker, str) else ""
    talk = Conversation(model, adapted, responder, name or "model", out)
    talk.begin()
    for line in lines:
        if echo and line.strip():
            talk.fold(harmless(line.strip()[:_MAX_LINE]), "you: ")
        if not talk.answer(line[:_MAX_LINE]):
            return


class Conversation:
    """What was said so far, and how it is shown.

    Args:
      model: the initial model.
      adapted: adapted parameters, or None.
      responder: finds the replies.
      name: of the speaker that answers.
      out: where everything goes to.
    """

    def __init__(
        self, model: Trained, adapted: Params | None, responder: Responder, name: str, out: TextIO
    ):
        self._model, self._adapted, self._responder = model, adapted, responder
        self._name, self._out = name, out
        self._params = model.params if adapted is None else adapted
        self._compare = False
        self._history: list[str] = []

    def begin(self) -> None:
        """Compiles, and says who is there."""
        config = self._model.config
        self._say("getting ready ...")
        self._responder.reply(self._params, ["hi"])
        who = f"adapted to {self._name}" if self._adapted is not None else "not adapted"
        self.fold(f"{config.strategy}, step {self._model.step:,}, {who}; /help for commands")

    def answer(self, line: str) -> bool:
        """Does what one line asks for; False ends the conversation."""
        line = line.strip()
        if line.startswith("/"):
            return self._command(*line[1:].partition(" ")[::2])
        if line:
            self._history.append(line)
            reply = self._show_both() if self._compare else self._stream()
            self._history.append(reply)
        return True

    def fold(self, text: str, label: str = "") -> None:
        """Prints a text within the terminal's width, behind a label."""
        self._say("\n".join(_folded(text, _width(), label)))

    def _command(self, name: str, argument: str) -> bool:
        argument = argument.strip()
        if name == "quit":
            return False
        if name == "help":
            self._say(HELP if _width() >= _SIDE_BY_SIDE else _narrow(HELP))
        elif name == "compare":
            self._toggle_compare()
        elif name == "persona":
            self._show_persona()
        elif name == "save":
            self._save(argument)
        elif name == "reset":
            self._history.clear()
            self._say("(a new conversation)")
        else:
            self.fold(f"(there is no command /{harmless(name)[:20]}; /help lists them)")
        return True

    def _stream(self) -> str:
        """Prints the reply word by word. Ctrl-C ends the reply, not the conversation."""
        width = _width()
        label = f"{self._name}: "
        indent = " " * min(len(label), width // 4)
        self._out.write(label)
        column, said = len(label), ""
        with contextlib.suppress(KeyboardInterrupt):
            for piece in self._responder.stream(self._params, self._history):
                shown = harmless(piece)
                # Room for the comma that may follow.
                if shown[:1] == " " and column + len(shown) > width - 1:
                    self._out.write(f"\n{indent}")
                    column, shown = len(indent), shown.lstrip()
                self._out.write(shown)
                self._out.flush()
                column += len(shown)
                said += piece
        self._say("" if said else "(nothing)")
        return said

    def _show_both(self) -> str:
        initial, adapted = (
            harmless(self._responder.reply(params, self._history))
            for params in (self._model.params, self._adapted)
        )
        width = _width()
        names = ("initial", self._name)
        if width < _SIDE_BY_SIDE:
            for label, text in zip(names, (initial, adapted)):
                self.fold(text or "(nothing)", f"{label}: ")
            return adapted
        half = (width - 3) // 2
        columns = [
            [label, *_folded(text or "(nothing)", half)]
            for label, text in zip(names, (initial, adapted))
        ]
        rows = max(map(len, columns))
        left, right = ([*column, *[""] * (rows - len(column))] for column in columns)
        self._say("\n".join(f"{a:<{half}} | {b}".rstrip() for a, b in zip(left, right)))
        return adapted

    def _toggle_compare(self) -> None:
        if self._adapted is None:
            self.fold("(there is nothing to compare with: give --adapted=DIR)")
            return
        self._compare = not self._compare
        on = "both replies are shown, and the adapted one counts" if self._compare else "no longer"
        self.fold(f"(comparing: {on})")

    def _show_persona(self) -> None:
        caveat = persona_caveat(self._model)
        if not self._history:
            self.fold("(nothing was said yet)")
            return
        try:
            text = believed_persona(self._model, self._params, self._history)
        except ValueError:
            self.fold(f"({caveat})")
            return
        self.fold(harmless(detokenize(text)) or "(nothing)", "persona: ")
        if caveat:
            self.fold(f"({caveat})")

    def _save(self, name: str) -> None:
        if not name or not self._history:
            self.fold("(want /save FILE)" if not name else "(nothing was said yet)")
            return
        path = pathlib.Path(name).expanduser()
        speakers = ("you", self._name if self._name != "you" else "model")
        record = {
            "conversation": time.strftime("chat %Y-%m-%d %H:%M:%S"),
            "utterances": [
                {"speaker": speakers[n % 2], "text": harmless(text)}
                for n, text in enumerate(self._history)
            ],
        }
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        except FileExistsError:
            self.fold(f"(found {harmless(str(path))} already there, want another name)")
        except (OSError, ValueError) as error:
            self.fold(f"(could not write {harmless(str(path))}: {harmless(str(error))})")
        else:
            self.fold(f"(saved in {harmless(str(path))})")

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def typed_lines(source: TextIO) -> Iterator[str]:
    """Lines as they are typed, with a history that is kept; or those of a pipe.

    Ctrl-C leaves the line begun, a second one in a row ends, as Ctrl-D does.
    """
    if not source.isatty():
        yield from source
        return
    interrupted = False
    with _history():
        while True:
            try:
                yield input("you: ")
                interrupted = False
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                if interrupted:
                    return
                interrupted = True
                print("(once more, or Ctrl-D, to end)")


@contextlib.contextmanager
def _history():
    """Line editing, and earlier inputs in a file that nobody else may read."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = pathlib.Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    path = state / "mtml_jax" / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            readline.write_history_file(path)
            path.chmod(0o600)


def harmless(text: str) -> str:
    """A text on one line that a terminal only shows: what is invisible becomes a blank."""
    return "".join(c if c.isprintable() else " " for c in text)


def _folded(text: str, width: int, label: str = "") -> list[str]:
    """Lines of at most so many characters; `width` counts wide characters as one."""
    indent = " " * min(len(label), width // 4)
    return textwrap.wrap(label + text, width, subsequent_indent=indent) or [label]


def _narrow(table: str) -> str:
    rows = (line.split("  ", 1) for line in table.splitlines())
    return "\n".join(
        "\n".join([command, *textwrap.wrap(text.strip(), 38, initial_indent="  ",
                                           subsequent_indent="  ")])
        for command, text in rows
    )  # fmt: skip


def _width() -> int:
    return max(shutil.get_terminal_size((80, 24)).columns, 20)


if __name__ == "__main__":
    define_flags()
    app.run(main)
