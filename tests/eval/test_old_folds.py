"""An evaluation begun by an earlier version is continued.

The files in `old/` were written by the version before settings were described in one place: 3 of
the 6 folds of a run of the preset tiny with strategy mtml, width 8 and 6 iterations, by
`evaluate --max_folds=2 --shots=0,2 --decoder=greedy`.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mtml_jax.config import PRESETS, ModelConfig
from mtml_jax.config_eval import EvalConfig
from mtml_jax.data.prepare import prepare
from mtml_jax.eval import protocol
from mtml_jax.eval.adaptation import Stages
from mtml_jax.eval.evaluate import evaluate
from mtml_jax.model.decoding import Replies
from mtml_jax.runs.checkpoint import Checkpoints
from mtml_jax.runs.folder import save_run
from mtml_jax.train.resume import initial_state
from mtml_jax.types import TokenSums

OLD = Path(__file__).parent / "old"
CONFIG = dataclasses.replace(
    PRESETS["tiny"], strategy="mtml", min_count=20,
    model=ModelConfig(encoder_layers=1, decoder_layers=1, heads=2, width=8, feed_forward=16),
)  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with the settings of the old one, and its folds; parameters are not read."""
    folder = tmp_path_factory.mktemp("run")
    data = prepare(CONFIG, "demo")
    saved = {**dataclasses.asdict(CONFIG), "data": "demo", "preset": "tiny"}
    save_run(folder, saved, data.vocabulary.to_text())
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(6, initial_state(CONFIG, data), {}, best=True)
        checkpoints.wait()
    shutil.copytree(OLD, folder / "eval")
    return folder


def test_old_folds_are_kept_and_the_others_added(workdir, monkeypatch):
    tested = []

    def compiled(config, run, stages):
        def score_folds(folds):
            tested.append(stages)
            shape = (1, len(stages), folds.contexts.segment[0, ..., 0].size)
            sums = TokenSums(np.ones(shape[:2]), np.ones(shape[:2], int))
            return Stages(sums, Replies(np.zeros((*shape, 20), int), np.zeros(shape)))

        return 1, score_folds

    monkeypatch.setattr(protocol, "_compiled", compiled)
    config = EvalConfig(shots=(0, 2), max_folds=2, decoder="greedy", resamples=20)
    report = evaluate(workdir, config, say=lambda line: None)
    assert tested == [protocol.EPOCHS] * 3  # those of adapted models that were missing
    old = (OLD / "test.folds.jsonl").read_text()
    now = (workdir / "eval" / "test.folds.jsonl").read_text()
    assert now.startswith(old) and len(now.splitlines()) == 6
    (first, *_), written = old.splitlines(), json.loads((OLD / "test.settings.json").read_text())
    assert report["settings"] == written
    turn = json.loads((workdir / "eval" / "test.generations.jsonl").read_text().splitlines()[0])
    assert turn["replies"]["unadapted, 0-shot, epoch 0"] == json.loads(first)["replies"][0][0]
    assert json.loads(first).keys() == json.loads(now.splitlines()[-1]).keys()


def test_old_folds_of_other_settings_are_refused(workdir):
    with pytest.raises(ValueError, match="another seed .saved 0, now 1.*--output"):
        evaluate(workdir, EvalConfig(decoder="greedy", seed=1), say=lambda line: None)
