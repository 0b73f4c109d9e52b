"""Save and load a run's settings and vocabulary."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtml_jax.config import DataConfig, ModelConfig, TileShape, TrainConfig
from mtml_jax.config_decoder import LlamaConfig, LoraConfig, RowShape
from mtml_jax.config_fields import settings_of
from mtml_jax.runs.files import write_json, write_text
from mtml_jax.runs.versions import versions

# Settings that may change when a run is resumed: the number of iterations, how many skipped
# steps end it, the folder of the same data, and the chunking of personas, which changes results by
# rounding alone.
MAY_DIFFER = frozenset({"iterations", "persona_chunk", "max_skipped", "data_dir"})

START = "start.json"  # holds the settings of a start, see `starts`

_UNNAMED = {"init_from": "", "adapters_from": ""}  # settings that older runs do not name

_ABSENT = "nothing"


def save_run(
    workdir: str | os.PathLike, config: dict[str, Any], vocabulary_text: str | None
) -> None:
    """Writes the files that `load_run` reads, and the versions in use; each atomically.

    The settings are from `dataclasses.asdict`; the vocabulary has one word a line. The adapters of
    a pretrained decoder have none, but "init_from" and "init_digest" among their settings.

    Raises:
      ValueError: the folder holds a run with other settings or another vocabulary.
    """
    workdir = Path(workdir)
    if (workdir / "config.json").exists():
        saved_config, saved_text = load_run(workdir)
        before, now = ({**_UNNAMED, **some} for some in (saved_config, config))
        if differing := differing_settings(before, now, MAY_DIFFER):
            raise ValueError(
                f"{workdir}: expected the settings that the run began with, got a different "
                f"{differing}; choose another --workdir for a new run"
            )
        if vocabulary_text != saved_text:
            raise ValueError(
                f"{workdir}: expected the vocabulary that the run began with, got another one; "
                "train on the same data or choose another --workdir"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    if vocabulary_text is not None:
        write_text(workdir / "vocabulary.txt", vocabulary_text)
    write_json(workdir / "versions.json", versions())
    write_json(workdir / "config.json", config)  # last: its presence marks a run


def load_run(workdir: str | os.PathLike) -> tuple[dict[str, Any], str | None]:
    """Reads a run's settings and the text of its vocabulary, if it has its own.

    Raises:
      FileNotFoundError: there is no run in the folder.
      ValueError: its settings are not JSON.
    """
    path, vocabulary = (Path(workdir) / name for name in ("config.json", "vocabulary.txt"))
    if (start := Path(workdir) / START).is_file():
        path = start
    if not path.is_file():
        raise not_found(workdir, path.name)
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError(f"{path.name} is not an object")
        if config.get("init_from"):
            return config, None
        if not vocabulary.is_file():
            raise not_found(workdir, vocabulary.name)
        # Bytes, because reading in text mode would change line ends.
        return config, vocabulary.read_bytes().decode()
    except ValueError as error:
        raise ValueError(
            f"{workdir}: expected the settings and vocabulary of a run, got files that cannot be "
            f"read ({error}); choose another --workdir"
        ) from None


def differing_settings(
    saved: dict[str, Any], current: dict[str, Any], may_differ: frozenset[str] = frozenset()
) -> str:
    """Compares settings read from JSON with the current ones.

    Returns the settings that differ, each with both values, joined by commas; empty if none do.
    `may_differ` names settings that need not agree, nested ones as "model.width".
    """
    # JSON turns tuples into lists, as it did with the saved ones.
    saved, current = _dotted(saved), _dotted(json.loads(json.dumps(current)))
    return ", ".join(
        f"{name} (saved {saved.get(name, _ABSENT)!r}, now {current.get(name, _ABSENT)!r})"
        for name in sorted(saved.keys() | current.keys())
        if name not in may_differ and saved.get(name, _ABSENT) != current.get(name, _ABSENT)
    )


def _dotted(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(_dotted(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def not_found(workdir: str | os.PathLike, what: str) -> FileNotFoundError:
    """Returns the error for a folder that lacks a part of a run."""
    return FileNotFoundError(
        f"{workdir}: expected the folder of a training run, got one with no {what}; check --workdir"
    )


def restored_config(saved: Mapping[str, Any]) -> TrainConfig:
    """Reads the settings of a run from its config.json; other entries of the file are ignored.

    Raises:
      ValueError: a setting is missing, or of another type.
    """
    names = [f.name for f in dataclasses.fields(TrainConfig)]
    try:
        saved = {**_UNNAMED, **saved}
        values = {name: saved[name] for name in names}
        if saved["init_from"]:  # of a pretrained decoder
            sizes = {**saved["model"], "rope_factors": tuple(saved["model"]["rope_factors"])}
            lora = {**sizes["lora"], "targets": tuple(sizes["lora"]["targets"])}
            values["model"] = LlamaConfig(**{**sizes, "lora": LoraConfig(**lora)})
            values["shape"] = RowShape(**saved["shape"])
        else:
            values["model"] = ModelConfig(**saved["model"])
            values["shape"] = TileShape(**saved["shape"])
            if small := saved["shape"].get("small"):
                values["shape"] = dataclasses.replace(values["shape"], small=TileShape(**small))
        config = TrainConfig(**values)
        for record in config.records():
            for each in settings_of(record):
                each.check_type(getattr(record, each.name))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "expected the settings of a run of experiments.train, got a config.json that does not "
            f"fit this version ({error}); train again"
        ) from None
    return config


def source_of(saved: Mapping[str, Any], source: DataConfig) -> DataConfig:
    """The dialogues to test a run on: those of `source`, or of the run where it names none.

    The run's own file is split as it was for training; another file is split by `source`.
    """
    if source.data:
        return source
    return dataclasses.replace(
        source, data=saved["data"], data_dir=source.data_dir or saved.get("data_dir"),
        split_seed=saved.get("split_seed", source.split_seed),
        skip_bad=source.skip_bad or saved.get("skip_bad", False)
    )
