"""A thousand texts, and their tokens by a tokenizer that shares no code with `subwords`.

The reference is llama.cpp's own tokenizer of the packaged GGUF file. To compare again:

    python tests/data/subword_golden.py texts.json
    npm i node-llama-cpp@3.21.1
    node tests/data/subword_golden.mjs texts.json MODEL.gguf > tokens.json
    python tests/data/subword_golden.py texts.json tokens.json

The last command prints `TOKENS`. With the folder of the GGUF file as a third argument it also
counts the texts that `transformers` encodes alike from that file: 673, as its conversion
(5.24) forgets that SmolLM2 splits digits off; with the published splitting all 1,000 are alike.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

TOKENS = "c15782564ebc66a0921c2b419ce809ead769b636fb206fb0a36b4d56ba0028bb"

_PIECES = (
    "Hi there", " how are you", "I'm", "don't", "WE'LL", " it's", "favourite", "naïve café",
    "e.g.", "...", "!?", " :-)", "<3", "#tag", "@ann", "http://a.b/c?d=1&e=2", "a_b", "--", "“so”",
    "1", "23", " 456", "7,890.12", "12:30", "٣٤", "½", "x²", "Ⅷ", "2nd", " 0",
    "😀", " 🎉🎉", "👍🏽", "👩‍👩‍👧", "🇪🇸", "❤️", "☕", "\n", "\n\n", " \n ", "\r\n", "\t", " ", "  ", "   ",
    "Привет", " как дела", "你好", "吗？", "こんにちは", "カタカナ", "안녕", "مرحبا", "שלום", "नमस्ते", "ไทย",
    "Γειά", "ß", "Ǆ", "ﬁ", "é", "\u00a0", "\u200b", "\u3000", "I", "a", "the", " of", " and", "The",
    "don’t", "'s", " 's", "'LL", "$5", "€", "100%", "(ok)", "[x]", "{y}", "\\n", "\"q\"", "~", "^",
)  # fmt: skip


def draw_texts(count: int = 1000) -> list[str]:
    """Texts of 1 to 30 pieces: emoji, digits, line breaks, runs of blanks, several scripts."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        pieces = [_PIECES[i] for i in rng.integers(len(_PIECES), size=rng.integers(1, 31))]
        glue = (" ", "")[rng.integers(2)]
        texts.append(glue.join(pieces))
    return texts


def digest(tokens: list[list[int]]) -> str:
    """SHA-256 of the ids of all texts."""
    return hashlib.sha256(json.dumps(tokens, separators=(",", ":")).encode()).hexdigest()


def main(texts, tokens=None, folder=None):
    if tokens is None:
        Path(texts).write_text(json.dumps(draw_texts()))
        return
    reference = json.loads(Path(tokens).read_text())
    print(digest(reference))
    if folder is not None:
        from transformers import AutoTokenizer

        name = next(Path(folder).glob("*.gguf")).name
        other = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        ids = other(json.loads(Path(texts).read_text())).input_ids
        print(sum(a == b for a, b in zip(ids, reference, strict=True)), "alike by transformers")


if __name__ == "__main__":
    main(*sys.argv[1:])
