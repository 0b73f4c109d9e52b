"""Reads Dialogue NLI (Welleck et al., 2019), and draws further pairs of unrelated texts."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtml_jax.data.reading import decoded, excerpt
from mtml_jax.data.records import Persona

CLASSES = ("entailment", "neutral", "contradiction")
CLASS_OF = {name: n for n, name in enumerate(CLASSES)} | {"positive": 0, "negative": 2}

_LABELS = "positive, neutral or negative, or entailment, neutral or contradiction"
_FILES = {
    "train": ("nli-train.txt", "dialogue_nli_train.jsonl"),
    "valid": ("nli-valid.txt", "dialogue_nli_dev.jsonl"),
}


class LabelledPair(NamedTuple):
    """A reply, a persona statement and the label of the pair, an index into `CLASSES`."""

    reply: str
    statement: str
    label: int


def read_dialogue_nli(folder: str | os.PathLike, split: str) -> list[LabelledPair]:
    """Reads one split, as text lines or in the form of the public release.

    Text lines are `utterance</s>statement</s>label`. The release has objects with
    sentence1, sentence2 and label, as a JSON list or one object per line.

    Args:
      folder: contains nli-train.txt and nli-valid.txt, or dialogue_nli_train.jsonl and
        dialogue_nli_dev.jsonl.
      split: "train" or "valid".

    Raises:
      FileNotFoundError: the folder has no file of this split.
      ValueError: a line does not have this form; the message names file and line.
    """
    for name in _FILES[split]:
        path = Path(folder) / name
        if path.is_file():
            pairs = list(_read_objects(path) if path.suffix == ".jsonl" else _read_text(path))
            if not pairs:
                raise ValueError(f"{path}:1: expected labelled pairs, got an empty file")
            return pairs
    got = "none of these files" if Path(folder).is_dir() else "no such folder"
    raise FileNotFoundError(
        f"{folder}: expected {' or '.join(_FILES[split])} in the folder of --data, got {got}"
    )


def unrelated_pairs(
    personas: Sequence[Persona], count: int, rng: np.random.Generator
) -> list[LabelledPair]:
    """Draws pairs of a reply and a statement of another persona, labelled neutral.

    Dialogue NLI is balanced by design, so a model trained on it alone finds contradictions
    in most pairs that are merely unrelated. A few of the drawn pairs are mislabelled.

    Args:
      personas: two or more personas of one split, with statements.
      count: number of pairs.
      rng: random generator.

    Raises:
      ValueError: almost all personas have the same statements.
    """
    pairs: list[LabelledPair] = []
    for _ in range(100 * count):
        if len(pairs) == count:
            break
        speaker, other = rng.choice(len(personas), 2, replace=False)
        dialogue = personas[speaker].dialogues[rng.integers(len(personas[speaker].dialogues))]
        foreign = personas[other].dialogues[rng.integers(len(personas[other].dialogues))]
        statement = foreign.statements[rng.integers(len(foreign.statements))]
        if statement not in dialogue.statements:
            reply = dialogue.turns[rng.integers(len(dialogue.turns))].response
            pairs.append(LabelledPair(reply, statement, CLASSES.index("neutral")))
    if len(pairs) < count:
        raise ValueError(
            f"expected statements of another persona for {count:,} replies, got them for "
            f"{len(pairs):,}; choose a --corpus of different personas"
        )
    return pairs


def _read_text(path):
    for where, text in _texts(path):
        columns = text.split("</s>")
        if len(columns) != 3:
            raise ValueError(
                f"{where}: expected 'utterance</s>statement</s>label', got {excerpt(text)} of "
                f"{len(columns)} columns"
            )
        yield _pair(*columns, where)


def _texts(path):
    """Yields (file and line, text) of every line that is not blank."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            text = decoded(line, where)
            if text.strip():
                yield where, text


def _read_objects(path):
    with open(path, "rb") as lines:
        first = next((line for line in lines if line.strip()), b"")
    if first.lstrip().startswith(b"["):
        try:
            entries = json.loads(path.read_bytes())
        except ValueError as error:
            line = getattr(error, "lineno", 1)
            raise ValueError(f"{path}:{line}: expected a JSON list, got no JSON ({error})") from None
        for number, entry in enumerate(entries, start=1):
            yield _object(entry, f"{path}: entry {number}")
        return
    for where, text in _texts(path):
        try:
            entry = json.loads(text)
        except ValueError:
            raise ValueError(
                f"{where}: expected an object with sentence1, sentence2 and label, "
                f"got {excerpt(text)}, which is not JSON"
            ) from None
        yield _object(entry, where)


def _object(entry, where):
    names = ("sentence1", "sentence2", "label")
    if not (isinstance(entry, dict) and all(isinstance(entry.get(n), str) for n in names)):
        raise ValueError(
            f"{where}: expected an object with the texts sentence1, sentence2 and label, "
            f"got {excerpt(json.dumps(entry))}"
        )
    return _pair(*(entry[name] for name in names), where)


def _pair(reply, statement, label, where):
    reply, statement, label = reply.strip(), statement.strip(), label.strip().lower()
    if label not in CLASS_OF:
        raise ValueError(f"{where}: expected the label {_LABELS}, got {excerpt(label)}")
    if not reply or not statement:
        raise ValueError(f"{where}: expected an utterance and a statement, got an empty text")
    return LabelledPair(reply, statement, CLASS_OF[label])
