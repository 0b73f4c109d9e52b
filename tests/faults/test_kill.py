"""Test kill -9 during steps and saves, and a full disk: the run ends with the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtml_jax.inference.delta import digest
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.runs.log import read_log

pytestmark = pytest.mark.kills

_ROOT = Path(__file__).resolve().parents[2]


_FULL = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # stands for a full disk
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


_TRANSFORMER = ("--preset=tiny", "--width=8", "--feed_forward=16")


def _start(workdir, cache, *before, model=_TRANSFORMER):
    command = [
        sys.executable, *before, "-m", "experiments.train", *model, "--strategy=std",
        "--meta_batch=2", "--validation_episodes=2", "--validate_every=1", "--iterations=9",
        "--patience=99", f"--workdir={workdir}", f"--compilation_cache={cache}", "--cpu_devices=1",
    ]  # fmt: skip
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _finish(workdir, cache, **model):
    with _start(workdir, cache, **model) as program:
        text = program.communicate(timeout=500)[0].decode()
    assert program.returncode == 0 and "Traceback" not in text, text


def _kill_when(workdir, cache, moment, **model):
    with _start(workdir, cache, **model) as program:
        while program.poll() is None and not moment():
            time.sleep(0.002)
        program.kill()
        program.communicate(timeout=500)
    assert program.returncode == -signal.SIGKILL


def _end(workdir):
    timing = {"seconds", "tokens_per_second"}
    rows = [{k: v for k, v in r.items() if k not in timing} for r in read_log(workdir / "log.jsonl")]
    rows = [row for row in rows if row["kind"] != "note"]
    return [digest(restore_params(workdir, which).params) for which in ("latest", "best")], rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happens to, and the cache of its compiled programs."""
    folder = tmp_path_factory.mktemp("whole")
    _finish(folder / "run", folder / "cache")
    return folder / "run", folder / "cache"


def _kill_and_finish(killed, cache, **model):
    """Kills a run after its second step and in a save after its fourth, and then lets it end."""
    log, checkpoints = killed / "log.jsonl", killed / "checkpoints"

    def stepped():
        return log.exists() and '"step": 2, "kind": "train"' in log.read_text()

    def saving():
        return any("tmp" in p.name and int(p.name.split(".")[0]) > 4 for p in checkpoints.glob("*.*"))

    _kill_when(killed, cache, stepped, **model)
    _kill_when(killed, cache, saving, **model)
    _finish(killed, cache, **model)


def test_a_killed_run_ends_with_the_bits_of_a_whole_one(tmp_path, whole):
    whole, cache = whole
    _kill_and_finish(tmp_path / "killed", cache)
    assert _end(tmp_path / "killed") == _end(whole)
    assert not (tmp_path / "killed" / "damaged").exists()


def test_a_killed_run_of_a_decoder_ends_with_the_bits_of_a_whole_one(tmp_path, tiny_decoder):
    model = (f"--init_from={tiny_decoder}", "--lora_rank=2", "--row_tokens=512")
    _finish(tmp_path / "whole", tmp_path / "cache", model=model)
    _kill_and_finish(tmp_path / "killed", tmp_path / "cache", model=model)
    assert _end(tmp_path / "killed") == _end(tmp_path / "whole")


def test_a_full_disk_is_told_in_one_sentence(tmp_path, whole):
    whole, cache = whole
    with _start(tmp_path / "full", cache, "-c", _FULL) as program:
        text = program.communicate(timeout=500)[0].decode()
    last = text.strip().split("\n")[-1]
    assert program.returncode == 1 and last.startswith(f"error: {tmp_path}/full: the checkpoint of")
    assert "Traceback" not in text and "RuntimeError" not in text
    _finish(tmp_path / "full", cache)
    assert _end(tmp_path / "full") == _end(whole)


def test_the_same_seed_gives_the_same_bits_in_another_process(tmp_path, whole):
    _finish(tmp_path / "again", tmp_path / "another cache")
    assert _end(tmp_path / "again") == _end(whole[0])
