"""Force an order of computation on XLA."""

import jax
import jax.numpy as jnp


def zero_after(array: jax.Array) -> jax.Array:
    """Returns a scalar zero that is known only once `array` is; its derivatives are zero too.

    XLA on a CPU drops `jax.lax.optimization_barrier` before it merges and orders operations.
    A value to which this zero is added can be neither merged with an equal earlier value nor
    computed before `array`, which would only take up memory.
    """
    return jnp.minimum(jnp.abs(jnp.ravel(array)[0]), 0)
