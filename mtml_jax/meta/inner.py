"""The inner loop: one gradient step on a persona's dialogues, and many.

Training differentiates through it; test-time adaptation just runs it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mtml_jax.types import Params

GRADIENTS = ("exact", "mixed", "finite_difference", "first_order")


def inner_update(loss: Callable, params: Params, data, inner_lr, *, gradient: str = "exact"):
    """One inner step, phi' = phi - inner_lr * grad L(phi) (eq. 11).

    Args:
      loss: (params, data) -> (scalar, aux); must not close over traced values.
      params: the initial parameters phi, any pytree of floats.
      data: what the loss reads, a pytree; held constant by "mixed".
      inner_lr: float scalar, eta_t.
      gradient: how a derivative passes this step. "exact": `jax.grad` through
        `jax.grad`, (I - inner_lr H) v by reverse over reverse. "mixed": the
        same number with H v by forward over reverse (the Hessian is symmetric),
        which keeps fewer intermediates. "finite_difference": inner_lr H v from one more
        gradient, at a point a little way along v (HF-MAML, Fallah et al. 2020, but
        one-sided), some 1e-4 of the whole away in float32, and cheapest. The loss
        is then called with gates_at=phi, too, and keeps its ReLUs as they are there: their
        kinks are no part of H. "first_order": H is dropped.

    Returns:
      (adapted parameters phi', aux of the loss at phi).
    """
    if gradient == "mixed":
        return _mixed_update(loss, params, data, inner_lr)
    if gradient == "finite_difference":
        return _difference_update(loss, params, data, inner_lr)
    grads, aux = jax.grad(loss, has_aux=True)(params, data)
    if gradient == "first_order":
        grads = jax.lax.stop_gradient(grads)
    return _descend(params, grads, inner_lr), aux


def adapt(
    loss: Callable,
    params: Params,
    batches,
    inner_lr,
    *,
    gradient: str = "exact",
    unroll: int | bool = 1,
):
    """Takes one inner step on each batch in turn; training and test share this loop.

    Args:
      loss: (params, batch) -> (scalar, aux).
      params: the initial parameters phi.
      batches: pytree with a leading axis, one entry a step.
      inner_lr: float scalar.
      gradient: see `inner_update`.
      unroll: steps compiled without a loop between them; True for all.

    Returns:
      (adapted parameters, aux of every step stacked, each before its step).
    """

    def step(params, batch):
        return inner_update(loss, params, batch, inner_lr, gradient=gradient)

    return jax.lax.scan(step, params, batches, unroll=unroll)


def _descend(params, grads, inner_lr):
    return jax.tree.map(lambda p, g: p - (inner_lr * g).astype(p.dtype), params, grads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mixed_update(loss, params, data, inner_lr):
    grads, aux = jax.grad(loss, has_aux=True)(params, data)
    return _descend(params, grads, inner_lr), aux


def _mixed_fwd(loss, params, data, inner_lr):
    return _mixed_update(loss, params, data, inner_lr), (params, data, inner_lr)


def _mixed_bwd(loss, residuals, cotangents):
    params, data, inner_lr = residuals
    cotangent, _ = cotangents
    grads, curved = jax.jvp(
        lambda params: jax.grad(loss, has_aux=True)(params, data)[0], (params,), (cotangent,)
    )
    slopes = jax.tree.map(jnp.vdot, grads, cotangent)
    return (
        _descend(cotangent, curved, inner_lr),
        None,
        -jax.tree.reduce(jnp.add, slopes),
    )


_mixed_update.defvjp(_mixed_fwd, _mixed_bwd)



@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _difference_update(loss, params, data, inner_lr):
    grads, aux = _precise_grad(loss, params, data)
    return _descend(params, grads, inner_lr), aux


def _difference_fwd(loss, params, data, inner_lr):
    grads, aux = _precise_grad(loss, params, data)
    return (_descend(params, grads, inner_lr), aux), (params, data, inner_lr, grads)


def _difference_bwd(loss, residuals, cotangents):
    params, data, inner_lr, grads = residuals
    cotangent, _ = cotangents
    lengths = optax.tree.norm(cotangent), optax.tree.norm(grads)
    # Of the inner step's length: the curvature changes along a longer move, and a shorter
    # one's change is lost in rounding. At preset paper 3e-3 is the best in float32.
    reach = 10 * jnp.sqrt(jnp.finfo(lengths[1].dtype).eps)
    moves = (inner_lr > 0) & (lengths[0] > 0) & (lengths[1] > 0)
    scale = jnp.where(moves, lengths[0] / (reach * lengths[1]), 0.0)
    move = jnp.where(moves, inner_lr / scale, 0.0)
    moved = jax.tree.map(lambda p, v: p + (move * v).astype(p.dtype), params, cotangent)
    there, _ = _precise_grad(loss, moved, data, gates_at=params)
    slopes = jax.tree.map(jnp.vdot, grads, cotangent)
    return (
        _descend(cotangent, jax.tree.map(jnp.subtract, there, grads), scale),
        None,
        -jax.tree.reduce(jnp.add, slopes),
    )


_difference_update.defvjp(_difference_fwd, _difference_bwd)


def _precise_grad(loss, params, data, **gates_at):
    """The gradient without the short products that are an accelerator's default."""
    with jax.default_matmul_precision("highest"):
        return jax.grad(loss, has_aux=True)(params, data, **gates_at)
