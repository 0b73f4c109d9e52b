"""Save and load adapted parameters as a small difference from those of their checkpoint."""

import hashlib
import io
import json
import os
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.runs.files import write_bytes, write_json
from mtml_jax.runs.orbax import named_leaves
from mtml_jax.runs.versions import versions
from mtml_jax.types import Params

SETTINGS = "adapted.json"
_FORMAT = 1
_FILE = re.compile(r"delta-[0-9a-f]{12}\.npz")
_OVERHEAD = 4096  # bytes that an array's headers may take
_MAX_SETTINGS = 1 << 20  # bytes


def digest(params: Params) -> str:
    """Returns the SHA-256 of parameters: names, types, shapes and bits."""
    found = hashlib.sha256()
    for name, leaf in sorted(named_leaves(params).items()):
        array = np.ascontiguousarray(leaf)
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def write_delta(
    folder: str | os.PathLike, base: Params, adapted: Params, facts: dict[str, Any]
) -> int:
    """Writes the differences and an `adapted.json` that names their file, both or neither.

    Each difference is stored as a float16 array and a float32 factor, its largest magnitude;
    rounding errors are at most 2^-12 of the factor. The name of the differences' file is a
    digest of its content and `adapted.json` is replaced last, so readers see the old state
    or the new one.

    The folder is created if it does not exist. `facts` are entries of `adapted.json` in addition
    to digests, versions and date. Returns the size of the file of differences in bytes.

    Raises:
      ValueError: the shapes differ, or a difference is not finite.
    """
    start, end = named_leaves(base), named_leaves(adapted)
    if {n: x.shape for n, x in start.items()} != {n: x.shape for n, x in end.items()}:
        raise ValueError(
            "expected adapted parameters with the shapes of the model's, got others; adapt this model"
        )
    arrays: dict[str, Any] = {}
    for name in start:
        difference = np.asarray(end[name], np.float32) - np.asarray(start[name], np.float32)
        scale = np.float32(np.abs(difference).max(initial=0.0))
        if not np.isfinite(scale):
            raise ValueError(
                f"expected finite numbers in {name} after adapting, got others; lower --inner_lr"
            )
        arrays[name] = (difference / (scale or np.float32(1))).astype(np.float16)
        arrays[f"{name}/scale"] = scale
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    data = buffer.getvalue()
    sha = hashlib.sha256(data).hexdigest()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"delta-{sha[:12]}.npz"
    write_bytes(folder / name, data)
    record = {
        "format": _FORMAT,
        "delta": name,
        "delta_sha256": sha,
        "base_sha256": digest(base),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        **facts,
    }
    write_json(folder / SETTINGS, record)
    for old in folder.iterdir():
        if _FILE.fullmatch(old.name) and old.name != name:
            old.unlink(missing_ok=True)
    return len(data)


def read_settings(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads `adapted.json`.

    Raises:
      FileNotFoundError: it does not exist.
      ValueError: it is not a file that `write_delta` wrote.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: expected a folder that experiments.adapt wrote, got one with no {SETTINGS}"
        )
    try:
        if path.stat().st_size > _MAX_SETTINGS:
            raise ValueError("it is too large")
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            raise ValueError(f"it is not of format {_FORMAT}")
        for key in ("delta", "delta_sha256", "base_sha256"):
            if not isinstance(record.get(key), str):
                raise ValueError(f"it has no {key}")
        if not _FILE.fullmatch(record["delta"]):
            raise ValueError("its delta does not name a file in this folder")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected the file that experiments.adapt wrote, got one that cannot be used "
            f"({error}); adapt again"
        ) from None
    return record


def read_delta(folder: str | os.PathLike, base: Params) -> Params:
    """Adds the differences in a folder to the parameters that they were computed from.

    Nothing in the file is executed, and at most as much is read as these parameters take.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: the differences belong to other parameters, or the file is damaged.
    """
    record = read_settings(folder)
    path = Path(folder) / record["delta"]
    if record["base_sha256"] != digest(base):
        raise ValueError(
            f"{folder}: expected an adaptation of checkpoint {digest(base)[:12]}, got one of another "
            f"checkpoint, {record['base_sha256'][:12]}; choose the --workdir and --checkpoint that "
            "were adapted, or adapt again"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the file that {SETTINGS} names, got no such file; adapt again")
    start = named_leaves(base)
    room = sum(2 * leaf.size + 2 * _OVERHEAD for leaf in start.values())
    try:
        if path.stat().st_size > room:
            raise ValueError("it is too large")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != record["delta_sha256"]:
            raise ValueError(f"its SHA-256 is not the one in {SETTINGS}")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > room:
                raise ValueError("it unpacks to more than this model has parameters")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            end = {name: _added(name, leaf, arrays) for name, leaf in start.items()}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"{path}: expected the file that experiments.adapt wrote, got a damaged one ({error}); "
            "adapt again"
        ) from None
    return jax.tree.unflatten(jax.tree.structure(base), end.values())


def _added(name, leaf, arrays):
    difference, scale = arrays[name], arrays[f"{name}/scale"]
    if difference.shape != leaf.shape or difference.dtype != np.float16 or scale.shape != ():
        raise ValueError(f"{name} is {difference.dtype}{list(difference.shape)}")
    if not (np.isfinite(difference).all() and np.isfinite(scale)):
        raise ValueError(f"{name} is not finite")
    change = difference.astype(np.float32) * np.float32(scale)
    return jnp.asarray((np.asarray(leaf, np.float32) + change).astype(leaf.dtype))


def provenance_of(folder: str | os.PathLike) -> dict[str, str]:
    """The texts among an adapted speaker's facts: speaker, and the run's workdir and checkpoint.

    Raises:
      OSError, ValueError: see `read_settings`.
    """
    facts = read_settings(folder).get("provenance")
    texts = facts.items() if isinstance(facts, dict) else ()
    return {name: text for name, text in texts if isinstance(text, str)}
