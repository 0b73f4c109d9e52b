"""Reads and writes BERT classifiers of sentence pairs in Hugging Face folders."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mtml_jax.nli import bert
from mtml_jax.nli.bert import BertConfig
from mtml_jax.nli.dialogue_nli import CLASS_OF, CLASSES
from mtml_jax.runs.files import write_json
from mtml_jax.types import Params

CONFIG, WEIGHTS, WORDS, TOKENIZER = (
    "config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json",
)  # fmt: skip
WIDTHS = (16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)  # padded widths of rows

_SIZES = {
    "layers": "num_hidden_layers", "heads": "num_attention_heads", "width": "hidden_size",
    "feed_forward": "intermediate_size", "vocabulary": "vocab_size",
    "positions": "max_position_embeddings", "types": "type_vocab_size",
}  # fmt: skip


class Classifier(NamedTuple):
    """A BERT that classifies pairs of texts into `CLASSES`, in that order.

    Attributes:
      params: parameters of `bert.classify`.
      config: sizes of the encoder.
      tokenizer: WordPiece tokenizer.
      lowercase: whether the tokenizer converts text to lower case.
      settings: content of config.json.
    """

    params: Params
    config: BertConfig
    tokenizer: Any
    lowercase: bool
    settings: Mapping[str, Any]


class Rows(NamedTuple):
    """Padded rows: ids_NS, types_NS and mask_NS of `bert.classify`, as numpy arrays."""

    ids: np.ndarray
    types: np.ndarray
    mask: np.ndarray


def read_classifier(
    folder: str | os.PathLike, flag: str, *, fresh_head: jax.Array | None = None
) -> Classifier:
    """Reads config.json, model.safetensors, vocab.txt and, if present, tokenizer_config.json.

    Args:
      folder: folder of a BERT, Hugging Face layout.
      flag: the flag that named the folder, for error messages.
      fresh_head: random key for a new pooler or classifier if the folder has none or its
        classifier has other labels; None: they are required.

    Raises:
      FileNotFoundError: the folder or one of the files is missing.
      ValueError: the model is not a BERT, its weights do not fit, or its labels are unknown.
      ImportError: the libraries that read such files are not installed.
    """
    safetensors, tokenizers = _libraries()
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS, WORDS):
        if not (folder / name).is_file():
            got = f"no {name}" if folder.is_dir() else "no such folder"
            raise FileNotFoundError(
                f"{folder}: expected the {CONFIG}, {WEIGHTS} and {WORDS} of a BERT in the folder "
                f"of {flag}, got {got}"
            )
    settings = _read_json(folder / CONFIG)
    config = _sizes(settings, folder / CONFIG, flag)
    try:
        tensors = safetensors.numpy.load_file(folder / WEIGHTS)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS}: expected a safetensors file, got {error}") from None
    labels = settings.get("id2label") or {}
    columns = _columns(labels)
    if columns is None:
        if fresh_head is None:
            raise ValueError(
                f"{folder / CONFIG}: expected the labels entailment, neutral and contradiction, or "
                f"positive, neutral and negative, in id2label of the folder of {flag}, "
                f"got {', '.join(labels.values()) or 'none'}"
            )
        tensors = {name: t for name, t in tensors.items() if not name.startswith("classifier.")}
    params = bert.from_tensors(tensors, config, len(CLASSES), str(folder / WEIGHTS))
    if fresh_head is not None:
        params = bert.with_head(fresh_head, params, config, len(CLASSES))
    for part in ("pooler", "classifier"):
        if part not in params:
            raise ValueError(
                f"{folder / WEIGHTS}: expected a BERT fine-tuned on NLI in the folder of {flag}, "
                f"got no {part}; python -m experiments.train_nli makes one"
            )
    if columns is not None:
        params["classifier"] = {k: v[..., columns] for k, v in params["classifier"].items()}
    words = (folder / WORDS).read_text(encoding="utf-8").rstrip("\n").split("\n")
    if len(words) > config.vocabulary or "[SEP]" not in words:
        raise ValueError(
            f"{folder / WORDS}: expected a WordPiece vocabulary with [SEP] and at most the "
            f"{config.vocabulary:,} words of {CONFIG}, got {len(words):,} words"
        )
    path = folder / TOKENIZER
    lowercase = bool(_read_json(path).get("do_lower_case", True)) if path.is_file() else True
    ids = {word: n for n, word in enumerate(words)}
    tokenizer = tokenizers.BertWordPieceTokenizer(ids, lowercase=lowercase)
    tokenizer.enable_truncation(config.positions)
    return Classifier(params, config, tokenizer, lowercase, settings)


def write_classifier(
    folder: str | os.PathLike, model: Classifier, base: str | os.PathLike, extra: Mapping[str, Any]
) -> None:
    """Writes a folder for `read_classifier` and Hugging Face's classes, complete or not at all.

    `folder` may exist if it is empty. The vocabulary is copied from `base`, from which the
    model was read; `extra` are further JSON files, by name.
    """
    safetensors, _ = _libraries()
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        temporary.mkdir()
        settings = {
            **model.settings,
            "architectures": ["BertForSequenceClassification"],
            "id2label": {str(n): name for n, name in enumerate(CLASSES)},
            "label2id": {name: n for n, name in enumerate(CLASSES)},
        }
        settings.pop("num_labels", None)
        tokenizer = {"do_lower_case": model.lowercase, "tokenizer_class": "BertTokenizer"}
        for name, value in {CONFIG: settings, TOKENIZER: tokenizer, **extra}.items():
            write_json(temporary / name, value)
        shutil.copyfile(Path(base) / WORDS, temporary / WORDS)
        tensors = bert.to_tensors(jax.device_get(model.params), model.config)
        # Hugging Face requires the format entry.
        content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
        (temporary / WEIGHTS).write_bytes(content)  # save_file would restrict reading to the owner
        os.replace(temporary, folder)


def require_new(folder: str | os.PathLike, flag: str) -> None:
    """Raises ValueError, which names the flag, unless a folder is empty or does not exist."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or empty folder as {flag}, got another")


