"""Declare the settings of data and training; the paper's values are the defaults."""

import dataclasses
from pathlib import Path
from typing import Any

from mtml_jax.config_decoder import SMOLLM2_135M, LlamaConfig, RowShape
from mtml_jax.config_fields import setting
from mtml_jax.strategies import STRATEGIES

CORPORA = ("demo", "personachat")
GRADIENTS = ("exact", "mixed", "finite_difference", "first_order")
SPLITS = ("train", "valid", "test")
REDUCTIONS = ("mean", "sum")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the Transformer."""

    encoder_layers: int = setting(6, "layers of the encoder (section 3.2; paper: 6)", at_least=1)
    decoder_layers: int = setting(6, "layers of the decoder (section 3.2; paper: 6)", at_least=1)
    heads: int = setting(4, "attention heads of each layer (section 3.2; paper: 4)", at_least=1)
    width: int = setting(
        300, "width of word vectors and hidden states (section 3.2; paper: 300)", at_least=1
    )
    feed_forward: int = setting(
        1200,
        "width inside the feed-forward layers (four times --width in Vaswani et al., section 3.3)",
        at_least=1,
    )
    activation: str = setting(
        "relu", "activation of the feed-forward layers (Vaswani et al., section 3.3: relu)",
        choices=("relu", "gelu")
    )
    dtype: str = setting(
        "float32", "number format of matrix products; parameters stay float32",
        choices=("float32", "bfloat16")
    )
    remat: bool = setting(
        False, "recompute layers in the backward pass, which takes less memory and more time",
        default_text="only where a step does not fit into memory otherwise"
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Settings of a loss; static under jit."""

    model: ModelConfig | LlamaConfig  # the Transformer, or a pretrained decoder
    reduction: str = "mean"  # over the tokens of each loss, or "sum"
    plain: bool = False  # sum over tiles in plain JAX, which has a second reverse-mode derivative


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Settings of one outer step; static under jit."""

    model: ModelConfig | LlamaConfig
    reduction: str = "mean"
    gradient: str = "exact"
    inner_steps: int = 1  # section 2.2: one SGD step
    persona_chunk: int | None = None  # personas vmapped at a time; None: all

    def loss(self) -> LossConfig:
        return LossConfig(self.model, self.reduction, plain=self.gradient == "exact")


@dataclasses.dataclass(frozen=True)
class TileShape:
    """Slots of one tile of packed examples.

    `small` is the shape of a second kind of tile, for examples that do not fill one of these.
    """

    rows: int = setting(
        dataclasses.MISSING, "context rows of a tile; more rows take more memory", flag="tile_rows",
        at_least=1
    )
    context: int = setting(
        dataclasses.MISSING, "tokens of a context row; longer contexts keep their end",
        flag="context_tokens", at_least=1
    )
    response: int = setting(
        dataclasses.MISSING, "response tokens of a tile; longer responses are cut",
        flag="response_tokens", at_least=1
    )
    persona: int = setting(
        dataclasses.MISSING,
        "persona tokens of a tile; longer personas are cut. A tile with both tasks shares the sum "
        "of response and persona tokens",
        flag="persona_tokens",
        at_least=1,
    )
    small: "TileShape | None" = None


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which dialogues are read."""

    data: str | None = setting(
        "demo",
        f"corpus: {' or '.join(CORPORA)}; a file PATH.jsonl, which is split by persona; or a "
        "folder with train.jsonl, valid.jsonl and test.jsonl",
        default_text="the corpus that the run was trained on",
    )
    data_dir: str | None = setting(
        None, "folder of the PersonaChat text files",
        default_text="the one that the run was trained on; download them without one"
    )
    split_seed: int = setting(
        0, "random seed of the split by persona, where --data is one file", at_least=0
    )
    skip_bad: bool = setting(False, "skip and count malformed conversations instead of stopping")

    @property
    def name(self) -> str:
        """Name of the corpus, for a folder's name."""
        return str(self.data) if self.data in CORPORA else Path(str(self.data)).stem

    def to_saved(self) -> dict[str, Any]:
        """The settings that a run's config.json keeps; `source_of` reads them."""
        if self.data in CORPORA:
            folder = {"data_dir": str(Path(self.data_dir).resolve())} if self.data_dir else {}
            return {"data": self.data, **folder}
        return {
            "data": str(Path(str(self.data)).resolve()),
            "split_seed": self.split_seed,
            "skip_bad": self.skip_bad,
        }


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes.

    A run trains either a Transformer from scratch, with a ModelConfig and a TileShape, or the
    adapters of a pretrained decoder, with a LlamaConfig and a RowShape.
    """

    model: ModelConfig | LlamaConfig = ModelConfig()
    shape: TileShape | RowShape = TileShape(
        rows=1, context=256, response=40, persona=96, small=TileShape(1, 160, 32, 72)
    )
    init_from: str = setting(
        "",
        "pretrained decoder whose adapters are trained: smollm2-135m, a folder of Hugging Face, or "
        "a GGUF file",
        default_text="none; a Transformer is trained from scratch",
    )
    adapters_from: str = setting(
        "",
        "folder in PEFT's layout whose adapters training begins with; their rank, scale, targets "
        "and layers are those of the run",
        default_text="none; new adapters, which change nothing yet",
    )
    strategy: str = setting(
        "amtml",
        "training strategy: which tasks adapt a persona, and which tasks judge the adaptation "
        "(sections 2.2 to 2.4)",
        choices=tuple(STRATEGIES),
    )
    alpha: float = setting(
        0.8,
        f"weight of the response loss in {' and '.join(n for n, s in STRATEGIES.items() if s.reads_alpha)}, "
        "from 0 to 1 (eq. 6; paper: 0.5 to 0.9, section 3.5 finds 0.8 best)",
        at_least=0.0,
        at_most=1.0,
    )
    meta_batch: int = setting(
        16, "number of distinct personas in an outer step (M in section 3.2; paper: 16)", at_least=1
    )
    inner_lr: float = setting(
        0.005,
        "learning rate of SGD in the inner step (eta_t in eq. 11 and section 3.2; paper: 0.005)",
        at_least=0.0,
    )
    inner_steps: int = setting(
        1, "number of SGD steps of the inner update (section 2.2; paper: 1)", at_least=1
    )
    outer_lr: float = setting(
        0.003,
        "learning rate of Adam in the outer step (eta_o in eq. 14 and section 3.2; paper: 0.003)",
        at_least=0.0,
    )
    warmup: int = setting(
        100, "number of outer steps in which --outer_lr rises linearly from zero", at_least=0
    )
    reduction: str = setting(
        "mean", "reduction of a loss over its tokens (eqs. 2 and 5 print sums)", choices=REDUCTIONS
    )
    gradient: str = setting(
        "mixed",
        "method of differentiating through the inner step: exact (reverse over reverse), mixed "
        "(the same number by forward over reverse), finite_difference (the same to 1e-4 for one "
        "more gradient, the fastest) or first_order (ignores the second derivative)",
        choices=GRADIENTS,
    )
    distinct_start: bool = setting(False, "give the persona task a start token of its own")
    persona_context: str = setting(
        "both",
        "utterances from which the persona task reconstructs statements: of both sides, or only "
        "the speaker's own",
        choices=("both", "own"),
    )
    glove: str = setting(
        "", "text file of word vectors in GloVe's format, of any width",
        default_text="none; word vectors are drawn at random"
    )
    min_count: int = setting(
        2, "minimum count of a word in train; rarer words are unknown", at_least=1
    )
    seed: int = setting(
        0, "random seed for initialisation, episode sampling and validation", at_least=0
    )
    iterations: int = setting(20000, "number of outer steps", at_least=1)
    validate_every: int = setting(
        200, "number of outer steps between validations; each validation is saved", at_least=1
    )
    validation_episodes: int = setting(
        96, "number of fixed support and query pairs of valid personas", at_least=1
    )
    patience: int = setting(
        10, "number of validations without a better score before training stops", at_least=1
    )
    max_skipped: int = setting(
        10, "number of consecutive steps without a finite gradient before training stops", at_least=1
    )
    persona_chunk: int | None = setting(
        None, "number of personas vmapped at a time on a device; more personas take more memory",
        default_text="1 on a CPU; on an accelerator, as many as fit into its memory", at_least=1
    )

    def step(self, platform: str) -> StepConfig:
        """Settings of the outer step on a platform ("cpu", "gpu", "tpu").

        Without a chunk size, a CPU takes one persona after the other, which is the fastest
        there, and an accelerator takes its whole share at once.
        """
        chunk = self.persona_chunk or (1 if platform == "cpu" else None)
        return StepConfig(self.model, self.reduction, self.gradient, self.inner_steps, chunk)

    def loss(self) -> LossConfig:
        """Settings of losses that are differentiated once."""
        return LossConfig(self.model, self.reduction)

    def records(self) -> list[Any]:
        """This record and those in it, all of which have settings."""
        parts = (self.model, self.shape)
        return [self, *parts, *filter(None, (getattr(p, n, None) for p in parts for n in ("small", "lora")))]


def _smaller(layers: int, width: int, **others: Any) -> TrainConfig:
    """A preset of the paper's method that shrinks what costs time."""
    # The inner rate is the one at which, on valid personas, adapting to one's own dialogues
    # visibly beats adapting to another's.
    model = ModelConfig(layers, layers, 2, width, 4 * width, activation="gelu")  # two heads
    # With a shared start token, so small a model says much the same for both tasks.
    return TrainConfig(
        model, inner_lr=0.1, distinct_start=True, validation_episodes=32, patience=5, **others
    )


PRESETS = {
    "tiny": _smaller(
        1, 32, shape=TileShape(rows=2, context=96, response=64, persona=128), outer_lr=0.01,
        warmup=20, iterations=300, validate_every=50
    ),
    "small": _smaller(
        2, 64, shape=TileShape(rows=2, context=128, response=64, persona=128), outer_lr=0.01,
        warmup=50, iterations=240, validate_every=40
    ),
    "paper": TrainConfig(),
    "pretrained": TrainConfig(
        SMOLLM2_135M, RowShape(), init_from="smollm2-135m", meta_batch=4, inner_lr=0.01,
        outer_lr=0.001, warmup=10, iterations=400, validate_every=40, validation_episodes=16,
        patience=5
    ),
}
FROM_SCRATCH = tuple(name for name, preset in PRESETS.items() if not preset.init_from)
