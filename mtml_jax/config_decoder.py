"""Declare the settings of a pretrained decoder: its sizes, its adapters, its rows."""

import dataclasses

from mtml_jax.config_fields import check_settings, setting

# The products of a layer, in the order of computation.
TARGETS = ("query", "key", "value", "output", "gate", "up", "down")
INITIALISERS = ("gaussian", "kaiming")
WHEN = ("last", "every")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Settings of low-rank adapters (Hu et al., 2021); static under jit."""

    rank: int = setting(8, "rank R of the adapter of each product", flag="lora_rank", at_least=1)
    scale: float = setting(
        2.0, "factor of an adapter's product, lora_alpha / r in PEFT's terms", flag="lora_scale",
        at_least=1e-6
    )
    targets: tuple[str, ...] = setting(
        ("query", "value"), f"products that are adapted, out of {','.join(TARGETS)}",
        flag="lora_targets", choices=TARGETS
    )
    layers: int | None = setting(
        None, "number of layers that are adapted, counted from the last; the layers before them "
        "run once a dialogue", flag="lora_layers", default_text="all", at_least=1
    )
    initialiser: str = setting(
        "gaussian", "distribution of A: gaussian is N(0, 1/R), kaiming is uniform within "
        "+-1/sqrt(inputs), PEFT's default; B begins at zero", flag="lora_initialiser",
        choices=INITIALISERS
    )

    def __post_init__(self):
        check_settings(self)
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(
                f"expected different targets out of {', '.join(TARGETS)}, got "
                f"--lora_targets={','.join(self.targets)}"
            )


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a decoder and of its adapters; static under jit.

    Attributes:
      layers: the number of layers.
      width: the width D.
      heads: the number of query heads.
      key_value_heads: the number of key-value heads G, a divisor of `heads`.
      head_width: the width K of a head.
      feed_forward: the width of the feed-forward layer.
      vocabulary: the number of tokens V.
      epsilon: added to the mean square in RMS normalisation.
      rope_theta: base of the rotary wavelengths.
      rope_factors: K / 2 numbers by which the rotary rates are divided; empty for ones.
      dtype: in which layers are computed.
      remat: whether the backward pass computes each layer again instead of keeping its
        intermediate values.
      lora: settings of the adapters.
    """

    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_width: int
    feed_forward: int
    vocabulary: int
    epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_factors: tuple[float, ...] = ()
    dtype: str = "float32"
    remat: bool = True
    lora: LoraConfig = LoraConfig()


@dataclasses.dataclass(frozen=True)
class RowShape:
    """How dialogues lie in the rows that a decoder reads."""

    tokens: int = setting(
        384, "greatest number of tokens of a dialogue with its persona; of a longer dialogue the "
        "first turns that fit are read", flag="row_tokens", at_least=64
    )
    persona_after: str = setting(
        "last", "turns after which the persona task reads the dialogue so far: the last one, or "
        "every one, as the paper has it, at about twice the tokens", choices=WHEN
    )


SMOLLM2_135M = LlamaConfig(
    layers=30, width=576, heads=9, key_value_heads=3, head_width=64, feed_forward=1536,
    vocabulary=49152, rope_theta=100000.0, remat=False
)  # fmt: skip
