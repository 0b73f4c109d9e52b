"""The embedded demo corpus: invented speakers with known facts, from a seeded generator."""

import dataclasses
import functools
import random
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mtml_jax.data import demo_phrases as phrases
from mtml_jax.data.records import Dialogue, Turn


class _Size(NamedTuple):
    """How many speakers a split has and how often they talk.

    Everyone talks once in each full round; a part round seats a drawn share of the pairs.
    """

    speakers: int
    full_rounds: int
    part_rounds: int
    share: float


# Four to eight conversations for a train speaker, twelve to fourteen for the others.
_SIZES = {
    "train": _Size(speakers=100, full_rounds=4, part_rounds=4, share=0.5),
    "valid": _Size(speakers=16, full_rounds=12, part_rounds=2, share=0.5),
    "test": _Size(speakers=24, full_rounds=12, part_rounds=2, share=0.5),
}
_MIN_TOKENS, _MAX_TOKENS = 4, 18
_MAX_TELL, _MAX_LEAVE = 16, 13  # tokens of one fact and its tail; a farewell fits beside the latter
_FIRST_PERSON = frozenset("i me my mine myself we us our ours".split())
_SECOND_PERSON = frozenset("you your yours yourself u".split())
_NEGATIONS = frozenset("not no never don doesn didn isn wasn".split())
_NEGATION_REACH = 4  # words before the key word
_CLAUSE = re.compile(r"([^.?!,;:]+)([.?!,;:]?)")
_WORD = re.compile(r"[a-z]+")


@dataclasses.dataclass(frozen=True)
class _Speaker:
    """Who talks: the facts, their unscored companions, and habits of style."""

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


class _Part(NamedTuple):
    """A piece of an utterance; `states` is the slot of the own fact it gives, or None."""

    text: str
    states: str | None = None
    skeleton: str = ""


class _Utterance(NamedTuple):
    """One utterance with what the generator knows of it.

    `states` holds the slots of the own facts given; `skeletons` the unfilled
    wordings they were given in, slot first.
    """

    text: str
    states: frozenset[str]
    skeletons: tuple[tuple[str, str], ...]


class _Conversation(NamedTuple):
    """Two speakers, the opener first, and what they say in turn."""

    name: str
    speakers: tuple[_Speaker, _Speaker]
    utterances: tuple[_Utterance, ...]


class _Pending(NamedTuple):
    """What the last utterance left for the other side to answer."""

    kind: str  # open | doing | ask | plans | follow | detour | told
    slot: str = ""
    source: str = ""  # of a follow-up answer
    number: int = 0  # of a detour


def demo_corpus(split: str, seed: int = 0) -> list[Dialogue]:
    """Generates the dialogues of one split, both sides of a conversation side by side.

    Args:
      split: "train", "valid" or "test".
      seed: another seed gives other speakers and other conversations.

    Returns:
      The dialogues; those of one speaker carry the same statements, and any two
      speakers of the whole corpus share at most one statement.

    Raises:
      ValueError: the split is unknown.
    """
    dialogues = []
    for conversation in _conversations(split, seed):
        texts = [utterance.text for utterance in conversation.utterances]
        for side, speaker in enumerate(conversation.speakers):
            contexts = ["", *texts][side::2]
            turns = tuple(Turn(*turn) for turn in zip(contexts, texts[side::2]))
            dialogues.append(Dialogue(conversation.name, speaker.name, speaker.statements, turns))
    return dialogues


def demo_facts(split: str, seed: int = 0) -> dict[str, dict[str, str]]:
    """Gives the facts of every speaker of one split.

    Args:
      split: "train", "valid" or "test".
      seed: the seed given to `demo_corpus`.

    Returns:
      Speaker id -> slot ("work", "pet", "food", "place", "hobby", "family") -> key word.

    Raises:
      ValueError: the split is unknown.
    """
    _check_split(split)
    return {speaker.name: dict(speaker.facts) for speaker in _speakers(seed)[split]}


