"""Turn dialogues into ids: one example per turn."""

import collections
import dataclasses
from collections.abc import Sequence

from mtml_jax.config import TileShape
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.text import persona_text
from mtml_jax.data.vocab import END, SILENCE, Vocabulary
from mtml_jax.strategies import TASKS


@dataclasses.dataclass(frozen=True)
class Example:
    """One turn as ids.

    Attributes:
      context: the utterances so far of both speakers, oldest first.
      response: the reply, end-of-sequence last; empty if only the persona is a target.
      persona: all statements of the dialogue, end-of-sequence last; empty if there are
        none or only the response is a target.
    """

    context: tuple[int, ...]
    response: tuple[int, ...]
    persona: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedDialogue:
    """A dialogue's conversation id and its turns as ids, which are encoded on access."""

    conversation: str
    examples: Sequence[Example]


@dataclasses.dataclass(frozen=True)
class EncodedPersona:
    """A persona's name and its dialogues as ids."""

    name: str
    dialogues: tuple[EncodedDialogue, ...]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How dialogues become ids.

    Attributes:
      vocabulary: words and ids.
      shape: the tile that an example has to fit into.
      persona_in_context: whether statements stand in front of the context (std_p).
      tasks: the sets of tasks whose targets will be packed together.
      persona_context: whose utterances the persona task reads: those of "both" speakers, or
        those of its "own" speaker only (proposed in section 3.5.2). With "own" every turn
        becomes two examples, one for each task.
    """

    vocabulary: Vocabulary
    shape: TileShape
    persona_in_context: bool = False
    tasks: tuple[tuple[str, ...], ...] = (TASKS,)
    persona_context: str = "both"


class LazyExamples(Sequence):
    """The examples of a dialogue, encoded on access: ids take more memory than stored text."""

    __slots__ = ("_dialogue", "_encoding")

    def __init__(self, dialogue: Dialogue, encoding: Encoding):
        self._dialogue, self._encoding = dialogue, encoding

    def _encoded(self) -> tuple[Example, ...]:
        return encode_dialogue(self._dialogue, self._encoding)[0]

    def __len__(self):
        return len(self._dialogue.turns) * (2 if self._encoding.persona_context == "own" else 1)

    def __getitem__(self, index):
        return self._encoded()[index]

    def __iter__(self):
        return iter(self._encoded())


def encode_dialogue(
    dialogue: Dialogue, encoding: Encoding
) -> tuple[tuple[Example, ...], collections.Counter]:
    """Turns one dialogue into examples.

    Returns:
      (examples, how many "contexts", "responses" and "personas" were truncated to fit, and
      the number of "examples").
    """
    if encoding.persona_context == "own":
        both = dataclasses.replace(encoding, persona_context="both")
        replies, counts = encode_dialogue(dialogue, both)
        personas, _ = encode_dialogue(own_side(dialogue), both)
        examples = [dataclasses.replace(example, persona=()) for example in replies]
        examples += [dataclasses.replace(example, response=()) for example in personas]
        return tuple(examples), counts
    vocabulary, shape = encoding.vocabulary, encoding.shape
    statements = vocabulary.encode(persona_text(dialogue.statements))
    persona = statements + [END] if statements else []
    prefix = statements if encoding.persona_in_context else []
    history: list[int] = []
    examples = []
    counts = collections.Counter()
    for turn in dialogue.turns:
        history += vocabulary.encode(turn.context)
        response = vocabulary.encode(turn.response)
        utterances = history or [SILENCE]
        room = max(shape.context - len(prefix), 1)
        context = (prefix + utterances[-room:])[-shape.context :]
        counts["examples"] += 1
        counts["contexts"] += len(context) < len(prefix) + len(utterances)
        counts["responses"] += len(response) + 1 > shape.response
        counts["personas"] += len(persona) > shape.persona
        target = tuple(response[: shape.response - 1] + [END])
        examples.append(Example(tuple(context), target, tuple(persona[: shape.persona])))
        history += response
    return tuple(examples), counts


def own_side(dialogue: Dialogue) -> Dialogue:
    """Returns the dialogue without the utterances of the other speaker."""
    return dataclasses.replace(dialogue, turns=tuple(Turn("", t.response) for t in dialogue.turns))
