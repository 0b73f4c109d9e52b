"""A trained model learns one speaker from a handful of dialogues, and answers as them.

    model = load_model("runs/demo-small-amtml")
    adapted = adapt_to_dialogues(model, dialogues)      # of one speaker; the last is held out
    adapted.ppl_before, adapted.ppl_after
    Responder(model).reply(adapted.params, ["Hi! Do you have pets?"])
    believed_persona(model, adapted.params, ["Hi! Do you have pets?"])
    save_adapted("adapted", model, adapted, {"speaker": "ann"})
    params = load_adapted("adapted", model)

Everything runs on one device; nothing is read of persona statements.
"""

import functools
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.config import LossConfig, restored_config
from mtml_jax.data.encode import Encoding, Example, encode_dialogue
from mtml_jax.data.packing import pack, stack
from mtml_jax.data.records import Dialogue
from mtml_jax.data.vocab import Vocabulary
from mtml_jax.eval.adaptation import adapt_to
from mtml_jax.eval.folds import TURNS_A_BATCH
from mtml_jax.eval.metrics import perplexity
from mtml_jax.inference.delta import read_delta, read_settings, write_delta
from mtml_jax.inference.responder import (
    Model,
    Responder,
    believed_persona,
    detokenize,
    persona_caveat,
    unknown_share,
)
from mtml_jax.model import losses
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.runs.folder import load_run
from mtml_jax.types import Params

__all__ = [
    "EPOCHS",
    "Adapted",
    "Model",
    "Responder",
    "adapt_to_dialogues",
    "believed_persona",
    "detokenize",
    "load_adapted",
    "load_model",
    "persona_caveat",
    "read_settings",
    "save_adapted",
    "score_dialogue",
    "unknown_share",
]

EPOCHS = 10  # as at test, section 3.4

# So many batches go into one call, the missing ones empty: an empty batch changes nothing
# and costs almost nothing, so that one program serves all speakers.
_BATCHES_A_CALL = 4


class Adapted(NamedTuple):
    """A model that has learnt a speaker.

    Attributes:
      params: the adapted parameters phi'.
      ppl_before: perplexity of the replies of the held-out dialogue under phi; None
        where no dialogue was held out.
      ppl_after: the same under phi'.
      held_out: the dialogue that was held out, or None.
      turns: turns that were adapted to, an epoch.
      epochs: passes over them.
      inner_lr: the SGD step.
      dialogues: how many dialogues were adapted to.
    """

    params: Params
    ppl_before: float | None
    ppl_after: float | None
    held_out: Dialogue | None
    turns: int
    epochs: int
    inner_lr: float
    dialogues: int


def load_model(
    workdir: str | os.PathLike, checkpoint: Literal["best", "latest"] = "best"
) -> Model:
    """Reads a trained model.

    Args:
      workdir: folder of a training run; nothing is written into it.
      checkpoint: "best" or "latest".

    Returns:
      Model.

    Raises:
      FileNotFoundError: there is no run or no such checkpoint in the folder.
      ValueError: there is no such choice, or what is there does not fit together.
    """
    if checkpoint not in ("best", "latest"):
        raise ValueError(f"got --checkpoint={checkpoint}, want best or latest")
    saved, text = load_run(workdir)
    config = restored_config(saved)
    vocabulary = Vocabulary.from_text(text)
    restored = restore_params(workdir, checkpoint)
    words = restored.params["embedding"].shape[0]
    if words != len(vocabulary):
        raise ValueError(
            f"{workdir}: found a checkpoint of {words:,} words and a vocabulary of "
            f"{len(vocabulary):,}, want the vocabulary.txt that it was trained with"
        )
    return Model(config, vocabulary, restored.params, restored.step, str(workdir))


