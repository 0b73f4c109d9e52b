"""Subword tokenizers: equal to llama.cpp's, chat templates, control tokens, damage."""

import json
import re
import sys

import pytest
import subword_golden

from mtml_jax.data import subwords
from mtml_jax.data.gguf_file import GgufFile
from mtml_jax.data.pretrained_files import locate
from mtml_jax.data.subwords import from_gguf, from_json, read_subwords

tokenizers = pytest.importorskip("tokenizers")

CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA_3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@pytest.fixture(scope="module")
def packaged():
    """The tokenizer of SmolLM2 as it is installed."""
    try:
        return read_subwords(locate("smollm2-135m"))
    except ImportError as error:
        pytest.skip(str(error))


def metadata(controls=CHATML, pre="smollm", **changed):
    """What a GGUF file says of a tokenizer of bytes and three merges."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*controls, *letters, "th", "the", "Ġthe"]
    values = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3] * len(controls) + [1] * (len(tokens) - len(controls)),
        "merges": ["t h", "th e", "Ġ the"],
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (values | changed).items()}


def small(tmp_path, **settings):
    return from_gguf(GgufFile(tmp_path / "a.gguf", None, metadata(**settings), {}))


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"no module tokenizers, .*mtml_jax\[pretrained\]"):
        from_json(tmp_path / "tokenizer.json")


def test_a_thousand_texts_have_the_tokens_of_llama_cpp(packaged):
    texts = subword_golden.draw_texts()
    tokens = [packaged.encode(text) for text in texts]
    assert len(texts) == 1000 and sum(map(len, tokens)) > 40_000
    assert subword_golden.digest(tokens) == subword_golden.TOKENS
    assert [packaged.decode(ids) for ids in tokens] == texts


def test_template_of_the_packaged_decoder(packaged):
    """Equals the template written out, encoded with its control tokens."""
    packaged.tokenizer.encode_special_tokens = False
    written = (
        "<|im_start|>system\nYou are Robin.<|im_end|>\n<|im_start|>user\nHi 😀,\nyou?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    wanted = packaged.tokenizer.encode(written).ids
    packaged.tokenizer.encode_special_tokens = True
    got = packaged.begin + packaged.message("system", "You are Robin.")
    got += packaged.message("user", "Hi 😀,\nyou?") + packaged.opening("assistant")
    assert list(got) == wanted
    assert packaged.end == 2 and packaged.closing == (2, 198)


def test_text_that_spells_a_control_token_is_text(packaged, tmp_path):
    for tokenizer in (packaged, small(tmp_path)):
        for text in ("<|im_end|>", "a<|im_start|>user\nb"):
            ids = tokenizer.encode(text)
            assert not set(ids) & {tokenizer.end, *tokenizer.opening("user")[:1]}
            assert tokenizer.decode(ids) == text


def test_template_of_llama_3(tmp_path):
    tokenizer = small(tmp_path, controls=LLAMA_3, pre="llama-bpe")
    names = [tokenizer.tokenizer.id_to_token(i) for i in tokenizer.message("user", "the the")]
    assert names == [
        "<|start_header_id|>", "u", "s", "e", "r", "<|end_header_id|>", "Ċ", "Ċ",
        "the", "Ġthe", "<|eot_id|>",
    ]  # fmt: skip
    assert tokenizer.begin == (0,) and tokenizer.end == 3 and tokenizer.closing == (3,)


def test_decoding_stops_at_the_end_and_leaves_control_tokens_out(tmp_path):
    tokenizer = small(tmp_path)
    ids = [0, *tokenizer.encode("the the"), tokenizer.end, *tokenizer.encode("more")]
    assert tokenizer.decode(ids) == "the the"
    assert len(tokenizer) == 2 + 256 + 3


def test_digits_stand_alone(tmp_path):
    def pieces(pre, text):
        tokenizer = small(tmp_path, pre=pre).tokenizer
        return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    assert pieces("smollm", "a  1234 the") == ["a", "ĠĠ", "1", "2", "3", "4", "Ġthe"]
    assert pieces("gpt-2", "a  1234 the") == ["a", "Ġ", "Ġ1234", "Ġthe"]
    assert pieces("llama-bpe", "a  1234 the\n\n b") == [
        "a", "Ġ", "Ġ", "123", "4", "Ġthe", "ĊĊ", "Ġb",
    ]  # fmt: skip


def test_whole_words_come_before_merges_in_llama_3_alone(tmp_path):
    # "xth" is a token that no merge makes.
    for pre, count in (("llama-bpe", 1), ("smollm", 2)):
        settings = metadata(pre=pre)
        tokens = [*settings["tokenizer.ggml.tokens"], "xth"]
        kinds = [*settings["tokenizer.ggml.token_type"], 1]
        tokenizer = small(tmp_path, pre=pre, tokens=tokens, token_type=kinds)
        assert len(tokenizer.encode("xth")) == count


def test_tokenizer_json(tmp_path):
    wanted = small(tmp_path)
    path = tmp_path / "tokenizer.json"
    wanted.tokenizer.enable_truncation(2)
    wanted.tokenizer.enable_padding(length=9)
    wanted.tokenizer.save(str(path))
    wanted.tokenizer.no_truncation()
    wanted.tokenizer.no_padding()
    got = from_json(path)
    for text in ("the 12 the\n", "<|im_end|>"):
        assert got.encode(text) == wanted.encode(text)
    assert got.message("assistant", "the") == wanted.message("assistant", "the")
    for content in ("", "{", "[]", "{}", path.read_text()[:-9]):
        path.write_text(content)
        with pytest.raises(ValueError, match="expected a tokenizer of Hugging Face") as error:
            from_json(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"model": "llama"}, "byte-level tokenizer.*got model 'llama'"),
        ({"pre": "tekken"}, "splitting 'tekken'; use the decoder's folder"),
        ({"pre": None}, "splitting None"),
        ({"merges": None}, "got damaged ones"),
        ({"merges": ["t h", "x y z"]}, "got damaged ones"),
        ({"merges": ["q z"]}, "got damaged ones"),
        ({"token_type": [3, 3]}, "tokens and their types do not match"),
        ({"controls": ()}, "expected the chat markers <|im_start|> or"),
        ({"controls": LLAMA_3[:3]}, "use a decoder that is tuned for chats"),
    ],
)
def test_unknown_and_damaged_tokenizers_are_refused(tmp_path, changed, message):
    with pytest.raises(ValueError) as error:
        small(tmp_path, **changed)
    found = str(error.value)
    assert found.startswith(str(tmp_path / "a.gguf")) and "\n" not in found
    assert re.search(message.replace("|", r"\|"), found)


def test_roles(tmp_path):
    tokenizer = small(tmp_path)
    assert len({tokenizer.opening(role) for role in subwords.ROLES}) == 3
    with pytest.raises(ValueError, match="out of system, user, assistant, got 'robin'"):
        tokenizer.opening("robin")


def test_tokenizer_of_a_folder(tmp_path):
    small(tmp_path).tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_subwords(tmp_path).end == 1
    assert (
        json.loads((tmp_path / "tokenizer.json").read_text())["pre_tokenizer"]["type"] == "Sequence"
    )
