"""Sum a function over the occupied tiles, in the memory of one tile.

A batch padded to its longest member wastes most of its slots, and reverse-mode differentiation
of a loop stores every iteration's intermediates. Both functions here skip empty tiles and
recompute a tile's intermediates instead of storing them. `scan_over_tiles` is plain JAX and can
be differentiated any number of times; `sum_over_tiles` is faster and is differentiated by a
rule of its own.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtml_jax.model.xla import zero_after


def scan_over_tiles(function: Callable, operands, kinds):
    """Computes the sum over all kinds of sum_{n < count} function(operands, tiles[n]).

    Under `jax.vmap` the branch becomes a choice between results, so that empty tiles are
    computed as well.

    Args:
      function: (operands, tile) -> (scalar, aux).
      operands: pytree of float arrays, differentiated.
      kinds: sequence of (tiles, count). The tiles of a kind are a pytree of integer arrays
        [N, ...] with N and shapes of their own; count is an int scalar, how many of them are
        occupied. The others may hold anything and are read as zeros.

    Returns:
      (sum of scalars, sum of aux).
    """
    total = _zeros(function, operands, kinds)
    nothing = total

    @jax.checkpoint
    def value(operands, tile, occupied):
        tile = jax.tree.map(lambda x: jnp.where(occupied, x, 0), tile)
        return jax.lax.cond(occupied, lambda: function(operands, tile), lambda: nothing)

    def add_tile(total, tile_and_occupied):
        return jax.tree.map(jnp.add, total, value(operands, *tile_and_occupied)), None

    for tiles, count in kinds:
        occupied_N = jnp.arange(jax.tree.leaves(tiles)[0].shape[0]) < count
        total, _ = jax.lax.scan(add_tile, total, (tiles, occupied_N))
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_over_tiles(function: Callable, operands, kinds):
    """Computes what `scan_over_tiles` computes, value and gradient from one loop.

    The gradient of a sum is the sum of gradients. That loop has a number of iterations that is
    known only at run time, so a second derivative must be taken in forward mode (`jax.jvp`).

    Args:
      function: as for `scan_over_tiles`; must not close over traced values. Gradients do not
        flow through aux.
      operands: as for `scan_over_tiles`.
      kinds: as for `scan_over_tiles`; not differentiated.

    Returns:
      (sum of scalars, sum of aux).
    """
    return _loop(function, operands, kinds)


def _sum_forward(function, operands, kinds):
    return _loop(jax.value_and_grad(function, has_aux=True), operands, kinds)


def _sum_backward(function, gradient, cotangent):
    scale, _ = cotangent
    return jax.tree.map(lambda g: scale * g, gradient), None


sum_over_tiles.defvjp(_sum_forward, _sum_backward)


def _loop(function, operands, kinds):
    """Sums a function with any pytree as its result over the occupied tiles."""
    function = jax.jit(function)  # otherwise traced twice: for its shapes and for the body
    total = _zeros(function, operands, kinds)

    def add_tile(index, total, tiles):
        tile = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tiles
        )
        return jax.tree.map(jnp.add, total, function(operands, tile))

    for tiles, count in kinds:  # into one total: each total is as large as the parameters
        total = jax.lax.fori_loop(0, count, functools.partial(add_tile, tiles=tiles), total)
    return total


def _zeros(function, operands, kinds):
    first = jax.tree.map(lambda x: x[0], kinds[0][0])
    shapes = jax.eval_shape(function, operands, first)
    zero = zero_after(jax.tree.leaves(operands)[0])  # or the totals of all loops exist at once
    return jax.tree.map(lambda s: jnp.full(s.shape, zero, s.dtype), shapes)
