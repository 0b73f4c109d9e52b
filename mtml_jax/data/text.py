"""Converts between text as people write it and the blank-separated tokens of a corpus."""

import re
import unicodedata
from collections.abc import Iterable

PLACEHOLDER = re.compile(r"\[\s*((?:[\w'-]+\s+){0,4}[\w'-]+)\s*\]")

# Of tokenize.
_STRAIGHT = str.maketrans("\u2018\u2019\u02bc\u201c\u201d", "'''\"\"")
_OWNER = re.compile(r"^(?:(?:user|speaker|person|your|my|the)\s*\d*(?:\s*'s)?(?:\s+|$))+")
_CONTRACTION = re.compile(r"\b([^\W_]+?)(n't|'(?:m|re|ve|ll|d|s))\b")
_IRREGULAR = {"won't": "will not", "can't": "can not", "shan't": "shall not", "let's": "let us"}
_ENDINGS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_BEFORE_IS = frozenset(
    "it that what he she there here who where how when why everything something nothing".split()
)
_TOKEN = re.compile(r"\[\w+\]|'s\b|\w+|\S")

# Of detokenize.
_NO_BLANK_BEFORE = re.compile(r" (n't\b|'\w+|[.,!?;:%)\]}]+)")
_NO_BLANK_AFTER = re.compile(r"([(\[{$#]) ")
_SENTENCE_START = re.compile(r"(^|[.!?]\s+)(\w)")
_I = re.compile(r"\bi\b")


def tokenize(text: str) -> str:
    """Rewrites a text in PersonaChat's style: lower case, tokens separated by blanks.

    In this order: curly quotes become straight ones and invisible characters become
    blanks; a placeholder in square brackets becomes one token without the speaker's number
    ("[User 1's name]" and "[user 2]" are "[name]", "[your city]" is "[city]");
    contractions are expanded ("don't" is "do not", "it's" is "it is"); the possessive 's
    becomes a token, and so does every other character that is not part of a word.

    Args:
      text: any text.

    Returns:
      Tokens separated by single blanks; empty if the text has no visible character.
      Tokenizing the result again does not change it.
    """
    text = text.lower()  # first: the lower case of some letters is not yet composed
    text = unicodedata.normalize("NFC", text).translate(_STRAIGHT)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    if "[" in text:
        text = PLACEHOLDER.sub(_one_token, text)
    if "'" in text:
        text = _CONTRACTION.sub(_expanded, text)
    return " ".join(_TOKEN.findall(text))


def detokenize(text: str) -> str:
    """Writes tokens as a person would, for display; it is not an inverse of `tokenize`.

    Punctuation is attached to the word before it and an opening bracket to the word after
    it; "i" and the first letter of each sentence are capitalised. The unknown word is
    shown as (?).

    Args:
      text: blank-separated tokens.

    Returns:
      The text.
    """
    words = ["(?)" if word == "<unk>" else word for word in text.split()]
    joined = _NO_BLANK_AFTER.sub(r"\1", _NO_BLANK_BEFORE.sub(r"\1", " ".join(words)))
    capitalised = _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), joined)
    return _I.sub("I", capitalised)


def persona_text(statements: Iterable[str]) -> str:
    """Joins persona statements into the text that the persona task reconstructs.

    The statements are sorted and lose their full stops; other punctuation marks become
    tokens, as they are in the dialogues.

    Args:
      statements: one speaker's statements, in any order.

    Returns:
      Blank-separated tokens; empty without statements.
    """
    text = " ".join(sorted(statements)).replace(".", " ")
    return " ".join(re.sub(r"([,!?;])", r" \1 ", text).split())


def _expanded(match: re.Match) -> str:
    contraction, word, ending = match.group(0, 1, 2)
    if contraction in _IRREGULAR:
        return _IRREGULAR[contraction]
    if ending == "'s":
        return f"{word} is" if word in _BEFORE_IS else contraction
    if ending == "'m":
        return f"{word} am" if word == "i" else contraction
    return f"{word} {_ENDINGS[ending]}"


def _one_token(match: re.Match) -> str:
    if not re.search(r"\w", match.group(1)):
        return match.group()
    content = "_".join(re.findall(r"\w+", _OWNER.sub("", match.group(1))))
    return " [name] " if content in ("", "name", "username") else f" [{content}] "
