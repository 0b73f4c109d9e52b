"""Tests the demo corpus: its size, both sides of conversations, the facts and their judge."""

import collections
import hashlib
import itertools
import math
import os
import re
import subprocess
import sys

import pytest

from mtml_jax.data import demo, demo_judge, demo_phrases, demo_speakers, demo_values

SPLITS = ("train", "valid", "test")
CORPUS = {split: demo.demo_corpus(split) for split in SPLITS}
FACTS = {split: demo.demo_facts(split) for split in SPLITS}
ALL_FACTS = {name: facts for split in SPLITS for name, facts in FACTS[split].items()}
DIALOGUES = [dialogue for split in SPLITS for dialogue in CORPUS[split]]
# The generator's record of every utterance, with its speaker.
SPOKEN = [
    (conversation.speakers[place % 2].name, utterance)
    for split in SPLITS for conversation in demo._conversations(split, 0)
    for place, utterance in enumerate(conversation.utterances)]


def by_speaker(dialogues):
    speakers = collections.defaultdict(list)
    for dialogue in dialogues:
        speakers[dialogue.speaker].append(dialogue)
    return speakers


def stated(verdicts):
    return {slot for slot, verdict in verdicts.items() if verdict == "stated"}


def all_text(item):
    """Every wording and detail of the phrases without key words."""
    if isinstance(item, str):
        yield re.sub(r"{\w+}", " ", item)
    elif isinstance(item, demo_values.Value):
        yield from all_text((item.nouns, item.bits))
    elif isinstance(item, dict):
        yield from all_text(tuple(item.values()))
    elif isinstance(item, tuple):
        for part in item:
            yield from all_text(part)


def test_same_split_and_seed_give_the_same_corpus():
    demo_speakers.speakers.cache_clear()
    demo._conversations.cache_clear()
    for split in SPLITS:
        assert demo.demo_corpus(split) == CORPUS[split]
        assert demo.demo_facts(split) == FACTS[split]
    assert demo.demo_corpus("valid", seed=1) != CORPUS["valid"]
    assert demo.demo_facts("valid", seed=1) != FACTS["valid"]


def test_corpus_does_not_depend_on_the_hash_seed():
    program = ("import hashlib; from mtml_jax.data.demo import demo_corpus; "
               "print(hashlib.sha256(repr(demo_corpus('valid')).encode()).hexdigest())")
    want = hashlib.sha256(repr(CORPUS["valid"]).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed,
                       "PYTHONPATH": os.pathsep.join(sys.path)}
        got = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True,
                             text=True, env=environment)
        assert got.stdout.strip() == want


@pytest.mark.parametrize("call", [demo.demo_corpus, demo.demo_facts])
def test_unknown_split_is_refused(call):
    with pytest.raises(ValueError, match="expected split train, valid, test, got 'dev'"):
        call("dev")


@pytest.mark.parametrize("split, speakers, least, most", [
    ("train", 100, 4, 8), ("valid", 16, 12, 14), ("test", 24, 12, 14)])
def test_speakers_and_conversations_are_as_many_as_promised(split, speakers, least, most):
    counts = [len({dialogue.conversation for dialogue in dialogues})
              for dialogues in by_speaker(CORPUS[split]).values()]
    assert len(counts) == speakers
    assert (min(counts), max(counts)) == (least, most)
    assert FACTS[split].keys() == by_speaker(CORPUS[split]).keys()


def test_both_sides_tell_the_same_conversation():
    sides = collections.defaultdict(list)
    for dialogue in DIALOGUES:
        sides[dialogue.conversation].append(dialogue)
    for pair in sides.values():
        opener, other = sorted(pair, key=lambda dialogue: dialogue.turns[0].context != "")
        assert opener.speaker != other.speaker
        said = [[turn.response for turn in side.turns] for side in (opener, other)]
        utterances = [text for exchange in itertools.zip_longest(*said)
                      for text in exchange if text is not None]
        for start, side in enumerate((opener, other)):
            heard = ["", *utterances][start::2][:len(side.turns)]
            assert [turn.context for turn in side.turns] == heard
        assert 0 <= len(opener.turns) - len(other.turns) <= 1


