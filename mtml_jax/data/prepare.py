"""From a corpus by name to encoded personas: the one road from files to episodes."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from mtml_jax.config import TrainConfig
from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.episodes import (
    EncodedPersona,
    Encoding,
    encode_personas,
    occupied_slots,
    sample_episodes,
    stack_episodes,
)
from mtml_jax.data.glove import load_glove
from mtml_jax.data.jsonl import iterate_jsonl
from mtml_jax.data.parlai import read_parlai
from mtml_jax.data.personas import (
    group_personas,
    require_conversations,
    require_statements,
)
from mtml_jax.data.records import Dialogue, Persona
from mtml_jax.data.splits import split_by_persona
from mtml_jax.data.store import load_stored
from mtml_jax.data.vocab import Vocabulary, build_vocabulary
from mtml_jax.strategies import STRATEGIES
from mtml_jax.types import Episode

CORPORA = ("demo", "personachat")
_FILES = (".jsonl", ".txt")
_SCORED = ("response",)  # the task of validation


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


def load_split(
    data: str,
    data_dir: str | os.PathLike | None,
    split: str,
    *,
    split_seed: int = 0,
    skip_bad: bool = False,
) -> tuple[list[Dialogue], list[str]]:
    """Reads one split of a corpus.

    Args:
      data: "demo"; "personachat"; a .jsonl file, or a .txt file of ParlAI's format, to
        be split by persona; or a folder of train.jsonl, valid.jsonl and test.jsonl.
      data_dir: folder of the PersonaChat text files; None: they are downloaded.
      split: "train", "valid" or "test".
      split_seed: of the split by persona.
      skip_bad: count malformed conversations instead of raising.

    Returns:
      (dialogues, sentences on what was read, skipped and changed).

    Raises:
      ValueError: the name is unknown; or a reader's error.
      FileNotFoundError: there is no such file or split.
    """
    if data == "demo":
        return demo_corpus(split), []
    if data == "personachat":
        # Here, so that what reads other corpora need not wait for its import.
        from mtml_jax.data.personachat import load_personachat

        return load_personachat(split, data_dir, skip_bad=skip_bad)
    path = Path(data)
    if path.is_dir():
        if not (path / f"{split}.jsonl").is_file():
            raise FileNotFoundError(
                f"{path}: found no {split}.jsonl, want one file a split in the folder of "
                "--data; a single file is split by persona if --data names it itself"
            )
        return _read(path / f"{split}.jsonl", skip_bad)
    if path.suffix not in _FILES:
        raise ValueError(
            f"got --data={data}, want {', '.join(CORPORA)}, a file that ends in "
            f"{' or '.join(_FILES)}, or a folder of train.jsonl and valid.jsonl"
        )
    status = path.stat()
    dialogues, notes = _read_and_split(
        path, (status.st_mtime_ns, status.st_size), split_seed, skip_bad
    )
    if not dialogues[split]:
        raise FileNotFoundError(
            f"{path}: found too few personas for a {split} split, want more speakers"
        )
    return dialogues[split], notes if split == "train" else []


def _read(path: Path, skip_bad: bool) -> tuple[list[Dialogue], list[str]]:
    if path.suffix == ".jsonl":
        read = functools.partial(iterate_jsonl, path, skip_bad=skip_bad)
        return load_stored(path, read, skip_bad=skip_bad)
    dialogues, report = read_parlai(path, skip_bad=skip_bad)
    if not dialogues:
        raise ValueError("; ".join(report.sentences()) + ": nothing is left to train on")
    return dialogues, report.sentences() if report.found > report.read else []


@functools.lru_cache(maxsize=1)
def _read_and_split(path, stamp, seed, skip_bad):
    # One file gives all splits: read once for them all, and again where it has changed.
    del stamp
    dialogues, notes = _read(path, skip_bad)
    splits, more = split_by_persona(dialogues, seed)
    return splits, notes + more


def prepare(
    config: TrainConfig,
    data: str,
    data_dir: str | os.PathLike | None = None,
    *,
    split_seed: int = 0,
    skip_bad: bool = False,
) -> Prepared:
    """Reads train and valid, groups personas, builds the vocabulary, encodes everything.

    Raises:
      ValueError: the data do not allow the strategy or the meta-batch, or cannot be read.
    """
    dialogues, notes = {}, []
    for split in ("train", "valid"):
        dialogues[split], more = load_split(
            data, data_dir, split, split_seed=split_seed, skip_bad=skip_bad
        )
        notes += more
    _read_and_split.cache_clear()  # what is not needed any more may be large
    vocabulary = build_vocabulary(
        _shown(dialogues["train"], "counting words"), config.min_count
    )
    embedding = None
    if config.glove:
        embedding, covered = load_glove(config.glove, vocabulary, config.seed)
        notes.append(
            f"word vectors of width {embedding.shape[1]} cover {covered:,} of "
            f"{len(vocabulary):,} words"
        )
    strategy = STRATEGIES[config.strategy]
    encoding = Encoding(
        vocabulary,
        config.shape,
        strategy.persona_in_context,
        tuple({_SCORED, *strategy.packed_tasks}),
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
        # Personas are reconstructed by all speakers or by none.
        grouped = {split: [_untold(p) for p in personas] for split, personas in grouped.items()}
        if any(d.statements for p in everyone for d in p.dialogues):
            notes.append("some dialogues have no statements, so those of the others are unused")
    encoded, tiles = {}, 1
    for split, personas in grouped.items():
        if split == "valid":  # it is scored by its responses alone, a turn an example
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
    if len(encoded["train"]) < config.meta_batch:
        raise ValueError(
            f"the data have {len(encoded['train'])} personas with two conversations, fewer than "
            f"the {config.meta_batch} distinct ones of a meta-batch; lower --meta_batch"
        )
    if not encoded["valid"]:
        raise ValueError(
            "the valid split has no persona with two conversations, want at least one; "
            "add dialogues to it"
        )
    return Prepared(
        vocabulary,
        encoded["train"],
        encoded["valid"],
        grouped["valid"],
        tiles,
        embedding,
        notes,
    )


def _shown(things: Sequence, what: str):
    """A progress bar, on a terminal and where it takes more than two seconds."""
    return tqdm(things, desc=what, delay=2, leave=False, disable=None)


def _untold(persona: Persona) -> Persona:
    told_nothing = (dataclasses.replace(d, statements=()) for d in persona.dialogues)
    return Persona(persona.name, tuple(told_nothing))


def training_batch(
    data: Prepared,
    config: TrainConfig,
    step: int,
    share: slice = slice(None),
    *,
    devices: int = 1,
) -> Episode:
    """The episodes of outer step `step`, counted from 0: a function of (seed, step).

    All are drawn, and those of `share` read and packed. They stand in an order that gives
    each of `devices` that split them evenly about the same work, since all wait for the last.
    """
    return _training(data, config, step, share, devices)[1]


def training_names(
    data: Prepared,
    config: TrainConfig,
    step: int,
    share: slice = slice(None),
    *,
    devices: int = 1,
) -> list[str]:
    """The personas of `training_batch`, in its order."""
    return _training(data, config, step, share, devices)[0]


def _training(data, config, step, share, devices):
    triples = sample_episodes(data.train, config.meta_batch, config.seed, step)[share]
    strategy = STRATEGIES[config.strategy]
    inner, outer = strategy.phases[strategy.phase_of(step)]
    episodes = stack_episodes(
        triples,
        config.shape,
        data.tiles,
        tasks=(inner or outer, outer),
        distinct_start=config.distinct_start,
    )
    work = occupied_slots(episodes.query)
    # A support set is read for the inner gradient and, four times as long, for its derivative.
    work = work + (4 if inner else 1) * occupied_slots(episodes.support)
    order = _dealt(work, devices)
    names = [triples[index][0].name for index in order]
    return names, jax.tree.map(lambda x: x[order], episodes)


def _dealt(work, hands):
    """An order in which equal parts, side by side, have about equal sums; largest work first."""
    parts: list[list[int]] = [[] for _ in range(hands)]
    sums = np.zeros(hands)
    for index in np.argsort(-work, kind="stable"):
        sums[[len(part) == len(work) // hands for part in parts]] = np.inf  # it is full
        least = int(np.argmin(sums))
        parts[least].append(int(index))
        sums[least] += work[index]
    return np.concatenate(parts).astype(int)


def validation_batch(
    data: Prepared, config: TrainConfig, padded: int | None = None, share: slice = slice(None)
) -> Episode:
    """The fixed support/query pairs of early stopping, without persona targets.

    Args:
      data: from `prepare`.
      config: TrainConfig.
      padded: with so many pairs in all; those beyond `validation_episodes` have an empty
        query, which counts no tokens.
      share: which of them to read and pack.
    """
    seed, draw = config.seed + 1, 0
    triples: list = []
    while len(triples) < config.validation_episodes:
        count = min(len(data.valid), config.validation_episodes - len(triples))
        triples += sample_episodes(data.valid, count, seed, draw)
        draw += 1
    own = np.arange(padded or len(triples))[share]
    chosen = [triples[i % len(triples)] for i in own]
    episodes = stack_episodes(chosen, config.shape, data.tiles, tasks=(_SCORED, _SCORED))
    for array in jax.tree.leaves(episodes.query):
        array[own >= len(triples)] = 0
    return episodes
