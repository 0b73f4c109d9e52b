"""Judges whether a reply states a fact of a demo speaker, and whether it answers a question."""

import functools
import re
from collections.abc import Iterable, Iterator

from mtml_jax.data.demo_phrases import ASK
from mtml_jax.data.demo_values import PLURAL_SLOTS, SLOTS, VALUES

_FIRST_PERSON = frozenset("i me my mine myself we us our ours".split())
_SECOND_PERSON = frozenset("you your yours yourself u".split())
_NEGATIONS = frozenset("not no never don doesn didn isn wasn".split())
_NEGATION_REACH = 4  # words before the key word
_CLAUSE = re.compile(r"([^.?!,;:]+)([.?!,;:]?)")
_WORD = re.compile(r"[a-z]+")


def judge_reply(reply: str, facts: dict[str, str]) -> dict[str, str]:
    """Judges for each fact of a speaker whether a reply states, contradicts or ignores it.

    The rule is exact on the demo corpus. Clauses end at . ? ! , ; or : and count if they
    contain a first-person word and no second-person word, and are not questions. In such a
    clause the key word of the fact states it, and the key word of another value of the same
    slot contradicts it. If "not", "no", "never" or the like precedes by at most four words,
    the key word of the fact contradicts it and that of another value says nothing. A
    contradiction outweighs a statement.

    Args:
      reply: blank-separated tokens.
      facts: slot -> key word of the speaker's value, from `demo_facts`.

    Returns:
      Slot -> "stated", "contradicted" or "ignored", for the slots of `facts`.

    Raises:
      ValueError: a slot or value is not one of the demo corpus.
    """
    for slot, key in facts.items():
        if key not in VALUES.get(slot, {}):
            raise ValueError(f"expected a slot and value of demo_facts, got {slot!r}: {key!r}")
    verdicts = dict.fromkeys(facts, "ignored")
    for slot, key, denied in _claims(reply):
        if slot not in facts:
            continue
        own = key == facts[slot]
        if own == denied:
            verdicts[slot] = "contradicted"
        elif own and verdicts[slot] == "ignored":
            verdicts[slot] = "stated"
    return verdicts


def asked_slot(utterance: str, facts: dict[str, str]) -> str | None:
    """Finds the fact that an utterance asks for with a question of the demo corpus.

    Args:
      utterance: blank-separated tokens.
      facts: of the speaker who is asked.

    Returns:
      The slot of the last such question; None if there is none, or if the speaker has no fact
      of that slot.
    """
    slots = {question: slot for slot, questions in ASK.items() for question in questions}
    found = [(utterance.rfind(question), slot) for question, slot in slots.items()]
    place, slot = max(found)
    return slot if place >= 0 and slot in facts else None


def judge_answer(reply: str, slot: str, facts: dict[str, str]) -> str:
    """Judges whether a reply answers with a value of the slot that was asked for.

    Mentions count as in `judge_reply`; denied ones do not.

    Returns:
      "right" (the speaker's value), "wrong" (another value of the slot), "other" (a value of
      another slot) or "none" (no value at all).
    """
    said = [(s, key) for s, key, denied in _claims(reply) if not denied]
    values = [key for s, key in said if s == slot]
    if facts[slot] in values:
        return "right"
    return "wrong" if values else "other" if said else "none"


def _claims(reply: str) -> Iterator[tuple[str, str, bool]]:
    """What a reply says about its speaker: (slot, key word, whether it is denied)."""
    keys = _keys()
    for clause, end in _CLAUSE.findall(reply.lower()):
        words = _WORD.findall(clause)
        if end == "?" or _SECOND_PERSON.intersection(words):
            continue
        if not _FIRST_PERSON.intersection(words):
            continue
        for place, word in enumerate(words):
            if word in keys:
                before = words[max(0, place - _NEGATION_REACH):place]
                yield *keys[word], not _NEGATIONS.isdisjoint(before)


def reply_shares(replies: Iterable[tuple[str, dict[str, str]]]) -> dict[str, float]:
    """Computes the shares of replies that contradict, state or ignore their speakers' facts.

    Args:
      replies: pairs of a reply and its speaker's facts; at least one.

    Returns:
      "contradicted" (at least one fact is), "stated" (at least one fact is, and none is
      contradicted) and "ignored" (all facts are); the three shares add up to one.

    Raises:
      ValueError: there is no reply, or a fact is not one of the demo corpus.
    """
    counts = {"contradicted": 0, "stated": 0, "ignored": 0}
    for reply, facts in replies:
        verdicts = judge_reply(reply, facts).values()
        counts[next((name for name in counts if name in verdicts), "ignored")] += 1
    total = sum(counts.values())
    if not total:
        raise ValueError("expected at least one reply, got none")
    return {name: count / total for name, count in counts.items()}


@functools.cache
def _keys():
    """Maps every accepted form of a key word to (slot, key word)."""
    keys = {}
    for slot, values in SLOTS.items():
        for value in values:
            forms = {value.key: None} | dict.fromkeys(value.also)
            if slot in PLURAL_SLOTS:
                forms |= {form + "s": None for form in forms if not form.endswith("s")}
            elif slot == "food" and value.form == "are":
                forms |= {form.removesuffix("s"): None for form in forms}
            for form in forms:
                keys[form] = (slot, value.key)
    return keys
