"""The sum over tiles and its two derivatives against a plain Python sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.model.tiles import scan_over_tiles, sum_over_tiles

pytestmark = pytest.mark.usefixtures("float64")

TILES, SLOTS, ROWS, WIDTH = 5, 3, 7, 2
POISON = -1  # makes `one_tile` not a number


def one_tile(operands, tile):
    """Not linear in any operand, all mixed; not a number where `tile` holds POISON."""
    table_RD, (scale_D, offset) = operands
    rows_SD = table_RD[jnp.maximum(tile["rows"], 0)]
    level_S = jnp.sqrt(tile["level"].astype(rows_SD.dtype) + 0.5)
    inner_S = jnp.sin(rows_SD @ scale_D + offset) * level_S
    aux = {"level": jnp.sum(level_S), "inner": jax.lax.stop_gradient(inner_S)}
    return jnp.sum(jnp.exp(inner_S)) * jnp.sum(inner_S), aux


def draw(seed):
    """Operands and tiles."""
    rng = np.random.default_rng(seed)
    operands = (
        jnp.asarray(rng.standard_normal((ROWS, WIDTH))),
        (jnp.asarray(rng.standard_normal(WIDTH)), jnp.asarray(rng.standard_normal())),
    )
    tiles = {
        "rows": rng.integers(0, ROWS, (TILES, SLOTS)).astype(np.int32),
        "level": rng.integers(0, 4, (TILES, SLOTS)).astype(np.int32),
    }
    return operands, tiles


def poisoned(tiles, count):
    """The same tiles, with POISON in those from `count` on."""
    free = np.arange(TILES)[:, None] >= count
    return {name: np.where(free, POISON, x).astype(np.int32) for name, x in tiles.items()}


def two_kinds(tiles, count):
    """The first three tiles as one kind and the others as another."""
    first, second = (jax.tree.map(lambda x: x[part], tiles) for part in (slice(3), slice(3, None)))
    return [(first, jnp.minimum(count, 3)), (second, jnp.maximum(count - 3, 0))]


def plain_sum(operands, tiles, count):
    """One tile after the other; `tiles` must hold no POISON, `count` may be traced."""
    one = [one_tile(operands, jax.tree.map(lambda x: x[n], tiles)) for n in range(TILES)]
    return jax.tree.map(
        lambda *leaves: sum(jnp.where(n < count, x, 0.0) for n, x in enumerate(leaves)), *one
    )


def derivatives(total, forward, operands, direction):
    """Value, aux, gradient and Hessian times `direction` of something curved in the sum."""

    def outer(operands):
        value, aux = total(operands)
        return jnp.sin(value / 10) + value, (value, aux)  # a cotangent that is not 1

    def gradient(operands):
        return jax.grad(outer, has_aux=True)(operands)[0]

    def slope(operands):
        products = jax.tree.map(jnp.vdot, gradient(operands), direction)
        return jax.tree.reduce(jnp.add, products)

    if forward:
        second = jax.jvp(gradient, (operands,), (direction,))[1]
    else:
        second = jax.grad(slope)(operands)
    return total(operands), jax.value_and_grad(outer, has_aux=True)(operands), second


@pytest.fixture(
    scope="module",
    params=[(scan_over_tiles, False), (scan_over_tiles, True), (sum_over_tiles, True)],
    ids=["scan, reverse", "scan, forward", "sum, forward"],
)
def both(request, float64):
    """(tiled, plain): compiled functions of (operands, tiles, count, direction)."""
    over_tiles, forward = request.param

    def tiled(operands, tiles, count, direction):
        return derivatives(
            lambda o: over_tiles(one_tile, o, two_kinds(tiles, count)),
            forward,
            operands,
            direction,
        )

    def plain(operands, tiles, count, direction):
        return derivatives(lambda o: plain_sum(o, tiles, count), forward, operands, direction)

    return tiled, jax.jit(plain)


def assert_close(got, wanted):
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12), got, wanted
    )


def test_poison_is_poison():
    operands, tiles = draw(0)
    bad = jax.tree.map(lambda x: x[-1], poisoned(tiles, TILES - 1))
    assert np.isnan(one_tile(operands, bad)[0])


def test_value_and_both_derivatives(both):
    tiled, plain = both
    tiled = jax.jit(tiled)
    direction, _ = draw(7)
    for count in range(TILES + 1):
        operands, tiles = draw(count)
        assert_close(
            tiled(operands, poisoned(tiles, count), count, direction),
            plain(operands, tiles, count, direction),
        )


def test_vmap_over_different_counts(both):
    tiled, plain = both
    direction, _ = draw(7)
    counts = [3, 1, 0, 5]
    drawn = [draw(seed) for seed in range(len(counts))]
    operands = jax.tree.map(lambda *x: jnp.stack(x), *[o for o, _ in drawn])
    tiles = jax.tree.map(
        lambda *x: np.stack(x), *[poisoned(t, c) for (_, t), c in zip(drawn, counts)]
    )
    got = jax.jit(jax.vmap(tiled, in_axes=(0, 0, 0, None)))(
        operands, tiles, jnp.asarray(counts), direction
    )
    for n, (count, (operands, tiles)) in enumerate(zip(counts, drawn)):
        assert_close(
            jax.tree.map(lambda x: x[n], got), plain(operands, tiles, count, direction)
        )
