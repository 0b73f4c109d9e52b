"""Check the outer step: Adam and the clip by hand, and the data that each phase of AMTML reads."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtml_jax.config import ModelConfig, StepConfig, TileShape
from mtml_jax.data.packing import pack, stack
from mtml_jax.meta import objectives, outer
from mtml_jax.meta.objectives import Metrics
from mtml_jax.sharding import Placement, persona_mesh
from mtml_jax.strategies import STRATEGIES
from mtml_jax.train import nonfinite
from mtml_jax.types import Episode, Rates, TaskSums, Tiles, TokenSums

pytestmark = pytest.mark.usefixtures("float64")

MODEL = ModelConfig(encoder_layers=1, decoder_layers=1, heads=3, width=6, feed_forward=5)
CONFIG = StepConfig(MODEL, gradient="first_order")  # the quickest; it reads the same data
VOCABULARY = 13
PERSONAS = 3
SHAPE, TILES = TileShape(rows=2, context=11, response=7, persona=13), 2
AMTML = STRATEGIES["amtml"].phases


def rates(alpha=0.7, inner_lr=0.3, outer_lr=0.01):
    return Rates(np.float32(alpha), np.float32(inner_lr), np.float32(outer_lr))


def test_adam_and_the_clip_by_hand(monkeypatch):
    """Three gradients, of norms 7, 0.5 and 0: only the first is clipped, to 2."""
    rng = np.random.default_rng(0)
    params = {"b": rng.standard_normal(3), "w": rng.standard_normal((2, 5))}
    gradients = []
    for norm in (7.0, 0.5, 0.0):
        drawn = jax.tree.map(lambda p: rng.standard_normal(p.shape), params)
        length = np.sqrt(sum(np.sum(g**2) for g in drawn.values()))
        gradients.append(jax.tree.map(lambda g: jnp.asarray(g * norm / length), drawn))
    given = iter(gradients)
    metrics = Metrics(3.0, *[TaskSums(TokenSums.zero(), TokenSums.zero())] * 2)
    monkeypatch.setattr(outer, "mean_gradient", lambda *_, **__: (next(given), metrics))

    wanted = dict(params)
    first, second = ({name: 0.0 for name in params} for _ in range(2))
    state = outer.init_state(jax.tree.map(jnp.asarray, params))
    for t, (gradient, clip, rate) in enumerate(zip(gradients, (2 / 7, 1, 1), (0.1, 0.2, 0.3)), 1):
        state, got = outer.outer_step(
            state, None, rates().replace(outer_lr=rate), phase=STRATEGIES["std"].phases[0], config=CONFIG
        )
        assert got.replace(gradient_norm=None) == metrics
        np.testing.assert_allclose(
            got.gradient_norm, np.sqrt(sum(np.sum(g**2) for g in gradient.values())), rtol=1e-12
        )
        assert state.step == t
        for name, g in gradient.items():
            g = clip * np.asarray(g)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            mean, square = first[name] / (1 - 0.9**t), second[name] / (1 - 0.999**t)
            wanted[name] = wanted[name] - rate * mean / (np.sqrt(square) + 1e-8)
            np.testing.assert_allclose(state.params[name], wanted[name], rtol=1e-12)


def toy_loss(params, x, weights, *, config, base=None):
    """A quadratic as the persona loss, which adapts; as the response loss, which judges, a root.

    The root is not a number below 0; at 0 it is finite and its derivative is not.
    """
    zero = TaskSums(TokenSums.zero(), TokenSums.zero())
    if weights == (0.0, 1.0):
        return jnp.sum((params - x) ** 2), zero
    return jnp.sqrt(x * jnp.sum(params**2)), zero


PERSONA_ADAPTS = AMTML[1]
SOUND, NAN_LOSS, NAN_GRADIENT, INFINITE = 3.0, -1.0, 0.0, np.inf


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("bad", [NAN_LOSS, NAN_GRADIENT, INFINITE])
def test_a_step_that_is_not_finite_is_skipped_and_its_personas_are_named(bad, chunk, monkeypatch):
    monkeypatch.setattr(objectives, "weighted_loss", toy_loss)
    config = StepConfig(MODEL, persona_chunk=chunk)
    phase, mesh = PERSONA_ADAPTS, persona_mesh(4)
    assert mesh.size == 2
    skipped, taken = [
        Episode(jnp.arange(2.0, 6.0), jnp.asarray([SOUND, x, SOUND, y]))
        for x, y in ((bad, bad), (SOUND, SOUND))
    ]
    state = outer.init_state(jnp.asarray([0.5, 2.0, 3.0]))
    step = functools.partial(
        outer.outer_step, phase=phase, config=config, placement=Placement(mesh)
    )
    state, metrics = jax.jit(step)(state, taken, rates())
    assert np.isfinite(metrics.gradient_norm) and int(state.opt_state[1].count) == 1

    after, metrics = jax.jit(step)(state, skipped, rates())
    assert not np.isfinite(metrics.gradient_norm)
    assert np.isfinite(metrics.loss) == (bad == NAN_GRADIENT)
    assert int(after.step) == int(state.step) + 1
    for name in ("params", "opt_state"):
        for a, b in zip(*(jax.tree.leaves(getattr(s, name)) for s in (after, state)), strict=True):
            np.testing.assert_array_equal(a, b)
    finite = functools.partial(nonfinite.finite_personas, phase=phase, config=config, mesh=mesh)
    assert jax.jit(finite)(after.params, skipped, rates()).tolist() == [True, False, True, False]
    assert all(jax.jit(finite)(after.params, taken, rates()))


@pytest.mark.parametrize("bad", [SOUND, NAN_LOSS, NAN_GRADIENT])
def test_the_operation_that_makes_a_nan_is_found(bad, monkeypatch):
    monkeypatch.setattr(objectives, "weighted_loss", toy_loss)
    phase, one = PERSONA_ADAPTS, Episode(jnp.float32(2.0), jnp.float32(bad))
    params = jnp.asarray([0.5, 2.0, 3.0], jnp.float32)
    found = nonfinite.find_nan(params, one, rates(), phase=phase, config=StepConfig(MODEL))
    if bad == SOUND:
        assert found is None
    else:  # in the loss it is the root, in its derivative what follows the division by 0
        assert ("in sqrt" if bad == NAN_LOSS else "in mul") in found and ".py:" in found


@pytest.fixture(scope="module")
def state(draw_params, float64):
    drawn = draw_params(MODEL, VOCABULARY)
    return outer.init_state(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), drawn))


@pytest.fixture(scope="module")
def episodes(draw_dialogue):
    rng = np.random.default_rng(1)
    sides = [
        pack(draw_dialogue(rng, rng.integers(1, 4), VOCABULARY), SHAPE, TILES)
        for _ in range(2 * PERSONAS)
    ]
    return Episode(stack(sides[::2]), stack(sides[1::2]))


@pytest.fixture(scope="module")
def steps():
    """One compiled outer step a phase, and how often each was traced."""
    traced = collections.Counter()

    def step(number, state, episodes, rates):
        traced[number] += 1
        return outer.outer_step(state, episodes, rates, phase=AMTML[number], config=CONFIG)

    return [jax.jit(functools.partial(step, number)) for number in range(2)], traced


@pytest.mark.long
def test_changing_rates_compiles_nothing(state, episodes, steps):
    compiled, traced = steps
    dtypes = jax.tree.map(lambda x: x.dtype, state)
    for iteration in range(1, 7):
        settings = rates(1 / iteration, 0.1 * iteration, 0.001 * iteration)
        state, metrics = compiled[iteration % 2](state, episodes, settings)
        assert state.step == iteration
        assert jax.tree.map(lambda x: x.dtype, state) == dtypes
        assert np.isfinite(metrics.loss)
    assert traced == {0: 1, 1: 1}


def changed(targets, task):
    """Other words wherever there are words."""
    other = np.where(targets.task == task, (targets.ids + 1) % VOCABULARY, targets.ids)
    return targets.replace(ids=other.astype(np.int32))


@pytest.mark.long
@pytest.mark.parametrize(
    "iteration, read",
    [
        (1, {("support", "persona"), ("query", "response")}),
        (2, {("support", "response"), ("query", "persona")}),
        (3, {("support", "persona"), ("query", "response")}),
    ],
)
def test_amtml_alternates(state, episodes, steps, iteration, read):
    """Odd: statements adapt and responses judge; even: the other way round."""
    compiled, _ = steps
    step = compiled[iteration % 2]

    def gradient(episodes):
        """Clipped and in tenths: Adam's first moment after the first step."""
        new, metrics = step(state, episodes, rates())
        return jax.tree.leaves(optax.tree.get(new.opt_state, "mu")), metrics

    before, metrics = gradient(episodes)
    for side in ("support", "query"):
        for number, task in enumerate(("response", "persona")):
            (tiles,) = getattr(episodes, side)
            other = tiles.replace(targets=changed(tiles.targets, number))
            after, _ = gradient(episodes.replace(**{side: (other,)}))
            same = [np.array_equal(a, b) for a, b in zip(before, after)]
            tokens = getattr(getattr(metrics, side), task).tokens
            if (side, task) in read:
                assert not any(same)
                real = tiles.targets.inputs.segment > 0
                assert tokens == np.sum(real & (tiles.targets.task == number))
            else:
                assert all(same)
                assert tokens == 0


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["std", "std_p", "paml"])
def test_strategies_that_need_no_statements(state, episodes, strategy):
    """What stands in the slots of personas changes nothing."""
    step = jax.jit(
        functools.partial(outer.outer_step, phase=STRATEGIES[strategy].phases[0], config=CONFIG)
    )

    def other_words(tiles):
        targets = tiles.targets
        ids = np.where(targets.task == 1, (targets.ids + 3) % VOCABULARY, targets.ids)
        return tiles.replace(targets=targets.replace(ids=ids))

    other = jax.tree.map(other_words, episodes, is_leaf=lambda x: isinstance(x, Tiles))
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (other, episodes))))
    new, old = (step(state, some, rates())[0] for some in (other, episodes))
    jax.tree.map(np.testing.assert_array_equal, new, old)
