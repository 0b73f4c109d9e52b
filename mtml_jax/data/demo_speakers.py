"""Draws the speakers of the demo corpus: their facts, statements and habits of style."""

import dataclasses
import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

from mtml_jax.data import demo_phrases as phrases
from mtml_jax.data.demo_values import SLOTS, VALUES


class Size(NamedTuple):
    """The size of a split.

    Every speaker has one conversation in each full round; in a partial round only a random
    share of the pairs has one.
    """

    speakers: int
    full_rounds: int
    partial_rounds: int
    share: float


# Four to eight conversations for a train speaker, twelve to fourteen for the others.
SIZES = {
    "train": Size(speakers=100, full_rounds=4, partial_rounds=4, share=0.5),
    "valid": Size(speakers=16, full_rounds=12, partial_rounds=2, share=0.5),
    "test": Size(speakers=24, full_rounds=12, partial_rounds=2, share=0.5),
}


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A speaker: facts, unscored details (`extras`) and habits of style."""

    name: str
    facts: dict[str, str]
    statements: tuple[str, ...]
    extras: dict[str, str]
    greeting: str
    lead: str
    tag: str
    adjective: str
    farewell: str
    closer: str


@functools.cache
def speakers(seed):
    """Draws the speakers of all splits: split -> speakers, of whom no two share two values."""
    rng = random.Random(f"demo speakers {seed}")
    used = {slot: dict.fromkeys(values, 0) for slot, values in VALUES.items()}
    drawn, speakers = [], {}
    for split, size in SIZES.items():
        speakers[split] = []
        for number in range(size.speakers):
            facts = _draw_facts(rng, used)
            while any(len(facts.items() & other.items()) > 1 for other in drawn):
                facts = _draw_facts(rng, used)
            drawn.append(facts)
            for slot, key in facts.items():
                used[slot][key] += 1
            speakers[split].append(_make_speaker(rng, f"demo-{split}-{number:03d}", facts))
    return speakers


def _draw_facts(rng, used):
    """Draws values for four or five slots and prefers rare values, so that train has them all."""
    slots = shuffled(rng, SLOTS)[:4 if chance(rng, 0.25) else 5]
    facts = {}
    for slot in SLOTS:
        if slot in slots:
            candidates = [pick(rng, SLOTS[slot]).key for _ in range(3)]
            facts[slot] = min(candidates, key=used[slot].get)
    return facts


def _make_speaker(rng, name, facts):
    extras = {"years": pick(rng, phrases.YEARS), "day": pick(rng, phrases.DAYS),
              "name": pick(rng, phrases.NAMES)}
    statements = tuple(
        fill(pick(rng, phrases.STATEMENTS[slot]), slot, facts[slot], **extras) for slot in facts)
    return Speaker(
        name, facts, statements, extras,
        greeting=pick(rng, phrases.GREETINGS), lead=pick(rng, phrases.LEADS),
        tag=pick(rng, phrases.TAGS), adjective=pick(rng, phrases.ADJECTIVES),
        farewell=pick(rng, phrases.FAREWELLS), closer=pick(rng, phrases.CLOSERS))


def fill(template, slot, key, **words):
    """Inserts a value and further words into a wording."""
    value = VALUES[slot][key]
    article = "an" if key[0] in "aeiou" else "a"
    plural = value.form in ("are", "they")
    return template.format(
        key=key, a=f"{article} {key}", he=value.form, act=value.form,
        has="have" if plural else "has", **{"is": "are" if plural else "is"}, **words)


# Python guarantees the same numbers in every version only for Random.random() and string
# seeds, so every draw uses them.
def pick(rng, items: Sequence):
    return items[int(rng.random() * len(items))]


def chance(rng, probability):
    return rng.random() < probability


def shuffled(rng, items):
    items = list(items)
    for last in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items


def length(text):
    return len(text.split())
