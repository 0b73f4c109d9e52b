"""Replies and beliefs of a model for one conversation: raw text in, raw text out.

    responder = Responder(model)
    responder.reply(params, ["Hi! Do you have pets?"])      # a text to display
    for word in Responder(model, "greedy").stream(params, history): ...
    believed_persona(model, params, history)

Programs are compiled once for a model's sizes and serve any parameters of it, so that
initial and adapted replies cost the same.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mtml_jax.config import ModelConfig, TrainConfig
from mtml_jax.data.encode import Encoding, encode_dialogue
from mtml_jax.data.packing import pack_rows
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.text import detokenize, tokenize
from mtml_jax.data.vocab import END, START, START_PERSONA, UNK, Vocabulary
from mtml_jax.model import beam, decoding
from mtml_jax.strategies import STRATEGIES
from mtml_jax.types import Params, Tokens

DECODERS = ("beam", "greedy", "nucleus")
MAX_PERSONA = 60  # tokens of a believed persona; PersonaChat's are 28 at the median, 54 at 99 %
MAX_CHARACTERS = 4000  # of one utterance; of a longer one its end is read


class Model(NamedTuple):
    """A trained model.

    Attributes:
      config: the run's settings.
      vocabulary: the run's words.
      params: the initial parameters phi, of the checkpoint.
      step: that the checkpoint was saved at.
      workdir: folder of the run.
    """

    config: TrainConfig
    vocabulary: Vocabulary
    params: Params
    step: int
    workdir: str


class Responder:
    """Answers a conversation.

    Args:
      model: whose sizes and words are used; parameters are given with each call.
      decoder: "beam" for the likeliest reply, "greedy" or "nucleus".
      beams: hypotheses of beam search.
      top_p: probability of the nucleus.
      temperature: of the nucleus.
      max_tokens: most tokens of a reply.
      seed: of the draws; the same seed and order of calls give the same replies.

    Raises:
      ValueError: there is no such decoder, or a setting is out of its range.
    """

    def __init__(
        self,
        model: Model,
        decoder: str = "beam",
        *,
        beams: int = beam.BEAMS,
        top_p: float = 0.9,
        temperature: float = 1.0,
        max_tokens: int = decoding.MAX_TOKENS,
        seed: int = 0,
    ):
        if decoder not in DECODERS:
            raise ValueError(f"found decoder {decoder!r}, want {', '.join(DECODERS)}")
        if beams < 1 or max_tokens < 1:
            raise ValueError(f"found beams {beams} and max_tokens {max_tokens}, want 1 or more")
        if not (0.0 < top_p <= 1.0 and temperature > 0.0):
            raise ValueError(
                f"found top_p {top_p} and temperature {temperature}, want a probability above 0 "
                "and a temperature above 0"
            )
        self._model = model
        self._decoder = decoder
        self._max_tokens = max_tokens
        config = model.config.model
        # Beyond the words that there are, hypotheses cannot branch.
        self._search = _beam_search(config, START, max_tokens, min(beams, len(model.vocabulary)))
        self._begin, self._grow = _growth(config, max(max_tokens, MAX_PERSONA))
        self._nucleus = (np.float32(top_p), np.float32(temperature))
        self._seed = seed
        self._drawn = 0

    def reply(self, params: Params, history: Sequence[str]) -> str:
        """The whole reply to a conversation.

        Args:
          params: initial or adapted.
          history: raw utterances of both, oldest first, the last one by the other
            side; empty where the speaker opens. As in training the end is kept where
            there is more than a context holds.

        Returns:
          A text as `detokenize` writes it; empty where the model has nothing to say.
        """
        if self._decoder != "beam":
            return detokenize(" ".join(self._words(params, history)))
        ids = np.asarray(self._search(params, _context(self._model, history)).ids)[0]
        return detokenize(self._model.vocabulary.decode(ids))

    def stream(self, params: Params, history: Sequence[str]) -> Iterator[str]:
        """The same reply in pieces, each as soon as its word is decoded.

        Arguments as for `reply`. Beam search knows its reply at the end only, so there
        the pieces come at once.

        Yields:
          Pieces that, joined, are what `reply` returns: blanks are in front of words.
        """
        words: list[str] = []
        shown = ""
        if self._decoder == "beam":
            source: Iterator[str] = iter(self._beam_words(params, history))
        else:
            source = self._words(params, history)
        for word in source:
            words.append(word)
            text = detokenize(" ".join(words))
            # An opening bracket's blank is known with the next word only.
            if text.startswith(shown) and len(text) > len(shown):
                yield text[len(shown) :]
                shown = text

    def _beam_words(self, params, history):
        ids = np.asarray(self._search(params, _context(self._model, history)).ids)[0]
        return self._model.vocabulary.decode(ids).split()

    def _words(self, params, history):
        """Words as decoded, greedily or from the nucleus."""
        key = None
        if self._decoder == "nucleus":
            key = jax.random.fold_in(jax.random.key(self._seed), self._drawn)
            self._drawn += 1
        growing = self._begin(params, _context(self._model, history), START)
        for _ in range(self._max_tokens):
            growing = self._grow(params, growing, key, *self._nucleus)
            token = int(growing.token[0])
            if token == END:
                return
            yield self._model.vocabulary.words[token]


def believed_persona(
    model: Model, params: Params, history_or_dialogue: Sequence[str] | Dialogue
) -> str:
    """What the model reconstructs of its speaker from a conversation, decoded greedily.

    Args:
      model: a run whose strategy trains the persona task; see `persona_caveat` for what its answer is worth.
      params: initial or adapted.
      history_or_dialogue: raw utterances of both, oldest first, as for
        `Responder.reply`; or a Dialogue, read up to before its last reply.

    Returns:
      The persona statements one after the other, in lower case, as they are joined in
      training; may be empty.

    Raises:
      ValueError: the run's strategy never learnt the task.
    """
    if not _reconstructs(model):
        raise ValueError(f"{model.workdir}: {persona_caveat(model)}")
    start = START_PERSONA if model.config.distinct_start else START
    begin, grow = _growth(model.config.model, MAX_PERSONA)
    nucleus = (np.float32(1.0), np.float32(1.0))
    growing = begin(params, _context(model, history_or_dialogue), start)
    ids = []
    for _ in range(MAX_PERSONA):
        growing = grow(params, growing, None, *nucleus)
        ids.append(int(growing.token[0]))
        if ids[-1] == END:
            break
    return model.vocabulary.decode(ids)


def persona_caveat(model: Model) -> str:
    """Why the believed persona of this run says little, in a sentence; empty if it does not."""
    if not _reconstructs(model):
        config = model.config
        able = [name for name, s in STRATEGIES.items() if s.reconstructs(0.5)]
        alpha = f" at alpha {config.alpha:g}" if STRATEGIES[config.strategy].reads_alpha else ""
        return (
            f"a run of {config.strategy}{alpha} never learnt to reconstruct personas; "
            f"--strategy={', '.join(able[:-1])} and {able[-1]} do"
        )
    if not model.config.distinct_start:
        return (
            "both tasks begin with the same token, so this may be a reply instead; "
            "--distinct_start in training tells them apart"
        )
    return ""


def _reconstructs(model: Model) -> bool:
    return STRATEGIES[model.config.strategy].reconstructs(model.config.alpha)


def unknown_share(model: Model, dialogues: Sequence[Dialogue]) -> float:
    """The share of the words of all replies that the model does not know; 0 without words."""
    ids = [
        i
        for dialogue in dialogues
        for turn in dialogue.turns
        for i in model.vocabulary.encode(turn.response)
    ]
    return sum(i == UNK for i in ids) / max(len(ids), 1)


def _context(model: Model, history_or_dialogue) -> Tokens:
    """What was said as the one row that a context of training would be."""
    if isinstance(history_or_dialogue, Dialogue):
        dialogue = history_or_dialogue
    else:
        # No more utterances than words are read, and none of them at any length.
        history = history_or_dialogue[-model.config.shape.context :]
        said = " ".join(tokenize(text[-MAX_CHARACTERS:]) for text in history)
        dialogue = Dialogue("", "", (), (Turn(said, ""),))
    encoding = Encoding(model.vocabulary, model.config.shape)
    examples, _ = encode_dialogue(dialogue, encoding)
    return pack_rows([examples[-1].context], model.config.shape.context, 1)


@functools.lru_cache(maxsize=16)
def _beam_search(config: ModelConfig, start: int, max_tokens: int, beams: int):
    return jax.jit(
        functools.partial(
            beam.beam_search, start=start, max_tokens=max_tokens, beams=beams, config=config
        )
    )


@functools.lru_cache(maxsize=16)
def _growth(config: ModelConfig, max_tokens: int):
    """The two compiled programs that decode either task token by token: (begin, grow)."""

    def begin(params, context, start):
        return decoding.begin_replies(
            params, context, start, max_tokens=max_tokens, config=config
        )

    def grow(params, growing, key, top_p, temperature):
        return decoding.grow_replies(
            params, growing, key, top_p=top_p, temperature=temperature, config=config
        )

    return jax.jit(begin), jax.jit(grow)
