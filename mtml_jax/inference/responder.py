"""Answer a conversation, and reconstruct the speaker's persona from it: raw text in, raw text out.

    responder = Responder(model)                            # model: from runs.trained
    responder.reply(params, ["Hi! Do you have pets?"])      # a text to display
    for piece in Responder(model, "greedy").stream(params, history): ...
    believed_persona(model, params, history)

Programs are compiled once for the model's sizes and take its parameters as an argument, so
that replies of the initial and the adapted parameters cost the same.
"""

import itertools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from mtml_jax.config_eval import DECODERS
from mtml_jax.data.layout import lay_out_contexts
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.strands import RowEncoding
from mtml_jax.data.subwords import Subwords
from mtml_jax.data.text import tokenize
from mtml_jax.data.vocab import UNK
from mtml_jax.model import beam, decoding
from mtml_jax.runs.trained import Trained
from mtml_jax.strategies import STRATEGIES
from mtml_jax.types import Params, Tokens

MAX_PERSONA = 60  # tokens; personas of PersonaChat have 28 at the median, 54 at 99 %
MAX_CHARACTERS = 4000  # of a longer utterance, only the end is read


class Responder:
    """Answers a conversation.

    Args:
      model: supplies sizes and words; parameters are passed with each call.
      decoder: "beam" for the likeliest reply, "greedy" or "nucleus".
      beams: number of hypotheses of beam search.
      top_p: probability mass of nucleus sampling.
      temperature: softmax temperature of nucleus sampling.
      max_tokens: maximum number of tokens of a reply; None for what is usual for the model.
      seed: random seed of nucleus sampling; the same seed and order of calls give the same
        replies.

    Raises:
      ValueError: there is no such decoder, or a setting is out of its range.
    """

    def __init__(
        self, model: Trained, decoder: str = "beam", *, beams: int = beam.BEAMS, top_p: float = 0.9,
        temperature: float = 1.0, max_tokens: int | None = None, seed: int = 0
    ):
        if max_tokens is None:
            max_tokens = model.encoding.max_reply
        if decoder not in DECODERS:
            raise ValueError(f"expected a decoder of {', '.join(DECODERS)}, got {decoder!r}")
        if beams < 1 or max_tokens < 1:
            raise ValueError(f"expected beams and max_tokens of 1 or more, got {beams} and {max_tokens}")
        if not (0.0 < top_p <= 1.0 and temperature > 0.0):
            raise ValueError(
                "expected top_p above 0 and at most 1, and a temperature above 0, got "
                f"{top_p} and {temperature}"
            )
        self._model = model
        self._decoder = decoder
        self._max_tokens = max_tokens
        # Hypotheses cannot branch into more than all words.
        self._beams = min(beams, len(model.vocabulary))
        self._encoding = model.encoding
        self._nucleus = (np.float32(top_p), np.float32(temperature))
        self._seed = seed
        self._drawn = 0

    def reply(self, params: Params, history: Sequence[str]) -> str:
        """Returns the whole reply to a conversation.

        Args:
          params: initial or adapted parameters.
          history: raw utterances of both sides, oldest first, the last one by the other
            side; empty if the speaker opens. If it is longer than a context, its end is
            read, as in training.

        Returns:
          The reply as `detokenize` writes it; may be empty.
        """
        ids: list[int] = []
        for ids in self._growing(params, history):
            pass
        return self._encoding.shown(ids)

    def stream(self, params: Params, history: Sequence[str]) -> Iterator[str]:
        """Yields the same reply in pieces, each as soon as its word is decoded.

        The arguments are those of `reply`. Beam search decides on its reply at the end, so
        all its pieces come at once.

        Yields:
          Pieces that joined are what `reply` returns; spaces precede words.
        """
        shown = text = ""
        for ids in self._growing(params, history):
            text = self._encoding.shown(ids)
            # Whether a space follows an opening bracket is known with the next word, and a
            # character of several subwords with its last one.
            if text.startswith(shown) and len(text) > len(shown) and not text.endswith("\ufffd"):
                yield text[len(shown) :]
                shown = text
        if text.startswith(shown) and text != shown:  # a character that was never completed
            yield text[len(shown) :]

    def _growing(self, params, history):
        """Yields the ids of a reply so far, each time that it grows."""
        model, encoding = self._model, self._encoding
        context = _context(model, history)
        if self._decoder == "beam":
            found = _beam_search(
                params, context, encoding.start("response"), max_tokens=self._max_tokens,
                beams=self._beams, config=model.config.model, base=model.base,
                symbols=encoding.symbols,
            )  # fmt: skip
            best = np.asarray(found.ids)[0].tolist()
            yield from (best[:count] for count in range(1, len(best) + 1))
            return
        key = None
        if self._decoder == "nucleus":
            key = jax.random.fold_in(jax.random.key(self._seed), self._drawn)
            self._drawn += 1
        ids: list[int] = []
        for token in _grown(
            model, params, context, "response", self._max_tokens, key, *self._nucleus
        ):
            ids.append(token)
            yield ids


