"""An order of computation that XLA cannot undo."""

import jax
import jax.numpy as jnp


def zero_after(array: jax.Array) -> jax.Array:
    """Zero, a scalar, known only once `array` is; its derivatives are zero too.

    XLA on a CPU drops `jax.lax.optimization_barrier` before it merges and orders
    operations. What zero is added to can be neither merged with the same made
    earlier nor made earlier, when it would only take up memory.
    """
    return jnp.minimum(jnp.abs(jnp.ravel(array)[0]), 0)