def judge_reply(reply: str, facts: dict[str, str]) -> dict[str, str]:
    """Tells for each fact of a speaker whether a reply states, contradicts or ignores it.

    The rule, exact on the corpus: clauses end at . ? ! , ; or : and count when they hold
    a first-person word, no second-person word, and are no question. The key word of the
    fact states it there and that of another value of its slot contradicts it; with "not",
    "no", "never" or the like at most four words before, the key word of the fact contradicts it and
    that of another value says nothing. A contradiction outweighs a statement.

    Args:
      reply: blank-separated tokens.
      facts: slot -> key word of the speaker's value, from `demo_facts`.

    Returns:
      Slot -> "stated", "contradicted" or "ignored", for the slots of `facts`.

    Raises:
      ValueError: a slot or value is not one of the demo corpus.
    """
    values = _values()
    for slot, key in facts.items():
        if key not in values.get(slot, {}):
            raise ValueError(f"got fact {slot!r}: {key!r}, want a slot and value of demo_facts")
    verdicts = dict.fromkeys(facts, "ignored")
    keys = _keys()
    for clause, end in _CLAUSE.findall(reply.lower()):
        words = _WORD.findall(clause)
        if end == "?" or _SECOND_PERSON.intersection(words):
            continue
        if not _FIRST_PERSON.intersection(words):
            continue
        for place, word in enumerate(words):
            slot, key = keys.get(word, ("", ""))
            if slot not in facts:
                continue
            own = key == facts[slot]
            before = words[max(0, place - _NEGATION_REACH):place]
            denied = not _NEGATIONS.isdisjoint(before)
            if own == denied:
                verdicts[slot] = "contradicted"
            elif own and verdicts[slot] == "ignored":
                verdicts[slot] = "stated"
    return verdicts


def reply_shares(replies: Iterable[tuple[str, dict[str, str]]]) -> dict[str, float]:
    """Gives the shares of replies that contradict, state or ignore their speakers' facts.

    Args:
      replies: pairs of a reply and its speaker's facts; at least one.

    Returns:
      "contradicted" (some fact is), "stated" (some fact is, none contradicted) and
      "ignored" (neither): three shares that add up to one.

    Raises:
      ValueError: there is no reply, or a fact is not one of the demo corpus.
    """
    counts = {"contradicted": 0, "stated": 0, "ignored": 0}
    for reply, facts in replies:
        verdicts = judge_reply(reply, facts).values()
        counts[next((name for name in counts if name in verdicts), "ignored")] += 1
    total = sum(counts.values())
    if not total:
        raise ValueError("got no replies, want at least one to take shares of")
    return {name: count / total for name, count in counts.items()}


def _check_split(split):
    if split not in _SIZES:
        raise ValueError(f"got split {split!r}, want one of {', '.join(_SIZES)}")


@functools.cache
def _values():
    """Slot -> key word -> Value."""
    return {slot: {value.key: value for value in values}
            for slot, values in phrases.SLOTS.items()}


@functools.cache
def _keys():
    """Every accepted form of a key word -> (slot, key word)."""
    keys = {}
    for slot, values in phrases.SLOTS.items():
        for value in values:
            forms = {value.key: None} | dict.fromkeys(value.also)
            if slot in phrases.PLURAL_SLOTS:
                forms |= {form + "s": None for form in forms if not form.endswith("s")}
            elif slot == "food" and value.form == "are":
                forms |= {form.removesuffix("s"): None for form in forms}
            for form in forms:
                keys[form] = (slot, value.key)
    return keys


# Only Random.random() and string seeds are promised to stay the same between versions
# of Python, so every draw is made from them.
def _pick(rng, items: Sequence):
    return items[int(rng.random() * len(items))]


def _chance(rng, probability):
    return rng.random() < probability


def _shuffled(rng, items):
    items = list(items)
    for last in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items


def _length(text):
    return len(text.split())


@functools.cache
def _speakers(seed):
    """Split -> speakers. Drawn together, because no two may share two values anywhere."""
    rng = random.Random(f"demo speakers {seed}")
    used = {slot: dict.fromkeys(values, 0) for slot, values in _values().items()}
    drawn, speakers = [], {}
    for split, size in _SIZES.items():
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
    """Four or five slots with values; a rarely used value is likelier, so train has them all."""
    slots = _shuffled(rng, phrases.SLOTS)[:4 if _chance(rng, 0.25) else 5]
    facts = {}
    for slot in phrases.SLOTS:
        if slot in slots:
            candidates = [_pick(rng, phrases.SLOTS[slot]).key for _ in range(3)]
            facts[slot] = min(candidates, key=used[slot].get)
    return facts


