"""Adapt a trained model to a speaker from a handful of dialogues.

    python -m experiments.adapt --workdir=W --dialogues=mine.jsonl --output=adapted/
    python -m experiments.adapt --start=mtml --dialogues=chat.txt --output=adapted/
"""

import pathlib
import shlex
from collections.abc import Sequence

from absl import app, flags
from tqdm import tqdm

from experiments import flags as settings
from experiments import startup
from experiments.printing import say
from experiments.samples import drawn_places
from mtml_jax.data.exports import MAX_TURNS, PAUSE_HOURS, choose_speaker, read_chat
from mtml_jax.data.records import Dialogue
from mtml_jax.data.text import detokenize
from mtml_jax.inference.adapt import Adapted, adapt_to_dialogues, save_adapted
from mtml_jax.inference.responder import (
    Responder,
    believed_persona,
    persona_caveat,
    unknown_share,
)
from mtml_jax.runs.trained import Trained, load_trained

_UNKNOWN = 0.1  # a larger share of unknown words is worth a warning


def define_flags() -> None:
    settings.define_common_flags()
    settings.define_start_flag()
    flags.FLAGS.set_default("cpu_devices", 1)  # adapting to one speaker runs on one device
    flags.DEFINE_string(
        "dialogues", None, "file of the speaker's dialogues: JSON lines, WhatsApp's text export or "
        "Telegram Desktop's result.json"
    )  # fmt: skip
    flags.DEFINE_string(
        "speaker", None, "name of the speaker to learn (default: the one who takes part in the most dialogues)"
    )
    flags.DEFINE_string("output", None, "folder of the adapted speaker, which is made")
    flags.DEFINE_integer(
        "shots", None, "number of dialogues to adapt to, the latest ones before the last, which is "
        "held out (default: all)", lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_integer(
        "epochs", None, "number of epochs over the dialogues (default: 5; 3 for a pretrained decoder)",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_float("inner_lr", None, "learning rate of SGD in the adaptation (default: the run's)")
    flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "checkpoint of the run to adapt")
    flags.DEFINE_float("pause_hours", PAUSE_HOURS, "hours of silence that end a dialogue of a chat")
    flags.DEFINE_integer("max_turns", MAX_TURNS, "maximum number of turns of a dialogue; longer dialogues of a chat are split")
    flags.DEFINE_integer("seed", 0, "random seed of the order of turns", lower_bound=0)


def main(argv) -> None:
    startup.start(argv, "--workdir=runs/x")
    with startup.one_sentence("interrupted; nothing was saved"):
        settings.use_start(flags.FLAGS)
        adapt(flags.FLAGS)


def adapt(given) -> Adapted:
    """Runs the command; `given` has the flags as attributes."""
    for flag, expected in (
        ("workdir", "the folder of a training run, or a --start"),
        ("dialogues", "a file of dialogues, such as experiments/examples/five_dialogues.jsonl"),
        ("output", "a folder for the adaptation"),
    ):
        if not getattr(given, flag):
            raise ValueError(f"expected {expected}, got no --{flag}")
    if pathlib.Path(given.output).exists() and not pathlib.Path(given.output).is_dir():
        raise ValueError(f"expected a folder, got --output={given.output}, which is a file; choose another")
    read, report = read_chat(
        given.dialogues, pause_hours=given.pause_hours, max_turns=given.max_turns
    )
    for sentence in report.sentences():
        say(sentence)
    mine, others = choose_speaker(read, given.speaker)
    mine = _latest(mine, given.shots)
    name = mine[0].speaker
    model = load_trained(given.workdir, given.checkpoint)
    _describe(model, name, mine)

    adapted = _adapted(given, model, mine, f"adapting to {name}")
    print()
    control = None
    if adapted.held_out is None:
        say("perplexity is not measured, because a single dialogue leaves none to hold out")
    else:
        control = _control(given, model, mine, others)
        _print_perplexities(name, adapted, control)
    _print_replies(model, adapted, adapted.held_out or mine[-1], given.seed)
    _print_persona(model, adapted, mine[-1])

    size = save_adapted(
        given.output,
        model,
        adapted,
        {
            "speaker": name,
            "file": pathlib.Path(given.dialogues).name,
            "workdir": str(given.workdir),
            "checkpoint": given.checkpoint,
            "ppl_after_another_speaker": control,
            "seed": given.seed,
        },
    )
    print()
    say(f"saved in {given.output}: adapted.json and {size / 1024:,.0f} KB of differences")
    # Not folded, so that it can be copied.
    print(f"next: python -m experiments.chat --adapted={shlex.quote(str(given.output))}")
    return adapted


def _latest(dialogues: Sequence[Dialogue], shots: int | None) -> Sequence[Dialogue]:
    """Returns the dialogue to hold out and `shots` before it."""
    most = max(len(dialogues) - 1, 1)
    if shots is not None and shots > most:
        raise ValueError(
            f"expected --shots of {most} or less, got {shots}: {dialogues[0].speaker} has "
            f"{len(dialogues):,} dialogue{'s' * (len(dialogues) > 1)}"
            f"{', of which the last is held out' * (len(dialogues) > 1)}"
        )
    return dialogues[-(shots + 1) :] if shots and len(dialogues) > 1 else dialogues


def _describe(model: Trained, name: str, dialogues: Sequence[Dialogue]) -> None:
    share = unknown_share(model, dialogues)
    turns = sum(len(d.turns) for d in dialogues)
    say(
        f"{name}: {len(dialogues):,} dialogue{'s' * (len(dialogues) > 1)}, {turns:,} turns"
        + (f"; {share:.1%} of the words are unknown to the model" if model.base is None else "")
        + f" ({model.config.strategy}, step {model.step:,})"
    )
    if share > _UNKNOWN:
        say(
            "that is a large share: the model can neither learn nor say words that its training "
            "data lacked; train on more data, or on dialogues like these"
        )


def _adapted(given, model: Trained, dialogues: Sequence[Dialogue], what: str) -> Adapted:
    epochs = model.encoding.enough_epochs if given.epochs is None else given.epochs
    with tqdm(total=epochs, desc=what, unit="epoch", disable=None) as bar:
        return adapt_to_dialogues(
            model, dialogues, inner_lr=given.inner_lr, epochs=epochs, seed=given.seed,
            progress=lambda done, _: bar.update(done - bar.n)
        )


def _control(given, model, mine, others) -> float | None:
    """Returns the held-out dialogue's PPL after adapting to the speaker's partners instead."""
    shots = {d.conversation for d in mine[:-1]}
    theirs = [d for d in others if d.conversation in shots]
    if not theirs:
        return None
    return _adapted(given, model, [*theirs, mine[-1]], "adapting to the partners (control)").ppl_after


def _print_perplexities(name: str, adapted: Adapted, control: float | None) -> None:
    number = adapted.dialogues
    rows = [
        ("initial", adapted.ppl_before),
        (f"adapted to {number:,} dialogue{'s' * (number > 1)} of {name}", adapted.ppl_after),
    ]
    if control is not None:
        rows.append(("adapted to their partners instead (the control)", control))
    wide = max(len(label) for label, _ in rows)
    replies = len(adapted.held_out.turns)
    say(f"perplexity of the {replies:,} replies of the last dialogue, which was held out:")
    for label, value in rows:
        print(f"  {label:<{wide}} {value:10.2f}")
    if control is None:
        print("  (no control, because the other side says nothing in these dialogues)")
    elif not adapted.ppl_after < min(adapted.ppl_before, control):
        say(
            f"the numbers do not show that {name} was learned; add dialogues, or change --inner_lr "
            f"from {adapted.inner_lr}"
        )


def _print_replies(model: Trained, adapted: Adapted, dialogue: Dialogue, seed: int) -> None:
    """Prints the replies before and after adapting, at places of a dialogue drawn by seed."""
    responder = Responder(model)
    turns = dialogue.turns
    for index in drawn_places(len(turns), seed):
        said = [text for turn in turns[:index] for text in (turn.context, turn.response)]
        history = [text for text in (*said, turns[index].context) if text]
        print()
        say(f"... {detokenize(history[-1])}" if history else "(the dialogue begins)")
        for label, text in (
            ("true", detokenize(turns[index].response)),
            ("initial", responder.reply(model.params, history)),
            ("adapted", responder.reply(adapted.params, history)),
        ):
            say(text, f"  {label:<8} ")


def _print_persona(model: Trained, adapted: Adapted, dialogue: Dialogue) -> None:
    caveat = persona_caveat(model)
    try:
        believed = believed_persona(model, adapted.params, dialogue)
    except ValueError:
        print()
        say(f"the persona is not reconstructed: {caveat}")
        return
    print()
    say(detokenize(believed), "reconstructed persona: ")
    if caveat:
        say(f"({caveat})")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=startup.parsed)
