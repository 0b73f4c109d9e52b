"""Choose and pack leave-one-out tests: a held-out dialogue, and the dialogues to adapt to."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mtml_jax.data.encode import EncodedDialogue, EncodedPersona, Encoding
from mtml_jax.data.layout import (
    Size,
    largest,
    lay_out,
    lay_out_replies,
    measure,
    measure_replies,
)
from mtml_jax.data.packing import stack
from mtml_jax.data.strands import RowEncoding
from mtml_jax.types import Examples, Tokens

_TASKS = ("response",)  # the test does not use persona statements


class FoldPlan(NamedTuple):
    """One leave-one-out test; no conversation is in two of its three parts."""

    persona: int  # index of the persona
    dialogue: int  # index of the held-out dialogue among the persona's
    held_out: EncodedDialogue  # the dialogue whose replies are scored
    own: tuple[EncodedDialogue, ...]  # k other dialogues of the persona
    other: int  # index of another persona, the control
    others: tuple[EncodedDialogue, ...]  # as many dialogues of the other persona


class Fold(NamedTuple):
    """Arrays of one test."""

    batches: Examples  # to adapt to, with leading axes [epoch, batch]
    held_out: Examples  # of the held-out dialogue
    contexts: Tokens  # its contexts, from `lay_out_replies`, to decode replies from


def choose_folds(
    personas: Sequence[EncodedPersona], shots: int, seed: int, count: int | None = None
) -> list[FoldPlan]:
    """Plans a test for every dialogue of every persona, or for a spread subset of them.

    A fold is a function of (seed, persona, dialogue): the first k dialogues of a larger k
    are those of a smaller one, and the folds of a subset are among those of the whole.

    Args:
      personas: at least two, each with at least two conversations.
      shots: k, the number of dialogues to adapt to; a persona may have fewer.
      seed: random seed of all draws.
      count: number of folds; None for all.

    Returns:
      FoldPlans, which take turns between the personas.

    Raises:
      ValueError: there are fewer than two personas, or none has k + 1 conversations.
    """
    if len(personas) < 2:
        raise ValueError(
            "expected two or more personas with two conversations, because the control adapts to "
            f"another persona's dialogues, got {len(personas)}; test on more dialogues"
        )
    most = max(len({d.conversation for d in p.dialogues}) for p in personas)
    if shots >= most:
        raise ValueError(
            f"expected at most {most - 1} dialogues to adapt to, because no persona has more besides "
            f"the held-out one, got {shots}; lower --shots to {most - 1} or less"
        )
    rng = np.random.default_rng(seed)
    order = [int(p) for p in rng.permutation(len(personas))]
    ranked = {p: rng.permutation(len(personas[p].dialogues)) for p in order}
    places = [
        (p, int(ranked[p][turn]))
        for turn in range(max(map(len, ranked.values())))
        for p in order
        if turn < len(ranked[p])
    ]
    return [_plan(personas, *place, shots, seed) for place in places[:count]]


def _plan(personas, index, dialogue, shots, seed):
    rng = np.random.default_rng([seed, index, dialogue])
    other = int((index + rng.integers(1, len(personas))) % len(personas))
    held_out = personas[index].dialogues[dialogue]
    own = _others(personas[index], held_out.conversation, rng)[:shots]
    others = _others(personas[other], held_out.conversation, rng)[: len(own)]
    return FoldPlan(index, dialogue, held_out, own, other, others)


def _others(persona, held_out, rng):
    """A dialogue of each conversation but the held-out one, in random order."""
    sides = {d.conversation: d for d in reversed(persona.dialogues)}
    rest = [sides[c] for c in sorted(sides) if c != held_out]
    return tuple(rest[i] for i in rng.permutation(len(rest)))


def prompted(plan: FoldPlan) -> FoldPlan:
    """A test of a pretrained decoder that reads the own dialogues instead of adapting to them."""
    ids = [i for d in plan.own for window in d.examples for i in window.trunk.ids]
    windows = tuple(window.after(ids) for window in plan.held_out.examples)
    held_out = EncodedDialogue(plan.held_out.conversation, windows)
    return plan._replace(held_out=held_out)


class FoldShape(NamedTuple):
    """Sizes that all folds of an evaluation share, so that one program serves them."""

    batches: int  # batches per epoch
    batch: Size  # of a batch
    held_out: Size  # of a held-out dialogue
    contexts: Size  # of the contexts of a held-out dialogue


def measure_folds(
    plans: Iterable[FoldPlan], encoding: Encoding | RowEncoding, *, epochs: int, seed: int
) -> FoldShape:
    """The smallest FoldShape that holds all plans."""
    needed = []
    for plan in plans:
        schedules = [_schedule(plan, d, encoding, epochs, seed) for d in (plan.own, plan.others)]
        batches = [batch for s in schedules for epoch in s for batch in epoch]
        needed.append(
            FoldShape(
                max(1, *(len(epoch) for s in schedules for epoch in s)),
                largest([measure(b, encoding, _TASKS) for b in batches or [()]]),
                measure(plan.held_out.examples, encoding, _TASKS),
                measure_replies(plan.held_out.examples, encoding),
            )
        )
    counts, *sizes = zip(*needed)
    return FoldShape(max(counts), *map(largest, sizes))


def pack_folds(
    plans: Sequence[FoldPlan], encoding: Encoding | RowEncoding, sizes: FoldShape, *, control: bool,
    epochs: int, seed: int
) -> Fold:
    """Packs plans, with turns shuffled by (seed, persona, dialogue, epoch).

    Persona statements are left out, because the test does not use them. `sizes` are from
    `measure_folds` with the same seed and no fewer epochs; `control` adapts to the other
    persona's dialogues.

    Returns:
      Fold with a leading fold axis.
    """

    def lay(examples, size):
        return lay_out(examples, encoding, size, _TASKS)

    folds = []
    for plan in plans:
        schedule = _schedule(plan, plan.others if control else plan.own, encoding, epochs, seed)
        padded = [epoch + [()] * (sizes.batches - len(epoch)) for epoch in schedule]
        folds.append(
            Fold(
                stack([stack([lay(b, sizes.batch) for b in e]) for e in padded]),
                lay(plan.held_out.examples, sizes.held_out),
                lay_out_replies(plan.held_out.examples, encoding, sizes.contexts),
            )
        )
    return stack(folds)


def _schedule(plan, dialogues, encoding, epochs, seed):
    """Each epoch's batches of examples; the last of an epoch may be partial."""
    examples = [example for d in dialogues for example in d.examples]
    count = encoding.examples_a_batch
    schedule = []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, plan.persona, plan.dialogue, epoch])
        shuffled = [examples[i] for i in rng.permutation(len(examples))]
        schedule.append([shuffled[i : i + count] for i in range(0, len(examples), count)])
    return schedule