def adapt_to_dialogues(
    model: Model,
    dialogues: Sequence[Dialogue],
    *,
    inner_lr: float | None = None,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Adapted:
    """Fine-tunes on one speaker's dialogues, as at test: plain SGD on the response loss.

    The last dialogue is held out to measure perplexity on, where there are two or more;
    a single one is adapted to and nothing is measured. Turns are shuffled by
    (seed, epoch) and taken in batches of 16, the last one partial. Statements are not
    read. One program is compiled for a model's sizes, whoever speaks and however much.

    Args:
      model: from `load_model`.
      dialogues: one speaker's, each from their side, in order.
      inner_lr: SGD step; None: the run's.
      epochs: passes over the dialogues.
      seed: of the shuffles.
      progress: called with (finished epochs, all epochs), from (0, epochs) on; what it
        raises ends the adaptation.

    Returns:
      Adapted.

    Raises:
      ValueError: there is no dialogue, a setting is out of its range, or the step is so
        large that the parameters are no longer finite.
    """
    rate = model.config.inner_lr if inner_lr is None else float(inner_lr)
    if not dialogues:
        raise ValueError("got no dialogue of the speaker, want one or more, better five")
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"got --inner_lr={rate}, want a finite number, 0 or more")
    if epochs < 0:
        raise ValueError(f"got --epochs={epochs}, want 0 or more")
    held_out = dialogues[-1] if len(dialogues) > 1 else None
    shots = dialogues[:-1] if held_out else dialogues
    turns = [example for dialogue in shots for example in _examples(model, dialogue)]
    config = model.config.loss()
    progress = progress or (lambda done, total: None)

    progress(0, epochs)
    before = score_dialogue(model, model.params, held_out) if held_out else None
    params = model.params
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(turns))
        params = _epoch(model, params, [turns[i] for i in order], rate, config)
        jax.block_until_ready(params)
        progress(epoch + 1, epochs)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise ValueError(
            f"found parameters that are no longer finite after adapting at --inner_lr={rate}, "
            "want a smaller --inner_lr"
        )
    after = score_dialogue(model, params, held_out) if held_out else None
    return Adapted(params, before, after, held_out, len(turns), epochs, rate, len(shots))


def score_dialogue(model: Model, params: Params, dialogue: Dialogue) -> float:
    """Perplexity of the replies of a dialogue: exp of the mean nats a token.

    Args:
      model: from `load_model`.
      params: initial or adapted.
      dialogue: from the speaker's side.

    Returns:
      The perplexity.
    """
    examples = _examples(model, dialogue)
    score = _programs(model.config.loss())[1]
    nll = tokens = 0.0
    for begin in range(0, len(examples), TURNS_A_BATCH):
        sums = score(params, _packed(model, examples[begin : begin + TURNS_A_BATCH]))
        nll, tokens = nll + float(sums.nll), tokens + float(sums.tokens)
    return perplexity(nll, tokens)


def save_adapted(
    folder: str | os.PathLike, model: Model, adapted: Adapted, provenance: dict[str, Any]
) -> int:
    """Keeps what a model has learnt of a speaker: a small difference from its checkpoint.

    Writes `adapted.json` and a file of differences in float16; whoever reads the folder
    meanwhile finds an earlier adaptation whole or this one.

    Args:
      folder: made if it is not there; an earlier adaptation in it is replaced.
      model: what was adapted.
      adapted: from `adapt_to_dialogues`.
      provenance: what the caller knows of the dialogues, such as speaker and file;
        anything that JSON can hold.

    Returns:
      Bytes of the file of differences.

    Raises:
      ValueError: the adapted parameters are not of this model.
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


def load_adapted(folder: str | os.PathLike, model: Model) -> Params:
    """Reads what `save_adapted` kept.

    Args:
      folder: of the adaptation.
      model: what was adapted then.

    Returns:
      The adapted parameters, up to the rounding to float16 of their difference.

    Raises:
      FileNotFoundError: a file is not there.
      ValueError: the adaptation is of another checkpoint or vocabulary, or damaged.
    """
    settings = read_settings(folder)
    if settings.get("vocabulary_sha256") != _vocabulary_digest(model):
        raise ValueError(
            f"{folder}: found an adaptation of a model with another vocabulary, want the "
            "--workdir that it was made from, or adapt again"
        )
    return read_delta(folder, model.params)


def _vocabulary_digest(model):
    return hashlib.sha256(model.vocabulary.to_text().encode()).hexdigest()


def _examples(model, dialogue):
    """A dialogue's turns as ids, without persona statements."""
    muted = Dialogue(dialogue.conversation, dialogue.speaker, (), dialogue.turns)
    return encode_dialogue(muted, Encoding(model.vocabulary, model.config.shape))[0]


def _packed(model, examples: Sequence[Example]):
    """A batch in the tiles that 16 turns never exceed: each turn fits one."""
    return pack(examples, model.config.shape, TURNS_A_BATCH, tasks=("response",))


def _epoch(model, params, turns, rate, config):
    batches = [turns[i : i + TURNS_A_BATCH] for i in range(0, len(turns), TURNS_A_BATCH)]
    for begin in range(0, len(batches), _BATCHES_A_CALL):
        some = batches[begin : begin + _BATCHES_A_CALL]
        some += [[]] * (_BATCHES_A_CALL - len(some))
        packed = stack([_packed(model, batch) for batch in some])
        params = _programs(config)[0](params, packed, np.float32(rate))
    return params


@functools.lru_cache(maxsize=16)
def _programs(config: LossConfig):
    """The two compiled programs: (adapt to a few batches, sums of a batch's responses)."""

    def score(params, examples):
        return losses.weighted_loss(
            params, examples, losses.RESPONSE_ONLY, config=config
        )[1].response

    return jax.jit(functools.partial(adapt_to, config=config)), jax.jit(score)
