"""Splits a corpus by persona, so that no persona and no conversation is in two splits."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from mtml_jax.data.personas import components, group_personas
from mtml_jax.data.records import Dialogue

SPLITS = ("train", "valid", "test")  # each is held out from the earlier ones
_SHARE = 10  # one persona in ten is valid, and one in ten is test
_DRAWS = 16  # the draw that keeps most personas usable is chosen


def split_by_persona(
    dialogues: Iterable[Dialogue], seed: int
) -> tuple[dict[str, list[Dialogue]], list[str]]:
    """Assigns personas to train, valid and test at random, with their dialogues.

    If enough personas form small circles (connected components of the graph of who talks
    with whom), whole circles are assigned and no dialogue is lost. Otherwise single
    personas are assigned, and a conversation between two splits stays in the later one
    (test, then valid, then train), seen only from the speaker of that split: no earlier
    split contains what a held-out speaker says. Of 16 random draws, the one is chosen in
    which most personas keep the two conversations that an episode needs.

    A tenth of the personas, at least two, are valid, and as many are test. With fewer than
    six personas one is valid and one is test; with three none is test.

    Args:
      dialogues: a whole corpus, as for `group_personas`.
      seed: random seed of the draws; the same corpus and seed give the same split.

    Returns:
      (split -> dialogues in corpus order, sentences that describe the split). The speaker
      of each dialogue is its persona's name.

    Raises:
      ValueError: there are fewer than three personas, or `group_personas` raises.
    """
    personas = group_personas(dialogues)
    if len(personas) < 3:
        raise ValueError(
            f"expected at least 3 personas to split by persona, got {len(personas)}; add "
            "speakers, or give a folder with train.jsonl and valid.jsonl"
        )
    # Draw splits by whole circles, or by single personas if circles are too large.
    members = collections.defaultdict(list)  # conversation -> numbers of its personas
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
    rank = max(whole, key=lambda rank: _usable(rank, members.values()))  # the first on a tie

    # Keep a dialogue if its persona is in the latest split of its conversation.
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

    # Describe the result.
    crossing = sum(len({rank[p] for p in people}) > 1 for people in members.values())
    counts = ", ".join(
        f"{name} {rank.count(i):,} personas and {len(split[name]):,} dialogues"
        for i, name in enumerate(SPLITS)
    )
    return split, [
        f"split by persona with seed {seed}: {counts}",
        f"{crossing:,} of {len(members):,} conversations join two splits; each stays in the "
        f"later split, and {dropped:,} dialogues, their other sides, are left out",
    ]


def _held_out(personas: int) -> tuple[int, int]:
    """Returns the numbers of valid and of test personas."""
    if personas < 6:
        return 1, int(personas > 3)
    share = max(2, personas // _SHARE)
    return share, share


def _circles(personas: int, conversations: Iterable[Sequence[int]]) -> list[list[int]]:
    """Groups personas that talk with each other, directly or through others."""
    links = ((people[0], other) for people in conversations for other in people[1:])
    circles = collections.defaultdict(list)
    for persona, circle in enumerate(components(personas, links)):
        circles[circle].append(persona)
    return list(circles.values())


def _draw(groups: Sequence[Sequence[int]], sizes: tuple[int, int], rng) -> list[int]:
    """Returns the split of each persona as an index into `SPLITS`; groups stay together."""
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
    """Whether valid and test have at least half of their intended number of personas."""
    return all(2 * rank.count(i + 1) >= size for i, size in enumerate(sizes))


def _usable(rank: Sequence[int], conversations: Iterable[Sequence[int]]) -> tuple[bool, int]:
    """Returns whether train and valid have a usable persona, and the number of usable ones."""
    kept: collections.Counter[int] = collections.Counter()
    for people in conversations:
        held_out = max(rank[p] for p in people)
        kept.update(p for p in people if rank[p] == held_out)
    usable = collections.Counter(rank[p] for p, count in kept.items() if count >= 2)
    return usable[0] > 0 and usable[1] > 0, usable.total()
