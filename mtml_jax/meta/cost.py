"""Count the operations of a training step by hand, from the lengths of its examples.

XLA's own count sees the body of a loop once, so it cannot be used for packed tiles. Only matrix
products are counted, and a multiplication with its addition counts as 2; all other work (norms,
softmax, activations: 1 to 5 % at these widths) counts as none. With width D, feed-forward width
F, a vocabulary of V words, a context of S tokens and targets of T tokens in total:

| where | product | multiply-adds |
|---|---|---|
| encoder layer | query, key, value; output | S (3 D D + D D) |
| | feed-forward | S (D F + F D) |
| | scores; mixing | S S (D + D) |
| decoder layer | query, key, value; output | T (3 D D + D D) |
| | query and output of cross-attention | T (D D + D D) |
| | its keys and values, once for all targets | S 2 D D |
| | feed-forward | T (D F + F D) |
| | scores; mixing, of each target t with itself | sum of t t (D + D) |
| | the same with the context | T S (D + D) |
| output | logits | T V D |

The masked half of causal attention is counted, because every implementation here computes it.

Call a forward pass F. A gradient costs 3 F: in the backward pass each product becomes two. The
product of the Hessian with a vector turns each product of the gradient into two, 6 F. It also
needs the forward pass and the gradients of the activations (2 F; the gradients of the weights
are not read) unless they are kept, and a pass over tiles keeps none. So it costs 8 F, by reverse
over reverse and by forward over reverse alike, and a second-order step costs 3 + 8 + 3 = 14 F
against 6 F for first order, a ratio of 2.33; with residuals kept it would cost 12 F. The scores
and mixing of attention, where both factors are activations, take 9 F instead of these 8 F. A finite
difference takes one more gradient: 9 F. The exact gradient, which scans over tiles in plain JAX,
computes the value of each set in a pass of its own: 16 F.

Layers that are recomputed (`ModelConfig.remat`) turn the 3 F of a gradient into 3.5 F and the
8 F of a Hessian-vector product into 9.5 F, since logits are not recomputed.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtml_jax.config import ModelConfig, TrainConfig
from mtml_jax.data.encode import EncodedDialogue, Example
from mtml_jax.strategies import STRATEGIES

# Gradient mode -> forward passes over (support, query) in one step, without rematerialisation.
PRICES: Mapping[str, tuple[int, int]] = {
    "supervised": (3, 3),
    "first_order": (3, 3),
    "mixed": (3 + 8, 3),
    "exact": (4 + 8, 4),
    "finite_difference": (3 + 3, 3),
}
# The operations of a second-order step with rematerialised layers over those without: 1.18.
REMAT_PRICE = (3.5 + 9.5 + 3.5) / (3 + 8 + 3)


def mode_of(config: TrainConfig) -> str:
    """The key of `PRICES` for a training: its gradient mode, or "supervised"."""
    return config.gradient if STRATEGIES[config.strategy].adapts else "supervised"


class Work(NamedTuple):
    """Numbers of token slots, and of pairs of slots that attend, in a forward pass."""

    contexts: float = 0
    targets: float = 0
    context_pairs: float = 0
    target_pairs: float = 0
    cross_pairs: float = 0

    def plus(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(self, other)))


def work_of(examples: Iterable[Example], tasks: Sequence[str]) -> Work:
    """Counts the work of a dialogue's turns without any padding.

    Args:
      examples: turns as token ids.
      tasks: the tasks whose targets are decoded, "response", "persona" or both.

    Returns:
      The slots and pairs of one forward pass over all turns.
    """
    work = Work()
    for example in examples:
        context = len(example.context)
        targets = [len(getattr(example, task)) for task in tasks]
        if total := sum(targets):
            pairs = sum(target**2 for target in targets)
            work = work.plus(Work(context, total, context**2, pairs, total * context))
    return work


def prices_of_slots(model: ModelConfig, vocabulary: int) -> Work:
    """Counts the operations per slot or pair of `Work`, with `vocabulary` words to choose among."""
    width, inner = model.width, model.feed_forward
    encoder, decoder = model.encoder_layers, model.decoder_layers
    attended, fed = 4 * width**2, 2 * width * inner
    return Work(
        contexts=2 * (encoder * (attended + fed) + decoder * 2 * width**2),
        targets=2 * (decoder * (attended + 2 * width**2 + fed) + vocabulary * width),
        context_pairs=2 * encoder * 2 * width,
        target_pairs=2 * decoder * 2 * width,
        cross_pairs=2 * decoder * 2 * width,
    )


def forward_operations(work: Work, model: ModelConfig, vocabulary: int) -> float:
    """Counts the operations F of a forward pass."""
    return float(np.dot(work, prices_of_slots(model, vocabulary)))


@dataclasses.dataclass(frozen=True)
class StepCount:
    """Operations of a forward pass over the support and the query sets of a step, and their tokens."""

    support: float
    query: float
    tokens: int

    def operations(self, mode: str) -> float:
        """The operations of the whole step in a mode of `PRICES`."""
        support, query = PRICES[mode]
        return support * self.support + query * self.query


def count_step(
    triples: Iterable[tuple[object, EncodedDialogue, EncodedDialogue]],
    tasks: tuple[Sequence[str] | None, Sequence[str]],
    model: ModelConfig,
    vocabulary: int,
) -> StepCount:
    """Counts the work of one outer step.

    Args:
      triples: (persona, support, query) from `sample_episodes`.
      tasks: tasks of the support and of the query set, a `strategies.Phase`.
      model: sizes of the Transformer.
      vocabulary: number of words V.
    """
    inner, outer = tasks
    works = [Work(), Work()]
    for _, *sides in triples:
        for n, (dialogue, targets) in enumerate(zip(sides, (inner or outer, outer))):
            works[n] = works[n].plus(work_of(dialogue.examples, targets))
    support, query = (forward_operations(work, model, vocabulary) for work in works)
    return StepCount(support, query, int(sum(work.contexts + work.targets for work in works)))
