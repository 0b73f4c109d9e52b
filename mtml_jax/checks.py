"""Check the settings of a training run, before anything is read or compiled."""

import dataclasses

from mtml_jax.config import TrainConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.config_fields import check_settings
from mtml_jax.strategies import STRATEGIES


def check_config(config: TrainConfig) -> None:
    """Checks the type and range of every setting, before anything is read or compiled.

    Raises:
      ValueError: one sentence with what is expected, the value, and the flag to change.
    """
    for record in config.records():
        check_settings(record)
    model = config.model
    if bool(config.init_from) != isinstance(model, LlamaConfig):
        raise ValueError(
            f"expected the sizes of a decoder with --init_from and those of a Transformer without, "
            f"got --init_from={config.init_from} and {type(model).__name__}; begin with "
            "PRESETS['pretrained'] for a decoder"
        )
    if config.gradient == "finite_difference" and model.dtype != "float32":
        raise ValueError(
            f"expected float32, got --gradient=finite_difference and --dtype={model.dtype}: the "
            "difference would be lost in rounding"
        )
    if isinstance(model, LlamaConfig):
        _check_decoder(config, model)
        return
    if config.adapters_from:
        raise ValueError(
            f"expected --init_from with --adapters_from, got --adapters_from={config.adapters_from} "
            "alone; name the decoder that the adapters belong to"
        )
    if model.width % model.heads:
        raise ValueError(
            f"expected a width that the number of heads divides, got --width={model.width} and "
            f"--heads={model.heads}"
        )
    if model.width % 2:
        raise ValueError(f"expected an even number, got --width={model.width}")
    if config.gradient == "finite_difference" and model.activation == "relu":
        raise ValueError(
            "expected a smooth activation with --gradient=finite_difference, got "
            "--activation=relu, whose gradient jumps; use --activation=gelu"
        )


def _check_decoder(config, model):
    unread = ("distinct_start", "glove", "min_count", "persona_context")
    defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
    for name in unread:
        if getattr(config, name) != defaults[name]:
            raise ValueError(
                f"expected no --{name} with --init_from, got --{name}={getattr(config, name)}: a "
                "pretrained decoder is asked for the persona in words and has a vocabulary of its own"
            )
    if (model.lora.layers or 0) > model.layers:
        raise ValueError(
            f"expected at most {model.layers} adapted layers, which the base has, got "
            f"--lora_layers={model.lora.layers}"
        )


def check_chunk(config: TrainConfig, devices: int) -> None:
    """Checks that chunks of personas fill each device evenly.

    Raises:
      ValueError: they do not.
    """
    share = config.meta_batch // devices
    if config.persona_chunk and share % min(config.persona_chunk, share):
        raise ValueError(
            f"expected a divisor of {share}, got --persona_chunk={config.persona_chunk} for the "
            f"{share} personas of each of {devices} devices (--meta_batch={config.meta_batch})"
        )


def config_warnings(config: TrainConfig) -> list[str]:
    """Sentences on settings that are allowed but rarely intended."""
    warnings = []
    if config.inner_lr == 0:
        warnings.append(
            "--inner_lr=0 adapts to nobody: all scores after an inner step equal those before it"
        )
    if config.outer_lr == 0:
        warnings.append("--outer_lr=0 trains nothing")
    strategy = STRATEGIES[config.strategy]
    if strategy.reads_alpha and config.alpha in (0, 1):
        same = "paml" if strategy.adapts else "std"
        on = ("persona statements only, never on a reply", f"replies only, as {same} does")
        warnings.append(
            f"--alpha={config.alpha:g} trains {config.strategy} on {on[int(config.alpha)]}"
        )
    if config.max_skipped > config.iterations:
        warnings.append(
            "--max_skipped is more than --iterations: nothing stops a run without a finite gradient"
        )
    return [f"warning: {sentence}" for sentence in warnings]
