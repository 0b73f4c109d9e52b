"""Prepare a corpus for training: vocabulary, encoded personas, word vectors."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import RowShape
from mtml_jax.data.encode import EncodedDialogue, EncodedPersona, Encoding, LazyExamples
from mtml_jax.data.glove import load_glove
from mtml_jax.data.layout import Size, largest, measure
from mtml_jax.data.load import forget_file, load_split
from mtml_jax.data.personas import group_personas, require_conversations, require_statements
from mtml_jax.data.pretrained_files import locate
from mtml_jax.data.records import Persona
from mtml_jax.data.strands import RowEncoding
from mtml_jax.data.subwords import Subwords, read_subwords
from mtml_jax.data.vocab import Vocabulary, build_vocabulary
from mtml_jax.strategies import STRATEGIES

SCORED = ("response",)  # the task of validation


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The data that training reads.

    Attributes:
      encoding: how dialogues become examples, with the run's words or subwords.
      train: encoded personas of the train split with two conversations or more.
      valid: the same of the valid split.
      valid_personas: the personas behind `valid`, as text.
      sizes: what the largest dialogue needs, for each set of tasks that is packed together.
      embedding: float32 [V, G] word vectors, or None.
      notes: sentences about what was left out, truncated or covered.
    """

    encoding: Encoding | RowEncoding
    train: Sequence[EncodedPersona]
    valid: Sequence[EncodedPersona]
    valid_personas: Sequence[Persona]
    sizes: Mapping[tuple[str, ...], Size]
    embedding: np.ndarray | None
    notes: Sequence[str]

    def size(self, tasks: tuple[str, ...]) -> Size:
        """What the largest dialogue needs with the targets of these tasks.

        Tasks of another strategy than the data were prepared for need no more than the largest.
        """
        return self.sizes.get(tasks) or largest(self.sizes.values())

    @property
    def vocabulary(self) -> Vocabulary | Subwords:
        """The words of the train split, or the subwords of a pretrained decoder."""
        return vocabulary_of(self.encoding)


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

    # Build the vocabulary, with word vectors if there are any; a decoder has its own.
    strategy = STRATEGIES[config.strategy]
    tasks = tuple({SCORED, *strategy.packed_tasks})
    embedding = None
    encoding: Encoding | RowEncoding
    if isinstance(config.shape, RowShape):
        subwords = read_subwords(locate(config.init_from))
        encoding = RowEncoding(subwords, config.shape, strategy.persona_in_context, tasks)
    else:
        words = build_vocabulary(_shown(dialogues["train"], "counting words"), config.min_count)
        if config.glove:
            embedding, covered = load_glove(config.glove, words, config.seed)
            notes.append(
                f"word vectors of width {embedding.shape[1]} cover {covered:,} of "
                f"{len(words):,} words"
            )
        encoding = Encoding(
            words, config.shape, strategy.persona_in_context, tasks, config.persona_context,
            config.distinct_start
        )  # fmt: skip

    # Group dialogues into personas, and check that the strategy can use them.
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

    # Encode each split, and measure what its largest dialogue needs.
    encoded, measured = {}, []
    for split, personas in grouped.items():
        how = encoding
        if split == "valid" and isinstance(how, Encoding):
            how = dataclasses.replace(how, persona_context="both")  # only its responses are scored
        encoded[split], counts, sizes = encode_personas(
            _shown(personas, f"measuring {split}"), how
        )
        measured.append(sizes)
        notes.append(
            f"{split}: {len(personas):,} personas, "
            f"{sum(len(p.dialogues) for p in personas):,} dialogues, "
            f"{counts['examples']:,} turns; left out {len(alone[split]):,} personas with a single "
            f"conversation; {how.cut(counts)}"
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
    sizes = {some: largest([split[some] for split in measured]) for some in tasks}
    return Prepared(
        encoding, encoded["train"], encoded["valid"], grouped["valid"], sizes, embedding, notes
    )


def encode_personas(
    personas: Iterable[Persona], encoding: Encoding | RowEncoding
) -> tuple[list[EncodedPersona], collections.Counter, dict[tuple[str, ...], Size]]:
    """Turns personas into ids.

    Returns:
      (encoded personas, the counts of `encode` summed, and for each set of tasks the size that the
      largest dialogue needs).
    """
    counts: collections.Counter = collections.Counter()
    encoded: list[EncodedPersona] = []
    sizes: dict[tuple[str, ...], Size] = {}
    for persona in personas:
        for dialogue in persona.dialogues:
            examples, cut = encoding.encode(dialogue)
            counts.update(cut)
            for tasks in encoding.tasks:
                size = measure(examples, encoding, tasks)
                sizes[tasks] = largest([size, sizes.get(tasks, size)])
        lazy = (
            EncodedDialogue(d.conversation, LazyExamples(d, encoding)) for d in persona.dialogues
        )
        encoded.append(EncodedPersona(persona.name, tuple(lazy)))
    return encoded, counts, sizes


def vocabulary_of(encoding: Encoding | RowEncoding) -> Vocabulary | Subwords:
    """The words or subwords of an encoding."""
    return encoding.vocabulary if isinstance(encoding, Encoding) else encoding.subwords


def _shown(things: Sequence, what: str):
    """Shows a progress bar on a terminal if the iteration takes more than two seconds."""
    return tqdm(things, desc=what, delay=2, leave=False, disable=None)
