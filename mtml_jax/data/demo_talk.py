"""Writes the conversations of the demo corpus, one utterance after the other."""

from typing import NamedTuple

from mtml_jax.data import demo_phrases as phrases
from mtml_jax.data.demo_speakers import chance, fill, length, pick
from mtml_jax.data.demo_values import SLOTS, VALUES

_MIN_TOKENS, _MAX_TOKENS = 4, 18
_MAX_FACT, _MAX_LEAVE = 16, 13  # tokens of a fact and its tail; a farewell fits after the second


class Part(NamedTuple):
    """A piece of an utterance; `states` is the slot of the own fact that it states, or None."""

    text: str
    states: str | None = None
    skeleton: str = ""


class Utterance(NamedTuple):
    """One utterance with the generator's own record of it.

    `states` are the slots of the own facts that it states, and `skeletons` the wordings
    of these facts before insertion of values, as (slot, wording).
    """

    text: str
    states: frozenset[str]
    skeletons: tuple[tuple[str, str], ...]


class _Pending(NamedTuple):
    """What the last utterance leaves for the other side to answer."""

    kind: str  # open | doing | ask | plans | follow | detour | nothing
    slot: str = ""
    source: str = ""  # of a follow-up answer
    number: int = 0  # of a detour


class Talk:
    """Generates one conversation."""

    def __init__(self, rng, pair):
        self.rng = rng
        self.pair = pair
        self.stated = ([], [])  # per side: slots of own facts stated so far
        self.used = ([], [])  # per side: wordings, nouns, bits and extras to avoid from now on
        self.pending = _Pending("open")
        self.news = []  # slots that the last utterance stated for the first time
        self.personal = False  # whether the last utterance was about its speaker

    def run(self):
        count = pick(self.rng, (14, 15, 16))
        return tuple(self._utterance(place, count - place - 1) for place in range(count))

    def _utterance(self, place, left):
        """Answers what is pending, then continues the conversation or ends it."""
        side = place % 2
        parts = self._answer(side, left)
        if place < 2:
            parts.insert(0, Part(self.pair[side].greeting + pick(self.rng, (" !", " ,", " ."))))
        pending, more = (
            (_Pending("nothing"), self._leave(side)) if left < 2 else
            self._move_on(side, parts, left))
        parts = self._fit(side, parts + more)
        stated = {part.states: part.skeleton for part in parts if part.states}
        self.personal = bool(stated) or self.pending.kind == "follow"
        self.news = [slot for slot in stated if slot not in self.stated[side]]
        self.stated[side].extend(self.news)
        self.pending = pending
        return Utterance(self._join(side, parts), frozenset(stated), tuple(stated.items()))

    # Parts of utterances.

    def _adjective(self, side):
        habit = chance(self.rng, 0.75)
        return self.pair[side].adjective if habit else pick(self.rng, phrases.ADJECTIVES)

    def _fresh(self, side, items):
        """Picks an item that this side has not used yet, or any if all are used."""
        left = [item for item in items if item not in self.used[side]]
        item = pick(self.rng, left or items)
        self.used[side].append(item)
        return item

    def _own(self, side, slot, template, states=True):
        """Inserts this side's own value, nouns, bits and extras into a wording."""
        speaker = self.pair[side]
        key = speaker.facts[slot]
        value = VALUES[slot][key]
        words = dict(speaker.extras)
        self.used[side].extend(word for word in words if "{" + word + "}" in template)
        if "{n}" in template:
            words["n"] = self._fresh(side, value.nouns)
        if "{bit}" in template:
            words["bit"] = self._fresh(side, value.bits)
        return Part(fill(template, slot, key, **words), slot if states else None, template)

    def _state(self, side, slot, cores, tails=None, limit=_MAX_FACT):
        """States an own fact, followed by a tail for which there is room."""
        core = self._fresh(side, cores[slot])
        speaker = self.pair[side]
        key = speaker.facts[slot]
        value = VALUES[slot][key]
        longest = {"bit": max(value.bits, key=length), "n": max(value.nouns, key=length)}
        fitting = [
            tail for tail in tails or phrases.TAILS[slot]
            if length(fill(core + tail, slot, key, **speaker.extras, **longest)) <= limit]
        return self._own(side, slot, core + pick(self.rng, fitting))

    def _react(self, side):
        """Reacts to what the partner just said, and often names a new fact."""
        adj = self._adjective(side)
        if self.news and chance(self.rng, 0.7):
            slot = self.news[-1]
            template = self._fresh(side, phrases.REACT_NAMING[slot])
            return Part(fill(template, slot, self.pair[1 - side].facts[slot], adj=adj))
        return Part(self._fresh(side, phrases.REACT).format(adj=adj))

    def _unstated(self, side):
        return [slot for slot in self.pair[side].facts if slot not in self.stated[side]]

    def _any_own(self, side):
        """Picks a slot not stated yet, or any if all are stated."""
        return pick(self.rng, self._unstated(side) or list(self.pair[side].facts))

    # First halves of utterances: answers to the partner.

    def _answer(self, side, left):
        kind, slot, source, number = self.pending
        speaker = self.pair[side]
        if kind == "open":
            return []
        if kind == "nothing":
            return [self._react(side)] if left and self.personal else []
        parts = []
        if self.personal and chance(self.rng, 0.3):
            parts.append(self._react(side))
        elif chance(self.rng, 0.3):
            parts.append(Part(speaker.lead))
        if kind == "doing":
            if chance(self.rng, 0.5):
                parts.append(Part(self._fresh(side, phrases.REPLY_DOING)))
            if not parts or chance(self.rng, 0.8):
                parts.append(self._state(side, self._any_own(side), phrases.DOING))
        elif kind == "detour":
            parts.append(Part(self._fresh(side, phrases.DETOURS[number][1])))
        elif kind == "plans":
            parts.append(self._state(side, self._any_own(side), phrases.PLANS))
        elif kind == "follow":
            naming = phrases.ANSWER_NAMING[slot].get(source, ())
            if naming and chance(self.rng, 0.4):
                parts.append(self._own(side, slot, self._fresh(side, naming)))
            else:
                answer = self._fresh(side, phrases.ANSWER[source])
                parts.append(self._own(side, slot, answer, states=False))
        elif slot in speaker.facts:
            parts.append(self._state(side, slot, phrases.TELL))
        else:
            parts.append(Part(self._fresh(side, phrases.EVADE[slot])))
        return parts

    # Second halves of utterances: what the partner has to answer.

    def _move_on(self, side, parts, left):
        """Continues the conversation; returns what is pending afterwards, and the parts that say so."""
        telling = any(part.states for part in parts)
        used = sum(length(part.text) + 1 for part in parts)
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
            if made and used + sum(length(part.text) + 1 for part in made[1]) <= _MAX_TOKENS:
                return made
        return _Pending("nothing"), [] if parts else [self._react(side)]

    def _rest(self, side):
        return _Pending("nothing"), []

    def _small_talk(self, side):
        return _Pending("nothing"), [Part(pick(self.rng, phrases.SMALL_TALK))]

    def _volunteer(self, side):
        slots = self._unstated(side)
        if not slots:
            return None
        lead = pick(self.rng, phrases.VOLUNTEER)
        part = self._state(side, pick(self.rng, slots), phrases.TELL)
        return _Pending("nothing"), [Part(lead), part] if lead else [part]

    def _ask(self, side):
        other = 1 - side
        known = self._unstated(other)
        # Occasionally a question misses, as speakers do not know each other's facts.
        lacking = [slot for slot in SLOTS
                   if slot not in self.pair[other].facts and slot not in self.used[side]]
        slots = lacking if lacking and (not known or chance(self.rng, 0.15)) else known
        if not slots:
            return None
        slot = pick(self.rng, slots)
        self.used[side].append(slot)
        question = self._fresh(side, phrases.ASK[slot])
        self.used[other].append(question)
        return _Pending("ask", slot), [Part(question)]

    def _ask_doing(self, side):
        return _Pending("doing"), [Part(pick(self.rng, phrases.ASK_DOING))]

    def _ask_back(self, side):
        """Asks the question back that was just answered."""
        pending, other = self.pending, 1 - side
        if pending.kind == "doing" and "doing" not in self.used[other]:
            self.used[side].append("doing")
        elif pending.kind != "ask" or pending.slot in self.stated[other]:
            return None
        elif pending.slot not in self.pair[other].facts and pending.slot in self.used[side]:
            return None
        self.used[side].append(pending.slot)
        return pending, [Part(pick(self.rng, phrases.ASK_BACK))]

    def _ask_plans(self, side):
        if "plans" in self.used[0] + self.used[1] or not self._unstated(1 - side):
            return None
        self.used[side].append("plans")
        return _Pending("plans"), [Part(pick(self.rng, phrases.ASK_PLANS))]

    def _detour(self, side):
        if "detour" in self.used[side]:
            return None
        self.used[side].append("detour")
        number = int(self.rng.random() * len(phrases.DETOURS))
        question = pick(self.rng, phrases.DETOURS[number][0])
        return _Pending("detour", number=number), [Part(question)]

    def _follow_up(self, side):
        """Asks more about a fact that the partner stated, usually the latest one."""
        other = 1 - side
        if not self.stated[other]:
            return None
        slot = self.news[-1] if self.news else pick(self.rng, self.stated[other])
        value = VALUES[slot][self.pair[other].facts[slot]]
        stock = {"bit": value.bits, "noun": value.nouns}
        questions = [
            (question, source) for question, source in phrases.FOLLOW[slot]
            if question not in self.used[side]
            and any(word not in self.used[other] for word in stock.get(source, (source,)))]
        if not questions:
            return None
        question, source = pick(self.rng, questions)
        self.used[side].append(question)
        if not self.news:
            topic = pick(self.rng, phrases.RETURN).format(topic=phrases.TOPICS[slot])
            question = topic + question
        return _Pending("follow", slot, source), [Part(question)]

    def _leave(self, side):
        speaker = self.pair[side]
        if chance(self.rng, 0.85):
            part = self._state(side, self._any_own(side), phrases.LEAVING, phrases.LEAVING_TAILS,
                              _MAX_LEAVE)
        else:
            part = Part(self._fresh(side, phrases.LEAVING_PLAIN))
        return [part, Part(speaker.farewell)]

    # Complete utterances.

    def _fit(self, side, parts):
        """Drops leading parts of an utterance that is too long, and pads one that is too short."""
        speaker = self.pair[side]
        tag = Part(speaker.tag)
        if length(self._join(side, parts)) < _MIN_TOKENS:
            parts = [*parts, tag]
        while length(self._join(side, parts)) > _MAX_TOKENS:
            parts = parts[1:]
        last = parts[-1]
        if last.text[-1].isalpha() and last != tag and chance(self.rng, 0.3):
            longer = [*parts[:-1], last._replace(text=f"{last.text} , {tag.text}")]
            if length(self._join(side, longer)) <= _MAX_TOKENS:
                return longer
        return parts

    def _join(self, side, parts):
        """Joins parts; those without punctuation get a full stop, or the habitual mark at the end."""
        words = []
        for place, part in enumerate(parts):
            words.append(part.text)
            last = place == len(parts) - 1
            if part.text[-1] not in ".?!," and part.text != "oh and":
                words.append(self.pair[side].closer if last else ".")
        return " ".join(word for word in words if word)