def _make_speaker(rng, name, facts):
    extras = {"years": _pick(rng, phrases.YEARS), "day": _pick(rng, phrases.DAYS),
              "name": _pick(rng, phrases.NAMES)}
    statements = tuple(
        _fill(_pick(rng, phrases.STATEMENTS[slot]), slot, facts[slot], **extras) for slot in facts)
    return _Speaker(
        name, facts, statements, extras,
        greeting=_pick(rng, phrases.GREETINGS), lead=_pick(rng, phrases.LEADS),
        tag=_pick(rng, phrases.TAGS), adjective=_pick(rng, phrases.ADJECTIVES),
        farewell=_pick(rng, phrases.FAREWELLS), closer=_pick(rng, phrases.CLOSERS))


def _fill(template, slot, key, **words):
    """Writes a value and further words into a wording."""
    value = _values()[slot][key]
    article = "an" if key[0] in "aeiou" else "a"
    plural = value.form in ("are", "they")
    return template.format(
        key=key, a=f"{article} {key}", he=value.form, act=value.form,
        has="have" if plural else "has", **{"is": "are" if plural else "is"}, **words)


@functools.cache
def _conversations(split, seed):
    """The conversations of one split with the generator's own record of them."""
    _check_split(split)
    rng = random.Random(f"demo {split} {seed}")
    conversations = []
    for first, second in _pairs(rng, _speakers(seed)[split], _SIZES[split]):
        pair = (first, second) if _chance(rng, 0.5) else (second, first)
        name = f"demo-{split}-c{len(conversations):04d}"
        conversations.append(_Conversation(name, pair, _Talk(rng, pair).run()))
    return tuple(conversations)


