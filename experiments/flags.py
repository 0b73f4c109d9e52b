"""Define the absl flags of all commands, and read the settings from them.

`python -m experiments.flags` prints docs/settings.md.
"""

import dataclasses
import os
import pathlib
from typing import Any, TypeVar

from absl import flags

from mtml_jax.checks import check_config
from mtml_jax.config import PRESETS, DataConfig, ModelConfig, TileShape, TrainConfig
from mtml_jax.config_decoder import LlamaConfig, LoraConfig, RowShape
from mtml_jax.config_eval import EvalConfig, ReconstructionConfig
from mtml_jax.config_fields import Setting, check_settings, settings_of
from mtml_jax.model.pretrained import with_decoder
from mtml_jax.runs.peft import read_peft

T = TypeVar("T")
_REQUIRED = "folder of a training run, made by experiments.train (required)"
STARTS = pathlib.Path(__file__).parents[1] / "adapters"  # meta-trained, of pretrained decoders

_DEFINE = {
    bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}  # fmt: skip

# A flag that a function of this file defines counts as one of the command that calls it, so that
# the command's --help shows it.
flags.disclaim_key_flags()


def define(record: Any, **defaults: Any) -> None:
    """Defines a flag for every setting of a dataclass; `defaults` override the record's."""
    for each in settings_of(record):
        default = defaults.get(each.name, each.default)
        _define_flag(each, default, _default_text(each, default))


def _define_flag(each: Setting, default: Any, text: str | None) -> None:
    unshown = default is None or default == ""  # absl shows other defaults itself
    sentence = f"{each.help} (default: {text})" if text and unshown else each.help
    if each.choices and each.kind is str:
        flags.DEFINE_enum(each.flag, default, list(each.choices), sentence)
    elif each.kind in _DEFINE:
        _DEFINE[each.kind](each.flag, default, sentence)
    else:
        flags.DEFINE_list(each.flag, default and [str(part) for part in default], sentence)


def _default_text(each: Setting, default: Any) -> str | None:
    """What the default is, in words."""
    if each.default_text and not default:
        return each.default_text
    if default is None or default == "":
        return None
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ",".join(map(str, default)) if isinstance(default, tuple) else f"{default}"


def read(record: type[T], **others: Any) -> T:
    """The record that the flags of `define` say; `others` are its fields that are no settings.

    Raises:
      ValueError: a value is out of its range; one sentence with the flag to change.
    """
    values: dict[str, Any] = {}
    for each in settings_of(record):
        value = flags.FLAGS[each.flag].value
        is_list = each.kind == tuple[int, ...]
        values[each.name] = whole_numbers(each.flag, value) if is_list else value
    found = record(**values, **others)
    check_settings(found)
    return found


