"""Interrupt commands at any moment: each ends with one sentence and a signal's exit status."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "train": ["--strategy=std", "--preset=tiny", "--workdir=w"],
    "evaluate": ["--workdir=run", "--output=out"],
    "benchmark": ["--preset=tiny", "--rows=none"],
    "adapt": [
        "--workdir=run", "--output=out", f"--dialogues={ROOT}/experiments/examples/five_dialogues.jsonl"
    ],
    "chat": ["--workdir=run"],
    "check_data": [],
}  # fmt: skip


@pytest.mark.kills
@pytest.mark.parametrize(
    "name, number", [*((name, signal.SIGINT) for name in COMMANDS), ("train", signal.SIGTERM)]
)
def test_an_interruption_is_one_sentence(save_tiny_run, tmp_path, name, number):
    save_tiny_run(tmp_path / "run")
    rng = random.Random(f"{name} {number}")
    for part in ("imports", "work"):
        with subprocess.Popen(
            [sys.executable, "-m", f"experiments.{name}", *COMMANDS[name]], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as program:  # fmt: skip
            time.sleep(rng.uniform(1, 2) if part == "imports" else rng.uniform(3, 9))
            over = program.poll() is not None
            program.send_signal(number)
            output, errors = program.communicate(timeout=120)
        if part == "work" and (over or program.returncode == 0):
            continue  # it had ended before
        assert program.returncode == 128 + number, errors
        # A training says at which step it was saved, among its other lines.
        (said,) = errors.strip().splitlines() or output.strip().splitlines()[-1:]
        assert "interrupted" in said or "ended" in said
