"""Settings as frozen dataclasses; the paper's numbers are the defaults, source on the line."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the Transformer."""

    encoder_layers: int = 6  # section 3.2
    decoder_layers: int = 6  # section 3.2
    heads: int = 4  # section 3.2
    width: int = 300  # section 3.2
    feed_forward: int = 1200  # four times the width, Vaswani et al. section 3.3
    activation: str = "relu"  # Vaswani et al. section 3.3; or "gelu"
    dtype: str = "float32"  # of the products; parameters stay float32
    remat: bool = False  # recompute layers in the backward pass, even where memory is plenty


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Settings of a loss; static under jit."""

    model: ModelConfig
    reduction: str = "mean"  # over the tokens of each loss, or "sum"
    plain: bool = False  # sum over tiles in plain JAX, which has a second reverse-mode derivative


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Settings of one outer step; static under jit."""

    model: ModelConfig
    reduction: str = "mean"
    gradient: str = "exact"
    inner_steps: int = 1  # section 2.2: one SGD step
    persona_chunk: int | None = None  # personas vmapped at a time; None: all

    def loss(self) -> LossConfig:
        return LossConfig(self.model, self.reduction, plain=self.gradient == "exact")


@dataclasses.dataclass(frozen=True)
class TileShape:
    """Slots of one tile of packed examples; contexts longer than a row keep their end."""

    rows: int
    context: int  # tokens a row
    response: int  # target tokens a tile, where responses are learnt; also the longest of them
    persona: int  # the same where personas are reconstructed; a tile with both shares the sum
    small: "TileShape | None" = None  # a second kind, for what does not fill one of these


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes."""

    model: ModelConfig = ModelConfig()
    shape: TileShape = TileShape(
        rows=1, context=256, response=40, persona=96, small=TileShape(1, 160, 32, 72)
    )
    strategy: str = "amtml"
    alpha: float = 0.8  # section 3.5 finds it best
    meta_batch: int = 16  # section 3.2, M
    inner_lr: float = 0.005  # section 3.2, eta_t
    inner_steps: int = 1  # section 2.2
    outer_lr: float = 0.003  # section 3.2, eta_o
    warmup: int = 100  # outer steps of linear warm-up of outer_lr
    reduction: str = "mean"  # of a loss over its tokens; or "sum", eqs. 2 and 5 as printed
    gradient: str = "mixed"  # how the derivative passes the inner step, see `inner`
    distinct_start: bool = False  # whether the persona task has a start token of its own
    persona_context: str = "both"  # whose utterances statements are reconstructed from; or "own"
    glove: str = ""  # file of word vectors; empty: drawn at random
    min_count: int = 2  # a word of train that is rarer is unknown
    seed: int = 0
    iterations: int = 20000
    validate_every: int = 200  # iterations
    validation_episodes: int = 96
    patience: int = 10  # validations without a better score before stopping
    max_skipped: int = 10  # steps in a row without a finite gradient before stopping
    persona_chunk: int | None = None  # personas vmapped at a time; None: see `step`, `fitting`

    def step(self, platform: str) -> StepConfig:
        """For the outer step on a platform ("cpu", "gpu", "tpu").

        Where no chunk is set, a CPU takes one persona after the other, which is
        fastest there, and an accelerator all of its share at once.
        """
        chunk = self.persona_chunk or (1 if platform == "cpu" else None)
        return StepConfig(self.model, self.reduction, self.gradient, self.inner_steps, chunk)

    def loss(self) -> LossConfig:
        """For losses that are differentiated once."""
        return LossConfig(self.model, self.reduction)


def restored_config(saved: Mapping[str, Any]) -> TrainConfig:
    """The settings of a run from its config.json; what else the file holds is left aside.

    Raises:
      ValueError: a setting is missing, or of another type.
    """
    names = [f.name for f in dataclasses.fields(TrainConfig)]
    try:
        values = {name: saved[name] for name in names}
        values["model"] = ModelConfig(**saved["model"])
        values["shape"] = TileShape(**saved["shape"])
        if small := saved["shape"].get("small"):
            values["shape"] = dataclasses.replace(values["shape"], small=TileShape(**small))
        for part in (TrainConfig(**values), values["model"], values["shape"]):
            for name, kind in get_type_hints(type(part)).items():
                _check_type(name, getattr(part, name), kind)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"found a run whose config.json does not fit this version ({error}), want one that "
            "experiments.train made; train again"
        ) from None
    return TrainConfig(**values)


def _check_type(name: str, value: Any, kind: Any) -> None:
    wanted = kind | int if kind is float else kind  # JSON has no 1.0 where 1 was given
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is {str(value)[:40]!r}")


# `paper` is the paper's; the others keep its method and shrink what costs time. Their
# inner rate is the one at which, on valid personas, adapting to one's own dialogues
# visibly beats adapting to another's.
PRESETS = {
    "tiny": TrainConfig(
        model=ModelConfig(
            encoder_layers=1,
            decoder_layers=1,
            heads=2,
            width=32,
            feed_forward=128,
            activation="gelu",
        ),
        shape=TileShape(rows=2, context=96, response=64, persona=128),
        inner_lr=0.1,
        outer_lr=0.01,
        warmup=20,
        iterations=300,
        validate_every=50,
        validation_episodes=32,
        patience=5,
    ),
    "small": TrainConfig(
        model=ModelConfig(
            encoder_layers=2,
            decoder_layers=2,
            heads=2,
            width=64,
            feed_forward=256,
            activation="gelu",
        ),
        shape=TileShape(rows=2, context=128, response=64, persona=128),
        inner_lr=0.1,
        warmup=50,
        iterations=240,
        validate_every=40,
        validation_episodes=32,
        patience=5,
    ),
    "paper": TrainConfig(),
}
