"""Tests the grouping of dialogues, against brute force and on the real corpus."""

import random

import pytest

from mtml_jax.data.parlai import find_split, read_parlai
from mtml_jax.data.personas import group_personas, require_conversations, require_statements
from mtml_jax.data.records import Dialogue, Persona, Turn


def _dialogue(statements="", speaker="", conversation="c0"):
    """A dialogue whose statements are the letters of a word."""
    turns = (Turn(context="a", response="b"),)
    return Dialogue(conversation, speaker, tuple(statements), turns)


def _groups(words):
    """Indices of the words that form each persona."""
    dialogues = [_dialogue(word) for word in words]
    index = {id(d): i for i, d in enumerate(dialogues)}
    return [[index[id(d)] for d in p.dialogues] for p in group_personas(dialogues)]


@pytest.mark.parametrize(("words", "groups"), [
    ([], []),
    (["abc", "axy", "bcz"], [[0, 2], [1]]),  # one shared statement is not enough
    (["ab", "cd", "be", "abcd"], [[0, 1, 3], [2]]),  # a bridge between strangers
    (["pq", "abc", "cde", "qp", "bcd"], [[0, 3], [1, 2, 4]]),  # joined by a later one
    (["a", "b", "a", "ab"], [[0, 2], [1], [3]]),  # equal sets of one statement
    (["aa", "a", "aab", "ba"], [[0, 1], [2, 3]]),  # repeated statements count once
])
def test_components(words, groups):
    assert _groups(words) == groups


def _brute_force(words):
    """Merges pairs of groups until nothing changes."""
    def linked(a, b):
        return set(a) == set(b) or len(set(a) & set(b)) >= 2

    groups = [[i] for i in range(len(words))]
    changed = True
    while changed:
        changed = False
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                if any(linked(words[i], words[j]) for i in groups[a] for j in groups[b]):
                    groups[a] = sorted(groups[a] + groups.pop(b))
                    changed = True
                    break
            if changed:
                break
    return sorted(groups)


def test_components_equal_brute_force_on_random_sets():
    rng = random.Random(7)
    sizes = set()
    for _ in range(300):
        letters = "abcdefghijklmnopqrstuvw"[: rng.randint(3, 23)]
        words = [
            "".join(rng.choices(letters, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 13))
        ]
        groups = _groups(words)
        assert groups == _brute_force(words)
        sizes.add((len(words), len(groups)))
    assert len(sizes) > 40  # the draws are not all one persona or all apart


def test_components_are_named_by_first_appearance():
    personas = group_personas([_dialogue(word) for word in ["xyz", "abc", "zyw", "def"]])
    assert [p.name for p in personas] == ["persona-0001", "persona-0002", "persona-0003"]
    assert ["".join(d.statements) for d in personas[0].dialogues] == ["xyz", "zyw"]


def test_speakers_count_and_statements_do_not():
    first, second, third = (
        _dialogue("abc", "kim"), _dialogue("abc", "lea"), _dialogue("", "kim"),
    )
    assert group_personas(iter([first, second, third])) == [
        Persona("kim", (first, third)), Persona("lea", (second,)),
    ]


def test_mixed_speakers_are_refused():
    dialogues = [
        _dialogue("ab", "kim"), _dialogue("cd", "", "c1"), _dialogue("ef", "", "c2"),
    ]
    with pytest.raises(ValueError, match="expected a speaker in every .*, got 2 of 3 .*'c1' first"):
        group_personas(dialogues)


def test_neither_speaker_nor_statements_is_refused():
    dialogues = [_dialogue("ab"), _dialogue("", "", "c7")]
    with pytest.raises(ValueError, match="expected a speaker or persona .*, got neither .*'c7'; add one of"):
        group_personas(dialogues)


def test_require_conversations_counts_both_sides_once():
    talker = Persona("talker", (_dialogue("ab", conversation="c1"),
                                _dialogue("ab", conversation="c2")))
    echo = Persona("echo", (_dialogue("ab"), _dialogue("ab")))
    assert require_conversations([echo, talker]) == ([talker], [echo])
    assert require_conversations([echo, talker], minimum=1) == ([echo, talker], [])
    assert require_conversations([echo, talker], minimum=3) == ([], [echo, talker])


@pytest.mark.parametrize("strategy", ["multitask", "mtml", "amtml", "std_p"])
def test_strategies_that_need_statements_refuse(strategy):
    told = Persona("kim", (_dialogue("ab", "kim"),))
    partly = Persona("lea", (_dialogue("ab", "lea"), _dialogue("", "lea", "c5")))
    untold = Persona("max", (_dialogue("", "max", "c6"),))
    require_statements([told], strategy)
    with pytest.raises(ValueError) as error:
        require_statements([told, partly, untold], strategy)
    message = str(error.value)
    for part in ("'lea'", "'c5'", f"--strategy={strategy}", "--strategy=paml or add statements"):
        assert part in message
    assert "max" not in message and "\n" not in message


@pytest.mark.parametrize("strategy", ["std", "paml"])
def test_strategies_that_need_no_statements_pass(strategy):
    require_statements([Persona("max", (_dialogue("", "max"),))], strategy)


@pytest.mark.parametrize(("split", "count", "several", "fewest"), [
    ("train", 946, 916, 1),
    ("valid", 100, 100, 16),
    ("test", 50, 50, 15),
])
def test_real_personas(shared_data, split, count, several, fewest):
    dialogues = read_parlai(find_split(shared_data / "personachat", split))[0]
    personas = group_personas(dialogues)
    assert len(personas) == count
    assert sum(len(p.dialogues) for p in personas) == len(dialogues)
    assert sum(len(p.dialogues) >= 2 for p in personas) == several
    assert len(require_conversations(personas)[0]) == several
    assert min(len(p.conversations) for p in personas) == fewest
