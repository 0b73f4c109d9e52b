"""Count how much of a packed step's work is on real tokens, from its arrays."""

import numpy as np

from mtml_jax.config import ModelConfig
from mtml_jax.meta.cost import Work, prices_of_slots
from mtml_jax.types import Episode


def real_shares(episode: Episode, model: ModelConfig, vocabulary: int) -> dict[str, float]:
    """Divides real by executed work: slots of each stack, attention pairs, and operations.

    Args:
      episode: episodes with a leading persona axis, on the host.
      model: sizes of the Transformer.
      vocabulary: number of words V.

    Returns:
      The real shares: "encoder" and "decoder" of their slots; "products" of the operations of
      all projections, feed-forward layers and logits; "attention" of the operations of
      attention pairs; "total" of all operations.
    """
    real, executed = Work(), Work()
    for tiles in (*episode.support, *episode.query):
        for one in zip(tiles.context.segment, tiles.targets.reads, tiles.targets.task):
            more_real, more_executed = tile_work(*one)
            real, executed = real.plus(more_real), executed.plus(more_executed)

    def share(*fields):
        chosen = [value if name in fields else 0 for name, value in zip(Work._fields, prices)]
        return float(np.dot(real, chosen) / np.dot(executed, chosen))

    prices = prices_of_slots(model, vocabulary)
    return {
        "encoder": real.contexts / executed.contexts,
        "decoder": real.targets / executed.targets,
        "products": share(*Work._fields[:2]),
        "attention": share(*Work._fields[2:]),
        "total": share(*Work._fields),
    }


def real_row_shares(episode: Episode) -> dict[str, float]:
    """Divides real by executed work of a pretrained decoder, whose padding costs as much as tokens.

    Args:
      episode: episodes of rows with a leading persona axis, on the host.

    Returns:
      The real shares: "slots" of the rows, and "predicted" of the tokens to predict.
    """

    def share(*arrays):
        return sum(np.count_nonzero(x) for x in arrays) / sum(x.size for x in arrays)

    sides = (episode.support, episode.query)
    return {
        "slots": share(*(side.row.segment for side in sides)),
        "predicted": share(*(side.targets.segment for side in sides)),
    }


def tile_work(context_NRS, target_NT, task_NT) -> tuple[Work, Work]:
    """Counts the work of one persona's tiles of one kind.

    Args:
      context_NRS: segment of each context slot, 0 in padding.
      target_NT: segment of the context that each target slot reads, 0 in padding.
      task_NT: task of each target slot.

    Returns:
      (work on real tokens, executed work).
    """
    _, rows, slots = context_NRS.shape
    stream = target_NT.shape[1]
    occupied = int(np.any(context_NRS > 0, axis=(1, 2)).sum())
    whole = (rows * slots, stream, rows * slots**2, stream**2, stream * rows * slots)
    executed = Work(*(occupied * count for count in whole))
    real = Work()
    for contexts_RS, targets_T, tasks_T in zip(context_NRS, target_NT, task_NT):
        for segment in range(1, int(contexts_RS.max()) + 1):
            context = (contexts_RS == segment).sum(axis=1)
            target = np.bincount(tasks_T[targets_T == segment])
            slots = context.sum(), target.sum()
            pairs = np.square(context).sum(), np.square(target).sum()
            real = real.plus(Work(*slots, *pairs, slots[0] * slots[1]))
    return Work(*map(int, real)), executed
