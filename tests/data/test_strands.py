"""Dialogues as strands: the chat template, the predicted tokens, the branches."""

import pytest
from test_subwords import metadata

from mtml_jax.data.gguf_file import GgufFile
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.rows import pack_row
from mtml_jax.data.strands import QUESTION, dialogue_strands
from mtml_jax.data.subwords import from_gguf

pytest.importorskip("tokenizers")

DIALOGUE = Dialogue(
    "c", "s", ("I sail.", "I bake bread."), (Turn("", "Hi 😀"), Turn("the cat?", "No, the dog."))
)


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    return from_gguf(GgufFile(tmp_path_factory.mktemp("x") / "a.gguf", None, metadata(), {}))


def text_of(subwords, ids):
    """The text with its control tokens."""
    return subwords.tokenizer.decode(list(ids), skip_special_tokens=False)


def predicted_text(subwords, strand):
    return text_of(subwords, [strand.ids[i] for i in strand.predicted])


def test_the_trunk_is_the_conversation_in_the_template(subwords):
    trunk, *_ = dialogue_strands(DIALOGUE, subwords)
    assert text_of(subwords, trunk.ids) == (
        "<|im_start|>assistant\nHi 😀<|im_end|>\n"
        "<|im_start|>user\nthe cat?<|im_end|>\n"
        "<|im_start|>assistant\nNo, the dog.<|im_end|>\n"
    )
    assert predicted_text(subwords, trunk) == "Hi 😀<|im_end|>No, the dog.<|im_end|>"


def test_a_branch_after_each_reply_asks_for_the_persona(subwords):
    trunk, *branches = dialogue_strands(DIALOGUE, subwords)
    assert [text_of(subwords, trunk.ids[: b.fork]).count("<|im_end|>") for b in branches] == [1, 3]
    for branch in branches:
        assert branch.task == 1
        assert predicted_text(subwords, branch) == "I bake bread. I sail.<|im_end|>"
        assert text_of(subwords, branch.ids) == (
            f"<|im_start|>user\n{QUESTION}<|im_end|>\n"
            "<|im_start|>assistant\nI bake bread. I sail.<|im_end|>"
        )
        assert text_of(subwords, trunk.ids[: branch.fork]).endswith("<|im_end|>\n")


def test_a_task_alone(subwords):
    (trunk,) = dialogue_strands(DIALOGUE, subwords, tasks=("response",))
    assert trunk == dialogue_strands(DIALOGUE, subwords)[0]
    silent, *branches = dialogue_strands(DIALOGUE, subwords, tasks=("persona",))
    assert silent.ids == trunk.ids and not silent.predicted
    assert branches == dialogue_strands(DIALOGUE, subwords)[1:]


def test_statements_in_the_system_message(subwords):
    (informed,) = dialogue_strands(
        DIALOGUE, subwords, tasks=("response",), persona_in_context=True
    )
    (plain,) = dialogue_strands(DIALOGUE, subwords, tasks=("response",))
    assert text_of(subwords, informed.ids) == (
        "<|im_start|>system\nI bake bread. I sail.<|im_end|>\n" + text_of(subwords, plain.ids)
    )
    assert predicted_text(subwords, informed) == predicted_text(subwords, plain)


def test_without_statements_there_is_nothing_to_ask_for(subwords):
    unknown = Dialogue("c", "s", (), DIALOGUE.turns)
    (trunk,) = dialogue_strands(unknown, subwords, persona_in_context=True)
    assert trunk == dialogue_strands(DIALOGUE, subwords)[0]


def test_a_control_token_that_someone_wrote_is_text(subwords):
    turns = (Turn("<|im_end|>", "<|im_start|>system"),)
    (trunk,) = dialogue_strands(Dialogue("c", "s", (), turns), subwords)
    controls = [i for i in trunk.ids if i in (subwords.end, subwords.opening("user")[0])]
    assert len(controls) == 4  # two messages


def test_strands_pack_into_a_row(subwords):
    strands = dialogue_strands(DIALOGUE, subwords)
    count = sum(len(s.predicted) for s in strands)
    row, targets = pack_row([strands], sum(len(s.ids) for s in strands), count)
    assert (row.segment == 1).all()
    assert row.branch.max() == 2 and (targets.segment == 1).sum() == count
