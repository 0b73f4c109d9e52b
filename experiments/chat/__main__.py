"""Chat with a trained model, or with one that is adapted to a speaker.

    python -m experiments.chat --adapted=adapted/
    python -m experiments.chat --workdir=W
"""

import contextlib
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import TextIO

from absl import app, flags

from experiments import flags as settings
from experiments import startup
from experiments.chat.terminal import typed_lines
from experiments.printing import columns, fold, fold_stream, harmless, terminal_width
from mtml_jax.data.text import detokenize
from mtml_jax.inference.adapt import load_adapted
from mtml_jax.inference.delta import provenance_of
from mtml_jax.inference.responder import DECODERS, Responder, believed_persona, persona_caveat
from mtml_jax.runs.trained import Trained, load_trained
from mtml_jax.types import Params

_COMMANDS = {
    "/compare": "show the replies of the initial and the adapted model, or one reply again",
    "/persona": "show the persona that the model reconstructs from the conversation",
    "/save FILE": "save the conversation as a JSON line, which experiments.adapt reads",
    "/reset": "forget the conversation",
    "/quit": "end the chat; so does Ctrl-D",
}
_SIDE_BY_SIDE = 64  # columns; on a narrower terminal, replies stand one below the other
_MAX_LINE = 10_000  # characters of one input


def define_flags() -> None:
    settings.define_common_flags(
        "folder of a training run (default: the one that --adapted was adapted from)"
    )
    settings.define_start_flag()
    flags.FLAGS.set_default("cpu_devices", 1)  # one conversation runs on one device
    flags.DEFINE_string(
        "adapted", None, "folder that experiments.adapt wrote (default: none, the initial model answers)"
    )
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "checkpoint of the run")
    flags.DEFINE_enum(
        "decoder", "greedy", list(DECODERS), "decoding of replies; beam search shows whole replies only"
    )
    flags.DEFINE_float("top_p", 0.9, "probability mass of nucleus sampling", 1e-6, 1.0)
    flags.DEFINE_float("temperature", 1.0, "softmax temperature of nucleus sampling", 1e-3)
    flags.DEFINE_integer("seed", 0, "random seed of nucleus sampling", lower_bound=0)


def main(argv) -> None:
    startup.start(argv, "--workdir=runs/x")
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        stream.reconfigure(errors=errors)
    with startup.one_sentence("the chat has ended"):
        try:
            settings.use_start(flags.FLAGS)
            chat(flags.FLAGS, typed_lines(sys.stdin), sys.stdout, echo=not sys.stdin.isatty())
        except BrokenPipeError:
            # The reader is gone; without this the interpreter complains when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


def chat(given, lines: Iterable[str], out: TextIO, *, echo: bool) -> None:
    """Chats about the typed `lines`; `given` has the flags as attributes.

    `echo` repeats the input, which a terminal shows but a pipe does not.
    """
    provenance = provenance_of(given.adapted) if given.adapted else {}
    workdir = given.workdir or provenance.get("workdir")
    if not workdir:
        raise ValueError("expected --adapted, --start or --workdir, got none")
    model = load_trained(workdir, provenance.get("checkpoint", given.checkpoint))
    adapted = load_adapted(given.adapted, model) if given.adapted else None
    speaker = provenance.get("speaker")
    sampling = {"top_p": given.top_p, "temperature": given.temperature, "seed": given.seed}
    responder = Responder(model, given.decoder, **sampling)
    name = harmless(speaker)[:20].strip() if speaker else ""
    talk = Conversation(model, adapted, responder, name or "model", out)
    talk.begin()
    for line in lines:
        if echo and line.strip():
            talk.fold(harmless(line.strip()[:_MAX_LINE]), "you: ")
        if not talk.answer(line[:_MAX_LINE]):
            return