def test_turns_and_tokens_are_of_the_usual_number():
    for dialogue in DIALOGUES:
        assert 6 <= len(dialogue.turns) <= 9
        for turn in dialogue.turns:
            assert 4 <= len(turn.response.split()) <= 18
            assert turn.response == " ".join(turn.response.lower().split())
            assert re.fullmatch(r"([a-z]+|[.,!?])( ([a-z]+|[.,!?]))*", turn.response)


def test_no_speaker_or_conversation_is_in_two_splits():
    for left, right in itertools.combinations(SPLITS, 2):
        for field in ("speaker", "conversation"):
            names = [{getattr(dialogue, field) for dialogue in CORPUS[split]}
                     for split in (left, right)]
            assert names[0].isdisjoint(names[1])


def test_different_speakers_share_at_most_one_statement():
    speakers = by_speaker(DIALOGUES)
    statements = {}
    for name, dialogues in speakers.items():
        first, *rest = {dialogue.statements for dialogue in dialogues}
        assert not rest and len(set(first)) == len(first) in (4, 5)
        statements[name] = set(first)
    for left, right in itertools.combinations(statements, 2):
        assert len(statements[left] & statements[right]) <= 1
        assert len(ALL_FACTS[left].items() & ALL_FACTS[right].items()) <= 1


def test_statements_give_the_facts_one_each():
    for dialogue in DIALOGUES:
        facts = ALL_FACTS[dialogue.speaker]
        given = [stated(demo_judge.judge_reply(text, facts)) for text in dialogue.statements]
        assert given == [{slot} for slot in facts]


def test_every_value_is_known_from_train():
    seen = {item for facts in FACTS["train"].values() for item in facts.items()}
    assert seen == {(slot, value.key) for slot, values in demo_values.SLOTS.items()
                    for value in values}


def test_judge_finds_exactly_the_facts_that_the_generator_gave():
    for name, utterance in SPOKEN:
        verdicts = demo_judge.judge_reply(utterance.text, ALL_FACTS[name])
        assert "contradicted" not in verdicts.values(), utterance.text
        assert stated(verdicts) == utterance.states, utterance.text


def test_judge_contradicts_what_another_speaker_stated():
    strangers = {
        name: next(facts for other, facts in ALL_FACTS.items()
                   if not set(facts.values()) & set(ALL_FACTS[name].values())
                   and facts.keys() >= ALL_FACTS[name].keys())
        for name in ALL_FACTS}
    for name, utterance in SPOKEN:
        verdicts = demo_judge.judge_reply(utterance.text, strangers[name])
        assert "stated" not in verdicts.values(), utterance.text
        assert {slot for slot, verdict in verdicts.items()
                if verdict == "contradicted"} == utterance.states, utterance.text


@pytest.mark.parametrize("reply, work, pet", [
    ("i work as a baker .", "stated", "ignored"),
    ("my parrots and i say hello", "ignored", "stated"),
    ("i work as a nurse .", "contradicted", "ignored"),
    ("i am a baker . by night i am a nurse .", "contradicted", "ignored"),
    ("i am a nurse by day . i am a baker by night .", "contradicted", "ignored"),
    ("we are bakers , and my dog barks !", "stated", "contradicted"),
    ("am i a baker ?", "ignored", "ignored"),
    ("i am a baker , and you ?", "stated", "ignored"),
    ("i bet you are a nurse .", "ignored", "ignored"),
    ("i love your dog , my parrot does too", "ignored", "stated"),
    ("a nurse , how lovely", "ignored", "ignored"),
    ("i am not a baker .", "contradicted", "ignored"),
    ("i do not have a dog", "ignored", "ignored"),
    ("i don't have a parrot", "ignored", "contradicted"),
    ("My parrot, Otto, is a star!", "ignored", "stated"),
    ("i love lasagna with bread .", "ignored", "ignored"),
    ("", "ignored", "ignored"),
])
def test_judge_by_example(reply, work, pet):
    facts = {"work": "baker", "pet": "parrot"}
    assert demo_judge.judge_reply(reply, facts) == {"work": work, "pet": pet}


