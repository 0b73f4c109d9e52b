"""Provides PersonaChat as a TFDS data set: downloaded or from a folder, prepared once."""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

# TFDS would import this module at the first record. It defines flags, which must exist
# before the command line is parsed.
import array_record.python.array_record_data_source  # noqa: F401
import tensorflow_datasets as tfds

from mtml_jax.data.parlai import find_split, read_parlai, split_file_names
from mtml_jax.data.records import Dialogue, Turn
from mtml_jax.data.store import store_home, unfinished

URL = "http://parl.ai/downloads/personachat/personachat.tgz"
SPLITS = ("train", "valid", "test")
_TIMEOUT = 60  # seconds without a byte
_MOST = 1 << 30  # bytes of an archive, packed or unpacked; the real one has 1 % of it


@dataclasses.dataclass
class PersonaChatConfig(tfds.core.BuilderConfig):
    """The source of a prepared copy; the configuration's name contains a digest of it.

    Attributes:
      folder: folder of the text files.
      skip_bad: whether malformed dialogues are skipped.
    """

    folder: str = ""
    skip_bad: bool = False


class PersonaChat(tfds.core.GeneratorBasedBuilder):
    """The dialogues of PersonaChat, each seen from one side, in file order."""

    name = "personachat"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # no recorded checksums; looking them up needs a package that TFDS does not install

    def _info(self) -> tfds.core.DatasetInfo:
        text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
        return tfds.core.DatasetInfo(
            builder=self,
            description="PersonaChat (Zhang et al. 2018), one record a dialogue and side.",
            features=tfds.features.FeaturesDict(
                {"conversation": text, "statements": texts, "contexts": texts, "responses": texts}
            ),
            disable_shuffling=True,  # personas are numbered by first appearance
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # downloading and extracting through it import TensorFlow
        return {
            split: self._generate_examples(split, path)
            for split, path in _sources(self.builder_config.folder).items()
        }

    def _generate_examples(self, split: str, path: Path) -> Iterator[tuple[int, dict]]:
        dialogues, report = read_parlai(path, skip_bad=self.builder_config.skip_bad)
        self.info.metadata[split] = report.sentences() if report.found > report.read else []
        for number, dialogue in enumerate(dialogues):
            yield number, {
                "conversation": dialogue.conversation,
                "statements": list(dialogue.statements),
                "contexts": [turn.context for turn in dialogue.turns],
                "responses": [turn.response for turn in dialogue.turns],
            }


def load_personachat(
    split: str, data_dir: str | os.PathLike | None = None, *, skip_bad: bool = False
) -> tuple[list[Dialogue], list[str]]:
    """Reads a split of PersonaChat from its prepared copy, which is made at the first call.

    The copy is in array_record format under $TFDS_DATA_DIR, or in the user's cache. Its
    path contains a digest of the text files, so that changed files are prepared again.

    Args:
      split: train, valid or test.
      data_dir: folder of the text files, of some splits or all; None: download from `URL`.
      skip_bad: skip and count malformed dialogues instead of raising.

    Returns:
      (the dialogues that `read_parlai` returns, sentences on dialogues that were skipped).

    Raises:
      ValueError: a file is malformed; the message names file and line.
      FileNotFoundError: the split does not exist, or could not be downloaded.
    """
    folder = Path(data_dir) if data_dir else download(URL)
    find_split(folder, split)
    builder = prepared(folder, skip_bad=skip_bad)
    records = builder.as_data_source(split)
    dialogues = [_dialogue(records[number]) for number in range(len(records))]
    return dialogues, list(builder.info.metadata[split])


def prepared(folder: str | os.PathLike, *, skip_bad: bool = False) -> PersonaChat:
    """Returns the builder of the prepared copy of a folder's text files.

    Raises:
      ValueError: a file is malformed.
    """
    folder = Path(folder)
    digest = hashlib.sha256(b"skip_bad" if skip_bad else b"")
    for split, path in _sources(folder).items():
        with open(path, "rb") as file:
            digest.update(f"{split} {hashlib.file_digest(file, 'sha256').hexdigest()} ".encode())
    name = f"text_{digest.hexdigest()[:16]}"
    config = PersonaChatConfig(
        name=name, version=PersonaChat.VERSION, folder=str(folder), skip_bad=skip_bad
    )
    tfds.disable_progress_bar()
    builder = PersonaChat(data_dir=str(store_home()), config=config, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints unknown sizes
        builder.download_and_prepare()
    return builder


def download(url: str) -> Path:
    """Downloads and unpacks the archive at the first call; returns the folder.

    Only the file of each split that `find_split` chooses is kept.

    Raises:
      FileNotFoundError: the archive could not be downloaded, or contains no split; the
        message says what to do without a network.
    """
    folder = store_home() / "archives" / hashlib.sha256(url.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    try:
        with unfinished(folder) as workspace:
            _fetch(url, workspace / "archive")
            _unpack(workspace / "archive", workspace)
            (workspace / "archive").unlink()
    except (OSError, http.client.HTTPException, tarfile.TarError, EOFError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it keeps the connection open
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{url}: could not be downloaded ({reason}); without a network put "
            f"{', '.join(split_file_names(split)[0] for split in SPLITS)} into a folder "
            "and name it with --data_dir"
        ) from error
    return folder


def _fetch(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, open(path, "wb") as file:
        while part := answer.read(1 << 20):
            file.write(part)
            if file.tell() > _MOST:
                raise OSError(f"it has more than {_MOST:,} bytes")
        wanted = answer.headers["Content-Length"]
        if wanted is not None and file.tell() != int(wanted):
            raise OSError(f"it ended after {file.tell():,} of {int(wanted):,} bytes")


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        files = {}
        for member in tar:  # links are not files and are never followed
            if member.offset_data + member.size > _MOST:
                raise OSError(f"it unpacks to more than {_MOST:,} bytes")
            if member.isfile():
                files[Path(member.name).name] = member
        kept = [
            next((name for name in split_file_names(split) if name in files), None)
            for split in SPLITS
        ]
        if not any(kept):
            raise OSError("it is an archive without any of these files")
        for name in filter(None, kept):
            tar.extract(files[name].replace(name=name), folder, filter="data")


def _sources(folder: str | os.PathLike) -> dict[str, Path]:
    """Returns the files of the splits that exist."""
    sources = {}
    for split in SPLITS:
        try:
            sources[split] = find_split(folder, split)
        except FileNotFoundError:
            continue
    return sources


def _dialogue(record: dict) -> Dialogue:
    statements = tuple(text.decode() for text in record["statements"])
    pairs = zip(record["contexts"], record["responses"], strict=True)
    turns = tuple(Turn(context.decode(), response.decode()) for context, response in pairs)
    return Dialogue(record["conversation"].decode(), "", statements, turns)