class Conversation:
    """Holds a conversation with the speaker `name`, and shows it on `out`."""

    def __init__(
        self, model: Trained, adapted: Params | None, responder: Responder, name: str, out: TextIO
    ):
        self._model, self._adapted, self._responder = model, adapted, responder
        self._name, self._out = name, out
        self._params = model.params if adapted is None else adapted
        self._compare = False
        self._history: list[str] = []

    def begin(self) -> None:
        """Compiles the programs, and introduces the model."""
        config = self._model.config
        self.fold("getting ready ...")
        self._responder.reply(self._params, ["hi"])
        who = f"adapted to {self._name}" if self._adapted is not None else "not adapted"
        self.fold(f"{config.strategy}, step {self._model.step:,}, {who}; /help for commands")

    def answer(self, line: str) -> bool:
        """Replies to a line or executes its command; returns False to end the chat."""
        line = line.strip()
        if line.startswith("/"):
            return self._command(*line[1:].partition(" ")[::2])
        if line:
            self._history.append(line)
            reply = self._show_both() if self._compare else self._stream()
            self._history.append(reply)
        return True

    def fold(self, text: str, label: str = "") -> None:
        """Prints a text after a label, within the terminal's width."""
        self._say(fold(text, terminal_width(), label))

    def _command(self, name: str, argument: str) -> bool:
        argument = argument.strip()
        if name == "quit":
            return False
        if name == "help":
            self._show_help()
        elif name == "compare":
            self._toggle_compare()
        elif name == "persona":
            self._show_persona()
        elif name == "save":
            self._save(argument)
        elif name == "reset":
            self._history.clear()
            self.fold("(a new conversation)")
        else:
            self.fold(f"(there is no command /{harmless(name)[:20]}; /help lists the commands)")
        return True

    def _show_help(self) -> None:
        for command, effect in _COMMANDS.items():
            if terminal_width() >= _SIDE_BY_SIDE:
                self.fold(effect, f"{command:<13}")
            else:
                self.fold(command)
                self.fold(effect, "  ")

    def _stream(self) -> str:
        """Prints the reply word by word. Ctrl-C ends the reply, not the conversation."""
        said: list[str] = []

        def pieces():
            with contextlib.suppress(KeyboardInterrupt):
                for piece in self._responder.stream(self._params, self._history):
                    said.append(piece)
                    yield harmless(piece)
            if not said:
                yield "(nothing)"

        for shown in fold_stream(pieces(), terminal_width(), f"{self._name}: "):
            self._out.write(shown)
            self._out.flush()
        self._say("")
        return "".join(said)

    def _show_both(self) -> str:
        initial, adapted = (
            harmless(self._responder.reply(params, self._history))
            for params in (self._model.params, self._adapted)
        )
        width = terminal_width()
        names = ("initial", self._name)
        if width < _SIDE_BY_SIDE:
            for label, text in zip(names, (initial, adapted)):
                self.fold(text or "(nothing)", f"{label}: ")
            return adapted
        half = (width - 3) // 2
        left, right = (
            [label, *fold(text or "(nothing)", half).split("\n")]
            for label, text in zip(names, (initial, adapted))
        )
        for a, b in itertools.zip_longest(left, right, fillvalue=""):
            self._say(f"{a}{' ' * (half - columns(a))} | {b}".rstrip())
        return adapted

    def _toggle_compare(self) -> None:
        if self._adapted is None:
            self.fold("(there is nothing to compare: start the chat with --adapted=DIR)")
            return
        self._compare = not self._compare
        on = "(both replies are shown; the conversation continues with the adapted one)"
        self.fold(on if self._compare else "(one reply is shown)")

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
            self.fold("(expected /save FILE)" if not name else "(nothing was said yet)")
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
            self.fold(f"({harmless(str(path))} already exists; choose another name)")
        except (OSError, ValueError) as error:
            self.fold(f"(could not write {harmless(str(path))}: {harmless(str(error))})")
        else:
            self.fold(f"(saved in {harmless(str(path))})")

    def _say(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
