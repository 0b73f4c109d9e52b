"""Groups dialogues by the persona that speaks in them."""

import itertools
from collections.abc import Iterable, Sequence

from mtml_jax.data.records import Dialogue, Persona
from mtml_jax.strategies import STRATEGIES


def group_personas(dialogues: Iterable[Dialogue]) -> list[Persona]:
    """Collects the dialogues of each persona.

    Dialogues with speaker ids are grouped by speaker. Without them, two dialogues
    belong together if their statement sets are equal or share at least two
    statements, and personas are the connected components of that relation.

    Args:
      dialogues: dialogues of one split, all with speaker ids or all without.

    Returns:
      Personas and their dialogues in order of first appearance, named after the
      speaker or numbered from "persona-0001".

    Raises:
      ValueError: only some dialogues have a speaker, or one has neither a speaker
        nor statements.
    """
    dialogues = tuple(dialogues)
    without = [d for d in dialogues if not d.speaker]
    if without and len(without) < len(dialogues):
        raise ValueError(
            f"found {len(without)} of {len(dialogues)} dialogues without a speaker, "
            f"conversation {without[0].conversation!r} first, "
            "want a speaker in every dialogue or in none"
        )
    if not without:
        return _collect(dialogues, [d.speaker for d in dialogues])
    for dialogue in dialogues:
        if not dialogue.statements:
            raise ValueError(
                f"found neither a speaker nor persona statements in conversation "
                f"{dialogue.conversation!r}, want one of them to tell whose dialogue it is"
            )
    roots = _components([frozenset(d.statements) for d in dialogues])
    numbers = {root: i for i, root in enumerate(dict.fromkeys(roots), start=1)}
    return _collect(dialogues, [f"persona-{numbers[root]:04d}" for root in roots])


def require_conversations(
    personas: Iterable[Persona], minimum: int = 2
) -> tuple[list[Persona], list[Persona]]:
    """Parts personas with enough distinct conversations from those with fewer.

    Args:
      personas: personas of one split.
      minimum: conversations a persona needs; the two sides of one count once.

    Returns:
      The usable personas and those left out, each in the order given.
    """
    usable: list[Persona] = []
    left_out: list[Persona] = []
    for persona in personas:
        (usable if len(persona.conversations) >= minimum else left_out).append(persona)
    return usable, left_out


def require_statements(personas: Iterable[Persona], strategy: str) -> None:
    """Checks that every dialogue has the persona statements a strategy trains on.

    Args:
      personas: personas to train on.
      strategy: a name of `strategies.STRATEGIES`.

    Raises:
      ValueError: the strategy uses statements and a dialogue has none; the message
        names the speaker.
    """
    if not STRATEGIES[strategy].needs_statements:
        return
    for persona in personas:
        for dialogue in persona.dialogues:
            if not dialogue.statements:
                raise ValueError(
                    f"found no persona statements for speaker {persona.name!r} in conversation "
                    f"{dialogue.conversation!r}, which --strategy={strategy} wants in every "
                    "dialogue: train with --strategy=paml or add statements"
                )


def _collect(dialogues: Sequence[Dialogue], names: Sequence[str]) -> list[Persona]:
    members: dict[str, list[Dialogue]] = {}
    for name, dialogue in zip(names, dialogues, strict=True):
        members.setdefault(name, []).append(dialogue)
    return [Persona(name=name, dialogues=tuple(group)) for name, group in members.items()]


def _components(statement_sets: Sequence[frozenset[str]]) -> list[int]:
    """The index of the first member of each set's component, by union-find."""
    parent = list(range(len(statement_sets)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    # Sets that share two statements share a pair, so an index by pairs finds them
    # without comparing all sets with all. Equal sets share their pairs as well, save
    # for a single statement, which is its own key.
    first_with: dict[tuple[str, ...], int] = {}
    for i, statements in enumerate(statement_sets):
        ordered = sorted(statements)
        keys = itertools.combinations(ordered, 2) if len(ordered) > 1 else [tuple(ordered)]
        for key in keys:
            a, b = root(i), root(first_with.setdefault(key, i))
            parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(statement_sets))]
