"""Turn dialogues into the trunks and branches that a pretrained decoder reads.

The speaker is the template's assistant and the other side its user. The trunk is the
conversation, whose replies are predicted. Branches ask for the persona in words and predict the
statements. Corpora have blank-separated tokens, which are written as a person would.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mtml_jax.config_decoder import RowShape
from mtml_jax.data.records import Dialogue
from mtml_jax.data.rows import Strand
from mtml_jax.data.subwords import Subwords
from mtml_jax.data.text import detokenize, tokenize
from mtml_jax.data.vocab import Symbols
from mtml_jax.strategies import TASKS

QUESTION = "Describe yourself in a few short sentences."  # asks for the persona


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a dialogue that fits into a row.

    Attributes:
      trunk: the conversation; the replies are its predicted tokens.
      branches: questions for the persona, whose answers are predicted.
      replies: the index of the first token of each predicted reply.
    """

    trunk: Strand
    branches: tuple[Strand, ...]
    replies: tuple[int, ...]

    @property
    def turns(self) -> int:
        """The number of predicted replies."""
        return len(self.replies)

    def contexts(self) -> list[tuple[int, ...]]:
        """What each predicted reply follows, the opening of its own message included."""
        return [self.trunk.ids[:reply] for reply in self.replies]

    def spoken(self) -> list[tuple[int, ...]]:
        """The predicted replies; what follows the end of a message is cut when it is decoded."""
        ends = (*self.replies[1:], len(self.trunk.ids))
        return [self.trunk.ids[begin:end] for begin, end in zip(self.replies, ends)]

    def after(self, ids: Sequence[int]) -> "Window":
        """The same window, without branches, behind other tokens that are read first."""
        shift = len(ids)
        predicted = tuple(shift + index for index in self.trunk.predicted)
        trunk = Strand((*ids, *self.trunk.ids), predicted)
        return Window(trunk, (), tuple(shift + index for index in self.replies))

    def strands(self, tasks: Sequence[str]) -> list[Strand]:
        """The trunk and the branches, with the predicted tokens of these tasks alone."""
        trunk = self.trunk if "response" in tasks else dataclasses.replace(self.trunk, predicted=())
        return [trunk, *(self.branches if "persona" in tasks else ())]


