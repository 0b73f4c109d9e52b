"""Scores of a model on personas: validation, and adaptation as at test time."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mtml_jax import losses
from mtml_jax.config import LossConfig, TileShape
from mtml_jax.data.episodes import (
    EncodedDialogue,
    EncodedPersona,
    Example,
    pack,
    stack,
    tiles_needed,
)
from mtml_jax.inner import adapt, inner_update
from mtml_jax.sharding import map_personas
from mtml_jax.types import Episode, Examples, Params, TaskSums

TURNS_A_BATCH = 16  # test-time fine-tuning, as the paper's predecessor does


def validation_sums(
    params: Params, episodes: Episode, inner_lr, *, config: LossConfig, mesh: Mesh
) -> tuple[TaskSums, TaskSums]:
    """Scores the query responses before and after one inner step on the support responses.

    The same for every strategy, so that early stopping compares like with like.

    Args:
      params: the initial parameters phi.
      episodes: Episode with a leading persona axis.
      inner_lr: float scalar.
      config: model sizes and the inner loss's reduction.
      mesh: devices that share the personas.

    Returns:
      TaskSums over all queries (initial, adapted); persona counts no tokens.
    """

    def one(shared, episode):
        params, inner_lr = shared
        loss = functools.partial(_response_loss, config)
        initial = losses.response_loss(params, episode.query, 1.0, config=config)[1]
        adapted, _ = inner_update(loss, params, episode.support, inner_lr)
        return initial, losses.response_loss(adapted, episode.query, 1.0, config=config)[1]

    sums = map_personas(one, mesh)((params, inner_lr), episodes)
    return jax.tree.map(lambda x: x.sum(axis=0), sums)


class Fold(NamedTuple):
    """One leave-one-out test: what adapts, and the dialogue that is held out.

    Attributes:
      batches: Examples with leading axes [epoch, batch].
      held_out: Examples of the held-out dialogue.
    """

    batches: Examples
    held_out: Examples


def adaptation_curves(
    params: Params, folds: Fold, inner_lr, *, config: LossConfig, mesh: Mesh
) -> TaskSums:
    """Scores each fold's held-out responses before fine-tuning and after each epoch.

    Plain SGD on the response loss of the batches, all parameters, no persona
    statements; the same `adapt` as in training.

    Args:
      params: the initial parameters phi.
      folds: Fold with a leading fold axis.
      inner_lr: float scalar.
      config: model sizes and the inner loss's reduction.
      mesh: devices that share the folds; its size divides their number.

    Returns:
      TaskSums [fold, epochs + 1].
    """

    def one(shared, fold):
        params, inner_lr = shared

        def score(params):
            return losses.response_loss(params, fold.held_out, 1.0, config=config)[1]

        def epoch(params, batches):
            params = adapt_to(params, batches, inner_lr, config=config)
            return params, score(params)

        _, after = jax.lax.scan(epoch, params, fold.batches)
        return jax.tree.map(lambda a, b: jnp.append(a[None], b), score(params), after)

    return map_personas(one, mesh)((params, inner_lr), folds)


def adapt_to(params: Params, batches: Examples, inner_lr, *, config: LossConfig) -> Params:
    """Fine-tunes on the response loss of each batch in turn; batches lead with axis [batch]."""
    loss = functools.partial(_response_loss, config)
    return adapt(loss, params, batches, inner_lr)[0]


def _response_loss(config, params, examples):
    return losses.response_loss(params, examples, 1.0, config=config)


def choose_folds(
    personas: list[EncodedPersona], shots: int, count: int, seed: int
) -> list[tuple[int, EncodedDialogue, list[EncodedDialogue], int, list[EncodedDialogue]]]:
    """Draws held-out dialogues, k others of the same persona, and k of another as control.

    No conversation is in two of the three.

    Args:
      personas: each with at least two conversations, at least two personas.
      shots: k, how many dialogues adapt; fewer where a persona has fewer.
      count: number of folds, spread over the personas.
      seed: of the draw.

    Returns:
      A list of (persona, held-out dialogue, own dialogues, other persona, its dialogues).
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(personas))
    folds = []
    for n in range(count):
        index = int(order[n % len(personas)])
        other = int((index + rng.integers(1, len(personas))) % len(personas))
        own = _by_conversation(personas[index])
        held_out = str(rng.choice(sorted(own)))
        own_rest = sorted(set(own) - {held_out})
        chosen = [str(c) for c in rng.permutation(own_rest)[:shots]]
        others = _by_conversation(personas[other])
        other_rest = sorted(set(others) - {held_out})
        drawn = [str(c) for c in rng.permutation(other_rest)[: len(chosen)]]
        folds.append(
            (
                index,
                own[held_out],
                [own[c] for c in chosen],
                other,
                [others[c] for c in drawn],
            )
        )
    return folds


def make_folds(
    pairs: list[tuple[EncodedDialogue, list[EncodedDialogue]]],
    shape: TileShape,
    *,
    epochs: int,
    seed: int,
) -> Fold:
    """Packs (held-out dialogue, dialogues to adapt to) pairs, turns shuffled each epoch."""
    held_tiles = tiles_needed([_mute(h) for h, _ in pairs], shape)
    schedules = [
        _schedule([_mute(d) for d in dialogues], epochs, seed, n)
        for n, (_, dialogues) in enumerate(pairs)
    ]
    most = max(len(batches) for epochs_ in schedules for batches in epochs_)
    tiles = max(
        tiles_needed([EncodedDialogue("", tuple(b)) for e in s for b in e], shape)
        for s in schedules
    )
    packed = [
        stack(
            [
                stack([pack(b, shape, tiles) for b in batches + [()] * (most - len(batches))])
                for batches in schedule
            ]
        )
        for schedule in schedules
    ]
    held = [pack(_mute(h).examples, shape, held_tiles) for h, _ in pairs]
    return Fold(stack(packed), stack(held))


def _schedule(dialogues, epochs, seed, fold):
    """Each epoch's batches of turns, shuffled by (seed, fold, epoch); the last may be partial."""
    turns = [example for dialogue in dialogues for example in dialogue.examples]
    schedule = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, fold, epoch]).permutation(len(turns))
        shuffled = [turns[i] for i in order]
        schedule.append(
            [shuffled[i : i + TURNS_A_BATCH] for i in range(0, len(turns), TURNS_A_BATCH)]
        )
    return schedule


def _mute(dialogue: EncodedDialogue) -> EncodedDialogue:
    """The dialogue without its persona statements: they are not used at test."""
    return EncodedDialogue(
        dialogue.conversation,
        tuple(Example(e.context, e.response, ()) for e in dialogue.examples),
    )


def _by_conversation(persona: EncodedPersona) -> dict[str, EncodedDialogue]:
    return {d.conversation: d for d in reversed(persona.dialogues)}