def whole_numbers(flag: str, values: list[str]) -> tuple[int, ...]:
    """The numbers of a list flag, in increasing order.

    Raises:
      ValueError: one of them is not a whole number, or negative.
    """
    try:
        numbers = tuple(sorted({int(value) for value in values}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 0:
        raise ValueError(f"expected whole numbers such as 0,5,10, got --{flag}={','.join(values)}")
    return numbers


def define_common_flags(workdir: str = _REQUIRED) -> None:
    """Flags of every command that reads a run; `workdir` says which folder that is."""
    flags.DEFINE_string("workdir", None, workdir)
    define_device_flags()


def define_start_flag() -> None:
    """The flag that takes the place of --workdir."""
    flags.DEFINE_enum(
        "start", None, shipped_starts(),
        "meta-trained adapters that come with the project, in place of --workdir (default: none)"
    )


def shipped_starts() -> list[str]:
    """The names of the meta-trained adapters that come with the project."""
    return sorted(path.parent.name for path in STARTS.glob("*/start.json"))


def use_start(given: Any) -> None:
    """Makes the folder of --start that of the run.

    Raises:
      ValueError: --workdir is given, too.
    """
    if not given.start:
        return
    if given.workdir:
        raise ValueError(
            f"expected --workdir or --start, got --workdir={given.workdir} and --start={given.start}"
        )
    given.workdir = str(STARTS / given.start)


def define_device_flags() -> None:
    """Flags that `startup.start_jax` reads."""
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    flags.DEFINE_string(
        "compilation_cache", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(caches / "mtml_jax")),
        "folder of compiled programs, which later starts reuse; empty for none"
    )
    flags.DEFINE_integer(
        "cpu_devices",
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "number of devices that the CPU's cores count as, without an accelerator; the personas "
        "or pairs of a step are shared among them",
        lower_bound=1,
    )


def define_process_flags() -> None:
    """Flags that `startup.join_processes` reads."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT at which the processes of a job find process 0; auto where JAX finds it "
        "itself, as on a Cloud TPU (srun, mpirun and GKE's TPUs need no such flag)",
    )
    flags.DEFINE_integer(
        "num_processes", None, "number of processes of the job, with --coordinator", lower_bound=1
    )
    flags.DEFINE_integer(
        "process_id", None, "number of this process, from 0, with --coordinator", lower_bound=0
    )


def define_data_flags(**defaults: Any) -> None:
    """Flags that say which dialogues are read."""
    define(DataConfig, **defaults)


def define_train_flags() -> None:
    """Flags of the dialogues, and a flag for every setting of `TrainConfig`."""
    define_data_flags()
    define_preset_flags()


def define_preset_flags(*names: str) -> None:
    """The preset, and a flag for every setting of `TrainConfig`, or for those named alone."""
    flags.DEFINE_enum(
        "preset", None, list(PRESETS),
        "name of the preset: model sizes and training settings that other flags override "
        "(default: small; pretrained with --init_from)"
    )
    for record, each in _train_settings(names):
        _define_flag(each, None, _preset_text(record, each))


def _train_settings(names: tuple[str, ...] = ()) -> list[tuple[type, Setting]]:
    """(the record that holds the setting, the setting); of all settings, or of those named."""
    records = (TrainConfig, ModelConfig, TileShape, LoraConfig, RowShape)
    pairs = [(record, each) for record in records for each in settings_of(record)]
    return [pair for pair in pairs if not names or pair[1].flag in names]


def _preset_text(record: type, each: Setting) -> str | None:
    """The default of a setting in every preset that has it, or once where they agree."""
    texts = {
        name: _default_text(each, getattr(holder, each.name))
        for name, preset in PRESETS.items()
        for holder in preset.records()[:5]
        if type(holder) is record and holder is not getattr(preset.shape, "small", None)
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return f"the preset's; {', '.join(f'{name} {text}' for name, text in texts.items())}"


def resolve_config(*names: str) -> TrainConfig:
    """The preset with the settings whose flags are given; `names` as in `define_preset_flags`.

    Raises:
      ValueError: a value is out of its range; one sentence with the flag to change.
    """
    base = PRESETS[preset_name()]
    changes: dict[type, dict[str, Any]] = {}
    for record, each in _train_settings(names):
        if (value := flags.FLAGS[each.flag].value) is not None:
            value = tuple(value) if isinstance(value, list) else value
            changes.setdefault(record, {})[each.name] = value
            _require_use(base, record, each)
    config = dataclasses.replace(base, **changes.get(TrainConfig, {}))
    if isinstance(config.model, ModelConfig):
        config = _transformer(config, changes)
    else:
        config = _decoder(config, changes)
    check_config(config)
    return config


def preset_name() -> str:
    """The preset that is given, or follows from the other flags."""
    return flags.FLAGS.preset or ("pretrained" if flags.FLAGS.init_from else "small")


def _transformer(config, changes):
    """The settings with the given sizes of a Transformer."""
    shape = dataclasses.replace(config.shape, **changes.get(TileShape, {}))
    if shape != config.shape:
        shape = dataclasses.replace(shape, small=None)  # it belongs to the preset's own shape
    model = dataclasses.replace(config.model, **changes.get(ModelConfig, {}))
    return dataclasses.replace(config, model=model, shape=shape)


def _decoder(config, changes):
    """The settings with the given adapters, for the sizes of the decoder that is named."""
    lora = dataclasses.replace(config.model.lora, **changes.get(LoraConfig, {}))
    model = dataclasses.replace(config.model, lora=lora, **changes.get(ModelConfig, {}))
    shape = dataclasses.replace(config.shape, **changes.get(RowShape, {}))
    config = dataclasses.replace(config, model=model, shape=shape)
    given = changes.get(LoraConfig)
    if config.init_from != PRESETS["pretrained"].init_from:
        config = with_decoder(config, config.init_from)
    if config.adapters_from and not given:
        lora, _ = read_peft(config.adapters_from, config.model)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, lora=lora))
    return config


def _require_use(preset, record, each):
    """Raises ValueError where a flag that is given would change nothing."""
    decoder = isinstance(preset.model, LlamaConfig)
    shared = record is TrainConfig or (record is ModelConfig and each.name in ("dtype", "remat"))
    if not shared and decoder == (record in (ModelConfig, TileShape)):
        having = "with a pretrained decoder (--init_from)" if decoder else "without --init_from"
        raise ValueError(f"expected no --{each.flag} {having}, which has no use for it")
    if each.name == "init_from" and not decoder:
        raise ValueError(
            "expected the preset pretrained with --init_from, got another --preset; leave --preset "
            "out"
        )


def settings_page() -> str:
    """docs/settings.md: every setting of the library, from the same source as the flags."""
    page = [
        "# Settings",
        "",
        "Generated by `python -m experiments.flags > docs/settings.md`. Each setting is a field of "
        "a record in `mtml_jax/config.py`, `config_decoder.py` or `config_eval.py`, and a flag of the "
        "commands named.",
    ]
    tables = {
        "Training: `TrainConfig`, `ModelConfig`, `TileShape`, `LoraConfig` and `RowShape`; "
        "experiments.train": [
            (each, _preset_text(record, each)) for record, each in _train_settings()
        ]
    }
    others = {
        "Dialogues: `DataConfig`; every command that reads a corpus": DataConfig,
        "Evaluation: `EvalConfig`; experiments.evaluate": EvalConfig,
        "Reconstruction: `ReconstructionConfig`; experiments.reconstruct": ReconstructionConfig,
    }
    for title, record in others.items():
        tables[title] = [(s, _default_text(s, s.default)) for s in settings_of(record)]
    for title, rows in tables.items():
        page += ["", f"## {title}", "", "| flag | default | meaning |", "|---|---|---|"]
        for each, text in rows:
            choices = f"; one of {', '.join(each.choices)}" if each.choices else ""
            page.append(f"| `--{each.flag}` | {text or ''} | {each.help}{choices} |")
    return "\n".join(page) + "\n"


if __name__ == "__main__":
    print(settings_page(), end="")