def _pairs(rng, speakers, size):
    """Seats everyone by the circle method, so that nobody meets the same person twice."""
    fixed, *ring = _shuffled(rng, speakers)
    for number in range(size.full_rounds + size.part_rounds):
        row = [fixed, *ring]
        pairs = list(zip(row[:len(row) // 2], reversed(row)))
        if number >= size.full_rounds:
            pairs = _shuffled(rng, pairs)[:int(size.share * len(pairs))]
        yield from pairs
        ring = ring[1:] + ring[:1]


class _Talk:
    """One conversation in the making."""

    def __init__(self, rng, pair):
        self.rng = rng
        self.pair = pair
        self.told = ([], [])  # per side: slots of own facts given so far
        self.used = ([], [])  # per side: wordings, nouns, bits and extras not to be repeated
        self.pending = _Pending("open")
        self.news = []  # slots that the last utterance gave for the first time
        self.personal = False  # whether it spoke of its speaker at all

    def run(self):
        length = _pick(self.rng, (14, 15, 16))
        return tuple(self._utterance(place, length - place - 1) for place in range(length))

    def _utterance(self, place, left):
        """Answers what is pending, then moves the talk on or takes leave."""
        side = place % 2
        parts = self._answer(side, left)
        if place < 2:
            parts.insert(0, _Part(self.pair[side].greeting + _pick(self.rng, (" !", " ,", " ."))))
        pending, more = (
            (_Pending("told"), self._leave(side)) if left < 2 else
            self._move_on(side, parts, left))
        parts = self._fit(side, parts + more)
        given = {part.states: part.skeleton for part in parts if part.states}
        self.personal = bool(given) or self.pending.kind == "follow"
        self.news = [slot for slot in given if slot not in self.told[side]]
        self.told[side].extend(self.news)
        self.pending = pending
        return _Utterance(self._join(side, parts), frozenset(given), tuple(given.items()))

    # Pieces of talk.

    def _adjective(self, side):
        habit = _chance(self.rng, 0.75)
        return self.pair[side].adjective if habit else _pick(self.rng, phrases.ADJECTIVES)

    def _fresh(self, side, items):
        """One of the items that this side has not used yet, or any when all are."""
        left = [item for item in items if item not in self.used[side]]
        item = _pick(self.rng, left or items)
        self.used[side].append(item)
        return item

    def _own(self, side, slot, template, states=True):
        """Fills a wording with this side's own value, nouns, bits and extras."""
        speaker = self.pair[side]
        key = speaker.facts[slot]
        value = _values()[slot][key]
        words = dict(speaker.extras)
        self.used[side].extend(word for word in words if "{" + word + "}" in template)
        if "{n}" in template:
            words["n"] = self._fresh(side, value.nouns)
        if "{bit}" in template:
            words["bit"] = self._fresh(side, value.bits)
        return _Part(_fill(template, slot, key, **words), slot if states else None, template)

    def _tell(self, side, slot, cores, tails=None, limit=_MAX_TELL):
        """Gives an own fact with a tail that leaves it short enough."""
        core = self._fresh(side, cores[slot])
        speaker = self.pair[side]
        key = speaker.facts[slot]
        value = _values()[slot][key]
        longest = {"bit": max(value.bits, key=_length), "n": max(value.nouns, key=_length)}
        fitting = [
            tail for tail in tails or phrases.TAILS[slot]
            if _length(_fill(core + tail, slot, key, **speaker.extras, **longest)) <= limit]
        return self._own(side, slot, core + _pick(self.rng, fitting))

    def _react(self, side):
        """Says something to what the partner just told, often naming it when it is new."""
        adj = self._adjective(side)
        if self.news and _chance(self.rng, 0.7):
            slot = self.news[-1]
            template = self._fresh(side, phrases.REACT_NAMING[slot])
            return _Part(_fill(template, slot, self.pair[1 - side].facts[slot], adj=adj))
        return _Part(self._fresh(side, phrases.REACT).format(adj=adj))

    def _untold(self, side):
        return [slot for slot in self.pair[side].facts if slot not in self.told[side]]

    def _any_own(self, side):
        """A slot not given yet if there is one."""
        return _pick(self.rng, self._untold(side) or list(self.pair[side].facts))

    # The first half of an utterance.

    def _answer(self, side, left):
        kind, slot, source, number = self.pending
        speaker = self.pair[side]
        if kind == "open":
            return []
        if kind == "told":
            return [self._react(side)] if left and self.personal else []
        parts = []
        if self.personal and _chance(self.rng, 0.3):
            parts.append(self._react(side))
        elif _chance(self.rng, 0.3):
            parts.append(_Part(speaker.lead))
        if kind == "doing":
            if _chance(self.rng, 0.5):
                parts.append(_Part(self._fresh(side, phrases.REPLY_DOING)))
            if not parts or _chance(self.rng, 0.8):
                parts.append(self._tell(side, self._any_own(side), phrases.DOING))
        elif kind == "detour":
            parts.append(_Part(self._fresh(side, phrases.DETOURS[number][1])))
        elif kind == "plans":
            parts.append(self._tell(side, self._any_own(side), phrases.PLANS))
        elif kind == "follow":
            naming = phrases.ANSWER_NAMING[slot].get(source, ())
            if naming and _chance(self.rng, 0.4):
                parts.append(self._own(side, slot, self._fresh(side, naming)))
            else:
                answer = self._fresh(side, phrases.ANSWER[source])
                parts.append(self._own(side, slot, answer, states=False))
        elif slot in speaker.facts:
            parts.append(self._tell(side, slot, phrases.TELL))
        else:
            parts.append(_Part(self._fresh(side, phrases.EVADE[slot])))
        return parts

    # The second half.

    def _move_on(self, side, parts, left):
        """Returns what is pending afterwards and the parts that bring it about."""
        telling = any(part.states for part in parts)
        length = sum(_length(part.text) + 1 for part in parts)
        makers = [(self._volunteer, 2 if telling else 6), (self._follow_up, 1.5),
                  (self._ask_back, 3), (self._ask, 3), (self._ask_plans, 0.5),
                  (self._detour, 0.3), (self._rest, telling)]
        if self.pending.kind == "open":
            makers = [(self._ask_doing, 5), (self._ask, 2), (self._volunteer, 3),
                      (self._small_talk, 1)]
        if left == 2:  # the next utterance takes leave
            makers = [(self._volunteer, 1), (self._rest, telling)]
        makers = [(maker, weight) for maker, weight in makers if weight]
        while makers:
            point = self.rng.random() * sum(weight for _, weight in makers)
            for choice, (maker, weight) in enumerate(makers):
                point -= weight
                if point < 0:
                    break
            made = makers.pop(choice)[0](side)
            if made and length + sum(_length(part.text) + 1 for part in made[1]) <= _MAX_TOKENS:
                return made
        return _Pending("told"), [] if parts else [self._react(side)]

    def _rest(self, side):
        return _Pending("told"), []

    def _small_talk(self, side):
        return _Pending("told"), [_Part(_pick(self.rng, phrases.SMALL_TALK))]

    def _volunteer(self, side):
        slots = self._untold(side)
        if not slots:
            return None
        lead = _pick(self.rng, phrases.VOLUNTEER)
        part = self._tell(side, _pick(self.rng, slots), phrases.TELL)
        return _Pending("told"), [_Part(lead), part] if lead else [part]

    def _ask(self, side):
        other = 1 - side
        known = self._untold(other)
        # Now and then a question misses, as nobody knows what the other has to tell.
        lacking = [slot for slot in phrases.SLOTS
                   if slot not in self.pair[other].facts and slot not in self.used[side]]
        slots = lacking if lacking and (not known or _chance(self.rng, 0.15)) else known
        if not slots:
            return None
        slot = _pick(self.rng, slots)
        self.used[side].append(slot)
        question = self._fresh(side, phrases.ASK[slot])
        self.used[other].append(question)
        return _Pending("ask", slot), [_Part(question)]

    def _ask_doing(self, side):
        return _Pending("doing"), [_Part(_pick(self.rng, phrases.ASK_DOING))]

    def _ask_back(self, side):
        """Returns a question just answered."""
        pending, other = self.pending, 1 - side
        if pending.kind == "doing" and "doing" not in self.used[other]:
            self.used[side].append("doing")
        elif pending.kind != "ask" or pending.slot in self.told[other]:
            return None
        elif pending.slot not in self.pair[other].facts and pending.slot in self.used[side]:
            return None
        self.used[side].append(pending.slot)
        return pending, [_Part(_pick(self.rng, phrases.ASK_BACK))]

    def _ask_plans(self, side):
        if "plans" in self.used[0] + self.used[1] or not self._untold(1 - side):
            return None
        self.used[side].append("plans")
        return _Pending("plans"), [_Part(_pick(self.rng, phrases.ASK_PLANS))]

    def _detour(self, side):
        if "detour" in self.used[side]:
            return None
        self.used[side].append("detour")
        number = int(self.rng.random() * len(phrases.DETOURS))
        question = _pick(self.rng, phrases.DETOURS[number][0])
        return _Pending("detour", number=number), [_Part(question)]

    def _follow_up(self, side):
        """Asks more about a fact the partner gave, the latest one most of the time."""
        other = 1 - side
        if not self.told[other]:
            return None
        slot = self.news[-1] if self.news else _pick(self.rng, self.told[other])
        value = _values()[slot][self.pair[other].facts[slot]]
        stock = {"bit": value.bits, "noun": value.nouns}
        questions = [
            (question, source) for question, source in phrases.FOLLOW[slot]
            if question not in self.used[side]
            and any(word not in self.used[other] for word in stock.get(source, (source,)))]
        if not questions:
            return None
        question, source = _pick(self.rng, questions)
        self.used[side].append(question)
        if not self.news:
            topic = _pick(self.rng, phrases.RETURN).format(topic=phrases.TOPICS[slot])
            question = topic + question
        return _Pending("follow", slot, source), [_Part(question)]

    def _leave(self, side):
        speaker = self.pair[side]
        if _chance(self.rng, 0.85):
            part = self._tell(side, self._any_own(side), phrases.LEAVING, phrases.LEAVING_TAILS,
                              _MAX_LEAVE)
        else:
            part = _Part(self._fresh(side, phrases.LEAVING_PLAIN))
        return [part, _Part(speaker.farewell)]

    # The wording of the whole.

    def _fit(self, side, parts):
        """Drops what can be spared from too long an utterance and pads too short a one."""
        speaker = self.pair[side]
        tag = _Part(speaker.tag)
        if _length(self._join(side, parts)) < _MIN_TOKENS:
            parts = [*parts, tag]
        while _length(self._join(side, parts)) > _MAX_TOKENS:
            parts = parts[1:]
        last = parts[-1]
        if last.text[-1].isalpha() and last != tag and _chance(self.rng, 0.3):
            longer = [*parts[:-1], last._replace(text=f"{last.text} , {tag.text}")]
            if _length(self._join(side, longer)) <= _MAX_TOKENS:
                return longer
        return parts

    def _join(self, side, parts):
        """Puts a full stop between parts that bring no mark, and the habitual mark at the end."""
        words = []
        for place, part in enumerate(parts):
            words.append(part.text)
            last = place == len(parts) - 1
            if part.text[-1] not in ".?!," and part.text != "oh and":
                words.append(self.pair[side].closer if last else ".")
        return " ".join(word for word in words if word)
