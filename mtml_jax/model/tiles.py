"""Sums over as many tiles of data as are occupied, twice differentiable in one tile's memory.

A batch padded to its longest member wastes most of its slots, and reverse-mode
AD of a loop keeps every iteration's intermediates. Here the gradient of a sum is
the sum of gradients: each derivative is again a loop over the occupied tiles,
and only one tile's intermediates are alive at a time.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtml_jax.model.xla import zero_after


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_over_tiles(function: Callable, forward: bool, operands, constants, kinds):
    """Computes the sum over all kinds of tiles of sum_{n < count} function(operands, constants, tiles[n]).

    The value and its gradient come from one loop. The second derivative is one
    more loop, over tiles of either vector-Jacobian products (reverse over
    reverse) or, by the Hessian's symmetry, Jacobian-vector products (forward
    over reverse).

    Args:
      function: (operands, constants, tile) -> (scalar, aux); must not close over traced
        values. Gradients do not flow through aux.
      forward: whether the gradient is to be differentiated by `jax.jvp`
        instead of `jax.grad`; each serves only its own way.
      operands: pytree of float arrays, differentiated.
      constants: pytree of arrays, not differentiated.
      kinds: sequence of (tiles, count), not differentiated: a pytree of integer arrays
        [N, ...], N and shapes of each kind its own, and an int scalar, how many of them are
        occupied; the rest is not read.

    Returns:
      (sum of scalars, sum of aux).
    """
    return _loop(function, operands, constants, kinds)


def _sum_fwd(function, forward, operands, constants, kinds):
    total = _loop if forward else _differentiable_loop
    (value, aux), gradient = total(
        jax.value_and_grad(function, has_aux=True), operands, constants, kinds
    )
    return (value, aux), gradient


def _sum_bwd(function, forward, gradient, cotangent):
    scale, _ = cotangent
    return jax.tree.map(lambda g: scale * g, gradient), None, None


sum_over_tiles.defvjp(_sum_fwd, _sum_bwd)


def _loop(function, operands, constants, kinds):
    """The sum of any pytree-valued function, with trip counts known only at run time."""
    function = jax.jit(function)  # traced once for its shapes and once for the body otherwise
    first = jax.tree.map(lambda x: x[0], kinds[0][0])
    shapes = jax.eval_shape(function, operands, constants, first)
    zero = zero_after(jax.tree.leaves(operands)[0])  # or all loops' totals are there at once
    total = jax.tree.map(lambda s: jnp.full(s.shape, zero, s.dtype), shapes)

    def add_tile(index, total, tiles):
        tile = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tiles
        )
        return jax.tree.map(jnp.add, total, function(operands, constants, tile))

    for tiles, count in kinds:  # into one total: each more is as large as the parameters
        total = jax.lax.fori_loop(0, count, functools.partial(add_tile, tiles=tiles), total)
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable_loop(function, operands, constants, kinds):
    return _loop(function, operands, constants, kinds)


def _loop_fwd(function, operands, constants, kinds):
    return _loop(function, operands, constants, kinds), (operands, constants, kinds)


def _loop_bwd(function, residuals, cotangent):
    operands, constants, kinds = residuals

    def pull_back(operands_and_cotangent, constants, tile):
        operands, cotangent = operands_and_cotangent
        _, vjp = jax.vjp(lambda operands: function(operands, constants, tile), operands)
        return vjp(cotangent)[0]

    operands_and_cotangent = (operands, cotangent)
    return _differentiable_loop(pull_back, operands_and_cotangent, constants, kinds), None, None


_differentiable_loop.defvjp(_loop_fwd, _loop_bwd)
