"""Settings as frozen dataclasses; the paper's numbers are the defaults, source on the line."""

import dataclasses


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
    remat: bool = False  # recompute layers in the backward pass: less memory, more time


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What a loss needs to know."""

    model: ModelConfig
    reduction: str = "mean"  # over the tokens of each loss, or "sum"
    forward_over_reverse: bool = False  # the second derivative by jvp of the gradient


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What one outer step needs to know beyond its data; static under jit."""

    model: ModelConfig
    reduction: str = "mean"
    gradient: str = "exact"
    inner_steps: int = 1  # section 2.2: one SGD step
    persona_chunk: int | None = None  # personas vmapped at a time; None: all

    def loss(self) -> LossConfig:
        return LossConfig(self.model, self.reduction, self.gradient == "mixed")


@dataclasses.dataclass(frozen=True)
class TileShape:
    """Slots of one tile of packed examples; contexts longer than a row keep their end."""

    rows: int
    context: int  # tokens a row
    response: int  # target tokens of all responses in the tile
    persona: int  # target tokens of all personas in the tile


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes."""

    model: ModelConfig
    shape: TileShape
    strategy: str = "amtml"
    alpha: float = 0.8  # section 3.5 finds it best
    data: str = "demo"
    preset: str = "small"
    meta_batch: int = 16  # section 3.2, M
    inner_lr: float = 0.005  # section 3.2, eta_t
    inner_steps: int = 1  # section 2.2
    outer_lr: float = 0.003  # section 3.2, eta_o
    warmup: int = 0  # outer steps of linear warm-up
    reduction: str = "mean"
    gradient: str = "mixed"
    distinct_start: bool = False
    glove: str | None = None
    min_count: int = 2
    seed: int = 0
    iterations: int = 300
    validate_every: int = 50
    validation_episodes: int = 32
    patience: int = 5  # validations without a better score
    persona_chunk: int | None = 1

    def step(self) -> StepConfig:
        return StepConfig(
            self.model, self.reduction, self.gradient, self.inner_steps, self.persona_chunk
        )