def encode_pairs(model: Classifier, pairs: Sequence[tuple[str, str]]) -> list[tuple[list, list]]:
    """Encodes pairs of texts as [CLS] first [SEP] second [SEP]: (ids, types) of each pair.

    The longer text of a pair that is too long is cut.
    """
    encoded = model.tokenizer.encode_batch([tuple(pair) for pair in pairs])
    return [(e.ids, e.type_ids) for e in encoded]


def padded_width(length: int, config: BertConfig) -> int:
    """Returns the width to which a row of this many tokens is padded."""
    return min(next((w for w in WIDTHS if w >= length), config.positions), config.positions)


def pad(tokens: Sequence[tuple[list, list]], count: int, width: int) -> Rows:
    """Pads tokenised pairs to [count, width]; rows beyond them are empty."""
    size = (count, width)
    rows = Rows(np.zeros(size, np.int32), np.zeros(size, np.int32), np.zeros(size, bool))
    for n, (ids, types) in enumerate(tokens):
        rows.ids[n, : len(ids)] = ids
        rows.types[n, : len(ids)] = types
        rows.mask[n, : len(ids)] = True
    return rows


def _libraries():
    try:
        import safetensors
        import safetensors.numpy
        import tokenizers
    except ImportError as error:
        raise ImportError(
            f"expected the module {error.name} to read NLI models, got no such module; "
            "pip install 'mtml_jax[nli]' installs it"
        ) from None
    return safetensors, tokenizers


def _read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got something else")
    return value


def _sizes(settings, path, flag):
    if settings.get("model_type") != "bert":
        raise ValueError(
            f"{path}: expected the model type 'bert' in the folder of {flag}, "
            f"got {settings.get('model_type')!r}"
        )
    for name, only in {"hidden_act": "gelu", "position_embedding_type": "absolute"}.items():
        if settings.get(name, only) != only:
            raise ValueError(f"{path}: expected {name} {only!r}, got {settings[name]!r}")
    for name in _SIZES.values():
        if not (isinstance(settings.get(name), int) and settings[name] > 0):
            raise ValueError(f"{path}: expected a whole number {name}, got {settings.get(name)!r}")
    config = BertConfig(
        **{field: settings[name] for field, name in _SIZES.items()},
        epsilon=float(settings.get("layer_norm_eps", 1e-12)),  # BertConfig's own default
    )
    if config.width % config.heads or config.types < 2:
        raise ValueError(
            f"{path}: expected a width that the heads divide and two types, got width "
            f"{config.width}, {config.heads} heads and {config.types} types"
        )
    return config


def _columns(labels):
    """Returns the output column of each of `CLASSES`, or None if the labels are other ones."""
    names = [str(labels.get(str(n), "")).lower() for n in range(len(labels))]
    classes = [CLASS_OF.get(name) for name in names]
    if sorted(classes, key=str) != [0, 1, 2]:
        return None
    return [classes.index(n) for n in range(len(CLASSES))]
