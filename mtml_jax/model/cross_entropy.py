"""Computes the cross-entropy of a large vocabulary in chunks, twice differentiable.

The derivatives by the hidden states are written in closed form: reverse-mode AD would
keep the probabilities of every chunk, or compute the logits once more a derivative.

Axes: U token, D width, V vocabulary.
"""

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
    count = ids_U.shape[0]
    chunk = min(chunk, count)
    chunks = -(-count // chunk)

    def split(x):
        padded = jnp.pad(x, [(0, chunks * chunk - count)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(chunks, chunk, *x.shape[1:])

    matrix_VD = jax.lax.stop_gradient(matrix_VD)
    nll = jax.lax.map(
        lambda part: _nll(part[0], matrix_VD, part[1]), (split(hidden_UD), split(ids_U))
    )
    return nll.reshape(-1)[:count]


@jax.custom_jvp
def _nll(hidden_UD, matrix_VD, ids_U):
    """-log p of each token, in at least float32."""
    logits_UV = _logits(hidden_UD, matrix_VD)
    return jax.nn.logsumexp(logits_UV, axis=-1) - _picked(logits_UV, ids_U)


@jax.custom_jvp
def _nll_and_slope(hidden_UD, matrix_VD, ids_U):
    """(nll_U, its gradient M'(p - onehot) by each hidden state)."""
    logits_UV = _logits(hidden_UD, matrix_VD)
    total_U = jax.nn.logsumexp(logits_UV, axis=-1)
    share_UV = jnp.exp(logits_UV - total_U[:, None]).astype(hidden_UD.dtype)
    slope_UD = share_UV @ matrix_VD - matrix_VD[ids_U]
    return total_U - _picked(logits_UV, ids_U), slope_UD


@jax.checkpoint
def _curvature(hidden_UD, matrix_VD, change_UD):
    """The Hessian M'(diag(p) - p p')M of each token's loss times a change of its hidden state."""
    logits_UV = _logits(hidden_UD, matrix_VD)
    share_UV = jax.nn.softmax(logits_UV, axis=-1)
    change_UV = (change_UD @ matrix_VD.T).astype(share_UV.dtype)
    mean_U1 = jnp.sum(share_UV * change_UV, axis=-1, keepdims=True)
    return (share_UV * (change_UV - mean_U1)).astype(hidden_UD.dtype) @ matrix_VD


def _along(slope_UD, change_UD, nll_U):
    return jnp.sum(slope_UD * change_UD, axis=-1).astype(nll_U.dtype)


@_nll.defjvp
def _nll_jvp(primals, tangents):
    nll_U, slope_UD = _nll_and_slope(*primals)
    return nll_U, _along(slope_UD, tangents[0], nll_U)


@_nll_and_slope.defjvp
def _nll_and_slope_jvp(primals, tangents):
    nll_U, slope_UD = _nll_and_slope(*primals)
    curved_UD = _curvature(primals[0], primals[1], tangents[0])
    return (nll_U, slope_UD), (_along(slope_UD, tangents[0], nll_U), curved_UD)


def _logits(hidden_UD, matrix_VD):
    return (hidden_UD @ matrix_VD.T).astype(jnp.promote_types(hidden_UD.dtype, jnp.float32))


def _picked(logits_UV, ids_U):
    return jnp.take_along_axis(logits_UV, ids_U[:, None], axis=-1)[:, 0]
