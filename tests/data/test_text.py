"""Tests the conversions between text and tokens."""

import random
import string

import pytest

from mtml_jax.data.text import persona_text, tokenize


@pytest.mark.parametrize("text, want", [
    ("Hello,  World!\n", "hello , world !"),
    ("I don't; we can't, won't", "i do not ; we can not , will not"),
    ("it\u2019s Kim's, they\u2019re I'd I'll I've let's", (
        "it is kim 's , they are i would i will i have let us"
    )),
    ("Hi [User 1's name], [user 2] of [your city] [Band Name]", (
        "hi [name] , [name] of [city] [band_name]"
    )),
    ("a-b (c) \u201cd\u201d 3.5", 'a - b ( c ) " d " 3 . 5'),
    ("CAF\u00c9 cafe\u0301", "caf\u00e9 caf\u00e9"),
    ("a\u200b\x00 b\u00a0c", "a b c"),
    (" \u200b ", ""),
    ("[]", "[ ]"),
])  # fmt: skip
def test_tokenize(text, want):
    assert tokenize(text) == want
    assert tokenize(want) == want


def test_tokenizing_twice_changes_nothing():
    rng = random.Random(3)
    alphabet = string.ascii_letters + " '[]_.!?-\u00c4\u0130\u0301\u2019" + "nstm"
    for _ in range(2000):
        once = tokenize("".join(rng.choices(alphabet, k=rng.randint(1, 23))))
        assert tokenize(once) == once
        assert once == " ".join(once.split())


@pytest.mark.parametrize(("statements", "text"), [
    ([], ""),
    (["i sing.", "by day, i bake."], "by day , i bake i sing"),
    (["what a cake!.", "cake? yes; ham,jam."], "cake ? yes ; ham , jam what a cake !"),
    (["dr. no  owns 2.5 boats.", "i don't row."], "dr no owns 2 5 boats i don't row"),
])
def test_persona_text(statements, text):
    assert persona_text(statements) == text
    assert persona_text(reversed(statements)) == text
