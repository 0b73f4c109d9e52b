"""Splits a corpus by persona: no persona and no conversation is in two splits."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from mtml_jax.data.personas import group_personas
from mtml_jax.data.records import Dialogue

SPLITS = ("train", "valid", "test")  # a later one is held out from the earlier ones
_SHARE = 10  # one persona in ten for valid, one for test
_DRAWS = 16  # of which the one that keeps most personas usable is taken


def split_by_persona(
    dialogues: Iterable[Dialogue], seed: int
) -> tuple[dict[str, list[Dialogue]], list[str]]:
    """Draws which personas are train, valid and test, and gives each its dialogues.

    Where enough personas talk in small circles (connected components of who talks with
    whom), whole circles are drawn and nothing is lost. Otherwise personas are drawn, and
    a conversation that joins two splits stays in the more held-out one (test before
    valid before train), seen from the speaker of that split alone: what a held-out
    speaker says is never read in an earlier split. Of 16 draws the one is taken in which
    most personas keep the two conversations that an episode needs.

    A tenth of the personas, at least two, is valid and as many are test; with fewer than
    six personas one is valid and one is test, with three none is test.

    Args:
      dialogues: a whole corpus, as `group_personas` takes it.
      seed: of the draws; the same corpus and seed give the same split.

    Returns:
      (split -> dialogues in corpus order, sentences on what was done). Dialogues carry
      their persona's name as the speaker.

    Raises:
      ValueError: there are fewer than three personas, or `group_personas` refuses.
    """
    personas = group_personas(dialogues)
    if len(personas) < 3:
        raise ValueError(
            f"found {len(personas)} personas, want at least 3 to split by persona; add "
            "speakers, or give train.jsonl and valid.jsonl in a folder"
        )
    members = collections.defaultdict(list)  # conversation -> its personas, by number
    for number, persona in enumerate(personas):
        for conversation in persona.conversations:
            members[conversation].append(number)
    sizes = _held_out(len(personas))
    circles = _circles(len(personas), members.values())
    drawn = [_draw(circles, sizes, np.random.default_rng([seed, n])) for n in range(_DRAWS)]
    whole = [rank for rank in drawn if _filled(rank, sizes)]
    if not whole:
        alone = [[number] for number in range(len(personas))]
        whole = [_draw(alone, sizes, np.random.default_rng([seed, n])) for n in range(_DRAWS)]
    rank = max(whole, key=lambda rank: _usable(rank, members.values()))  # the first of equals

    of_conversation = {c: max(rank[p] for p in people) for c, people in members.items()}
    split: dict[str, list[Dialogue]] = {name: [] for name in SPLITS}
    dropped = 0
    for number, persona in enumerate(personas):
        for dialogue in persona.dialogues:
            if rank[number] == of_conversation[dialogue.conversation]:
                split[SPLITS[rank[number]]].append(
                    dataclasses.replace(dialogue, speaker=persona.name)
                )
            else:
                dropped += 1
    crossing = sum(len({rank[p] for p in people}) > 1 for people in members.values())
    counts = ", ".join(
        f"{name} {rank.count(i):,} personas and {len(split[name]):,} dialogues"
        for i, name in enumerate(SPLITS)
    )
    return split, [
        f"split by persona with seed {seed}: {counts}",
        f"{crossing:,} of {len(members):,} conversations join two splits; each stays in the "
        f"more held-out one, and {dropped:,} dialogues, their other sides, are left out",
    ]


def _held_out(personas: int) -> tuple[int, int]:
    """How many personas are valid and how many test."""
    if personas < 6:
        return 1, int(personas > 3)
    share = max(2, personas // _SHARE)
    return share, share


def _circles(personas: int, conversations: Iterable[Sequence[int]]) -> list[list[int]]:
    """Personas by who talks with whom, directly or through others."""
    parent = list(range(personas))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for people in conversations:
        for other in people[1:]:
            a, b = root(people[0]), root(other)
            parent[max(a, b)] = min(a, b)
    circles = collections.defaultdict(list)
    for i in range(personas):
        circles[root(i)].append(i)
    return list(circles.values())


def _draw(groups: Sequence[Sequence[int]], sizes: tuple[int, int], rng) -> list[int]:
    """The split of each persona as its place in `SPLITS`; a group is in one split."""
    room = {2: sizes[1], 1: sizes[0]}
    rank = [0] * sum(map(len, groups))
    for index in rng.permutation(len(groups)):
        group = groups[index]
        for split in room:
            if len(group) <= room[split]:
                room[split] -= len(group)
                for persona in group:
                    rank[persona] = split
                break
    return rank


def _filled(rank: Sequence[int], sizes: tuple[int, int]) -> bool:
    """Whether valid and test have at least half of the personas they should have."""
    return all(2 * rank.count(i + 1) >= size for i, size in enumerate(sizes))


def _usable(rank: Sequence[int], conversations: Iterable[Sequence[int]]) -> tuple[bool, int]:
    """Whether train and valid have a usable persona, and how many are usable."""
    kept: collections.Counter[int] = collections.Counter()
    for people in conversations:
        held_out = max(rank[p] for p in people)
        kept.update(p for p in people if rank[p] == held_out)
    usable = collections.Counter(rank[p] for p, count in kept.items() if count >= 2)
    return usable[0] > 0 and usable[1] > 0, usable.total()
