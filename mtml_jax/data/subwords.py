"""Encodes text as the subword tokens of a pretrained decoder, and chats as its template asks.

Text is kept as it was written. Only the program sets control tokens: text that spells one
is encoded as text.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mtml_jax.data.gguf_file import GgufFile, open_gguf
from mtml_jax.data.pretrained_files import TOKENIZER, missing_library


class Markers(NamedTuple):
    """What a chat template puts around a message: control tokens, and text.

    Attributes:
      begin: the control token before the first message; empty for none.
      before_role: the control token before the name of the role.
      after_role: the control token after it; empty for none.
      gap: the text between that and the message.
      end: the control token after the message.
      after_end: the text before the next message.
    """

    begin: str
    before_role: str
    after_role: str
    gap: str
    end: str
    after_end: str


ROLES = ("system", "user", "assistant")
TEMPLATES = (
    Markers("", "<|im_start|>", "", "\n", "<|im_end|>", "\n"),  # ChatML: SmolLM2, Qwen
    Markers(
        "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "\n\n", "<|eot_id|>", ""
    ),  # Llama 3
)

_LLAMA_3_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _USER_DEFINED = 3, 4  # types of token in GGUF files


@dataclasses.dataclass(frozen=True)
class Subwords:
    """The tokenizer of a pretrained decoder.

    Attributes:
      tokenizer: `tokenizers.Tokenizer`.
      markers: the chat template.
    """

    tokenizer: Any
    markers: Markers

    def __len__(self) -> int:
        """The number of ids, which is one more than the largest."""
        return max(self.tokenizer.get_vocab().values()) + 1

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without control tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text up to the first `end`, without control tokens."""
        kept = []
        for i in ids:
            if i == self.end:
                break
            kept.append(i)
        return self.tokenizer.decode(kept, skip_special_tokens=True)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    @functools.cached_property
    def end(self) -> int:
        """The id of the control token that ends a message."""
        return self.tokenizer.token_to_id(self.markers.end)

    @functools.cached_property
    def controls(self) -> tuple[int, ...]:
        """The ids of all control tokens."""
        added = self.tokenizer.get_added_tokens_decoder()
        return tuple(sorted(i for i, token in added.items() if token.special))

    @functools.cached_property
    def begin(self) -> tuple[int, ...]:
        """The ids before the first message."""
        return self._control(self.markers.begin)

    @functools.cached_property
    def closing(self) -> tuple[int, ...]:
        """The ids after a message; the first is `end`, the others precede the next message."""
        return (self.end, *self.encode(self.markers.after_end))

    def opening(self, role: str) -> tuple[int, ...]:
        """Returns the ids before a message of a role.

        Raises:
          ValueError: the role is none of `ROLES`.
        """
        if role not in ROLES:
            raise ValueError(f"expected a role out of {', '.join(ROLES)}, got {role!r}")
        control = self._control
        if not self.markers.after_role:  # then one piece of text: role and gap
            return control(self.markers.before_role) + tuple(self.encode(role + self.markers.gap))
        return (
            control(self.markers.before_role)
            + tuple(self.encode(role))
            + control(self.markers.after_role)
            + tuple(self.encode(self.markers.gap))
        )

    def message(self, role: str, text: str) -> tuple[int, ...]:
        """Returns the ids of one whole message.

        They equal those of the template written out, unless the text begins with blanks or
        line breaks, which the template's own line break could join.
        """
        return self.opening(role) + tuple(self.encode(text)) + self.closing

    def _control(self, token):
        return (self.tokenizer.token_to_id(token),) if token else ()


def read_subwords(path: Path) -> Subwords:
    """Reads the tokenizer of a GGUF file or of a folder of Hugging Face.

    Args:
      path: from `pretrained_files.locate`.

    Raises:
      ValueError: the file is damaged, or its tokenizer or chat template is unknown.
      ImportError: the library of tokenizers is not installed.
    """
    return from_gguf(open_gguf(path)) if path.is_file() else from_json(path / TOKENIZER)


def from_json(path: Path) -> Subwords:
    """Reads tokenizer.json; arguments and errors as for `read_subwords`."""
    tokenizers = _library()
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises this class itself
        raise ValueError(
            f"{path}: expected a tokenizer of Hugging Face, got a damaged or other file "
            f"({_first_line(error)}); fetch it again"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _with_template(tokenizer, path)


def from_gguf(file: GgufFile) -> Subwords:
    """Builds the tokenizer that a GGUF file describes; errors as for `read_subwords`."""
    tokenizers = _library()
    metadata, where = file.metadata, file.path

    def get(key):
        return metadata.get(f"tokenizer.ggml.{key}")

    splitting = _splitting(tokenizers).get(get("pre"))
    if get("model") != "gpt2" or splitting is None:
        raise ValueError(
            f"{where}: expected a byte-level tokenizer with the splitting "
            f"{', '.join(_splitting(tokenizers))}, got model {get('model')!r} and splitting "
            f"{get('pre')!r}; use the decoder's folder of Hugging Face instead"
        )
    tokens, kinds = get("tokens"), get("token_type")
    try:
        merges = [tuple(merge.split(" ")) for merge in get("merges")]
        if len(kinds) != len(tokens) or len(set(tokens)) < len(tokens):
            raise ValueError("tokens and their types do not match")
        model = tokenizers.models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=get("pre") == "llama-bpe",
        )
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = splitting
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        for kind, add in (
            (_CONTROL, tokenizer.add_special_tokens),
            (_USER_DEFINED, tokenizer.add_tokens),
        ):
            mine = [token for token, this in zip(tokens, kinds) if this == kind]
            add([tokenizers.AddedToken(token, normalized=False) for token in mine])
    except Exception as error:  # the library raises this class itself
        raise ValueError(
            f"{where}: expected tokens, their types and merges of a tokenizer, got damaged ones "
            f"({_first_line(error)}); fetch the file again"
        ) from None
    return _with_template(tokenizer, where)


def _splitting(tokenizers):
    """How text is cut before tokens are merged, by its name in GGUF files."""
    pre = tokenizers.pre_tokenizers
    byte_level = pre.ByteLevel(add_prefix_space=False, use_regex=True)
    pieces = pre.Split(tokenizers.Regex(_LLAMA_3_PIECES), "isolated")
    return {
        "smollm": pre.Sequence([pre.Digits(individual_digits=True), byte_level]),
        "gpt-2": byte_level,
        "llama-bpe": pre.Sequence([pieces, pre.ByteLevel(add_prefix_space=False, use_regex=False)]),
    }


def _with_template(tokenizer, where):
    for markers in TEMPLATES:
        controls = (markers.begin, markers.before_role, markers.after_role, markers.end)
        if all(tokenizer.token_to_id(token) is not None for token in controls if token):
            tokenizer.encode_special_tokens = True  # text that spells a control token is text
            return Subwords(tokenizer, markers)
    raise ValueError(
        f"{where}: expected the chat markers "
        f"{' or '.join(markers.before_role for markers in TEMPLATES)} among the tokens, got "
        "neither; use a decoder that is tuned for chats"
    )


def _first_line(error):
    return str(error).split("\n")[0]


def _library():
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
    except ImportError as error:
        raise missing_library(error) from None
    return tokenizers
