"""Prepare a corpus for training: vocabulary, encoded personas, word vectors."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
from tqdm import tqdm

from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import (
    EncodedDialogue,
    EncodedPersona,
    Encoding,
    LazyExamples,
    encode_dialogue,
)
from mtml_jax.data.glove import load_glove
from mtml_jax.data.load import forget_file, load_split
from mtml_jax.data.packing import tiles_of
from mtml_jax.data.personas import group_personas, require_conversations, require_statements
from mtml_jax.data.records import Persona
from mtml_jax.data.vocab import Vocabulary, build_vocabulary
from mtml_jax.strategies import STRATEGIES

SCORED = ("response",)  # the task of validation


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The data that training reads.

    Attributes:
      vocabulary: of the train split.
      train: encoded personas of the train split with two conversations or more.
      valid: the same of the valid split.
      valid_personas: the personas behind `valid`, as text.
      tiles: number of tiles that the largest dialogue needs.
      embedding: float32 [V, G] word vectors, or None.
      notes: sentences about what was left out, truncated or covered.
    """

    vocabulary: Vocabulary
    train: Sequence[EncodedPersona]
    valid: Sequence[EncodedPersona]
    valid_personas: Sequence[Persona]
    tiles: int
    embedding: np.ndarray | None
    notes: Sequence[str]


def prepare(
    config: TrainConfig,
    data: str,
    data_dir: str | os.PathLike | None = None,
    *,
    split_seed: int = 0,
    skip_bad: bool = False,
) -> Prepared:
    """Loads train and valid, groups personas, builds the vocabulary and encodes all dialogues.

    Raises:
      ValueError: the data do not allow the strategy or the meta-batch, or cannot be read.
    """
    # Load the dialogues.
    dialogues, notes = {}, []
    for split in ("train", "valid"):
        dialogues[split], more = load_split(
            data, data_dir, split, split_seed=split_seed, skip_bad=skip_bad
        )
        notes += more
    forget_file()  # a whole corpus may be large

    # Build the vocabulary, with word vectors if there are any.
    vocabulary = build_vocabulary(_shown(dialogues["train"], "counting words"), config.min_count)
    embedding = None
    if config.glove:
        embedding, covered = load_glove(config.glove, vocabulary, config.seed)
        notes.append(
            f"word vectors of width {embedding.shape[1]} cover {covered:,} of "
            f"{len(vocabulary):,} words"
        )

    # Group dialogues into personas, and check that the strategy can use them.
    strategy = STRATEGIES[config.strategy]
    encoding = Encoding(
        vocabulary,
        config.shape,
        strategy.persona_in_context,
        tuple({SCORED, *strategy.packed_tasks}),
        config.persona_context,
    )
    grouped, alone = {}, {}
    for split in dialogues:
        grouped[split], alone[split] = require_conversations(group_personas(dialogues[split]))
        require_statements(grouped[split], config.strategy)
    twice = {p.name for p in grouped["train"]} & {p.name for p in grouped["valid"]}
    if dialogues["train"][0].speaker and twice:
        notes.append(f"{len(twice):,} speakers of valid are in train too, {min(twice)!r} first")
    everyone = [p for personas in grouped.values() for p in personas]
    if not all(d.statements for p in everyone for d in p.dialogues):
        # All speakers have statements as targets, or none has.
        for split, personas in grouped.items():
            grouped[split] = [
                Persona(p.name, tuple(dataclasses.replace(d, statements=()) for d in p.dialogues))
                for p in personas
            ]
        if any(d.statements for p in everyone for d in p.dialogues):
            notes.append(
                "some dialogues have no statements, so the statements of the others are not used"
            )

    # Encode each split, and measure how many tiles its largest dialogue needs.
    encoded, tiles = {}, 1
    for split, personas in grouped.items():
        if split == "valid":  # only its responses are scored, one example per turn
            encoding = dataclasses.replace(encoding, persona_context="both")
        encoded[split], counts = encode_personas(_shown(personas, f"measuring {split}"), encoding)
        tiles = max(tiles, counts["tiles"])
        notes.append(
            f"{split}: {len(personas):,} personas, "
            f"{sum(len(p.dialogues) for p in personas):,} dialogues, "
            f"{counts['examples']:,} turns; left out {len(alone[split]):,} personas with a single "
            f"conversation; cut to their slots {counts['contexts']:,} contexts (the end kept), "
            f"{counts['responses']:,} responses, {counts['personas']:,} personas"
        )

    # Check that there are enough personas.
    if len(encoded["train"]) < config.meta_batch:
        raise ValueError(
            f"expected at least {config.meta_batch} personas with two conversations, one for each "
            f"of a meta-batch, got {len(encoded['train'])}; lower --meta_batch"
        )
    if not encoded["valid"]:
        raise ValueError(
            "expected at least one persona with two conversations in the valid split, got none; "
            "add dialogues to it"
        )
    return Prepared(
        vocabulary, encoded["train"], encoded["valid"], grouped["valid"], tiles, embedding, notes
    )


def encode_personas(
    personas: Iterable[Persona], encoding: Encoding
) -> tuple[list[EncodedPersona], collections.Counter]:
    """Turns personas into ids.

    Returns:
      (encoded personas, the counts of `encode_dialogue` summed, and as "tiles" the number
      of tiles that the largest dialogue needs).
    """
    counts: collections.Counter = collections.Counter()
    encoded, tiles = [], 0
    for persona in personas:
        for dialogue in persona.dialogues:
            examples, cut = encode_dialogue(dialogue, encoding)
            counts.update(cut)
            for tasks in encoding.tasks:
                tiles = max(tiles, tiles_of(examples, encoding.shape, tasks))
        lazy = (
            EncodedDialogue(d.conversation, LazyExamples(d, encoding)) for d in persona.dialogues
        )
        encoded.append(EncodedPersona(persona.name, tuple(lazy)))
    counts["tiles"] = tiles
    return encoded, counts


def _shown(things: Sequence, what: str):
    """Shows a progress bar on a terminal if the iteration takes more than two seconds."""
    return tqdm(things, desc=what, delay=2, leave=False, disable=None)
