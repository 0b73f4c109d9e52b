"""Adapt a trained model to one speaker from a handful of dialogues, and save what it learned.

    dialogues, _ = read_chat("chat.txt")                # data.exports
    mine, _ = choose_speaker(dialogues, "Ann")
    model = load_trained("runs/demo-small-amtml")       # runs.trained
    adapted = adapt_to_dialogues(model, mine)           # the last dialogue is held out
    print(adapted.ppl_before, adapted.ppl_after)
    print(Responder(model).reply(adapted.params, ["Hi! Do you have pets?"]))
    print(believed_persona(model, adapted.params, ["Hi! Do you have pets?"]))
    save_adapted("adapted", model, adapted, {"speaker": "Ann"})
    params = load_adapted("adapted", model)

Everything runs on one device, and persona statements are never read.
"""

import functools
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.config import LossConfig
from mtml_jax.data.layout import largest, lay_out, measure
from mtml_jax.data.packing import stack
from mtml_jax.data.records import Dialogue
from mtml_jax.data.strands import RowEncoding
from mtml_jax.data.subwords import Subwords
from mtml_jax.eval.adaptation import adapt_to
from mtml_jax.eval.metrics import perplexity
from mtml_jax.inference.delta import read_delta, read_settings, write_delta
from mtml_jax.model import losses
from mtml_jax.runs.trained import Trained
from mtml_jax.types import Params, TokenSums

_TASKS = ("response",)
_ROUNDED = 64  # a row's slots and predicted tokens are multiples of it

# Every call takes this many batches, filled up with empty ones: an empty batch changes
# nothing and costs almost nothing, so one compiled program serves all speakers.
_BATCHES_A_CALL = 4


class Adapted(NamedTuple):
    """The result of adapting a model to a speaker.

    Attributes:
      params: the adapted parameters phi'.
      ppl_before: perplexity of the replies of the held-out dialogue under phi; None
        if no dialogue was held out.
      ppl_after: the same under phi'.
      held_out: the held-out dialogue, or None.
      turns: number of turns per epoch.
      epochs: passes over the turns.
      inner_lr: step size of SGD.
      dialogues: number of dialogues without the held-out one.
    """

    params: Params
    ppl_before: float | None
    ppl_after: float | None
    held_out: Dialogue | None
    turns: int
    epochs: int
    inner_lr: float
    dialogues: int


def adapt_to_dialogues(
    model: Trained, dialogues: Sequence[Dialogue], *, inner_lr: float | None = None,
    epochs: int | None = None, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Adapted:
    """Fine-tunes on one speaker's dialogues as at test time: plain SGD on the response loss.

    Of two or more dialogues, the last is held out to measure perplexity. A single dialogue
    is adapted to, and nothing is measured. Turns are shuffled by (seed, epoch) and taken in
    batches of 16, the last one partial. Persona statements are not read. The program is
    compiled once for the model's sizes and serves any speaker.

    Args:
      model: from `load_trained`.
      dialogues: the speaker's dialogues, each from the speaker's side, in order.
      inner_lr: step size of SGD; None takes the run's.
      epochs: passes over the dialogues; None for as many as are enough on valid.
      seed: random seed for the order of the turns.
      progress: called with (finished epochs, all epochs), first with (0, epochs); an
        exception that it raises ends the adaptation.

    Raises:
      ValueError: there is no dialogue, a setting is out of its range, or the step is so
        large that the parameters are no longer finite.
    """
    rate = model.config.inner_lr if inner_lr is None else float(inner_lr)
    epochs = model.encoding.enough_epochs if epochs is None else epochs
    if not dialogues:
        raise ValueError("expected one or more dialogues of the speaker, better five, got no dialogue")
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"expected a finite --inner_lr of 0 or more, got --inner_lr={rate}")
    if epochs < 0:
        raise ValueError(f"expected --epochs of 0 or more, got --epochs={epochs}")
    held_out = dialogues[-1] if len(dialogues) > 1 else None
    shots = dialogues[:-1] if held_out else dialogues
    examples = [example for dialogue in shots for example in _examples(model, dialogue)]
    batches_in = _batches_of(model, examples)
    progress = progress or (lambda done, total: None)

    # Measure, adapt epoch by epoch, measure again.
    progress(0, epochs)
    before = score_dialogue(model, model.params, held_out) if held_out else None
    params = model.params
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(examples))
        for batches in batches_in(order):
            params = _adapt(
                params, batches, np.float32(rate), model.base, config=model.config.loss()
            )
        jax.block_until_ready(params)
        progress(epoch + 1, epochs)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise ValueError(
            "expected finite parameters after adapting, got some that are no longer finite; choose "
            f"an --inner_lr below {rate}"
        )
    after = score_dialogue(model, params, held_out) if held_out else None
    turns = sum(example.turns for example in examples)
    return Adapted(params, before, after, held_out, turns, epochs, rate, len(shots))


