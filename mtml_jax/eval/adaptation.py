"""Score a model on personas: at validation, and along the adaptation of the test protocol."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mtml_jax.config import LossConfig
from mtml_jax.eval.folds import Fold
from mtml_jax.meta.inner import adapt, inner_update
from mtml_jax.model import losses
from mtml_jax.model.decoding import Replies
from mtml_jax.sharding import map_personas
from mtml_jax.types import Episode, Examples, Params, TaskSums, TokenSums


def validation_sums(
    params: Params, episodes: Episode, inner_lr, base=None, *, config: LossConfig, mesh: Mesh
) -> tuple[TaskSums, TaskSums]:
    """Scores the query responses before and after one inner step on the support responses.

    It is the same for every strategy, so that early stopping compares the same numbers.
    Episodes lead with a persona axis, which the devices of the mesh share.

    Returns:
      TaskSums over all queries (initial, adapted); persona counts no tokens.
    """

    def one(shared, episode):
        params, inner_lr, base = shared
        loss = functools.partial(_response_loss, config)
        initial = loss(params, (episode.query, base))[1]
        adapted, _ = inner_update(loss, params, (episode.support, base), inner_lr)
        return initial, loss(adapted, (episode.query, base))[1]

    sums = map_personas(one, mesh)((params, inner_lr, base), episodes)
    return jax.tree.map(lambda x: x.sum(axis=0), sums)


class Stages(NamedTuple):
    """Results of a test, each with a leading axis of stages of the adaptation."""

    response: TokenSums  # of the held-out responses
    replies: Replies | None  # to the held-out contexts, ids [stage, E, T]; None without a decoder


def score_stages(
    params: Params, folds: Fold, inner_lr, base=None, *, stages: Sequence[int], config: LossConfig,
    mesh: Mesh, chunk: int = 1, decode: Callable | None = None
) -> Stages:
    """Fine-tunes on each fold's batches, and scores its held-out dialogue along the way.

    Plain SGD on the response loss of the batches, all parameters, no persona
    statements; the same `adapt` as in training.

    Args:
      params: the initial parameters phi.
      folds: Fold with a leading fold axis.
      inner_lr: float scalar.
      base: frozen parameters, see `losses.weighted_loss`.
      stages: increasing numbers of epochs after which to score; 0 is unadapted.
      config: model sizes and the inner loss's reduction.
      mesh: devices that share the folds; its size divides their number.
      chunk: number of folds vmapped at a time on a device.
      decode: (params, contexts, base=base) -> Replies for a group of contexts; None for no
        replies.

    Returns:
      Stages with a leading fold axis.
    """
    bounds = jnp.asarray([(0, *stages[:-1]), stages]).T

    def one(shared, fold):
        params, inner_lr, base = shared

        def epoch(number, params):
            batches = jax.tree.map(lambda x: x[number], fold.batches)
            return adapt_to(params, batches, inner_lr, base, config=config)

        def stage(params, bound):
            if any(stages):  # the unadapted model needs no gradient compiled
                params = jax.lax.fori_loop(bound[0], bound[1], epoch, params)
            sums = _response_loss(config, params, (fold.held_out, base))[1]
            replies = _all_replies(decode, params, fold.contexts, base) if decode else None
            return params, Stages(sums.response, replies)

        return jax.lax.scan(stage, params, bounds)[1]

    return map_personas(one, mesh, chunk)((params, inner_lr, base), folds)


def _all_replies(decode, params, groups, base):
    """Decodes group after group of contexts, and skips groups without a context."""
    used = jnp.sum(jnp.any(groups.segment > 0, axis=(1, 2)))
    # Without jit, it is traced twice: for its shapes and for the loop.
    decode = jax.jit(functools.partial(decode, base=base))
    shapes = jax.eval_shape(decode, params, jax.tree.map(lambda x: x[0], groups))
    count = (groups.segment.shape[0],)
    empty = jax.tree.map(lambda s: jnp.zeros(count + s.shape, s.dtype), shapes)

    def body(index, replies):
        one = decode(params, jax.tree.map(lambda x: x[index], groups))
        return jax.tree.map(lambda all_, new: all_.at[index].set(new), replies, one)

    replies = jax.lax.fori_loop(0, used, body, empty)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), replies)


def adapt_to(params: Params, batches: Examples, inner_lr, base=None, *, config: LossConfig) -> Params:
    """Fine-tunes on the response loss of each batch in turn; batches lead with axis [batch]."""
    loss = functools.partial(_response_loss, config)
    return adapt(loss, params, batches, inner_lr, base=base)[0]


def _response_loss(config, params, data):
    examples, base = data
    return losses.weighted_loss(params, examples, losses.RESPONSE_ONLY, config=config, base=base)
