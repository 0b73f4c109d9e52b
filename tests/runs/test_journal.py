"""Test the reader of files that rows are only ever appended to."""

import pytest

from mtml_jax.runs.journal import read_journal


def _number(value):
    return int(value["n"])


def _read(path, **settings):
    return read_journal(path, _number, expected="a number", remedy="remove the line", **settings)


def test_an_unfinished_last_line_is_no_row(tmp_path):
    path, whole, last = tmp_path / "rows.jsonl", b'{"n": 2}\n{"n": 3}\n', '{"n": 5, "é": 7}'.encode()
    assert _read(path) == []
    for cut in range(len(last)):
        path.write_bytes(whole + last[:cut])
        assert _read(path) == [2, 3] and path.read_bytes() == whole + last[:cut]
        assert _read(path, mend=True) == [2, 3] and path.read_bytes() == whole
    path.write_bytes(whole + last)  # all of it but the newline
    assert _read(path) == [2, 3, 5] and path.read_bytes() == whole + last
    assert _read(path, mend=True) == [2, 3, 5] and path.read_bytes() == whole + last + b"\n"


@pytest.mark.parametrize(
    "line", [b"", b'{"n": 3', b"[3]", b'{"m": 3}', b'{"n": "x"}', b'{"n": 3, "\xff": 1}', b"[" * 99999]
)
def test_a_finished_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    for after in (b"", b'{"n": 5}\n'):
        path.write_bytes(b'{"n": 2}\n' + line + b"\n" + after)
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"rows\.jsonl:2: expected a number, got .*; remove") as error:
            _read(path, mend=True)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
        assert path.read_bytes() == before
