"""Test that files are written whole or not at all."""

import os

import pytest

from mtml_jax.runs.files import write_json, write_text


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    write_json(path, {"b": (2, 3), "a": None})
    assert path.read_text() == '{\n  "a": null,\n  "b": [\n    2,\n    3\n  ]\n}\n'
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    synced = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *a: (synced.append("replace"), replace(*a)))
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half of it \ud800")
    assert path.read_bytes() == before and not synced
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "gull\r\ncafé\n")
    assert path.read_bytes() == "gull\r\ncafé\n".encode()
    assert synced == ["fsync", "replace"]
    assert list(tmp_path.iterdir()) == [path]
