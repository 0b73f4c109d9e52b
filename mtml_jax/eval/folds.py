"""Choose and pack leave-one-out tests: a held-out dialogue, and the dialogues to adapt to."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mtml_jax.config import TileShape
from mtml_jax.data.encode import EncodedDialogue, EncodedPersona
from mtml_jax.data.packing import pack, pack_rows, stack, tiles_needed
from mtml_jax.types import Examples, Tokens

TURNS_A_BATCH = 16  # test-time fine-tuning, as the paper's predecessor does
_TASKS = ("response",)  # the test does not use persona statements
ROWS_A_DECODE = 8  # contexts that are decoded in one call


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
    contexts: Tokens  # [E, S], its contexts, one per row, to decode replies from


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


class FoldShape(NamedTuple):
    """Sizes that all folds of an evaluation share, so that one program serves them."""

    batches: int  # batches per epoch
    batch_tiles: int  # tiles per batch
    held_out_tiles: int  # tiles of a held-out dialogue
    turns: int  # rows for the contexts of a held-out dialogue, a multiple of `ROWS_A_DECODE`


def measure_folds(
    plans: Iterable[FoldPlan], shape: TileShape, *, epochs: int, seed: int
) -> FoldShape:
    """The smallest FoldShape that holds all plans."""
    largest = FoldShape(1, 1, 1, 1)
    for plan in plans:
        schedules = [_schedule(plan, d, epochs, seed) for d in (plan.own, plan.others)]
        batches = [EncodedDialogue("", b) for s in schedules for epoch in s for b in epoch]
        needed = FoldShape(
            max((len(epoch) for s in schedules for epoch in s), default=1),
            tiles_needed(batches, shape, _TASKS) if batches else 1,
            tiles_needed([plan.held_out], shape, _TASKS),
            -(-len(plan.held_out.examples) // ROWS_A_DECODE) * ROWS_A_DECODE,
        )
        largest = FoldShape(*map(max, largest, needed))
    return largest


def pack_folds(
    plans: Sequence[FoldPlan], shape: TileShape, sizes: FoldShape, *, control: bool, epochs: int,
    seed: int
) -> Fold:
    """Packs plans, with turns shuffled by (seed, persona, dialogue, epoch).

    Persona statements are left out, because the test does not use them. `sizes` are from
    `measure_folds` with the same seed and no fewer epochs; `control` adapts to the other
    persona's dialogues.

    Returns:
      Fold with a leading fold axis.
    """

    def lay(examples, tiles):
        return pack(examples, shape, tiles, tasks=_TASKS)

    folds = []
    for plan in plans:
        schedule = _schedule(plan, plan.others if control else plan.own, epochs, seed)
        padded = [epoch + [()] * (sizes.batches - len(epoch)) for epoch in schedule]
        held_out = plan.held_out.examples
        folds.append(
            Fold(
                stack([stack([lay(b, sizes.batch_tiles) for b in e]) for e in padded]),
                lay(held_out, sizes.held_out_tiles),
                pack_rows([e.context for e in held_out], shape.context, sizes.turns),
            )
        )
    return stack(folds)


def _schedule(plan, dialogues, epochs, seed):
    """Each epoch's batches of turns; the last of an epoch may be partial."""
    turns = [example for d in dialogues for example in d.examples]
    schedule = []
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, plan.persona, plan.dialogue, epoch])
        shuffled = [turns[i] for i in rng.permutation(len(turns))]
        schedule.append(
            [shuffled[i : i + TURNS_A_BATCH] for i in range(0, len(turns), TURNS_A_BATCH)]
        )
    return schedule
