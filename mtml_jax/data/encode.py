"""Turn dialogues into ids: one example per turn."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtml_jax.config import TileShape
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.text import detokenize, persona_text
from mtml_jax.data.vocab import END, SILENCE, START, START_PERSONA, WORDS, Vocabulary
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

    turns = 1  # of the dialogue

    def contexts(self) -> list[tuple[int, ...]]:
        """What the reply follows."""
        return [self.context]

    def spoken(self) -> list[tuple[int, ...]]:
        """The reply."""
        return [self.response]


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedDialogue:
    """A dialogue's conversation id and its turns as ids, which are encoded on access."""

    conversation: str
    examples: Sequence[Any]  # of `Example`, or of `strands.Window`

    @property
    def turns(self) -> int:
        """The number of replies."""
        return sum(example.turns for example in self.examples)

    @property
    def contexts(self) -> list[tuple[int, ...]]:
        """What each reply follows."""
        return [context for example in self.examples for context in example.contexts()]


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
      distinct_start: whether the persona task has a start token of its own.
    """

    vocabulary: Vocabulary
    shape: TileShape
    persona_in_context: bool = False
    tasks: tuple[tuple[str, ...], ...] = (TASKS,)
    persona_context: str = "both"
    distinct_start: bool = False

    def encode(self, dialogue: Dialogue) -> tuple[tuple[Example, ...], collections.Counter]:
        """Turns one dialogue into examples; see `encode_dialogue`."""
        return encode_dialogue(dialogue, self)

    def by_turns_seen(self, dialogue: Dialogue) -> tuple[Example, ...]:
        """What the persona task reads at each turn: all utterances before the reply."""
        return self.encode(dialogue)[0]

    def asked(self, example: Example) -> tuple[int, ...]:
        """The context after which the persona of an example is decoded."""
        return example.context

    def elsewhere(self, example: Example, other: Example) -> Example:
        """The same persona after another context; the response is left out."""
        return Example(other.context, (), example.persona)

    def as_read(self, statements: Iterable[str]) -> str:
        """A persona with the words that the model knows."""
        return self.vocabulary.decode(self.vocabulary.encode(persona_text(statements)))

    @property
    def max_persona(self) -> int:
        """Tokens that a decoded persona may have: as many as the training task has room for."""
        return self.shape.persona

    def cut(self, counts: Mapping[str, int]) -> str:
        """Says what the counts of `encode` mean."""
        return (
            f"cut to their slots {counts['contexts']:,} contexts (the end kept), "
            f"{counts['responses']:,} responses, {counts['personas']:,} personas"
        )

    def start(self, task: str) -> int:
        """The token from which a target of a task is decoded."""
        return START_PERSONA if task == "persona" and self.distinct_start else START

    # Test-time fine-tuning, as the paper's predecessor does.
    examples_a_batch = 16
    epochs = (1, 3, 5, 7, 10)  # after which a test scores
    enough_epochs = 5  # for a speaker: PPL of valid dialogues is lowest there (docs/evaluation.md)
    symbols = WORDS  # of decoding
    max_reply = 20  # tokens that a decoded reply may have, the end included

    def words(self, ids: Iterable[int]) -> str:
        """What decoded ids say, as blank-separated tokens."""
        return self.vocabulary.decode(ids)

    def heard(self, context: Iterable[int]) -> str:
        """What a context says, as blank-separated tokens."""
        return self.words(context)

    def shown(self, ids: Iterable[int]) -> str:
        """What decoded ids say, as a person would write it."""
        return detokenize(self.words(ids))


class LazyExamples(Sequence):
    """The examples of a dialogue, encoded on access: ids take more memory than stored text.

    The encoding is an `Encoding`, or a `strands.RowEncoding`.
    """

    __slots__ = ("_dialogue", "_encoding")

    def __init__(self, dialogue: Dialogue, encoding: Any):
        self._dialogue, self._encoding = dialogue, encoding

    def _encoded(self) -> tuple[Any, ...]:
        return self._encoding.encode(self._dialogue)[0]

    def __len__(self):
        return len(self._encoded())

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
    turns = tuple(
        Turn("", turn.response, turn.written and ("", turn.written[1])) for turn in dialogue.turns
    )
    return dataclasses.replace(dialogue, turns=turns)
