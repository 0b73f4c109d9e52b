"""Settings from Python: the same checks and the same sentences as from a command line."""

import dataclasses

import pytest

from mtml_jax.checks import check_config
from mtml_jax.config import PRESETS, DataConfig, ModelConfig, TileShape, TrainConfig
from mtml_jax.config_eval import EvalConfig, ReconstructionConfig
from mtml_jax.config_fields import check_settings, settings_of

RECORDS = (ModelConfig, TileShape, DataConfig, TrainConfig, EvalConfig, ReconstructionConfig)
NO_SETTINGS = {"model", "shape", "small", "source"}  # records of their own


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_is_described(record):
    described = {each.name for each in settings_of(record)}
    assert {field.name for field in dataclasses.fields(record)} - described <= NO_SETTINGS
    assert len({each.flag for each in settings_of(record)}) == len(described)


def test_presets_and_defaults_are_allowed():
    for preset in PRESETS.values():
        check_config(preset)
    for record in (EvalConfig(), ReconstructionConfig(), DataConfig()):
        check_settings(record)


@pytest.mark.parametrize(
    "record, sentence",
    [
        (EvalConfig(decoder="sample"), "one of beam, greedy, nucleus, got --decoder=sample"),
        (EvalConfig(shots=(5, -1)), "a whole number, 0 or more, got --shots=5,-1"),
        (EvalConfig(shots=[5]), "expected tuple for --shots"),
        (EvalConfig(max_folds=0), "a whole number, 1 or more, got --max_folds=0"),
        (EvalConfig(top_p=0.0), "a number from 1e-06 to 1, got --top_p=0.0"),
        (EvalConfig(inner_lr=float("inf")), "a finite number, 0 or more, got --inner_lr=inf"),
        (EvalConfig(inner_lr=1), None),
        (EvalConfig(seed=True), "expected int for --seed, got 'True'"),
        (EvalConfig(seed=None), "expected int for --seed, got 'None'"),
        (TrainConfig(alpha=float("nan")), "a number from 0 to 1, got --alpha=nan"),
        (TrainConfig(strategy="maml"), "expected one of std, .*, got --strategy=maml"),
        (TrainConfig(shape=TileShape(0, 1, 1, 1)), "1 or more, got --tile_rows=0"),
        (TrainConfig(model=ModelConfig(width=63, heads=7)), "an even number, got --width=63"),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(record, sentence):
    check = check_config if isinstance(record, TrainConfig) else check_settings
    if sentence is None:
        return check(record)
    with pytest.raises(ValueError, match=sentence):
        check(record)
