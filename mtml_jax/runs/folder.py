"""A run's settings and vocabulary in its folder."""

import json
import os
from pathlib import Path
from typing import Any

from mtml_jax.runs.files import versions, write_json, write_text

# Settings that may change when a run is continued: how long it goes on, when it gives up,
# and how its work is cut up, which changes results by rounding alone.
MAY_DIFFER = frozenset({"iterations", "persona_chunk", "max_skipped"})

_ABSENT = "nothing"


def save_run(workdir: str | os.PathLike, config: dict[str, Any], vocabulary_text: str) -> None:
    """Writes what `load_run` reads, and the versions in use; each file whole or not at all.

    Args:
      workdir: folder of the run; made if it is not there.
      config: the settings, `dataclasses.asdict` of them.
      vocabulary_text: the words, one a line.

    Raises:
      ValueError: the folder holds a run with other settings or words.
    """
    workdir = Path(workdir)
    if (workdir / "config.json").exists():
        saved_config, saved_text = load_run(workdir)
        check_same(saved_config, config, MAY_DIFFER)
        if vocabulary_text != saved_text:
            raise ValueError(
                f"{workdir}: found a run with another vocabulary, want the data it was begun "
                "with; choose another --workdir"
            )
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / "vocabulary.txt", vocabulary_text)
    write_json(workdir / "versions.json", versions())
    write_json(workdir / "config.json", config)  # last: with it the run is there


def load_run(workdir: str | os.PathLike) -> tuple[dict[str, Any], str]:
    """Reads a run's settings and the text of its vocabulary.

    Raises:
      FileNotFoundError: there is no run in the folder.
      ValueError: its settings are not JSON.
    """
    config, vocabulary = (Path(workdir) / name for name in ("config.json", "vocabulary.txt"))
    for path in (config, vocabulary):
        if not path.is_file():
            raise not_found(workdir, path.name)
    try:
        # The words as they were written: reading in text mode would change line ends.
        return json.loads(config.read_bytes()), vocabulary.read_bytes().decode()
    except ValueError as error:
        raise ValueError(
            f"{workdir}: found a run that cannot be read ({error}), want another --workdir"
        ) from None


def check_same(
    saved: dict[str, Any], current: dict[str, Any], may_differ: frozenset[str]
) -> None:
    """Checks that a run is continued with the settings that it was begun with.

    Args:
      saved: the run's settings.
      current: those asked for.
      may_differ: names of settings that need not agree; inner ones as "model.width".

    Raises:
      ValueError: settings differ; the message names each with both values.
    """
    # Through JSON, where tuples are lists, as the saved ones have been.
    saved, current = _dotted(saved), _dotted(json.loads(json.dumps(current)))
    differing = [
        f"{name} (saved {saved.get(name, _ABSENT)!r}, now {current.get(name, _ABSENT)!r})"
        for name in sorted(saved.keys() | current.keys())
        if name not in may_differ
        and saved.get(name, _ABSENT) != current.get(name, _ABSENT)
    ]
    if differing:
        raise ValueError(
            f"found a run with other settings, want the same {', '.join(differing)}; "
            "choose another --workdir for a new run"
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
    """The error for a folder without what is asked for."""
    return FileNotFoundError(
        f"{workdir}: found no {what}, want the folder of a training run at --workdir"
    )
