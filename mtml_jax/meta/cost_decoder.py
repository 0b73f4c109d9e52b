"""Count the operations of a training step of a pretrained decoder's adapters by hand.

Conventions are those of `cost`: matrix products alone, a multiplication with its addition as 2, no
padding. With width D, H heads of K numbers, G key-value heads, feed-forward width F, a vocabulary
of V tokens, a row of T tokens of which U are predicted, in each layer

| product | multiply-adds |
|---|---|
| query; key and value; output | T (D H K + 2 D G K + H K D) |
| gate, up, down | T 3 D F |
| scores and mixing of attention | P 2 H K |

and U V D for the logits. P counts the pairs of tokens of which one sees the other; an implementation
without a causal kernel computes all T T. The adapters' own products, below 2 % at rank 8, are not counted.

The weights are constants, so that a gradient costs 2 F instead of 3 F: forward, and the gradients of
the activations. The product of the Hessian with a vector differentiates both once more and computes
them again, 4 F. A second-order step therefore costs 2 + 4 + 2 = 8 F, against 4 F for first order and
6 F for a finite difference. Layers before the first adapted one run forward once for each of the
two sets.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.encode import EncodedDialogue
from mtml_jax.data.rows import Strand
from mtml_jax.data.strands import Window

# Gradient mode -> forward passes over (support, query) in one step.
PRICES: Mapping[str, tuple[int, int]] = {
    "supervised": (2, 2),
    "first_order": (2, 2),
    "mixed": (2 + 4, 2),
    "exact": (2 + 4, 2),
    "finite_difference": (2 + 2, 2),
}


class Forward(NamedTuple):
    """Operations of a forward pass."""

    frozen: float = 0.0  # of the layers before the first adapted one
    adapted: float = 0.0  # of the others, and of the logits

    def plus(self, other: "Forward") -> "Forward":
        return Forward(*(a + b for a, b in zip(self, other)))


class DecoderStepCount(NamedTuple):
    """Operations of a forward pass over the two sets of a step, and their tokens."""

    support: Forward
    query: Forward
    tokens: int

    def operations(self, mode: str) -> float:
        """The operations of the whole step in a mode of `PRICES`."""
        support, query = PRICES[mode]
        frozen = self.support.frozen + self.query.frozen
        return frozen + support * self.support.adapted + query * self.query.adapted


def count_decoder_step(
    triples: Iterable[tuple[object, EncodedDialogue, EncodedDialogue]],
    tasks: tuple[Sequence[str] | None, Sequence[str]],
    model: LlamaConfig,
) -> DecoderStepCount:
    """Counts the work of one outer step; arguments as for `cost.count_step`."""
    inner, outer = tasks
    sides, tokens = [Forward(), Forward()], 0
    for _, *pair in triples:
        for n, (dialogue, targets) in enumerate(zip(pair, (inner or outer, outer))):
            for window in dialogue.examples:
                sides[n] = sides[n].plus(forward_operations(window, targets, model))
                tokens += sum(len(strand.ids) for strand in window.strands(targets))
    support, query = sides
    return DecoderStepCount(support, query, tokens)


def forward_operations(window: Window, tasks: Sequence[str], model: LlamaConfig) -> Forward:
    """Counts a forward pass over a window with the targets of these tasks."""
    strands = window.strands(tasks)
    tokens = sum(len(strand.ids) for strand in strands)
    queries, keys = model.heads * model.head_width, model.key_value_heads * model.head_width
    products = model.width * (2 * queries + 2 * keys + 3 * model.feed_forward)
    layer = 2 * (tokens * products + 2 * queries * sum(map(_pairs, strands)))
    predicted = sum(len(strand.predicted) for strand in strands)
    adapted = model.lora.layers or model.layers
    logits = 2 * predicted * model.vocabulary * model.width
    return Forward(layer * (model.layers - adapted), layer * adapted + logits)


def _pairs(strand: Strand) -> int:
    """The tokens that each token of a strand sees, itself included, added up."""
    count = len(strand.ids)
    return count * strand.fork + count * (count + 1) // 2
