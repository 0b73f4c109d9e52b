"""From a corpus by name to encoded personas: the one road from files to episodes."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.data.corpus import find_split, read_parlai
from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.episodes import (
    EncodedPersona,
    Encoding,
    encode_personas,
    sample_episodes,
    stack_episodes,
    tiles_needed,
)
from mtml_jax.data.personas import group_personas, require_conversations, require_statements
from mtml_jax.data.vocab import Vocabulary, build_vocabulary, load_glove
from mtml_jax.records import Dialogue, Persona
from mtml_jax.types import Episode

CORPORA = ("demo", "personachat")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What training reads.

    Attributes:
      vocabulary: of the train split.
      train: encoded personas of train with two conversations or more.
      valid: the same of valid.
      valid_personas: the personas behind `valid`, as text.
      tiles: tiles that the largest dialogue takes.
      embedding: float32 [V, G] word vectors, or None.
      notes: sentences on what was left out, truncated or covered.
    """

    vocabulary: Vocabulary
    train: Sequence[EncodedPersona]
    valid: Sequence[EncodedPersona]
    valid_personas: Sequence[Persona]
    tiles: int
    embedding: np.ndarray | None
    notes: Sequence[str]


def load_split(data: str, data_dir: str | None, split: str) -> list[Dialogue]:
    """Reads one split ("train", "valid" or "test") of a corpus by name.

    Raises:
      ValueError: the name is unknown, or PersonaChat has no folder; or a reader's error.
    """
    if data == "demo":
        return demo_corpus(split)
    if data == "personachat":
        if not data_dir:
            raise ValueError(
                "--data=personachat reads the corpus from a folder; name it with --data_dir"
            )
        return read_parlai(find_split(data_dir, split))[0]
    raise ValueError(f"got --data={data}, want one of {', '.join(CORPORA)}")


def prepare(
    config: TrainConfig, data: str, data_dir: str | os.PathLike | None = None
) -> Prepared:
    """Reads train and valid, groups personas, builds the vocabulary, encodes everything.

    Raises:
      ValueError: the data do not allow the strategy or the meta-batch, or cannot be read.
    """
    notes = []
    train_dialogues = load_split(data, data_dir, "train")
    vocabulary = build_vocabulary(train_dialogues, config.min_count)
    embedding = None
    if config.glove:
        embedding, covered = load_glove(config.glove, vocabulary, config.seed)
        notes.append(
            f"word vectors of width {embedding.shape[1]} cover {covered:,} of "
            f"{len(vocabulary):,} words"
        )
    encoding = Encoding(vocabulary, config.shape, config.strategy == "std_p")
    encoded, grouped = {}, {}
    for split, dialogues in (
        ("train", train_dialogues),
        ("valid", load_split(data, data_dir, "valid")),
    ):
        personas, alone = require_conversations(group_personas(dialogues))
        if config.strategy in ("mtml", "amtml", "std_p"):
            require_statements(personas, config.strategy)
        encoded[split], counts = encode_personas(personas, encoding)
        grouped[split] = personas
        notes.append(
            f"{split}: {len(personas):,} personas, "
            f"{sum(len(p.dialogues) for p in personas):,} dialogues, "
            f"{counts['examples']:,} turns; left out {len(alone):,} personas with a single "
            f"conversation; cut to their slots {counts['contexts']:,} contexts (the end kept), "
            f"{counts['responses']:,} responses, {counts['personas']:,} personas"
        )
    if len(encoded["train"]) < config.meta_batch:
        raise ValueError(
            f"the data have {len(encoded['train'])} personas with two conversations, fewer than "
            f"the {config.meta_batch} distinct ones of a meta-batch; lower --meta_batch"
        )
    if len(encoded["valid"]) < 2:
        raise ValueError(
            f"the valid split has {len(encoded['valid'])} personas with two conversations, "
            "want at least 2; add dialogues to it"
        )
    everything = (d for personas in encoded.values() for p in personas for d in p.dialogues)
    tiles = tiles_needed(everything, config.shape)
    return Prepared(
        vocabulary,
        encoded["train"],
        encoded["valid"],
        grouped["valid"],
        tiles,
        embedding,
        notes,
    )


def training_batch(data: Prepared, config: TrainConfig, step: int) -> Episode:
    """The episodes of outer step `step`, counted from 0: a function of (seed, step)."""
    triples = sample_episodes(data.train, config.meta_batch, config.seed, step)
    return stack_episodes(
        triples, config.shape, data.tiles, distinct_start=config.distinct_start
    )


def validation_batch(data: Prepared, config: TrainConfig) -> Episode:
    """The fixed support/query pairs of early stopping, without persona targets."""
    seed, triples = config.seed + 1, []
    draw = 0
    while len(triples) < config.validation_episodes:
        count = min(len(data.valid), config.validation_episodes - len(triples))
        triples += sample_episodes(data.valid, count, seed, draw)
        draw += 1
    episode = stack_episodes(triples, config.shape, data.tiles)
    return Episode(
        episode.support.replace(persona=None), episode.query.replace(persona=None)
    )