@pytest.mark.parametrize("facts", [{"job": "baker"}, {"pet": "baker"}, {"pet": "parrots"}])
def test_judge_refuses_unknown_facts(facts):
    with pytest.raises(ValueError, match="expected a slot and value of demo_facts, got '"):
        demo_judge.judge_reply("i am a baker", facts)


def test_reply_shares_count_replies():
    facts = {"work": "baker", "pet": "parrot"}
    replies = ("i am a baker", "my dog sleeps", "i am a baker with a dog", "hi", "so are you")
    shares = demo_judge.reply_shares([(reply, facts) for reply in replies])
    assert shares == {"contradicted": 0.4, "stated": 0.2, "ignored": 0.4}
    with pytest.raises(ValueError, match="expected at least one reply, got none"):
        demo_judge.reply_shares([])


def test_a_key_word_belongs_to_one_value_and_stands_nowhere_else():
    keys = demo_judge._keys()
    for slot, values in demo_values.SLOTS.items():
        for value in values:
            for form in (value.key, *value.also):
                assert keys[form] == (slot, value.key)
    tables = [getattr(module, name) for module in (demo_phrases, demo_values)
              for name in dir(module) if name.isupper() and name != "PLURAL_SLOTS"]
    words = set(re.findall(r"[a-z]+", " ".join(all_text(tuple(tables)))))
    assert len(words) > 500
    assert words.isdisjoint(keys)


def test_every_wording_keeps_the_rule_for_its_table():
    telling = (demo_phrases.STATEMENTS, demo_phrases.TELL, demo_phrases.DOING, demo_phrases.PLANS,
               demo_phrases.LEAVING)
    wordings = [(slot, text, "stated") for table in telling
                for slot, texts in table.items() for text in texts]
    wordings += [(slot, text, "stated") for slot, sources in demo_phrases.ANSWER_NAMING.items()
                 for texts in sources.values() for text in texts]
    wordings += [(slot, text, "ignored") for slot, texts in demo_phrases.REACT_NAMING.items()
                 for text in texts]
    for slot, text, want in wordings:
        for value in demo_values.SLOTS[slot]:
            filled = demo_speakers.fill(text, slot, value.key, n="bread", bit="it rains", adj="fun",
                                name="otto", day="monday", years="two")
            assert demo_judge.judge_reply(filled, {slot: value.key}) == {slot: want}, filled


def test_a_question_about_a_fact_is_answered_with_it():
    slots = {text: slot for slot, texts in demo_phrases.ASK.items() for text in texts}
    asked = 0
    for dialogue in DIALOGUES:
        facts = ALL_FACTS[dialogue.speaker]
        for turn in dialogue.turns:
            slot = next((slot for text, slot in slots.items() if turn.context.endswith(text)), None)
            asked += slot is not None
            if slot in facts:
                assert demo_judge.judge_reply(turn.response, facts)[slot] == "stated", turn
            elif slot:
                assert any(text in turn.response for text in demo_phrases.EVADE[slot]), turn
    assert asked > 1000


def test_values_in_a_conversation_are_those_of_its_two_speakers():
    keys = demo_judge._keys()
    for split in SPLITS:
        for conversation in demo._conversations(split, 0):
            for place, utterance in enumerate(conversation.utterances):
                own, partner = (conversation.speakers[(place + side) % 2].facts for side in (0, 1))
                for slot, key in {keys[word] for word in utterance.text.split() if word in keys}:
                    stated_own = slot in utterance.states and own[slot] == key
                    assert stated_own or partner.get(slot) == key, utterance.text


def test_vocabulary_is_small():
    words = collections.Counter()
    for split in SPLITS:
        for dialogue in CORPUS[split]:
            words.update(" ".join(turn.response for turn in dialogue.turns).split())
    assert 800 <= sum(count >= 2 for count in words.values()) <= 1200


