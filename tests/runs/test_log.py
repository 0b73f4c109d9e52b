"""Test the rows of a run's log and its TensorBoard scalars."""

import json
import math
import os
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mtml_jax.runs.files import write_json
from mtml_jax.runs.log import RunLog, read_log


def _events(workdir: Path) -> list[Event]:
    """All TensorBoard events: length, checksum, bytes, checksum, one after the other."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def _lines(workdir: Path) -> list[str]:
    return (workdir / "log.jsonl").read_text().splitlines()


def test_rows_are_json_lines(tmp_path):
    with RunLog(tmp_path / "new" / "run", 0) as log:
        log.row(
            np.int64(3), "train", loss=jnp.float32(0.5), tokens=np.int32(7), rate=0.25, mode="odd"
        )
        log.note(5, "a blank\nand a line")
        # Before anything is closed: what is written is in the operating system's hands.
        assert [json.loads(line) for line in _lines(tmp_path / "new" / "run")] == [
            {"step": 3, "kind": "train", "loss": 0.5, "tokens": 7, "rate": 0.25, "mode": "odd"},
            {"step": 5, "kind": "note", "text": "a blank\nand a line"},
        ]
    assert isinstance(read_log(tmp_path / "new" / "run" / "log.jsonl")[0]["tokens"], int)


def test_numbers_that_json_lacks(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.row(2, "valid", a=float("nan"), b=jnp.float32(jnp.inf), c=-np.inf)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    (line,) = _lines(tmp_path)
    assert json.loads(line, parse_constant=refuse)["b"] == "inf"
    (row,) = read_log(tmp_path / "log.jsonl")
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf
    write_json(tmp_path / "out.json", {"scores": [1.0, math.inf], "inner": {"ppl": math.nan}})
    assert json.loads((tmp_path / "out.json").read_text(), parse_constant=refuse) == {
        "scores": [1.0, "inf"], "inner": {"ppl": "nan"},
    }


def test_a_torn_last_line_is_no_row(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = '{"step": 2, "kind": "train", "loss": 12.5}\n'
    third = '{"step": 3, "kind": "train", "loss": 11.5}'
    for cut in range(len(third)):
        path.write_text(whole + third[:cut])
        assert [row["step"] for row in read_log(path)] == [2], third[:cut]
    path.write_text(whole + third)
    assert [row["step"] for row in read_log(path)] == [2, 3]
    path.write_bytes((whole + third[:9]).encode() + b"\xff\x00")
    with RunLog(tmp_path, 5) as log:
        log.row(6, "train", loss=1.0)
    assert [row["step"] for row in read_log(path)] == [2, 6]


def test_a_broken_line_within_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    for broken in ('{"step": 2', "[2]", '{"kind": "train"}', ""):
        path.write_text('{"step": 1}\n' + broken + '\n{"step": 3}\n')
        with pytest.raises(ValueError, match=r"log\.jsonl:2: expected a JSON object with a step, got .* --workdir"):
            read_log(path)
        with pytest.raises(ValueError, match=r"log\.jsonl:2"):
            RunLog(tmp_path, 3)
        assert len(path.read_text().splitlines()) == 3  # nothing was cut


def test_rows_after_the_restored_step_are_cut(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (2, 3, 5, 7):
            log.row(step, "train", loss=1 / step)
            log.row(step, "valid", ppl=float(step))
    before = _lines(tmp_path)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 11, "kind": "tra')
    with RunLog(tmp_path, 3) as log:
        assert _lines(tmp_path) == before[:4]
        log.row(5, "train", loss=0.125)
    assert _lines(tmp_path)[:4] == before[:4]
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [2, 2, 3, 3, 5]
    with RunLog(tmp_path, 5):
        pass
    assert len(_lines(tmp_path)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "tensorboard"]


def test_cutting_is_all_or_nothing(tmp_path, monkeypatch):
    with RunLog(tmp_path, 0) as log:
        log.row(2, "train", loss=1.0)
        log.row(3, "train", loss=2.0)
    before = (tmp_path / "log.jsonl").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        RunLog(tmp_path, 2)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_scalars_reach_tensorboard(tmp_path):
    with RunLog(tmp_path, 11) as log:
        log.row(13, "train", loss=jnp.float32(0.5), mode="even")
        log.row(17, "valid", ppl=3.25)
        log.note(17, "best")
    scalars, starts = [], []
    for event in _events(tmp_path):
        scalars += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        if event.session_log.status == SessionLog.SessionStatus.START:
            starts.append(event.step)
    assert scalars == [(13, "train/loss", 0.5), (17, "valid/ppl", 3.25)]
    assert starts == [12]  # what TensorBoard drops: this step and later ones


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("which", ["log", "scalars"])
def test_a_full_disk_is_one_sentence(tmp_path, which):
    with pytest.raises(OSError, match="log.jsonl: the row of step 3 .*No space left.*free disk space"):
        with RunLog(tmp_path, 0) as log:
            log.row(2, "train", loss=1.0)
            file = log._file if which == "log" else log._events._writer
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, file.fileno())
            os.close(full)
            log.row(3, "train", loss=2.0)
    wanted = [2] if which == "log" else [2, 3]
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == wanted
