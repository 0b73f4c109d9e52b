"""Reads GGUF files: metadata, and tensors of any quantisation as float32.

The layout is that of versions 2 and 3, little-endian. `gguf.GGUFReader` needs seconds
for a vocabulary of 49,152 tokens, and a damaged file makes it raise whatever it meets;
here every length is checked against the file before anything is read.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtml_jax.data.pretrained_files import missing_library

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_ALIGNMENT = 32  # unless general.alignment says otherwise


class GgufTensor(NamedTuple):
    """Where a tensor is: its shape, slowest axis first, quantisation and first byte."""

    shape: tuple[int, ...]
    quantisation: int
    begin: int


class GgufFile(NamedTuple):
    """An opened file: `metadata` by key, and `tensors` by name."""

    path: Path
    content: mmap.mmap
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def open_gguf(path: str | os.PathLike) -> GgufFile:
    """Reads metadata and the table of tensors.

    Args:
      path: the file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no GGUF file of version 2 or 3, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a GGUF file, got no such file")
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        cursor = _Cursor(content)
        magic, version = cursor.bytes(4), cursor.scalar("I")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r} and version {version}")
        tensor_count, key_count = cursor.scalar("Q"), cursor.scalar("Q")
        metadata = {}
        for _ in range(key_count):
            key = cursor.string()
            metadata[key] = cursor.value(cursor.scalar("I"))
        entries = [_tensor_entry(cursor) for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        data = -(-cursor.at // alignment) * alignment
        tensors = {name: GgufTensor(shape, kind, data + at) for name, shape, kind, at in entries}
    except (ValueError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a whole GGUF file of version 2 or 3, got a damaged or other one "
            f"({error}); fetch it again"
        ) from None
    return GgufFile(path, content, metadata, tensors)


def read_tensor(file: GgufFile, name: str) -> np.ndarray:
    """Reads one tensor.

    Args:
      file: from `open_gguf`.
      name: of the tensor.

    Returns:
      float32, slowest axis first.

    Raises:
      ValueError: there is no such tensor, it ends beyond the file, or its quantisation is
        unknown.
      ImportError: the package that dequantises is not installed.
    """
    quants, constants = _gguf()
    if name not in file.tensors:
        raise ValueError(f"{file.path}: expected a tensor {name}, got a file without it")
    shape, kind, begin = file.tensors[name]
    try:
        quantisation = constants.GGMLQuantizationType(kind)
        block, size = constants.GGML_QUANT_SIZES[quantisation]
        row = shape[-1] // block * size
        count = row * int(np.prod(shape[:-1], dtype=object))
        if shape[-1] % block:
            raise ValueError(f"blocks of {block} do not divide its rows")
        raw = np.frombuffer(file.content, np.uint8, count, begin).reshape(*shape[:-1], row)
        return quants.dequantize(raw, quantisation)
    except (ValueError, KeyError, OverflowError, NotImplementedError) as error:
        raise ValueError(
            f"{file.path}: expected tensor {name} of shape {shape} in a known quantisation, got "
            f"quantisation {kind} ({error}); fetch the file again or another quantisation of it"
        ) from None


class _Cursor:
    """Reads values one after the other and never beyond the end."""

    def __init__(self, content: mmap.mmap):
        self.content = content
        self.at = 0

    def bytes(self, count: int) -> bytes:
        if count > len(self.content) - self.at:
            raise ValueError(f"it ends at byte {len(self.content)}, {count} are missing")
        self.at += count
        return self.content[self.at - count : self.at]

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        return self.bytes(self.scalar("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            kind, count = self.scalar("I"), self.scalar("Q")
            if kind in _SCALARS:
                dtype = np.dtype(_SCALARS[kind]).newbyteorder("<")
                return np.frombuffer(self.bytes(count * dtype.itemsize), dtype).tolist()
            return [self.value(kind) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"type {kind} of a value is unknown")
        return self.scalar(_SCALARS[kind])


def _tensor_entry(cursor):
    name, axes = cursor.string(), cursor.scalar("I")
    if not 1 <= axes <= 4:
        raise ValueError(f"tensor {name!r} has {axes} axes")
    shape = tuple(cursor.scalar("Q") for _ in range(axes))[::-1]
    return name, shape, cursor.scalar("I"), cursor.scalar("Q")


def _gguf():
    try:
        from gguf import constants, quants
    except ImportError as error:
        raise missing_library(error) from None
    return quants, constants
