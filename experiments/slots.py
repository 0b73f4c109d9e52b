"""How much of what a packed step multiplies is real, counted on its arrays."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from experiments.operations import TASKS, Work, forward_operations, prices_of_slots
from mtml_jax.config import ModelConfig
from mtml_jax.objectives import Phase
from mtml_jax.types import Episode, Examples


def real_shares(
    episode: Episode, phase: Phase, model: ModelConfig, vocabulary: int
) -> dict[str, float]:
    """Real over executed: slots by stack, pairs of attention, and operations.

    Args:
      episode: with a leading persona axis, on the host.
      phase: the two losses, which say what targets are read.
      model: sizes.
      vocabulary: number of words V.

    Returns:
      "encoder" and "decoder", shares of their slots; "products", of the operations of all
      projections, feed-forward layers and logits; "attention", of those of its pairs;
      "total", of all together.
    """
    real, executed = Work(), Work()
    for examples, loss in (
        (episode.support, phase.inner or phase.outer),
        (episode.query, phase.outer),
    ):
        for streams in _streams(examples, TASKS[loss]):
            for one in zip(*streams):  # persona by persona
                more_real, more_executed = tile_work(*one)
                real, executed = real.plus(more_real), executed.plus(more_executed)

    def share(*fields):
        kept = [value if name in fields else 0 for name, value in zip(Work._fields, prices)]
        return float(np.dot(real, kept) / np.dot(executed, kept))

    prices = prices_of_slots(model, vocabulary)
    slots, pairs = Work._fields[:2], Work._fields[2:]
    return {
        "encoder": real.contexts / executed.contexts,
        "decoder": real.targets / executed.targets,
        "products": share(*slots),
        "attention": share(*pairs),
        "total": forward_operations(real, model, vocabulary)
        / forward_operations(executed, model, vocabulary),
    }


def tile_work(context_NRS, target_NT, task_NT) -> tuple[Work, Work]:
    """Counts the (real, executed) work of one persona's tiles of one kind.

    Args:
      context_NRS: segments of the contexts' slots, 0 where there is none.
      target_NT: segments of the targets' slots, 0 where there is none.
      task_NT: task of each target slot, or of all in a column.
    """
    _, rows, slots = context_NRS.shape
    stream = target_NT.shape[1]
    occupied = int(np.any(context_NRS > 0, axis=(1, 2)).sum())
    executed = Work(
        occupied * rows * slots,
        occupied * stream,
        occupied * rows * slots**2,
        occupied * stream**2,
        occupied * stream * rows * slots,
    )
    real = Work()
    for contexts_RS, targets_T, tasks_T in zip(
        context_NRS, target_NT, np.broadcast_to(task_NT, target_NT.shape)
    ):
        for segment in range(1, int(contexts_RS.max()) + 1):
            context = (contexts_RS == segment).sum(axis=1)
            target = np.bincount(tasks_T[targets_T == segment])
            real = real.plus(
                Work(
                    context.sum(),
                    target.sum(),
                    np.square(context).sum(),
                    np.square(target).sum(),
                    context.sum() * target.sum(),
                )
            )
    return Work(*map(int, real)), executed


def _streams(examples: Examples, tasks: Iterable[str]) -> Iterator[tuple[Any, Any, Any]]:
    """(context, target, task) of `tile_work` with a persona axis, one for each kind of tile."""
    segments = [getattr(examples, task).inputs.segment for task in tasks]
    target = np.concatenate(segments, axis=-1)
    task = np.repeat(np.arange(len(segments)), [s.shape[-1] for s in segments])
    yield examples.context.segment, target, np.broadcast_to(task, target.shape)
