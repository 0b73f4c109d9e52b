"""Save and load a run's settings and vocabulary."""

import json
import os
from pathlib import Path
from typing import Any

from mtml_jax.config import UNNAMED
from mtml_jax.runs.files import write_json, write_text
from mtml_jax.runs.versions import versions

# Settings that may change when a run is resumed: the number of iterations, how many skipped
# steps end it, and the chunking of personas, which changes results by rounding alone.
MAY_DIFFER = frozenset({"iterations", "persona_chunk", "max_skipped"})

START = "start.json"  # holds the settings of a start, see `starts`

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
        before, now = ({**UNNAMED, **some} for some in (saved_config, config))
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
