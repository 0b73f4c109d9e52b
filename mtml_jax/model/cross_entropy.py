"""Computes the cross-entropy of a large vocabulary in chunks, twice differentiable.

The derivatives by the hidden states are written in closed form, which saves computing the
logits once more a derivative. Each loop over chunks stands inside a rule, and not around
it: JAX forgets custom rules inside a loop or a `jax.jit` that is differentiated twice.
Then, too, `jax.checkpoint` keeps the memory of one chunk.

Axes: U token, D width, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp

CHUNK = 128  # tokens at a time: 25 MB of logits for a vocabulary of 49,152


def cross_entropy(hidden_UD, matrix_VD, ids_U, *, chunk: int = CHUNK) -> jax.Array:
    """Computes -log p of each token, p = softmax(hidden M').

    Logits exist for `chunk` tokens at a time, in the value and in its first and second
    derivatives.

    Args:
      hidden_UD: the hidden states that predict the tokens; differentiated.
      matrix_VD: the output matrix M; a constant, whose gradient is not computed.
      ids_U: int32, the tokens.
      chunk: the number of tokens whose logits are in memory together.

    Returns:
      nll_U in nats, at least float32.
    """
    return _nll(chunk, hidden_UD, jax.lax.stop_gradient(matrix_VD), ids_U)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _nll(chunk, hidden_UD, matrix_VD, ids_U):
    def nll(matrix_VD, hidden_UD, ids_U):
        logits_UV = _logits(hidden_UD, matrix_VD)
        return jax.nn.logsumexp(logits_UV, axis=-1) - _picked(logits_UV, ids_U)

    return _over_chunks(nll, chunk, matrix_VD, hidden_UD, ids_U)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _nll_and_slope(chunk, hidden_UD, matrix_VD, ids_U):
    """(nll_U, its gradient M'(p - onehot) by each hidden state)."""

    def nll_and_slope(matrix_VD, hidden_UD, ids_U):
        logits_UV = _logits(hidden_UD, matrix_VD)
        total_U = jax.nn.logsumexp(logits_UV, axis=-1)
        share_UV = jnp.exp(logits_UV - total_U[:, None]).astype(hidden_UD.dtype)
        slope_UD = share_UV @ matrix_VD - matrix_VD[ids_U]
        return total_U - _picked(logits_UV, ids_U), slope_UD

    return _over_chunks(nll_and_slope, chunk, matrix_VD, hidden_UD, ids_U)


def _curvature(chunk, hidden_UD, matrix_VD, change_UD):
    """The Hessian M'(diag(p) - p p')M of each token's loss times a change of its hidden state."""

    def curvature(matrix_VD, hidden_UD, change_UD):
        share_UV = jax.nn.softmax(_logits(hidden_UD, matrix_VD), axis=-1)
        change_UV = (change_UD @ matrix_VD.T).astype(share_UV.dtype)
        mean_U1 = jnp.sum(share_UV * change_UV, axis=-1, keepdims=True)
        return (share_UV * (change_UV - mean_U1)).astype(hidden_UD.dtype) @ matrix_VD

    return _over_chunks(curvature, chunk, matrix_VD, hidden_UD, change_UD)


@_nll.defjvp
def _nll_jvp(chunk, primals, tangents):
    nll_U, slope_UD = _nll_and_slope(chunk, *primals)
    return nll_U, _along(slope_UD, tangents[0], nll_U)


@_nll_and_slope.defjvp
def _nll_and_slope_jvp(chunk, primals, tangents):
    nll_U, slope_UD = _nll_and_slope(chunk, *primals)
    curved_UD = _curvature(chunk, primals[0], primals[1], tangents[0])
    return (nll_U, slope_UD), (_along(slope_UD, tangents[0], nll_U), curved_UD)


def _over_chunks(function, chunk, matrix_VD, *arrays):
    """function(matrix_VD, part of each array), for one part of `chunk` tokens after the other."""
    count = arrays[0].shape[0]
    chunk = max(1, min(chunk, count))
    chunks = -(-count // chunk)

    def split(x):
        padded = jnp.pad(x, [(0, chunks * chunk - count)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(chunks, chunk, *x.shape[1:])

    function = jax.checkpoint(function, prevent_cse=False)
    parts = jax.lax.map(lambda parts: function(matrix_VD, *parts), [split(x) for x in arrays])
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], parts)


def _along(slope_UD, change_UD, nll_U):
    return jnp.sum(slope_UD * change_UD, axis=-1).astype(nll_U.dtype)


def _logits(hidden_UD, matrix_VD):
    return (hidden_UD @ matrix_VD.T).astype(jnp.promote_types(hidden_UD.dtype, jnp.float32))


def _picked(logits_UV, ids_U):
    return jnp.take_along_axis(logits_UV, ids_U[:, None], axis=-1)[:, 0]
