"""Declare the settings of testing a run; the paper's values are the defaults."""

import dataclasses
from typing import Literal, get_args

from mtml_jax.config import SPLITS, DataConfig
from mtml_jax.config_fields import setting

Checkpoint = Literal["best", "latest"]
CHECKPOINTS = get_args(Checkpoint)
DECODERS = ("beam", "greedy", "nucleus")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Everything that decides what an evaluation computes, besides the run.

    `source` names the dialogues to test on; by default those of the run's corpus.
    """

    source: DataConfig = DataConfig(data=None)
    shots: tuple[int, ...] = setting(
        (0, 5, 10), "numbers k of dialogues to adapt to (section 3.4; paper: 0, 5 and 10)", at_least=0
    )
    split: str = setting("test", "split whose personas are tested", choices=SPLITS)
    max_folds: int | None = setting(
        None, "number of held-out dialogues to test, spread over the personas", default_text="all",
        at_least=1
    )
    checkpoint: Checkpoint = setting("best", "checkpoint of the run to test", choices=CHECKPOINTS)
    nli: str | None = setting(
        None, "folder of an NLI scorer made by experiments.train_nli",
        default_text="none, and no C-score"
    )
    decoder: str = setting("beam", "method of decoding replies", choices=DECODERS)
    beams: int = setting(5, "number of hypotheses of beam search", at_least=1)
    top_p: float = setting(
        0.9, "probability mass of the nucleus, above 0 and up to 1", at_least=1e-6, at_most=1.0
    )
    inner_lr: float | None = setting(
        None, "learning rate of SGD in the adaptation", default_text="the run's", at_least=0.0
    )
    persona_at_test: bool = setting(
        False, "put persona statements in front of test contexts, for a run of std_p; for a pretrained "
        "decoder, into the system message"
    )
    seed: int = setting(0, "random seed of folds, shuffles and intervals", at_least=0)
    resamples: int = setting(1000, "number of bootstrap resamples of an interval", at_least=1)
    folds_at_once: int | None = setting(
        None,
        "number of folds that a device tests between two saves; more folds take more memory on an "
        "accelerator",
        default_text="2 on a CPU, 16 on an accelerator",
        at_least=1,
    )


@dataclasses.dataclass(frozen=True)
class ReconstructionConfig:
    """Everything that decides what a test of persona reconstruction computes, besides the run."""

    source: DataConfig = DataConfig(data=None)
    split: str = setting("test", "split whose personas are reconstructed", choices=SPLITS)
    max_dialogues: int | None = setting(
        None, "number of dialogues to read, spread over the personas", default_text="all",
        at_least=1
    )
    checkpoint: Checkpoint = setting("best", "checkpoint of the run to test", choices=CHECKPOINTS)
    decoder: str = setting("greedy", "method of decoding personas", choices=("greedy", "beam"))
    beams: int = setting(5, "number of hypotheses of beam search", at_least=1)
    seed: int = setting(0, "random seed of dialogues, baseline and intervals", at_least=0)
    resamples: int = setting(1000, "number of bootstrap resamples of an interval", at_least=1)
