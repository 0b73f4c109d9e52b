"""Tests splits by persona: nothing is in two splits, little is lost, the seed decides."""

import collections
import itertools
import random

import pytest

from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.splits import split_by_persona


def conversation(name, *speakers, statements=()):
    turns = (Turn("a", "b"),)
    return [Dialogue(name, speaker, statements, turns) for speaker in speakers]


def everyone_with_everyone(people, times=1):
    pairs = itertools.combinations([f"p{n}" for n in range(people)], 2)
    return [
        side
        for a, b in pairs
        for n in range(times)
        for side in conversation(f"{a}-{b}-{n}", a, b)
    ]


def circles(count, people, times=2):
    return [
        side
        for circle in range(count)
        for a, b in itertools.combinations(range(people), 2)
        for n in range(times)
        for side in conversation(f"{circle}-{a}-{b}-{n}", f"{circle}-{a}", f"{circle}-{b}")
    ]


def crossed(split):
    """Returns speakers and conversations that are in two splits."""
    speakers = [{d.speaker for d in dialogues} for dialogues in split.values()]
    ids = [{d.conversation for d in dialogues} for dialogues in split.values()]
    return [
        a & b for sets in (speakers, ids) for a, b in itertools.combinations(sets, 2) if a & b
    ]


def test_nothing_crosses_in_random_corpora():
    rng = random.Random(5)
    for seed in range(40):
        people = [f"p{n}" for n in range(rng.randint(3, 47))]
        dialogues = [
            side
            for n in range(rng.randint(1, 5) * len(people))
            for side in conversation(f"c{n}", *rng.sample(people, 2))
        ]
        split, _ = split_by_persona(dialogues, seed)
        assert not crossed(split)
        kept = [d for part in split.values() for d in part]
        assert {d.conversation for d in kept} == {d.conversation for d in dialogues}
        assert set(kept) <= set(dialogues)


def test_whole_circles_lose_nothing():
    dialogues = circles(count=23, people=2)
    split, notes = split_by_persona(dialogues, 0)
    assert {name: len(part) for name, part in split.items()} == {
        "train": 76, "valid": 8, "test": 8,
    }  # fmt: skip
    assert "0 of 46 conversations join two splits" in notes[1]


def test_a_circle_of_all_is_cut_and_held_out_speakers_are_never_heard_earlier():
    dialogues = everyone_with_everyone(people=31)
    split, notes = split_by_persona(dialogues, 0)
    ranks = {d.speaker: n for n, part in enumerate(split.values()) for d in part}
    assert collections.Counter(ranks.values()) == {0: 25, 1: 3, 2: 3}
    partners = {d.conversation: d.conversation.split("-")[:2] for d in dialogues}
    for n, part in enumerate(split.values()):
        for dialogue in part:
            assert max(ranks[speaker] for speaker in partners[dialogue.conversation]) == n
    lost = len(dialogues) - sum(map(len, split.values()))
    assert lost == 25 * 6 + 3 * 3
    assert f"{lost} of 465 conversations join" in notes[1]
    assert f"{lost} dialogues, their other sides, are left out" in notes[1]


def test_the_seed_decides():
    dialogues = everyone_with_everyone(people=31)
    parts = [split_by_persona(dialogues, seed)[0] for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


@pytest.mark.parametrize("seed", range(5))
def test_few_speakers_are_split_so_that_all_can_be_used(seed):
    three, _ = split_by_persona(everyone_with_everyone(people=3, times=2), seed)
    assert [len(part) for part in three.values()] == [4, 4, 0]
    pairs = itertools.product("bc", range(3))
    hub = [side for other, n in pairs for side in conversation(f"{other}{n}", "a", other)]
    split, _ = split_by_persona(hub, seed)
    assert "a" in {d.speaker for d in split["train"]}  # else nobody has anyone to talk with


def test_statements_define_personas_where_there_are_no_speakers():
    dialogues = [
        side
        for n in range(7)
        for m in range(2)
        for side in (
            *conversation(f"{n}{m}", "", statements=(f"a{n}", f"b{n}", "c")),
            *conversation(f"{n}{m}", "", statements=(f"a{n}", f"b{n}", "d")),
        )
    ]
    split, _ = split_by_persona(dialogues, 0)
    assert [len(part) for part in split.values()] == [12, 8, 8]
    statements = {d.speaker: d.statements[0] for part in split.values() for d in part}
    assert len(statements) == len(set(statements.values())) == 7


def test_two_personas_cannot_be_split():
    with pytest.raises(ValueError, match="expected at least 3 personas .*, got 2"):
        split_by_persona(conversation("c", "ann", "bo"), 0)
