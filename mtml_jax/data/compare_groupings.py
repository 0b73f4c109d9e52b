"""Compares groupings of dialogues into personas."""

import collections
import json
import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from mtml_jax.data.personas import group_personas
from mtml_jax.data.records import Dialogue
from mtml_jax.data.text import persona_text

_FORM = "{label: [[statement, ...], ...]}"


def read_clusters(path: str | os.PathLike) -> dict[str, list[list[str]]]:
    """Reads a grouping of statement sets from a JSON file {label: [[statement, ...], ...]}.

    Raises:
      ValueError: the file does not have this form; the message names it.
    """
    try:
        clusters = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected {_FORM}, got no JSON ({error})") from None
    valid = isinstance(clusters, dict) and all(
        isinstance(sets, list)
        and all(isinstance(s, list) and all(isinstance(t, str) for t in s) for s in sets)
        for sets in clusters.values()
    )
    if not valid:
        raise ValueError(f"{path}: expected {_FORM}, got JSON of another form")
    return clusters


def adjusted_rand_index(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Measures the agreement of two groupings: 1 if they are equal, about 0 by chance.

    (together - expected) / ((pairs of one + pairs of the other) / 2 - expected), where
    `together` counts the pairs of items that are together in both (Hubert and Arabie 1985).

    `first` and `second` are the labels of the same items in the same order.

    Raises:
      ValueError: the lengths differ or are less than two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            "expected the same number of labels in both groupings, two or more, "
            f"got {len(first)} and {len(second)}"
        )
    together, one, other = (
        sum(math.comb(count, 2) for count in collections.Counter(labels).values())
        for labels in (zip(first, second), first, second)
    )
    expected = one * other / math.comb(len(first), 2)
    largest = (one + other) / 2
    # If both join all items, or separate all items, they cannot disagree.
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def compare_groupings(
    dialogues: Sequence[Dialogue], clusters: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, float | int | None]:
    """Compares the personas of dialogues with another grouping of the same statement sets.

    Args:
      dialogues: the dialogues of one split.
      clusters: label -> statement sets; full stops and spacing do not matter.

    Returns:
      "sets": number of statement sets of the dialogues; "shared": number of these sets
      that the other grouping contains; "personas" and "clusters": number of groups of the
      shared sets here and there; "adjusted_rand_index" over the shared sets, None if there
      are fewer than two.
    """
    theirs: dict[tuple[str, ...], str] = {}
    for label, sets in clusters.items():
        for statements in sets:
            theirs.setdefault(_set_key(statements), label)
    ours: dict[tuple[str, ...], str] = {}
    for persona in group_personas(dialogues):
        for dialogue in persona.dialogues:
            if dialogue.statements:
                ours.setdefault(_set_key(dialogue.statements), persona.name)
    shared = [key for key in ours if key in theirs]
    one, other = [ours[key] for key in shared], [theirs[key] for key in shared]
    return {
        "sets": len(ours),
        "shared": len(shared),
        "personas": len(set(one)),
        "clusters": len(set(other)),
        "adjusted_rand_index": adjusted_rand_index(one, other) if len(shared) > 1 else None,
    }


def _set_key(statements: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({persona_text([statement.lower()]) for statement in statements}))
