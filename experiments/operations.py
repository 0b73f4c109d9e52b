"""Operations of a step, counted by hand from lengths; XLA's own count sees a loop's body once.

Only matrix products are counted, a multiplication with its addition as 2, all other work (norms,
softmax, activations: 1 to 5 % at these widths) as none. With width D, feed-forward width F, V
words, a context of S tokens and targets of T tokens in all:

| where | product | multiply-adds |
|---|---|---|
| encoder layer | query, key, value; output | S (3 D D + D D) |
| | feed-forward | S (D F + F D) |
| | scores; mixing | S S (D + D) |
| decoder layer | query, key, value; output | T (3 D D + D D) |
| | cross attention's query; output | T (D D + D D) |
| | its keys and values, once for all targets | S 2 D D |
| | feed-forward | T (D F + F D) |
| | scores; mixing, of each target t with itself | sum of t t (D + D) |
| | the same with the context | T S (D + D) |
| output | logits | T V D |

The causal half that is masked is counted, since every implementation here computes it.

A gradient is 3 forward passes F: backwards each product becomes two. The Hessian's product with a
vector turns each of the gradient's products into two, 6 F. Besides, it needs the forward pass and
the activations' gradients (2 F; the weights' own are not read), unless they are kept; a pass over
tiles keeps none. So it is 8 F by reverse over reverse and by forward over reverse alike, and a
second-order step 3 + 8 + 3 = 14 F against 6 F, a ratio of 2.33; with residuals kept, 12 F.
Attention's scores and mixing, where both factors are activations, take 9 for these 8. A finite
difference takes one more gradient: 9 F. The exact gradient, which scans over tiles in plain JAX,
computes the value of each set in a pass of its own: 16 F.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtml_jax.config import ModelConfig
from mtml_jax.data.encode import EncodedDialogue, Example

# Forward passes over (support, query), without rematerialisation.
PRICES: Mapping[str, tuple[int, int]] = {
    "supervised": (3, 3),
    "first_order": (3, 3),
    "mixed": (3 + 8, 3),
    "exact": (4 + 8, 4),
    "finite_difference": (3 + 3, 3),
}


class Work(NamedTuple):
    """Slots, and pairs of slots that attend, of a forward pass."""

    contexts: float = 0
    targets: float = 0
    context_pairs: float = 0
    target_pairs: float = 0
    cross_pairs: float = 0

    def plus(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(self, other)))


def work_of(examples: Iterable[Example], tasks: Sequence[str]) -> Work:
    """The work of a dialogue's turns without any padding.

    Args:
      examples: turns as ids.
      tasks: of "response" and "persona".
    """
    work = Work()
    for example in examples:
        context = len(example.context)
        targets = np.array([len(getattr(example, task)) for task in tasks])
        total = int(targets.sum())
        if not total:
            continue
        pairs = int(np.square(targets).sum())
        work = work.plus(Work(context, total, context**2, pairs, total * context))
    return work


def prices_of_slots(model: ModelConfig, vocabulary: int) -> Work:
    """Operations of a forward pass for each slot and pair of `Work`.

    Args:
      model: sizes.
      vocabulary: number of words V.
    """
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
    """Operations F of a forward pass."""
    return float(np.dot(work, prices_of_slots(model, vocabulary)))


@dataclasses.dataclass(frozen=True)
class StepCount:
    """What one outer step does on real tokens: forward operations and tokens of both sets."""

    support: float
    query: float
    tokens: int

    def operations(self, price: str) -> float:
        """Of a whole step at one of `PRICES`."""
        support, query = PRICES[price]
        return support * self.support + query * self.query


def count_step(
    triples: Iterable[tuple[object, EncodedDialogue, EncodedDialogue]],
    tasks: tuple[Sequence[str] | None, Sequence[str]],
    model: ModelConfig,
    vocabulary: int,
) -> StepCount:
    """Counts one outer step.

    Args:
      triples: from `sample_episodes`.
      tasks: of support and query, a `strategies.Phase`.
      model: sizes.
      vocabulary: number of words V.
    """
    inner, outer = tasks
    works = [Work(), Work()]
    for _, *sides in triples:
        for n, (dialogue, learnt) in enumerate(zip(sides, (inner or outer, outer))):
            works[n] = works[n].plus(work_of(dialogue.examples, learnt))
    return StepCount(
        *(forward_operations(work, model, vocabulary) for work in works),
        tokens=int(sum(work.contexts + work.targets for work in works)),
    )
