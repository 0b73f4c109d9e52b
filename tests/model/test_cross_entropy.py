"""The chunked cross-entropy against plain softmax: value, derivatives, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.model.cross_entropy import cross_entropy

pytestmark = pytest.mark.usefixtures("float64")

TOKENS, WIDTH, VOCABULARY = 7, 3, 5
RNG = np.random.default_rng(0)
HIDDEN_UD = RNG.standard_normal((TOKENS, WIDTH))
MATRIX_VD = RNG.standard_normal((VOCABULARY, WIDTH))
IDS_U = RNG.integers(VOCABULARY, size=TOKENS)


def plain(hidden_UD, matrix_VD, ids_U):
    shares_UV = jax.nn.log_softmax(hidden_UD @ matrix_VD.T)
    return -jnp.take_along_axis(shares_UV, ids_U[:, None], axis=1)[:, 0]


def total(loss, hidden_UD):
    return jnp.sum(loss(hidden_UD, MATRIX_VD, IDS_U) * jnp.arange(1.0, TOKENS + 1))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize(
    "derivative",
    [lambda f: f, jax.grad, jax.hessian, lambda f: jax.jacrev(jax.grad(f))],
    ids=["value", "gradient", "forward over reverse", "reverse over reverse"],
)
def test_derivatives_equal_those_of_plain_softmax(derivative, chunk):
    wanted, got = (
        jax.jit(derivative(functools.partial(total, loss)))(HIDDEN_UD)
        for loss in (plain, functools.partial(cross_entropy, chunk=chunk))
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-12)


def test_third_derivative():
    def third(loss):
        def along(t):
            return total(loss, HIDDEN_UD + t * jnp.cos(HIDDEN_UD))

        return jax.jit(jax.grad(jax.grad(jax.grad(along))))(0.3)

    np.testing.assert_allclose(third(cross_entropy), third(plain), rtol=1e-10)


def test_maps_over_personas():
    hidden_PUD = jnp.stack([HIDDEN_UD, 2 * HIDDEN_UD])
    got, wanted = (
        jax.jit(jax.vmap(jax.grad(functools.partial(total, loss))))(hidden_PUD)
        for loss in (functools.partial(cross_entropy, chunk=3), plain)
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-11)


@pytest.mark.parametrize("around", [lambda loss: loss, jax.jit], ids=["plain", "jit between"])
def test_memory_is_bounded_by_the_chunk(around):
    def second(loss):
        def objective(hidden_UD, matrix_VD, ids_U):
            inner = jax.grad(lambda hidden_UD: jnp.sum(loss(hidden_UD, matrix_VD, ids_U) ** 2))
            return jnp.sum(inner(hidden_UD) ** 2)

        shapes = (
            jax.ShapeDtypeStruct((512, 8), jnp.float32),
            jax.ShapeDtypeStruct((4096, 8), jnp.float32),
            jax.ShapeDtypeStruct((512,), jnp.int32),
        )
        compiled = jax.jit(jax.grad(objective)).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    logits = 512 * 4096 * 4
    assert second(plain) > 2 * logits
    assert second(around(functools.partial(cross_entropy, chunk=16))) < logits / 4