@dataclasses.dataclass(frozen=True)
class RowEncoding:
    """How dialogues become windows of subword tokens.

    Attributes:
      subwords: the decoder's tokenizer.
      shape: the tokens that a window may have, and where branches leave.
      persona_in_context: whether statements stand in a system message at the beginning (std_p).
      tasks: the sets of tasks that will be packed together; without the persona task there are no
        branches.
      whole: whether every reply of a dialogue is predicted, in several windows if it is long;
        otherwise the first window is the only one.
    """

    subwords: Subwords
    shape: RowShape
    persona_in_context: bool = False
    tasks: tuple[tuple[str, ...], ...] = (TASKS,)
    whole: bool = False

    def encode(self, dialogue: Dialogue) -> tuple[tuple[Window, ...], collections.Counter]:
        """Turns one dialogue into windows.

        Of a message that is too long for a row, the end is kept of the other side's and the
        beginning of the speaker's.

        Returns:
          (windows; how many "contexts", "responses" and "personas" were cut or left out, and as
          "examples" the number of replies that are predicted).
        """
        counts: collections.Counter = collections.Counter()
        subwords, most = self.subwords, self.shape.tokens
        statements = subwords.encode(statements_text(dialogue.statements))
        counts["personas"] = int(len(statements) > most // 3)
        statements = statements[: most // 3]

        # What stands before the turns, and what may stand after them.
        head = [*subwords.begin]
        if self.persona_in_context and statements:
            head += [*subwords.opening("system"), *statements, *subwords.closing]
        branch: tuple[int, ...] = ()
        if statements and any("persona" in tasks for tasks in self.tasks):
            branch = (*self.question(), *statements, subwords.end)
        every = self.shape.persona_after == "every"
        room = most - len(head) - (0 if every else len(branch))

        # Cut turns that are too long, and lay the others into windows.
        turns = []
        for turn in dialogue.turns:
            context, response = (
                subwords.encode(text)
                for text in turn.written or (detokenize(turn.context), detokenize(turn.response))
            )
            context, response, cut = self._cut(context, response, room - every * len(branch))
            counts.update(cut)
            lead = (*subwords.opening("user"), *context, *subwords.closing) if context else ()
            turns.append((
                (*lead, *subwords.opening("assistant")), (*response, *subwords.closing)
            ))  # fmt: skip
        sizes = [len(lead) + len(reply) + every * len(branch) for lead, reply in turns]
        windows = []
        for begin, first, end in _stretches(sizes, room):
            windows.append(self._window(head, turns[begin:end], first - begin, branch))
            counts["examples"] += end - first
            if not self.whole:
                break
        counts["responses"] += len(turns) - counts["examples"]
        return tuple(windows), counts

    def by_turns_seen(self, dialogue: Dialogue) -> tuple[Window, ...]:
        """What the persona task reads after each turn: all utterances, the reply included."""
        shape = dataclasses.replace(self.shape, persona_after="last")
        asked = dataclasses.replace(self, shape=shape, tasks=(("persona",),), whole=True)
        return tuple(
            asked.encode(dataclasses.replace(dialogue, turns=tuple(dialogue.turns)[:seen]))[0][-1]
            for seen in range(1, len(dialogue.turns) + 1)
        )

    def asked(self, example: Window) -> tuple[int, ...]:
        """The context after which the persona of an example is decoded."""
        return (*example.trunk.ids, *self.question())

    def elsewhere(self, example: Window, other: Window) -> Window:
        """The same persona after another dialogue, of which the end that has room is read."""
        (branch,) = example.branches
        heard = other.trunk.ids[-(self.shape.tokens - len(branch.ids)) :]
        return Window(Strand(heard), (dataclasses.replace(branch, fork=len(heard)),), ())

    def as_read(self, statements: Iterable[str]) -> str:
        """A persona as the decoder writes it, in blank-separated tokens."""
        return tokenize(statements_text(statements))

    @property
    def max_persona(self) -> int:
        """Tokens that a decoded persona may have."""
        return self.shape.tokens // 3

    def cut(self, counts: Mapping[str, int]) -> str:
        """Says what the counts of `encode` mean."""
        return (
            f"cut to {self.shape.tokens} tokens a row {counts['contexts']:,} contexts (the end "
            f"kept), {counts['personas']:,} personas; left out {counts['responses']:,} replies "
            "beyond the row"
        )

    def start(self, task: str) -> int:
        """The token from which a target of either task is decoded."""
        del task  # the context asks for it
        return self.subwords.opening("assistant")[-1]

    @property
    def symbols(self) -> Symbols:
        """The tokens that decoding treats in a way of their own."""
        controls = tuple(i for i in self.subwords.controls if i != self.subwords.end)
        return Symbols(self.subwords.end, self.subwords.end, controls)

    examples_a_batch = 1  # a step on each dialogue at test time, as the inner step takes one
    epochs = (1, 3)  # after which a test scores
    enough_epochs = 3  # for a speaker
    max_reply = 40  # tokens that a decoded reply may have, the end included

    def words(self, ids: Iterable[int]) -> str:
        """What decoded ids say, as blank-separated tokens."""
        return tokenize(self.subwords.decode(ids))

    def heard(self, context: Iterable[int]) -> str:
        """What a context says, with the names of the roles, as blank-separated tokens."""
        return tokenize(self.subwords.tokenizer.decode(list(context), skip_special_tokens=True))

    def shown(self, ids: Iterable[int]) -> str:
        """What decoded ids say, as the decoder writes it."""
        return self.subwords.decode(ids).strip()

    def prompt(self, messages: Sequence[tuple[str, str]], task: str) -> tuple[int, ...]:
        """The ids after which a reply or a persona is decoded.

        Args:
          messages: (role, text), oldest first; of messages without room the latest are read.
          task: "response", or "persona", which is asked for after the last message of the
            assistant.
        """
        messages = list(messages)
        tail = self.subwords.opening("assistant")
        if task == "persona":
            tail = self.question()
            while messages[-1:] and messages[-1][0] == "user" and "assistant" in dict(messages):
                messages.pop()
        room = self.shape.tokens - len(tail) - len(self.subwords.begin)
        parts: list[tuple[int, ...]] = []
        for role, text in reversed(messages):
            parts.append(self.subwords.message(role, detokenize(text)))
            if sum(map(len, parts)) > room:
                parts.pop()
                break
        if messages and not parts:  # the last message alone is too long
            role, text = messages[-1]
            around = len(self.subwords.message(role, ""))
            ids = self.subwords.encode(detokenize(text))[around - room :]
            parts = [(*self.subwords.opening(role), *ids, *self.subwords.closing)]
        read = [i for part in reversed(parts) for i in part]
        return (*self.subwords.begin, *read, *tail)

    def question(self) -> tuple[int, ...]:
        """The ids that ask for the persona, up to the beginning of the answer."""
        return (*self.subwords.message("user", QUESTION), *self.subwords.opening("assistant"))

    def _cut(self, context, response, room):
        """Shortens the two messages of a turn to what a row has room for."""
        around = self.subwords.message("user", ""), self.subwords.opening("assistant")
        space = max(room - sum(map(len, around)) - len(self.subwords.closing), 2)
        if len(context) + len(response) <= space:
            return context, response, {}
        spoken = response[: max(space - len(context), space // 2)]
        heard = context[-(space - len(spoken)) :] if space > len(spoken) else []
        cut = {"contexts": len(heard) < len(context), "responses": len(spoken) < len(response)}
        return heard, spoken, cut

    def _window(self, head, turns, known, branch) -> Window:
        """The window of these turns; the first `known` of them are read and not predicted."""
        ids, replies, forks = list(head), [], []
        predicted: list[int] = []
        for number, (lead, reply) in enumerate(turns):
            ids += lead
            if number >= known:
                replies.append(len(ids))
                # The token that ends the message is predicted, too.
                predicted += range(len(ids), len(ids) + len(reply) - len(self.subwords.closing) + 1)
            ids += reply
            forks.append(len(ids))
        answer = tuple(range(len(self.question()), len(branch)))
        asked = forks if self.shape.persona_after == "every" else forks[-1:]
        branches = (Strand(branch, answer, TASKS.index("persona"), fork) for fork in asked)
        trunk = Strand(tuple(ids), tuple(predicted))
        return Window(trunk, tuple(branches) if branch else (), tuple(replies))


def _stretches(sizes: Sequence[int], room: int) -> Iterator[tuple[int, int, int]]:
    """Parts turns into stretches that have room: (first read, first predicted, end).

    Each turn is predicted once. What a stretch reads of the turns before takes up to half of it.
    """
    first = 0
    while first < len(sizes):
        begin, end, used = first, first + 1, sizes[first]
        while begin and used + sizes[begin - 1] <= room // 2:
            begin -= 1
            used += sizes[begin]
        while end < len(sizes) and used + sizes[end] <= room:
            used += sizes[end]
            end += 1
        yield begin, first, end
        first = end


def statements_text(statements: Iterable[str]) -> str:
    """Joins persona statements, sorted, into one text with the punctuation of sentences."""
    return " ".join(_sentence(statement) for statement in sorted(statements))


def _sentence(statement):
    text = detokenize(statement)
    return text if text[-1:] in ".!?" else f"{text}."
