"""The programs of docs/library.md run one after the other, with a smaller model."""

import dataclasses
import re
from pathlib import Path

import pytest

from mtml_jax.config import PRESETS, TileShape
from mtml_jax.train.run import train_run

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), re.DOTALL)
SMALLER = {  # text of the page -> text that is run
    'strategy="mtml"': 'strategy="std"',  # no second derivative to compile
    "iterations=300": "iterations=2, validate_every=2, meta_batch=2, validation_episodes=2",
    "max_folds=16": "max_folds=1, folds_at_once=1, resamples=5",
    "shots=(5,)": "shots=(1,)",
    "epochs=5": "epochs=1",
    '"experiments/examples': f'"{ROOT}/experiments/examples',
}


def test_each_program_has_ten_lines():
    assert len(PROGRAMS) == 4
    assert all(len(program.strip().splitlines()) <= 10 for program in PROGRAMS)


@pytest.mark.long
def test_the_page_trains_evaluates_adapts_and_chats(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = PRESETS["tiny"]
    model = dataclasses.replace(tiny.model, width=8, feed_forward=8)
    shape = TileShape(rows=2, context=31, response=41, persona=61)
    monkeypatch.setitem(PRESETS, "tiny", dataclasses.replace(tiny, model=model, shape=shape))
    page = "\n# next\n".join(PROGRAMS)
    for text, smaller in SMALLER.items():
        assert text in page
        page = page.replace(text, smaller)
    names: dict = {}
    for program in page.split("# next"):
        exec(program, names)
    printed = capsys.readouterr().out
    assert "finished" in printed and "1-shot, own " in printed
    assert set(names["report"]["rows"][-1]["scores"]) >= {"ppl", "bleu"}
    assert names["adapted"].ppl_after > 1 and len(names["history"]) == 2
    assert (tmp_path / "runs/robin/adapted.json").exists()


def test_a_setting_out_of_range_is_refused_before_anything_is_written(tmp_path):
    config = dataclasses.replace(PRESETS["tiny"], alpha=2.0)
    with pytest.raises(ValueError, match="from 0 to 1, got --alpha=2.0"):
        train_run(config, None, tmp_path / "run")
    assert not (tmp_path / "run").exists()
