"""The inner loop: one gradient step on a persona's dialogues, and many.

Training differentiates through it; test-time adaptation just runs it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtml_jax.types import Params

GRADIENTS = ("exact", "mixed", "first_order")


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
        which keeps fewer intermediates. "first_order": H is dropped.

    Returns:
      (adapted parameters phi', aux of the loss at phi).
    """
    if gradient == "mixed":
        return _mixed_update(loss, params, data, inner_lr)
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
