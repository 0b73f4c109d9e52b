"""Test the settings and the vocabulary in a run's folder."""

import dataclasses
import json

import pytest

from mtml_jax.config import DataConfig, TrainConfig
from mtml_jax.runs.folder import MAY_DIFFER, differing_settings, load_run, save_run, source_of

_CONFIG = {"model": {"width": 7, "heads": 2}, "glove": "", "warmup": 3, "iterations": 11}


def _changed(**changes):
    return {**_CONFIG, **changes}


def test_settings_and_words_of_a_run(tmp_path):
    workdir, text = tmp_path / "runs" / "one", "gull\r\ncafé\u2028x\n"
    save_run(workdir, _CONFIG, text)
    assert load_run(workdir) == (_CONFIG, text)
    assert set(json.loads((workdir / "versions.json").read_text())) >= {"jax", "orbax-checkpoint"}
    longer = _changed(iterations=13)
    save_run(workdir, longer, text)
    assert load_run(workdir) == (longer, text)
    with pytest.raises(ValueError, match=r"warmup \(saved 3, now 5\); .*--workdir"):
        save_run(workdir, _changed(warmup=5), text)
    with pytest.raises(ValueError, match=rf"{workdir}.*vocabulary.*--workdir"):
        save_run(workdir, _CONFIG, text + "tern\n")
    assert load_run(workdir) == (longer, text)
    assert {path.name for path in workdir.iterdir()} == {
        "config.json", "versions.json", "vocabulary.txt",
    }


def test_a_run_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}: expected .*--workdir"):
        load_run(tmp_path)
    save_run(tmp_path, _CONFIG, "gull\n")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*--workdir"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*--workdir"):
        save_run(tmp_path, _CONFIG, "gull\n")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vocabulary.txt").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}: expected .* no vocabulary.txt"):
        load_run(tmp_path)


def test_every_differing_setting_is_named(tmp_path):
    assert differing_settings(_CONFIG, dict(_CONFIG)) == ""
    assert differing_settings({"a": [2, 3]}, {"a": (2, 3)}) == ""
    current = _changed(model={"width": 5, "heads": 2}, glove="vectors", iterations=13)
    assert differing_settings(_CONFIG, current, frozenset({"iterations"})) == (
        "glove (saved '', now 'vectors'), model.width (saved 7, now 5)"
    )
    assert not differing_settings(
        _CONFIG, current, frozenset({"iterations", "glove", "model.width"})
    )
    fewer = {name: value for name, value in _CONFIG.items() if name != "warmup"}
    assert differing_settings(fewer, _CONFIG) == "warmup (saved 'nothing', now 3)"
    assert differing_settings(_CONFIG, fewer) == "warmup (saved 3, now 'nothing')"


def test_the_settings_that_may_differ_are_settings(tmp_path):
    config = dataclasses.asdict(TrainConfig())
    assert MAY_DIFFER < config.keys() | DataConfig(data="personachat", data_dir=".").to_saved().keys()
    save_run(tmp_path, config, "gull\n")
    assert load_run(tmp_path)[0] == config


def test_a_run_keeps_the_folder_of_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = DataConfig(data="personachat", data_dir="there").to_saved()
    assert source_of(saved, DataConfig(data=None)).data_dir == str(tmp_path / "there")
    assert source_of(saved, DataConfig(data=None, data_dir="here")).data_dir == "here"
    assert source_of(saved, DataConfig(data="demo")).data_dir is None
    assert source_of({"data": "personachat"}, DataConfig(data=None)).data_dir is None
    assert "data_dir" not in DataConfig(data="demo").to_saved()
