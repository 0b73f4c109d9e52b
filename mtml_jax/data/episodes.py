"""Sample episodes and stack them into batches, as a function of (seed, step)."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import EncodedDialogue, EncodedPersona, Encoding
from mtml_jax.data.layout import Size, lay_out, occupied_slots
from mtml_jax.data.packing import stack
from mtml_jax.data.prepare import SCORED, Prepared
from mtml_jax.data.strands import RowEncoding
from mtml_jax.strategies import STRATEGIES, TASKS
from mtml_jax.types import Episode


def sample_episodes(
    personas: Sequence[EncodedPersona], meta_batch: int, seed: int, step: int
) -> list[tuple[EncodedPersona, EncodedDialogue, EncodedDialogue]]:
    """Draws distinct personas, and for each of them two dialogues of distinct conversations.

    This is a pure function of its arguments. No state passes from step to step, so that a
    run resumes anywhere with the same stream.

    Args:
      personas: at least `meta_batch`, each with two conversations or more.
      meta_batch: number of personas M.
      seed: random seed of the run.
      step: number of the episode batch, from 0.

    Returns:
      M triples (persona, support dialogue, query dialogue).
    """
    rng = np.random.default_rng([seed, step])
    chosen = rng.choice(len(personas), size=meta_batch, replace=False)
    triples = []
    for index in chosen:
        persona = personas[index]
        conversations = sorted({d.conversation for d in persona.dialogues})
        pair = rng.choice(len(conversations), size=2, replace=False)
        sides = []
        for conversation in (conversations[i] for i in pair):
            here = [d for d in persona.dialogues if d.conversation == conversation]
            sides.append(here[rng.integers(len(here))])
        triples.append((persona, *sides))
    return triples


def stack_episodes(
    triples: Sequence[tuple[EncodedPersona, EncodedDialogue, EncodedDialogue]],
    encoding: Encoding | RowEncoding,
    sizes: Mapping[tuple[str, ...], Size],
    *,
    tasks: tuple[tuple[str, ...], tuple[str, ...]] = (TASKS, TASKS),
) -> Episode:
    """Lays triples of `sample_episodes` out as an Episode with a leading persona axis.

    `sizes` are those that the largest dialogue needs with each set of tasks; `tasks` are those whose targets are packed, of support and of
    query.
    """
    packed = [
        [lay_out(d.examples, encoding, sizes[some], some) for d, some in zip(sides, tasks)]
        for _, *sides in triples
    ]
    support, query = (stack(column) for column in zip(*packed))
    return Episode(support, query)


def training_batch(
    data: Prepared, config: TrainConfig, step: int, share: slice = slice(None), *, devices: int = 1
) -> Episode:
    """Returns the episodes of outer step `step`, counted from 0: a function of (seed, step).

    All episodes are drawn, and those of `share` are encoded and packed. Their order gives each
    of the devices that split them evenly about the same work, since all wait for the slowest.
    """
    return _named_batch(data, config, step, share, devices)[1]


def training_names(
    data: Prepared, config: TrainConfig, step: int, share: slice = slice(None), *, devices: int = 1
) -> list[str]:
    """Returns the names of the personas of `training_batch`, in its order."""
    return _named_batch(data, config, step, share, devices)[0]


def _named_batch(data, config, step, share, devices):
    triples = sample_episodes(data.train, config.meta_batch, config.seed, step)[share]
    strategy = STRATEGIES[config.strategy]
    inner, outer = strategy.phases[strategy.phase_of(step)]
    tasks = (inner or outer, outer)
    sizes = {some: data.size(some) for some in tasks}
    episodes = stack_episodes(triples, data.encoding, sizes, tasks=tasks)
    work = occupied_slots(episodes.query)
    # A support set costs its gradient and, about three times that, the derivative of the step.
    work = work + (4 if inner else 1) * occupied_slots(episodes.support)
    order = _balanced_order(work, devices)
    names = [triples[index][0].name for index in order]
    return names, jax.tree.map(lambda x: x[order], episodes)


def _balanced_order(work, devices):
    """Returns an order whose equal parts have about equal sums; each part has its largest first."""
    parts: list[list[int]] = [[] for _ in range(devices)]
    sums = np.zeros(devices)
    for index in np.argsort(-work, kind="stable"):
        sums[[len(part) == len(work) // devices for part in parts]] = np.inf  # these are full
        least = int(np.argmin(sums))
        parts[least].append(int(index))
        sums[least] += work[index]
    return np.concatenate(parts).astype(int)


def validation_batch(
    data: Prepared, config: TrainConfig, padded: int | None = None, share: slice = slice(None)
) -> Episode:
    """Returns the fixed support/query pairs of early stopping, without persona targets.

    Args:
      data: from `prepare`.
      config: TrainConfig.
      padded: number of pairs in all; those beyond `validation_episodes` have an empty
        query, which counts no tokens.
      share: the pairs that are encoded and packed.
    """
    seed, draw = config.seed + 1, 0
    triples: list = []
    while len(triples) < config.validation_episodes:
        count = min(len(data.valid), config.validation_episodes - len(triples))
        triples += sample_episodes(data.valid, count, seed, draw)
        draw += 1
    own = np.arange(padded or len(triples))[share]
    chosen = [triples[i % len(triples)] for i in own]
    episodes = stack_episodes(chosen, data.encoding, data.sizes, tasks=(SCORED, SCORED))
    for array in jax.tree.leaves(episodes.query):
        array[own >= len(triples)] = 0
    return episodes