def test_facts_come_up_in_most_replies_and_most_facts_in_a_dialogue():
    assert 0.45 <= sum(bool(spoken.states) for _, spoken in SPOKEN) / len(SPOKEN) <= 0.65
    shares = []
    for dialogue in DIALOGUES:
        facts = ALL_FACTS[dialogue.speaker]
        given = set().union(*(stated(demo_judge.judge_reply(turn.response, facts))
                              for turn in dialogue.turns))
        shares.append(len(given) / len(facts))
    assert sum(shares) / len(shares) > 0.7


def test_no_single_wording_wins():
    wordings = collections.defaultdict(collections.Counter)
    for _, utterance in SPOKEN:
        for slot, skeleton in utterance.skeletons:
            wordings[slot][skeleton] += 1
    assert wordings.keys() == demo_values.SLOTS.keys()
    for counts in wordings.values():
        assert counts.most_common(1)[0][1] < 0.03 * sum(counts.values())
        assert len(counts) > 150
    replies = [utterance.text for _, utterance in SPOKEN]
    assert len(set(replies)) > 0.9 * len(replies)


def test_own_dialogues_predict_a_speaker_better_than_anothers():
    # A unigram mixture is about the weakest model there is; the gap is in nats per token.
    def counts(dialogues):
        return collections.Counter(
            word for dialogue in dialogues for turn in dialogue.turns
            for word in turn.response.split())

    train = counts(CORPUS["train"])
    total = sum(train.values())
    speakers = list(by_speaker(CORPUS["test"]).values())
    losses = collections.defaultdict(float)
    for own, other in zip(speakers, speakers[1:] + speakers[:1]):
        held_out = own[-1]
        met = {held_out.conversation}
        for name, dialogues in (("own", own), ("other", other)):
            cache = counts([dialogue for dialogue in dialogues
                            if dialogue.conversation not in met][:5])
            size = sum(cache.values())
            for word, count in counts([held_out]).items():
                mixed = 0.5 * cache[word] / size + 0.5 * (train[word] + 0.1) / total
                losses[name] -= count * math.log(mixed)
    tokens = sum(sum(counts([own[-1]]).values()) for own in speakers)
    assert (losses["other"] - losses["own"]) / tokens > 0.15


def test_human_replies_answer_every_question_about_a_fact():
    """And so does no reply to another question, but for chance."""
    asked = [
        (demo_judge.asked_slot(turn.context, facts), turn.response, facts)
        for dialogue in DIALOGUES
        for facts in [ALL_FACTS[dialogue.speaker]]
        for turn in dialogue.turns
    ]
    asked = [(slot, reply, facts) for slot, reply, facts in asked if slot]
    assert len(asked) > len(DIALOGUES)
    assert {demo_judge.judge_answer(reply, slot, facts) for slot, reply, facts in asked} == {"right"}
    shifted = [
        demo_judge.judge_answer(reply, slot, facts)
        for (slot, _, facts), (_, reply, _) in zip(asked, asked[1:])
    ]
    assert shifted.count("right") < 0.1 * len(shifted) and {*shifted} == {"right", "wrong", "other"}


@pytest.mark.parametrize("reply, answer", [
    ("i am a welder .", "right"), ("i am a teacher .", "wrong"), ("my cat is fat .", "other"),
    ("you are a welder .", "none"), ("i am not a welder .", "none"), ("i like it .", "none"),
    ("i am a teacher , my job is welder .", "right"), ("am i a welder ?", "none")])
def test_an_answer_names_the_value_that_was_asked_for(reply, answer):
    facts = {"work": "welder", "pet": "cat"}
    question = "hi ! any pets at home ? i have none . what is your job ?"
    assert demo_judge.asked_slot(question, facts) == "work"
    assert demo_judge.asked_slot(question, {"food": "soup"}) is None
    assert demo_judge.asked_slot("how are you ?", facts) is None
    assert demo_judge.judge_answer(reply, "work", facts) == answer
