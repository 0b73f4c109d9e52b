"""Groups dialogues by persona, and checks that personas suffice for a strategy."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mtml_jax.data.records import Dialogue, Persona
from mtml_jax.strategies import STRATEGIES


def group_personas(dialogues: Iterable[Dialogue]) -> list[Persona]:
    """Collects the dialogues of each persona.

    Dialogues with speaker ids are grouped by speaker. Without speaker ids, two dialogues
    are linked if their statement sets are equal or share at least two statements, and
    personas are the connected components of these links.

    Args:
      dialogues: dialogues of one split, either all with speaker ids or all without.

    Returns:
      Personas and their dialogues in order of first appearance, named after the
      speaker or numbered from "persona-0001".

    Raises:
      ValueError: only some dialogues have a speaker, or a dialogue has neither a
        speaker nor statements.
    """
    dialogues = tuple(dialogues)
    without = [d for d in dialogues if not d.speaker]
    if without and len(without) < len(dialogues):
        raise ValueError(
            "expected a speaker in every dialogue or in none, got "
            f"{len(without)} of {len(dialogues)} dialogues without a speaker, "
            f"conversation {without[0].conversation!r} first"
        )
    if not without:
        return _collect(dialogues, [d.speaker for d in dialogues])
    for dialogue in dialogues:
        if not dialogue.statements:
            raise ValueError(
                "expected a speaker or persona statements in every dialogue, got neither in "
                f"conversation {dialogue.conversation!r}; add one of them"
            )
    numbers = components(len(dialogues), _links(d.statements for d in dialogues))
    return _collect(dialogues, [f"persona-{number + 1:04d}" for number in numbers])


def components(nodes: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Returns the connected component of each node, numbered by first appearance from 0."""
    pairs = np.fromiter(itertools.chain.from_iterable(links), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(nodes, nodes))
    labels = connected_components(graph, directed=False)[1].tolist()
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return [numbers[label] for label in labels]


def require_conversations(
    personas: Iterable[Persona], minimum: int = 2
) -> tuple[list[Persona], list[Persona]]:
    """Separates personas with `minimum` distinct conversations from those with fewer.

    Returns:
      (usable personas, the other personas), each in the original order.
    """
    usable: list[Persona] = []
    left_out: list[Persona] = []
    for persona in personas:
        (usable if len(persona.conversations) >= minimum else left_out).append(persona)
    return usable, left_out


def require_statements(personas: Iterable[Persona], strategy: str) -> None:
    """Checks that every dialogue has the persona statements that a strategy trains on.

    Raises:
      ValueError: the strategy needs statements and a dialogue has none; the message
        names the speaker.
    """
    if not STRATEGIES[strategy].needs_statements:
        return
    for persona in personas:
        for dialogue in persona.dialogues:
            if not dialogue.statements:
                raise ValueError(
                    "expected persona statements in every dialogue for "
                    f"--strategy={strategy}, got none for speaker {persona.name!r} in conversation "
                    f"{dialogue.conversation!r}; train with --strategy=paml or add statements"
                )


def _collect(dialogues: Sequence[Dialogue], names: Sequence[str]) -> list[Persona]:
    members: dict[str, list[Dialogue]] = {}
    for name, dialogue in zip(names, dialogues, strict=True):
        members.setdefault(name, []).append(dialogue)
    return [Persona(name=name, dialogues=tuple(group)) for name, group in members.items()]


def _links(statement_sets: Iterable[Iterable[str]]) -> Iterator[tuple[int, int]]:
    """Links each statement set to the first one with which it shares a pair of statements.

    Equal sets share all their pairs, except that a single statement is its own key. The
    index by pairs avoids comparing every set with every other.
    """
    first_with: dict[tuple[str, ...], int] = {}
    for number, statements in enumerate(statement_sets):
        ordered = sorted(set(statements))
        keys = itertools.combinations(ordered, 2) if len(ordered) > 1 else [tuple(ordered)]
        for key in keys:
            yield first_with.setdefault(key, number), number
