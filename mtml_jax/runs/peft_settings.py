"""Translates between settings of adapters and PEFT's adapter_config.json."""

import math
from typing import Any

from mtml_jax.config_decoder import TARGETS, LlamaConfig, LoraConfig
from mtml_jax.model.pretrained_folder import LAYER

# A path below `model.layers.N.` for each target, and the target of each q_proj, k_proj, ...
MODULES = {name: LAYER[name].removesuffix(".weight") for name in TARGETS}
_TARGETS = {module.rpartition(".")[2]: name for name, module in MODULES.items()}

# Options under which adapters compute something else, or are saved with other tensors.
_REFUSED = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "rank_pattern",
    "alpha_pattern", "exclude_modules", "target_parameters", "trainable_token_indices",
    "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config",
    "monteclora_config", "megatron_config",
)  # fmt: skip
# The others (PiSSA, OLoRA, CorDA, LoftQ) also change the matrices of the decoder.
_INITIALISERS = (True, False, "gaussian", "orthogonal", "eva")
_LARGEST_RANK = 1 << 16


def first_layer(lora: LoraConfig, config: LlamaConfig) -> int:
    """The index of the first adapted layer.

    Raises:
      ValueError: the decoder has fewer layers than are adapted.
    """
    if lora.layers is not None and lora.layers > config.layers:
        raise ValueError(
            f"expected at most the {config.layers} layers of the decoder, got {lora.layers} "
            "adapted layers; pass the settings that the adapters were made with"
        )
    return 0 if lora.layers is None else config.layers - lora.layers


def to_peft(lora: LoraConfig, config: LlamaConfig, base_name: str) -> dict[str, Any]:
    """The content of adapter_config.json."""
    alpha = float(lora.scale * lora.rank)
    first = first_layer(lora, config)
    modules = {name: module for module, name in _TARGETS.items()}
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True,
        "base_model_name_or_path": base_name, "revision": None,
        "r": lora.rank, "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0, "use_rslora": False, "use_dora": False,
        "target_modules": [modules[target] for target in lora.targets],
        "layers_to_transform": list(range(first, config.layers)) if first else None,
        "layers_pattern": None, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None,
        "bias": "none", "fan_in_fan_out": False,
        "init_lora_weights": "gaussian" if lora.initialiser == "gaussian" else True,
    }  # fmt: skip


def from_peft(settings: dict[str, Any], config: LlamaConfig, where: str) -> LoraConfig:
    """Settings of adapters, with targets in the order of `TARGETS`.

    Args:
      settings: the content of adapter_config.json.
      config: sizes of the decoder that is adapted; its `lora` is not read.
      where: the file, for messages.

    Raises:
      ValueError: an option is not implemented, or a value is damaged.
    """

    def require(holds, wanted, got, remedy="adapters of this kind are not implemented"):
        if not holds:
            raise ValueError(f"{where}: expected {wanted}, got {got!r}; {remedy}")

    # Which kind of adapter it is.
    kind, task = settings.get("peft_type"), settings.get("task_type")
    require(kind == "LORA", "peft_type 'LORA'", kind)
    require(task in ("CAUSAL_LM", None), "task_type 'CAUSAL_LM'", task)
    bias, drawn = settings.get("bias", "none"), settings.get("init_lora_weights", True)
    require(bias == "none", "bias 'none'", bias)
    allowed = ", ".join(map(repr, _INITIALISERS))
    require(drawn in _INITIALISERS, f"init_lora_weights out of {allowed}", drawn)
    for name in _REFUSED:
        value = settings.get(name)
        require(value in (None, False, [], {}), f"no {name}", value)

    # Targets, rank and scale.
    modules: Any = settings.get("target_modules")
    known = isinstance(modules, list) and modules and all(m in [*_TARGETS] for m in modules)
    wanted = f"target_modules as a list out of {', '.join(_TARGETS)}"
    require(known, wanted, modules, "patterns and other modules are not implemented")
    damaged = "fetch the file again"
    rank: Any = settings.get("r")
    alpha: Any = settings.get("lora_alpha")
    root = settings.get("use_rslora")
    whole = type(rank) is int and 0 < rank <= _LARGEST_RANK
    require(whole, f"r as a whole number from 1 to {_LARGEST_RANK}", rank, damaged)
    positive = type(alpha) in (int, float) and 1e-30 < alpha < 1e30
    require(positive, "lora_alpha as a positive number", alpha, damaged)
    require(root in (True, False, None), "use_rslora as true or false", root, damaged)

    # Layers: an empty list means all of them, as in PEFT.
    layers: Any = settings.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers or [*range(config.layers)]
    whole = isinstance(layers, list) and all(type(n) is int for n in layers)
    last = [*range(config.layers)][-len(layers) :] if whole else None
    require(
        whole and sorted(layers) == last,
        f"layers_to_transform as the last of the decoder's layers 0 to {config.layers - 1}",
        layers,
        "adapters in other layers are not implemented, and those of another decoder do not fit",
    )
    return LoraConfig(
        rank=rank,
        scale=alpha / math.sqrt(rank) if root else alpha / rank,
        targets=tuple(name for name in TARGETS if name in [_TARGETS[m] for m in modules]),
        layers=None if len(layers) == config.layers else len(layers),
        initialiser="gaussian" if drawn == "gaussian" else "kaiming",
    )
