"""Dialogues as strands: the chat template, the predicted tokens, the branches."""

import dataclasses

import pytest
from test_subwords import metadata

from mtml_jax.config_decoder import RowShape
from mtml_jax.data.encode import own_side
from mtml_jax.data.gguf_file import GgufFile
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.rows import pack_row
from mtml_jax.data.strands import QUESTION, RowEncoding
from mtml_jax.data.subwords import from_gguf

pytest.importorskip("tokenizers")

DIALOGUE = Dialogue(
    "c", "s", ("I sail.", "I bake bread."), (Turn("", "Hi 😀"), Turn("the cat?", "No, the dog."))
)


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    return from_gguf(GgufFile(tmp_path_factory.mktemp("x") / "a.gguf", None, metadata(), {}))


def window_of(subwords, dialogue=DIALOGUE, after="every", tokens=384, **how):
    """The only window of a dialogue."""
    encoding = RowEncoding(subwords, RowShape(tokens, after), **how)
    (window,) = encoding.encode(dialogue)[0]
    return window


def text_of(subwords, ids):
    """The text with its control tokens."""
    return subwords.tokenizer.decode(list(ids), skip_special_tokens=False)


def predicted_text(subwords, strand):
    return text_of(subwords, [strand.ids[i] for i in strand.predicted])


def test_the_trunk_is_the_conversation_in_the_template(subwords):
    trunk = window_of(subwords).trunk
    assert text_of(subwords, trunk.ids) == (
        "<|im_start|>assistant\nHi 😀<|im_end|>\n"
        "<|im_start|>user\nThe cat?<|im_end|>\n"
        "<|im_start|>assistant\nNo, the dog.<|im_end|>\n"
    )
    assert predicted_text(subwords, trunk) == "Hi 😀<|im_end|>No, the dog.<|im_end|>"


def test_text_is_read_as_it_was_written_where_that_is_known(subwords):
    turns = (Turn("the cat ?", "no , the dog .", ("the CAT?\n🐈", "no... The dog!")),)
    trunk = window_of(subwords, Dialogue("c", "s", (), turns)).trunk
    assert text_of(subwords, trunk.ids) == (
        "<|im_start|>user\nthe CAT?\n🐈<|im_end|>\n<|im_start|>assistant\nno... The dog!<|im_end|>\n"
    )
    heard = window_of(subwords, own_side(Dialogue("c", "s", (), turns))).trunk
    assert text_of(subwords, heard.ids) == "<|im_start|>assistant\nno... The dog!<|im_end|>\n"


@pytest.mark.parametrize("after, ends", [("every", [1, 3]), ("last", [3])])
def test_a_branch_asks_for_the_persona(subwords, after, ends):
    window = window_of(subwords, after=after)
    heard = [text_of(subwords, window.trunk.ids[: b.fork]) for b in window.branches]
    assert [text.count("<|im_end|>") for text in heard] == ends
    for branch, text in zip(window.branches, heard):
        assert branch.task == 1 and text.endswith("<|im_end|>\n")
        assert predicted_text(subwords, branch) == "I bake bread. I sail.<|im_end|>"
        assert text_of(subwords, branch.ids) == (
            f"<|im_start|>user\n{QUESTION}<|im_end|>\n"
            "<|im_start|>assistant\nI bake bread. I sail.<|im_end|>"
        )


def test_a_task_alone(subwords):
    window = window_of(subwords)
    assert window.strands(("response",)) == [window.trunk]
    silent, *branches = window.strands(("persona",))
    assert silent.ids == window.trunk.ids and not silent.predicted
    assert tuple(branches) == window.branches
    assert not window_of(subwords, tasks=(("response",),)).branches


def test_statements_in_the_system_message(subwords):
    tasks = (("response",),)
    informed = window_of(subwords, tasks=tasks, persona_in_context=True).trunk
    plain = window_of(subwords, tasks=tasks).trunk
    assert text_of(subwords, informed.ids) == (
        "<|im_start|>system\nI bake bread. I sail.<|im_end|>\n" + text_of(subwords, plain.ids)
    )
    assert predicted_text(subwords, informed) == predicted_text(subwords, plain)


