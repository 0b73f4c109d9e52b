"""Reads Dialogue NLI (Welleck et al., 2019), and draws pairs that have nothing to do with it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtml_jax.data.reading import decoded, excerpt
from mtml_jax.data.records import Persona

CLASSES = ("entailment", "neutral", "contradiction")
CLASS_OF = {
    "entailment": 0, "neutral": 1, "contradiction": 2, "positive": 0, "negative": 2,
}  # fmt: skip

_FILES = {
    "train": ("nli-train.txt", "dialogue_nli_train.jsonl"),
    "valid": ("nli-valid.txt", "dialogue_nli_dev.jsonl"),
}


class LabelledPair(NamedTuple):
    """A reply, a persona statement, and what the reply says of it: an index into `CLASSES`."""

    reply: str
    statement: str
    label: int


def read_dialogue_nli(folder: str | os.PathLike, split: str) -> list[LabelledPair]:
    """Reads one split, as text lines or as the public release.

    Text has lines `utterance</s>statement</s>label`. The release has objects with
    sentence1, sentence2 and label: a JSON list, or one object a line.

    Args:
      folder: with nli-train.txt and nli-valid.txt, or dialogue_nli_train.jsonl and
        dialogue_nli_dev.jsonl.
      split: "train" or "valid".

    Raises:
      FileNotFoundError: the folder has no file of this split.
      ValueError: a line is not of this form; the message names file and line.
    """
    for name in _FILES[split]:
        path = Path(folder) / name
        if path.is_file():
            pairs = list(_read_objects(path) if path.suffix == ".jsonl" else _read_text(path))
            if not pairs:
                raise ValueError(f"{path}:1: found an empty file, want labelled pairs")
            return pairs
    found = "none of the files" if Path(folder).is_dir() else "no such folder"
    raise FileNotFoundError(
        f"{folder}: found {found}, want {' or '.join(_FILES[split])} in the folder of --data"
    )


def unrelated_pairs(
    personas: Sequence[Persona], count: int, rng: np.random.Generator
) -> list[LabelledPair]:
    """Draws replies with statements of other personas, and calls them neutral.

    Dialogue NLI is balanced by design, so a model of it alone sees a contradiction in
    most pairs that are merely unrelated. A few drawn pairs do contradict or entail.

    Args:
      personas: of one split, two or more, with statements.
      count: pairs to draw.
      rng: source of chance.

    Raises:
      ValueError: nearly all personas have the same statements.
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
            f"found statements of another persona for {len(pairs):,} of {count:,} replies, want "
            "personas that differ in --corpus"
        )
    return pairs


def _read_text(path):
    for where, text in _texts(path):
        columns = text.split("</s>")
        if len(columns) != 3:
            raise ValueError(
                f"{where}: found {excerpt(text)} of {len(columns)} columns, "
                "want 'utterance</s>statement</s>label'"
            )
        yield _pair(*columns, where)


def _texts(path):
    """(place, text) of every line that is not blank."""
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
            raise ValueError(f"{path}:{line}: found no JSON ({error}), want a list") from None
        for number, entry in enumerate(entries, start=1):
            yield _object(entry, f"{path}: entry {number}")
        return
    for where, text in _texts(path):
        try:
            entry = json.loads(text)
        except ValueError:
            raise ValueError(
                f"{where}: found {excerpt(text)}, which is no JSON, "
                "want an object with sentence1, sentence2 and label"
            ) from None
        yield _object(entry, where)


def _object(entry, where):
    names = ("sentence1", "sentence2", "label")
    if not (isinstance(entry, dict) and all(isinstance(entry.get(n), str) for n in names)):
        raise ValueError(
            f"{where}: found {excerpt(json.dumps(entry))}, "
            "want an object with the texts sentence1, sentence2 and label"
        )
    return _pair(*(entry[name] for name in names), where)


def _pair(reply, statement, label, where):
    reply, statement, label = reply.strip(), statement.strip(), label.strip().lower()
    if label not in CLASS_OF:
        raise ValueError(f"{where}: found the label {excerpt(label)}, want {_wanted()}")
    if not reply or not statement:
        raise ValueError(f"{where}: found an empty text, want an utterance and a statement")
    return LabelledPair(reply, statement, CLASS_OF[label])


def _wanted():
    return "positive, neutral or negative, or entailment, neutral or contradiction"
