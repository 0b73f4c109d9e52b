"""Load one split of a corpus by name."""

import functools
import os
from pathlib import Path

from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.jsonl import iterate_jsonl
from mtml_jax.data.parlai import read_parlai
from mtml_jax.data.records import Dialogue
from mtml_jax.data.splits import split_by_persona
from mtml_jax.data.store import load_stored

CORPORA = ("demo", "personachat")
_FILES = (".jsonl", ".txt")


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
      data: "demo"; "personachat"; a .jsonl file, or a .txt file in ParlAI's format, which is
        split by persona; or a folder with train.jsonl, valid.jsonl and test.jsonl.
      data_dir: folder of the PersonaChat text files; None downloads them.
      split: "train", "valid" or "test".
      split_seed: random seed for the split by persona.
      skip_bad: whether malformed conversations are counted and skipped instead of raising.

    Returns:
      (dialogues, sentences about what was read, skipped and changed).

    Raises:
      ValueError: the name is unknown, or a file is malformed.
      FileNotFoundError: there is no such file or split.
    """
    if data == "demo":
        return demo_corpus(split), []
    if data == "personachat":
        # A slow import, which other corpora do not need.
        from mtml_jax.data.personachat import load_personachat

        return load_personachat(split, data_dir, skip_bad=skip_bad)
    path = Path(data)
    if path.is_dir():
        if not (path / f"{split}.jsonl").is_file():
            raise FileNotFoundError(
                f"{path}: expected a file {split}.jsonl in the folder that --data names, got none; "
                "add it, or name a single file, which is split by persona"
            )
        return _read(path / f"{split}.jsonl", skip_bad)
    if path.suffix not in _FILES:
        raise ValueError(
            f"expected --data to be {', '.join(CORPORA)}, a file that ends in "
            f"{' or '.join(_FILES)}, or a folder with train.jsonl and valid.jsonl; got {data}"
        )
    status = path.stat()
    dialogues, notes = _read_and_split(
        path, (status.st_mtime_ns, status.st_size), split_seed, skip_bad
    )
    if not dialogues[split]:
        raise FileNotFoundError(
            f"{path}: expected enough personas for a {split} split, got too few; add speakers"
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
    del stamp  # a changed file is read again; otherwise once for all splits
    dialogues, notes = _read(path, skip_bad)
    splits, more = split_by_persona(dialogues, seed)
    return splits, notes + more


def forget_file() -> None:
    """Frees the file that `load_split` keeps in memory for the next split."""
    _read_and_split.cache_clear()