def score_dialogue(model: Trained, params: Params, dialogue: Dialogue) -> float:
    """Computes the perplexity of a dialogue's replies under initial or adapted parameters."""
    encoding = model.encoding
    examples = _examples(model, dialogue)
    nll = tokens = 0.0
    for begin in range(0, len(examples), encoding.examples_a_batch):
        packed = _packed(model, examples[begin : begin + encoding.examples_a_batch])
        sums = _score(params, packed, model.base, config=model.config.loss())
        nll, tokens = nll + float(sums.nll), tokens + float(sums.tokens)
    return perplexity(nll, tokens)


def save_adapted(
    folder: str | os.PathLike, model: Trained, adapted: Adapted, provenance: dict[str, Any]
) -> int:
    """Saves adapted parameters as their small difference from the checkpoint.

    Writes `adapted.json` and a file of differences in float16. A process that reads the
    folder at the same time sees either the earlier adaptation or this one, never a mixture.

    Args:
      folder: created if it does not exist; an earlier adaptation in it is replaced.
      model: the model that was adapted.
      adapted: from `adapt_to_dialogues`.
      provenance: facts about the dialogues, such as speaker and file; any JSON value.

    Returns:
      Size of the file of differences in bytes.

    Raises:
      ValueError: the adapted parameters do not have the shapes of the model's.
    """
    facts = {
        "checkpoint_step": model.step,
        "vocabulary_sha256": _vocabulary_digest(model),
        "strategy": model.config.strategy,
        "dialogues": adapted.dialogues,
        "turns": adapted.turns,
        "epochs": adapted.epochs,
        "inner_lr": adapted.inner_lr,
        "ppl_before": adapted.ppl_before,
        "ppl_after": adapted.ppl_after,
        "provenance": provenance,
    }
    return write_delta(folder, model.params, adapted.params, facts)


def load_adapted(folder: str | os.PathLike, model: Trained) -> Params:
    """Reads adapted parameters that `save_adapted` wrote.

    Args:
      folder: folder of the adaptation.
      model: the model that was adapted.

    Returns:
      The adapted parameters; their difference was rounded to float16.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: another checkpoint or vocabulary was adapted, or a file is damaged.
    """
    settings = read_settings(folder)
    if settings.get("vocabulary_sha256") != _vocabulary_digest(model):
        raise ValueError(
            f"{folder}: expected an adaptation of the model in {model.workdir}, got one of a model "
            "with another vocabulary; choose the --workdir that was adapted, or adapt again"
        )
    return read_delta(folder, model.params)


def _vocabulary_digest(model):
    if isinstance(model.vocabulary, Subwords):
        return model.vocabulary.digest
    return hashlib.sha256(model.vocabulary.to_text().encode()).hexdigest()


def _examples(model, dialogue):
    """Encodes a dialogue's turns, without persona statements."""
    silent = Dialogue(dialogue.conversation, dialogue.speaker, (), dialogue.turns)
    return model.encoding.encode(silent)[0]


def _packed(model, examples):
    """Lays a batch out; each turn fits into one tile, and each window into a row."""
    encoding = model.encoding
    if isinstance(encoding, RowEncoding):
        size = largest(measure([example], encoding, _TASKS) for example in examples)
        # Few sizes, so that few programs are compiled.
        size = tuple(-(-count // _ROUNDED) * _ROUNDED for count in size)
    else:
        size = (encoding.examples_a_batch,)
    return lay_out(examples, encoding, size, _TASKS)


def _batches_of(model, examples):
    """Returns a function from an order of the examples to the stacked batches of an epoch."""
    if isinstance(model.encoding, RowEncoding):
        # A window is a batch in every epoch, and the layers that no adapter changes run once.
        read = [
            stack([_read(_packed(model, [window]), model.base, config=model.config.loss())])
            for window in examples
        ]
        return lambda order: (read[i] for i in order)

    def batches(order):
        turns = [examples[i] for i in order]
        each = model.encoding.examples_a_batch
        some = [turns[i : i + each] for i in range(0, len(turns), each)]
        for begin in range(0, len(some), _BATCHES_A_CALL):
            group = some[begin : begin + _BATCHES_A_CALL]
            group += [[]] * (_BATCHES_A_CALL - len(group))
            yield stack([_packed(model, batch) for batch in group])

    return batches


_adapt = jax.jit(adapt_to, static_argnames="config")
_read = jax.jit(losses.read_frozen, static_argnames="config")


@functools.partial(jax.jit, static_argnames="config")
def _score(params, examples, base, *, config: LossConfig) -> TokenSums:
    return losses.weighted_loss(
        params, examples, losses.RESPONSE_ONLY, config=config, base=base
    )[1].response
