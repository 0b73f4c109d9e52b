"""BERT classifiers of sentence pairs in Hugging Face folders: read, tokenise, write."""

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
WIDTHS = (16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)  # of padded rows

_SIZES = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "feed_forward": "intermediate_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}


class Classifier(NamedTuple):
    """A BERT that puts pairs of texts into the classes of `CLASSES`, in that order.

    Attributes:
      params: of `bert.classify`.
      config: sizes of the encoder.
      tokenizer: WordPiece.
      lowercase: whether the tokenizer lowers letters.
      settings: what config.json holds.
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
    """Reads config.json, model.safetensors and vocab.txt; tokenizer_config.json if there.

    Args:
      folder: of a BERT, Hugging Face layout.
      flag: the flag that named the folder, for messages.
      fresh_head: key to draw a missing pooler and classifier from, or one that knows
        other labels; None: they are required.

    Raises:
      FileNotFoundError: the folder or one of the files is missing.
      ValueError: it is no BERT, its weights do not fit, or its labels are unknown.
      ImportError: the libraries that read such files are not installed.
    """
    safetensors, tokenizers = _libraries()
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS, WORDS):
        if not (folder / name).is_file():
            found = f"no {name}" if folder.is_dir() else "no such folder"
            raise FileNotFoundError(
                f"{folder}: found {found}, want the {CONFIG}, {WEIGHTS} and {WORDS} of a BERT "
                f"in the folder of {flag}"
            )
    settings = _read_json(folder / CONFIG)
    config = _sizes(settings, folder / CONFIG, flag)
    try:
        tensors = safetensors.numpy.load_file(folder / WEIGHTS)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS}: found no safetensors file ({error})") from None
    labels = settings.get("id2label") or {}
    columns = _columns(labels)
    if columns is None:
        if fresh_head is None:
            raise ValueError(
                f"{folder / CONFIG}: found the labels {', '.join(labels.values()) or 'none'}, "
                "want entailment, neutral and contradiction, or positive, neutral and negative, "
                f"in id2label of the folder of {flag}"
            )
        tensors = {name: t for name, t in tensors.items() if not name.startswith("classifier.")}
    params = bert.from_tensors(tensors, config, len(CLASSES), str(folder / WEIGHTS))
    if fresh_head is not None:
        params = bert.with_head(fresh_head, params, config, len(CLASSES))
    for part in ("pooler", "classifier"):
        if part not in params:
            raise ValueError(
                f"{folder / WEIGHTS}: found no {part}, want a BERT fine-tuned on NLI in the "
                f"folder of {flag}; python -m experiments.train_nli makes one"
            )
    if columns is not None:
        params["classifier"] = {k: v[..., columns] for k, v in params["classifier"].items()}
    words = (folder / WORDS).read_text(encoding="utf-8").rstrip("\n").split("\n")
    if len(words) > config.vocabulary or "[SEP]" not in words:
        raise ValueError(
            f"{folder / WORDS}: found {len(words):,} words, want a WordPiece vocabulary "
            f"with [SEP] and at most the {config.vocabulary:,} words of {CONFIG}"
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
    """Writes a folder that `read_classifier` and Hugging Face's classes read; whole or not at all.

    Args:
      folder: to be made; it may be there if it is empty.
      model: with parameters on the host or a device.
      base: folder that the model was read from; its vocabulary is copied.
      extra: further JSON files by name.
    """
    safetensors, _ = _libraries()
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        temporary.mkdir()
        names = dict(enumerate(CLASSES))
        settings = {
            **model.settings,
            "architectures": ["BertForSequenceClassification"],
            "id2label": {str(n): name for n, name in names.items()},
            "label2id": {name: n for n, name in names.items()},
        }
        settings.pop("num_labels", None)
        write_json(temporary / CONFIG, settings)
        write_json(
            temporary / TOKENIZER,
            {"do_lower_case": model.lowercase, "tokenizer_class": "BertTokenizer"},
        )
        for name, value in extra.items():
            write_json(temporary / name, value)
        shutil.copyfile(Path(base) / WORDS, temporary / WORDS)
        tensors = bert.to_tensors(jax.device_get(model.params), model.config)
        # Hugging Face asks for the format before it reads the tensors.
        whole = safetensors.numpy.save(tensors, metadata={"format": "pt"})
        (temporary / WEIGHTS).write_bytes(whole)  # save_file would let the owner alone read it
        os.replace(temporary, folder)


def tokenise(model: Classifier, pairs: Sequence[tuple[str, str]]) -> list[tuple[list, list]]:
    """[CLS] first [SEP] second [SEP] as (ids, types), the longer text cut where both are too long.

    Args:
      model: Classifier.
      pairs: (first text, second text).
    """
    encoded = model.tokenizer.encode_batch([tuple(pair) for pair in pairs])
    return [(e.ids, e.type_ids) for e in encoded]


def padded_width(length: int, config: BertConfig) -> int:
    """The width that a row of this many tokens is padded to."""
    return min(next((w for w in WIDTHS if w >= length), config.positions), config.positions)


def pad(tokens: Sequence[tuple[list, list]], count: int, width: int) -> Rows:
    """Pads tokenised pairs to [count, width]; rows beyond them are empty."""
    rows = Rows(
        np.zeros((count, width), np.int32),
        np.zeros((count, width), np.int32),
        np.zeros((count, width), bool),
    )
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
            f"found no module {error.name}, which reads NLI models: pip install 'mtml_jax[nli]'"
        ) from None
    return safetensors, tokenizers


def _read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found no JSON object, want one")
    return value


def _sizes(settings, path, flag):
    if settings.get("model_type") != "bert":
        raise ValueError(
            f"{path}: found the model type {settings.get('model_type')!r}, want 'bert' in the "
            f"folder of {flag}"
        )
    for name, wanted in {"hidden_act": "gelu", "position_embedding_type": "absolute"}.items():
        if settings.get(name, wanted) != wanted:
            raise ValueError(f"{path}: found {name} {settings[name]!r}, want {wanted!r}")
    for name in _SIZES.values():
        if not (isinstance(settings.get(name), int) and settings[name] > 0):
            raise ValueError(f"{path}: found {name} {settings.get(name)!r}, want a whole number")
    config = BertConfig(
        **{field: settings[name] for field, name in _SIZES.items()},
        epsilon=float(settings.get("layer_norm_eps", 1e-12)),  # BertConfig's own default
    )
    if config.width % config.heads or config.types < 2:
        raise ValueError(
            f"{path}: found width {config.width}, {config.heads} heads and {config.types} types, "
            "want a width that the heads divide, and two types"
        )
    return config


def _columns(labels):
    """Where in the classifier's outputs each of `CLASSES` stands; None: these are other labels."""
    names = [str(labels.get(str(n), "")).lower() for n in range(len(labels))]
    classes = [CLASS_OF.get(name) for name in names]
    if sorted(classes, key=str) != [0, 1, 2]:
        return None
    return [classes.index(n) for n in range(len(CLASSES))]
