"""Hold the inner update against closed forms: the derivatives of quadratics are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mtml_jax.config import GRADIENTS
from mtml_jax.meta.inner import adapt, inner_update

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 3
SECOND_ORDER = {"exact": 1e-12, "mixed": 1e-12, "finite_difference": 1e-7}  # how exact


def close(got, wanted, tolerance=1e-12):
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def support_loss(params, data):
    """1/2 phi' A phi - b' phi; the Hessian is A."""
    matrix, vector = data
    flat = ravel_pytree(params)[0]
    loss = flat @ matrix @ flat / 2 - vector @ flat
    return loss, {"loss": loss, "first": flat[0]}


def batch_loss(params, data):
    """`support_loss` of a batch; nothing else is shared by the steps of `adapt`."""
    batch, base = data
    assert base is None
    return support_loss(params, batch)


def query_loss(params, data):
    """1/2 (phi - t)' B (phi - t)."""
    matrix, target = data
    error = ravel_pytree(params)[0] - target
    return error @ matrix @ error / 2


class Quadratics:
    """phi of 2 x 3 + 5 numbers, one quadratic for each support step and one for the query."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.params = {"w": rng.standard_normal((2, 3)), "b": rng.standard_normal(5)}
        flat, self.unravel = ravel_pytree(self.params)
        self.phi = np.asarray(flat)
        size = self.phi.size
        drawn = rng.standard_normal((STEPS + 1, size, size))
        symmetric = drawn + drawn.swapaxes(1, 2)
        self.A, self.B = symmetric[:STEPS], symmetric[STEPS]
        self.b = rng.standard_normal((STEPS, size))
        self.t = rng.standard_normal(size)
        self.identity = np.eye(size)


@pytest.fixture(scope="module")
def problem(float64):
    return Quadratics()


def meta_gradient(problem, inner_lr, gradient, argnum=0):
    """The derivative of L_query(phi') after one step, with respect to phi or inner_lr."""

    def objective(params, inner_lr):
        adapted, _ = inner_update(
            support_loss, params, (problem.A[0], problem.b[0]), inner_lr, gradient=gradient
        )
        return query_loss(adapted, (problem.B, problem.t))

    derivative = jax.jit(jax.grad(objective, argnums=argnum))
    return ravel_pytree(derivative(problem.params, inner_lr))[0]


def adapted_by_hand(problem, inner_lr, steps=1):
    phi = problem.phi
    for A, b in zip(problem.A[:steps], problem.b[:steps]):
        phi = (problem.identity - inner_lr * A) @ phi + inner_lr * b
    return phi


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_step_descends(problem, gradient):
    adapted, _ = inner_update(
        support_loss, problem.params, (problem.A[0], problem.b[0]), 0.3, gradient=gradient
    )
    assert jax.tree.structure(adapted) == jax.tree.structure(problem.params)
    close(ravel_pytree(adapted)[0], adapted_by_hand(problem, 0.3))


@pytest.mark.parametrize("gradient", SECOND_ORDER)
def test_meta_gradient_is_the_closed_form(problem, gradient):
    inner_lr = 0.3
    residual = adapted_by_hand(problem, inner_lr) - problem.t
    wanted = (problem.identity - inner_lr * problem.A[0]).T @ problem.B @ residual
    close(meta_gradient(problem, inner_lr, gradient), wanted, SECOND_ORDER[gradient])


@pytest.mark.parametrize("precision, error", [(np.float32, 3e-4), (np.float64, 1e-8)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_finite_difference_of_any_size(precision, error, size):
    """Differentiates size times the sum of sin(phi), with small and large gradients."""
    phi, target = np.random.default_rng(3).standard_normal((2, 50)).astype(precision)

    def curved(params, data):
        return data * jnp.sum(jnp.sin(params)), None

    def objective(params):
        adapted, _ = inner_update(
            curved, params, precision(size), precision(0.3 / size), gradient="finite_difference"
        )
        return jnp.sum(jnp.square(adapted - target)) / size

    adapted = phi - 0.3 * np.cos(phi)
    wanted = 2 / size * (adapted - target) * (1 + 0.3 * np.sin(phi))
    got = jax.jit(jax.grad(objective))(phi)
    assert got.dtype == precision
    assert np.linalg.norm(got - wanted) < error * np.linalg.norm(wanted)


@pytest.mark.parametrize("still", ["support", "query"])
def test_a_finite_difference_of_what_does_not_move(problem, still):
    """Either loss has a gradient of zero, by whose length is divided."""
    nothing = {name: 0.0 * problem.A[0] for name in ("support", "query")}
    matrices = {"support": problem.A[0], "query": problem.B} | {still: nothing[still]}

    def objective(params):
        adapted, _ = inner_update(
            support_loss,
            params,
            (matrices["support"], 0.0 * problem.b[0]),
            0.3,
            gradient="finite_difference",
        )
        return query_loss(adapted, (matrices["query"], problem.t))

    got = ravel_pytree(jax.grad(objective)(problem.params))[0]
    wanted = 0.0 if still == "query" else problem.B @ (problem.phi - problem.t)
    close(got, np.broadcast_to(wanted, got.shape))


def test_first_order_drops_the_hessian_and_nothing_else(problem):
    inner_lr = 0.3
    wanted = problem.B @ (adapted_by_hand(problem, inner_lr) - problem.t)
    got = meta_gradient(problem, inner_lr, "first_order")
    close(got, wanted)
    exact = meta_gradient(problem, inner_lr, "exact")
    assert np.linalg.norm(got - exact) > 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_inner_lr_zero_gives_the_plain_gradient(problem, gradient):
    plain = jax.grad(query_loss)(problem.params, (problem.B, problem.t))
    close(meta_gradient(problem, 0.0, gradient), ravel_pytree(plain)[0])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradient_of_inner_lr(problem, gradient):
    """d L_query / d inner_lr = -<grad L_support(phi), grad L_query(phi')>."""
    inner_lr = 0.3
    slope = problem.A[0] @ problem.phi - problem.b[0]
    cotangent = problem.B @ (adapted_by_hand(problem, inner_lr) - problem.t)
    close(meta_gradient(problem, inner_lr, gradient, argnum=1), [-slope @ cotangent])


@pytest.mark.parametrize("unroll", [1, True])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_several_steps(problem, gradient, unroll):
    """The Jacobian of adapt is the product of the (I - inner_lr A), the last step leftmost."""
    inner_lr = 0.2

    def objective(params):
        adapted, _ = adapt(
            batch_loss,
            params,
            (jnp.asarray(problem.A), jnp.asarray(problem.b)),
            inner_lr,
            gradient=gradient,
            unroll=unroll,
        )
        return query_loss(adapted, (problem.B, problem.t)), adapted

    grads, adapted = jax.jit(jax.grad(objective, has_aux=True))(problem.params)
    final = adapted_by_hand(problem, inner_lr, STEPS)
    close(ravel_pytree(adapted)[0], final)
    wanted = problem.B @ (final - problem.t)
    if gradient in SECOND_ORDER:
        for A in problem.A[::-1]:
            wanted = (problem.identity - inner_lr * A).T @ wanted
    close(ravel_pytree(grads)[0], wanted, SECOND_ORDER.get(gradient, 1e-12))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_aux_is_that_of_the_parameters_before_each_step(problem, gradient):
    inner_lr = 0.2
    before = [adapted_by_hand(problem, inner_lr, steps) for steps in range(STEPS)]
    wanted = [
        support_loss(problem.unravel(jnp.asarray(phi)), data)[1]
        for phi, data in zip(before, zip(problem.A, problem.b))
    ]

    def objective(params):
        adapted, aux = adapt(
            batch_loss,
            params,
            (jnp.asarray(problem.A), jnp.asarray(problem.b)),
            inner_lr,
            gradient=gradient,
        )
        return query_loss(adapted, (problem.B, problem.t)), aux

    _, differentiated = jax.jit(jax.grad(objective, has_aux=True))(problem.params)
    _, plain = jax.jit(objective)(problem.params)
    for aux in (plain, differentiated):
        assert set(aux) == {"loss", "first"}
        for name, values in aux.items():
            close(values, [one[name] for one in wanted])


def test_parameters_keep_their_precision(problem):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), problem.params)
    data = (problem.A[0].astype(np.float32), problem.b[0].astype(np.float32))
    for gradient in GRADIENTS:
        adapted, _ = inner_update(
            support_loss, params, data, jnp.asarray(0.3, jnp.float64), gradient=gradient
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(adapted)} == {np.dtype(np.float32)}