def believed_persona(
    model: Trained, params: Params, history_or_dialogue: Sequence[str] | Dialogue
) -> str:
    """Reconstructs the persona statements of the speaker from a conversation, greedily.

    Args:
      model: of a run that trained the persona task; `persona_caveat` says how far to trust
        the answer.
      params: initial or adapted parameters.
      history_or_dialogue: raw utterances of both sides, oldest first, as for
        `Responder.reply`; or a Dialogue, read up to its last reply.

    Returns:
      The persona statements one after the other, in lower case, joined as in training; may
      be empty.

    Raises:
      ValueError: the run did not train the persona task.
    """
    if not _reconstructs(model):
        raise ValueError(f"{model.workdir}: {persona_caveat(model)}")
    context = _context(model, history_or_dialogue, "persona")
    ids = _grown(model, params, context, "persona", MAX_PERSONA)
    return model.encoding.words(list(ids))


def persona_caveat(model: Trained) -> str:
    """Returns why a reconstructed persona of this run means little; empty if it can be trusted."""
    if not _reconstructs(model):
        config = model.config
        able = [name for name, s in STRATEGIES.items() if s.reconstructs(0.5)]
        alpha = f" at alpha {config.alpha:g}" if STRATEGIES[config.strategy].reads_alpha else ""
        return (
            f"a run of {config.strategy}{alpha} never learned to reconstruct personas; "
            f"--strategy={', '.join(able[:-1])} and {able[-1]} do"
        )
    if not model.config.init_from and not model.config.distinct_start:
        return (
            "both tasks begin with the same token, so this may be a reply instead of a persona; "
            "train with --distinct_start to separate them"
        )
    return ""


def _reconstructs(model: Trained) -> bool:
    return STRATEGIES[model.config.strategy].reconstructs(model.config.alpha)


def unknown_share(model: Trained, dialogues: Sequence[Dialogue]) -> float:
    """Returns the share of unknown words in all replies; 0 if they have no words.

    A pretrained decoder knows every word, by its parts.
    """
    if isinstance(model.vocabulary, Subwords):
        return 0.0
    ids = [i for d in dialogues for t in d.turns for i in model.vocabulary.encode(t.response)]
    return sum(i == UNK for i in ids) / max(len(ids), 1)


def _context(model: Trained, history_or_dialogue, task: str = "response") -> Tokens:
    """Lays a conversation out in one row, as a context of a task in training."""
    encoding = model.encoding
    if isinstance(encoding, RowEncoding):
        if isinstance(history_or_dialogue, Dialogue):
            turns = history_or_dialogue.turns
            said = [text for turn in turns for text in (turn.context, turn.response)]
            roles = itertools.cycle(("user", "assistant"))
        else:
            said = [text[-MAX_CHARACTERS:] for text in history_or_dialogue]
            roles = itertools.cycle(("user", "assistant") if len(said) % 2 else ("assistant", "user"))
        messages = [(role, text) for role, text in zip(roles, said) if text]
        return lay_out_contexts([encoding.prompt(messages, task)], encoding, 1)
    if isinstance(history_or_dialogue, Dialogue):
        dialogue = history_or_dialogue
    else:
        # A context of n words holds at most n utterances; long ones are cut before tokenizing.
        history = history_or_dialogue[-encoding.shape.context :]
        text = " ".join(tokenize(utterance[-MAX_CHARACTERS:]) for utterance in history)
        dialogue = Dialogue("", "", (), (Turn(text, ""),))
    examples, _ = encoding.encode(dialogue)
    return lay_out_contexts([examples[-1].context], encoding, 1)


def _grown(
    model: Trained, params, context: Tokens, task: str, max_tokens: int, key=None,
    top_p=np.float32(1.0), temperature=np.float32(1.0),
) -> Iterator[int]:  # fmt: skip
    """Yields the ids of a target of either task, each as soon as it is decoded."""
    config, encoding = model.config.model, model.encoding
    room = max(max_tokens, MAX_PERSONA)  # replies and personas share one compiled program
    growing = _begin(
        params, context, encoding.start(task), max_tokens=room, config=config, base=model.base
    )
    for _ in range(max_tokens):
        growing = _grow(
            params, growing, key, top_p=top_p, temperature=temperature, config=config,
            base=model.base, symbols=encoding.symbols
        )
        token = int(growing.token[0])
        if token == encoding.symbols.end:
            return
        yield token


_begin = jax.jit(decoding.begin_replies, static_argnames=("max_tokens", "config"))
_grow = jax.jit(decoding.grow_replies, static_argnames=("config", "symbols"))
_beam_search = jax.jit(
    beam.beam_search, static_argnames=("start", "max_tokens", "beams", "config", "symbols")
)
