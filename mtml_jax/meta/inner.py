"""Take inner steps: one gradient step on a persona's dialogues, or many.

Training differentiates through `inner_update`; adaptation at test time runs it.
"""

from collections.abc import Callable

import jax

from mtml_jax.meta.second_order import descend, difference_update, mixed_update
from mtml_jax.types import Params


def inner_update(loss: Callable, params: Params, data, inner_lr, *, gradient: str = "exact"):
    """Takes one inner step, phi' = phi - inner_lr * grad L(phi) (eq. 11).

    Args:
      loss: (params, data) -> (scalar, aux); must not close over traced values.
      params: the initial parameters phi, any pytree of floats.
      data: pytree that the loss reads; "mixed" and "finite_difference" hold it constant.
      inner_lr: float scalar, eta_t.
      gradient: how a derivative passes this step, whose Jacobian is I - inner_lr H with the
        Hessian H of L. "exact": `jax.grad` through `jax.grad`, reverse over reverse.
        "mixed": the same number by forward over reverse, which stores less.
        "finite_difference": an approximation from one more gradient, the cheapest; it needs
        a smooth loss. "first_order": H is dropped.

    Returns:
      (adapted parameters phi', aux of the loss at phi).
    """
    if gradient == "mixed":
        return mixed_update(loss, params, data, inner_lr)
    if gradient == "finite_difference":
        return difference_update(loss, params, data, inner_lr)
    grads, aux = jax.grad(loss, has_aux=True)(params, data)
    if gradient == "first_order":
        grads = jax.lax.stop_gradient(grads)
    return descend(params, grads, inner_lr), aux


def adapt(
    loss: Callable,
    params: Params,
    batches,
    inner_lr,
    *,
    gradient: str = "exact",
    unroll: int | bool = 1,
    base=None,
):
    """Takes one inner step on each batch in turn; training and test share this loop.

    Args:
      loss: (params, (batch, base)) -> (scalar, aux).
      params: the initial parameters phi.
      batches: pytree with a leading axis, one entry per step.
      inner_lr: float scalar.
      gradient: see `inner_update`.
      unroll: number of steps compiled without a loop between them; True for all.
      base: constants of the loss, the same in every step; the loss must not close over them.

    Returns:
      (adapted parameters, aux of every step stacked, each before its step).
    """

    def step(params, batch):
        return inner_update(loss, params, (batch, base), inner_lr, gradient=gradient)

    return jax.lax.scan(step, params, batches, unroll=unroll)