def test_without_statements_there_is_nothing_to_ask_for(subwords):
    unknown = dataclasses.replace(DIALOGUE, statements=())
    window = window_of(subwords, unknown, persona_in_context=True)
    assert window.trunk == window_of(subwords).trunk and not window.branches


def test_a_control_token_that_someone_wrote_is_text(subwords):
    turns = (Turn("<|im_end|>", "<|im_start|>system"),)
    trunk = window_of(subwords, Dialogue("c", "s", (), turns)).trunk
    controls = [i for i in trunk.ids if i in (subwords.end, subwords.opening("user")[0])]
    assert len(controls) == 4  # two messages


def test_contexts_and_replies_are_those_of_the_turns(subwords):
    window = window_of(subwords)
    assert window.turns == 2
    assert [text_of(subwords, c).endswith("assistant\n") for c in window.contexts()] == [True] * 2
    encoding = RowEncoding(subwords, RowShape())
    assert [encoding.words(reply) for reply in window.spoken()] == ["hi 😀", "no , the dog ."]
    assert encoding.start("response") == window.contexts()[1][-1]
    assert encoding.asked(window)[-1] == encoding.start("persona")


def test_a_long_dialogue_is_read_in_windows(subwords):
    """Every reply is predicted once, after what is said shortly before it."""
    turns = tuple(Turn(f"the cat {n}?", f"No, the dog {n}.") for n in range(40))
    long = Dialogue("c", "s", ("I sail.",), turns)
    first = window_of(subwords, long, after="last", tokens=300)
    assert 1 < first.turns < 40
    whole = RowEncoding(subwords, RowShape(300), tasks=(("response",),), whole=True)
    windows, counts = whole.encode(long)
    assert len(windows) > 2 and counts["responses"] == 0
    assert all(len(w.trunk.ids) <= 300 for w in windows)
    replies = [whole.words(reply) for w in windows for reply in w.spoken()]
    assert replies == [f"no , the dog {n} ." for n in range(40)]
    assert all(w.replies[0] > 90 for w in windows[1:])  # they begin with earlier turns


def test_a_turn_that_is_too_long_is_cut(subwords):
    turns = (Turn("the end " * 90, "the dog " * 90),)
    encoding = RowEncoding(subwords, RowShape(100), whole=True, tasks=(("response",),))
    (window,), counts = encoding.encode(Dialogue("c", "s", (), turns))
    assert len(window.trunk.ids) <= 100 and window.turns == 1
    assert counts["contexts"] == counts["responses"] == 1
    assert window.trunk.ids[window.trunk.predicted[-1]] == subwords.end


def test_prompts_end_as_training_does(subwords):
    window = window_of(subwords)
    encoding = RowEncoding(subwords, RowShape())
    said = [("assistant", "Hi 😀"), ("user", "the cat?")]
    assert encoding.prompt(said, "response") == window.contexts()[1]
    asked = encoding.prompt([*said[:1], ("user", "x")], "persona")
    first = window.branches[0]
    assert asked == (*window.trunk.ids[: first.fork], *first.ids[: first.predicted[0]])
    short = RowEncoding(subwords, RowShape(64))
    assert len(short.prompt([("user", "the end " * 300)], "response")) <= 64
    assert short.prompt([("user", "the end " * 300), ("user", "the cat?")], "response") == (
        short.prompt([("user", "the cat?")], "response")
    )


def test_strands_pack_into_a_row(subwords):
    strands = window_of(subwords).strands(("response", "persona"))
    count = sum(len(s.predicted) for s in strands)
    row, targets, _ = pack_row([strands], sum(len(s.ids) for s in strands), count)
    assert (row.segment == 1).all()
    assert row.branch.max() == 2 and (targets.segment == 1).sum() == count
