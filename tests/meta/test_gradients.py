"""Check the meta-gradient in float64 by finite differences and by every other way to compute it.

Sizes: 16 personas, of 1 to 5 turns in support and query, up to three tiles each.
The inner step is large, so that a gradient without the second order is far off.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mtml_jax.config import LossConfig, ModelConfig, StepConfig, TileShape
from mtml_jax.data.packing import pack, stack
from mtml_jax.meta import objectives
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.meta.objectives import Metrics, meta_objective
from mtml_jax.model.losses import RESPONSE_ONLY, weighted_loss
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES, Phase
from mtml_jax.types import Episode, Rates, TaskSums, TokenSums

pytestmark = pytest.mark.usefixtures("float64")

MODEL = ModelConfig(
    encoder_layers=1,
    decoder_layers=1,
    heads=2,
    width=6,
    feed_forward=11,
    activation="gelu",  # smooth: with ReLU the inner gradient jumps at kinks
    dtype="float64",
)
CONFIG = StepConfig(MODEL, gradient="mixed")  # as in training; test_textbook.py holds "exact" against it
EXACT = StepConfig(MODEL, gradient="exact")
VOCABULARY = 17
PERSONAS = 16
SHAPE, TILES = TileShape(rows=1, context=11, response=7, persona=13), 5
RATES = Rates(alpha=np.float64(0.7), inner_lr=np.float64(0.3), outer_lr=np.float64(0.01))

CASES = [(name, i) for name, s in STRATEGIES.items() for i in range(len(s.phases))]
QUICK = {("std", 0), ("mtml", 0)}
META_CASES = [(name, i) for name, i in CASES if STRATEGIES[name].phases[i].inner is not None]
(MTML,) = STRATEGIES["mtml"].phases
(STD,) = STRATEGIES["std"].phases
_, ODD = STRATEGIES["amtml"].phases


@functools.cache
def compiled(phase: Phase, config: StepConfig = CONFIG):
    """`mean_gradient` of (params, episodes, rates); each combination is compiled once."""
    return jax.jit(functools.partial(mean_gradient, phase=phase, config=config))


FIRST_ORDER = dataclasses.replace(CONFIG, gradient="first_order")


@pytest.fixture(scope="module")
def params(draw_params, float64):
    return jax.tree.map(jnp.asarray, draw_params(MODEL, VOCABULARY))


@pytest.fixture(scope="module")
def dialogues(draw_dialogue):
    """A pair of dialogues, support and query, for each persona."""
    rng = np.random.default_rng(1)
    return [
        tuple(draw_dialogue(rng, rng.integers(1, 6), VOCABULARY) for _ in range(2))
        for _ in range(PERSONAS)
    ]


def pack_all(dialogues, shape=SHAPE, tiles=TILES) -> Episode:
    support, query = zip(*dialogues)
    return Episode(
        stack([pack(examples, shape, tiles) for examples in support]),
        stack([pack(examples, shape, tiles) for examples in query]),
    )


@pytest.fixture(scope="module")
def episodes(dialogues):
    return pack_all(dialogues)


@pytest.fixture(scope="module")
def episodes_of(episodes, dialogues):
    """The episodes of a strategy: `std_p` has the statements in front of every context."""

    def in_front(example):
        return dataclasses.replace(example, context=example.persona[:-1] + example.context)

    informed = [tuple([in_front(e) for e in side] for side in sides) for sides in dialogues]
    return lambda strategy: pack_all(informed) if strategy == "std_p" else episodes


def check(function, params, episodes):
    """Checks that the gradient of `mean_gradient` is the derivative of its loss."""

    @jax.custom_vjp
    def objective(params):
        return function(params, episodes, RATES)[1].loss

    def forward(params):
        grads, metrics = function(params, episodes, RATES)
        return metrics.loss, grads

    def backward(grads, cotangent):
        return (jax.tree.map(lambda g: cotangent * g, grads),)

    objective.defvjp(forward, backward)
    check_grads(objective, (params,), order=1, modes=("rev",), atol=1e-6, rtol=1e-6, eps=1e-6)


def assert_close(got, wanted, tolerance):
    """Every leaf, relative to its largest element."""

    def one(got, wanted):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale)

    jax.tree.map(one, got, wanted)


@pytest.mark.parametrize(
    "strategy, phase", [pytest.param(*c, marks=() if c in QUICK else pytest.mark.long) for c in CASES]
)
def test_gradient_is_the_derivative(params, episodes_of, strategy, phase):
    check(compiled(STRATEGIES[strategy].phases[phase]), params, episodes_of(strategy))


@pytest.mark.parametrize(
    "strategy, phase", [pytest.param(*c, marks=() if c in QUICK else pytest.mark.long) for c in META_CASES]
)
def test_the_first_order_gradient_is_not(params, episodes, strategy, phase):
    exact = compiled(STRATEGIES[strategy].phases[phase])
    first_order = compiled(STRATEGIES[strategy].phases[phase], FIRST_ORDER)
    _, wanted = exact(params, episodes, RATES)
    _, metrics = first_order(params, episodes, RATES)
    assert_close(metrics, wanted, 1e-12)
    with pytest.raises(AssertionError):
        check(first_order, params, episodes)


def test_without_an_inner_step_first_order_is_exact(params, episodes):
    rates = RATES.replace(inner_lr=np.float64(0.0))
    assert_close(
        compiled(MTML)(params, episodes, rates),
        compiled(MTML, FIRST_ORDER)(params, episodes, rates),
        1e-12,
    )


@pytest.mark.long  # the same in float32 is quick
def test_finite_differences_come_close(params, episodes):
    """In float64, where dropping the second order is far off."""
    difference = dataclasses.replace(CONFIG, gradient="finite_difference")
    for phase in (MTML, ODD):
        wanted = compiled(phase)(params, episodes, RATES)
        assert_close(compiled(phase, difference)(params, episodes, RATES), wanted, 1e-6)
        with pytest.raises(AssertionError):
            assert_close(compiled(phase, FIRST_ORDER)(params, episodes, RATES), wanted, 1e-2)


@pytest.mark.long
def test_finite_differences_come_close_in_float32(params, episodes):
    single = dataclasses.replace(MODEL, dtype="float32")
    difference = StepConfig(single, gradient="finite_difference")
    wanted = compiled(MTML)(params, episodes, RATES)
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    assert_close(compiled(MTML, difference)(params, episodes, RATES), wanted, 1e-2)


@pytest.fixture(scope="module")
def one_persona(float64):
    """Loss, Metrics and derivatives of (params, episode of one persona, rates)."""
    objective = functools.partial(meta_objective, phase=MTML, config=EXACT)
    return jax.jit(jax.value_and_grad(objective, argnums=(0, 2), has_aux=True))


@pytest.mark.long
def test_vmap_equals_a_loop(params, episodes, one_persona):
    """The gradient of the mean is `jax.grad` of each persona's meta-objective, averaged."""
    results = [
        one_persona(params, jax.tree.map(lambda x: x[i], episodes), RATES)
        for i in range(PERSONAS)
    ]
    total = jax.tree.map(lambda *leaves: sum(leaves), *results)
    (loss, metrics), (grads, _) = total
    wanted_grads = jax.tree.map(lambda g: g / PERSONAS, grads)
    grads, got = compiled(MTML)(params, episodes, RATES)
    assert_close(grads, wanted_grads, 1e-12)
    assert_close(got, metrics.replace(loss=loss / PERSONAS), 1e-12)


@pytest.mark.long
@pytest.mark.parametrize("name", ["alpha", "inner_lr"])
def test_derivatives_of_the_rates(params, episodes, one_persona, name):
    episode = jax.tree.map(lambda x: x[0], episodes)
    _, (_, derivatives) = one_persona(params, episode, RATES)
    eps = 1e-6
    below, above = (
        one_persona(params, episode, RATES.replace(**{name: getattr(RATES, name) + shift}))[0][0]
        for shift in (-eps, eps)
    )
    slope = (above - below) / (2 * eps)
    assert abs(slope) > 1e-2
    np.testing.assert_allclose(getattr(derivatives, name), slope, rtol=1e-6)


@pytest.mark.long
def test_supervised_is_the_mean_over_all_tokens(params, episodes):
    """Turns of all episodes in one batch; with reduction "sum" the mean over personas."""
    loss = jax.jit(functools.partial(weighted_loss, config=LossConfig(MODEL, "sum")))
    results = [
        loss(params, jax.tree.map(lambda x: x[i], examples), RESPONSE_ONLY)
        for i in range(PERSONAS)
        for examples in (episodes.support, episodes.query)
    ]
    nll, sums = jax.tree.map(lambda *leaves: sum(leaves), *results)
    tokens = sums.response.tokens
    summed = dataclasses.replace(CONFIG, reduction="sum")
    grads, metrics = compiled(STD)(params, episodes, RATES)
    assert_close(metrics.loss, nll / tokens, 1e-12)
    assert metrics.support.response.tokens + metrics.query.response.tokens == tokens
    grads_of_sum, metrics = compiled(STD, summed)(params, episodes, RATES)
    assert_close(metrics.loss, nll / PERSONAS, 1e-12)
    assert_close(grads_of_sum, jax.tree.map(lambda g: g * tokens / PERSONAS, grads), 1e-12)


def test_multitask_weighs_the_means_of_both_tasks(params, episodes):
    """alpha L_res + (1 - alpha) L_rec without an inner step, each over all its tokens (eq. 6)."""
    (multitask,) = STRATEGIES["multitask"].phases
    loss = jax.jit(functools.partial(weighted_loss, config=LossConfig(MODEL, "sum")))
    sums = [
        loss(params, jax.tree.map(lambda x: x[i], examples), (1.0, 1.0))[1]
        for i in range(PERSONAS)
        for examples in (episodes.support, episodes.query)
    ]
    total = jax.tree.map(lambda *leaves: sum(leaves), *sums)
    means = [task.nll / task.tokens for task in (total.response, total.persona)]
    wanted = RATES.alpha * means[0] + (1 - RATES.alpha) * means[1]
    assert abs(means[0] - means[1]) > 1e-3
    assert_close(compiled(multitask)(params, episodes, RATES)[1].loss, wanted, 1e-12)


def toy_loss(params, examples, weights, *, config, base=None):
    """A curved loss that compiles quickly, for tests that do not depend on the loss."""
    del config
    loss = jnp.sum(jnp.cos(params["w"] * examples)) + weights[0] * jnp.sum(params["w"] ** 3)
    squares = jnp.sum(params["w"] ** 2)
    return loss, TaskSums(TokenSums(loss, squares), TokenSums(-loss, 2 * squares))


@pytest.fixture
def toy(float64, monkeypatch):
    """(params, episodes) for `toy_loss`, which takes the place of the real loss."""
    monkeypatch.setattr(objectives, "weighted_loss", toy_loss)
    rng = np.random.default_rng(7)
    support, query = rng.standard_normal((2, PERSONAS, 5))
    return {"w": jnp.asarray(rng.standard_normal(5))}, Episode(support, query)


def toy_gradient(config=CONFIG, placement=None):
    """`compiled`, but never shared with tests of the real loss."""
    gradient = functools.partial(mean_gradient, phase=MTML, config=config, placement=placement)
    return jax.jit(gradient)


@pytest.mark.parametrize("chunk", [1, 4, PERSONAS])
def test_chunks_add_up(toy, chunk):
    chunked = dataclasses.replace(CONFIG, persona_chunk=chunk)
    wanted = toy_gradient()(*toy, RATES)
    assert_close(toy_gradient(chunked)(*toy, RATES), wanted, 1e-12)


def test_a_chunk_that_does_not_divide_is_refused(toy):
    config = dataclasses.replace(CONFIG, persona_chunk=5)
    with pytest.raises(ValueError, match="divides the 16 personas of each device, got 5"):
        mean_gradient(*toy, RATES, phase=MTML, config=config)


@pytest.mark.parametrize("chunk", [None, 4])
def test_two_devices_equal_one(toy, chunk):
    mesh = persona_mesh(PERSONAS)
    assert mesh.size == 2
    params, episodes = replicate(toy[0], mesh), split_personas(toy[1], mesh)
    chunked = dataclasses.replace(CONFIG, persona_chunk=chunk)
    shared = toy_gradient(chunked, Placement(mesh))(params, episodes, replicate(RATES, mesh))
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(shared))
    assert_close(shared, toy_gradient()(*toy, RATES), 1e-12)


def test_several_inner_steps_take_the_support_set_again(toy):
    params, episodes = toy
    episode = jax.tree.map(lambda x: x[3], episodes)
    config = dataclasses.replace(CONFIG, inner_steps=3)

    weights = RATES.alpha, 1 - RATES.alpha

    def by_hand(params):
        adapted = params
        for _ in range(3):
            grads = jax.grad(toy_loss, has_aux=True)(
                adapted, episode.support, weights, config=None
            )[0]
            adapted = jax.tree.map(lambda p, g: p - RATES.inner_lr * g, adapted, grads)
        loss, query = toy_loss(adapted, episode.query, weights, config=None)
        support = toy_loss(params, episode.support, weights, config=None)[1]
        return loss, Metrics(loss, support, query)

    objective = functools.partial(meta_objective, phase=MTML, config=config)
    assert_close(
        jax.jit(jax.value_and_grad(objective, has_aux=True))(params, episode, RATES),
        jax.jit(jax.value_and_grad(by_hand, has_aux=True))(params),
        1e-12,
    )


def test_the_order_of_personas_does_not_matter(params, episodes):
    order = np.random.default_rng(3).permutation(PERSONAS)
    assert_close(
        compiled(MTML)(params, jax.tree.map(lambda x: x[order], episodes), RATES),
        compiled(MTML)(params, episodes, RATES),
        1e-12,
    )


def test_contents_of_padding_do_not_matter(params, episodes):
    rng = np.random.default_rng(5)

    def spoil_tokens(tokens):
        free = tokens.segment == 0
        return tokens.replace(
            ids=np.where(free, rng.integers(0, VOCABULARY, free.shape), tokens.ids),
            position=np.where(free, rng.integers(0, 7, free.shape), tokens.position),
        )

    def spoil_targets(targets):
        free = targets.inputs.segment == 0
        return targets.replace(
            task=np.where(free, rng.integers(0, 2, free.shape), targets.task),
            reads=np.where(free, rng.integers(0, 2, free.shape), targets.reads),
            inputs=spoil_tokens(targets.inputs),
            ids=np.where(free, rng.integers(0, VOCABULARY, free.shape), targets.ids),
        )

    def spoil(examples):
        return tuple(
            tiles.replace(
                context=spoil_tokens(tiles.context), targets=spoil_targets(tiles.targets)
            )
            for tiles in examples
        )

    spoiled = Episode(spoil(episodes.support), spoil(episodes.query))
    jax.tree.map(
        np.testing.assert_array_equal,
        compiled(MTML)(params, jax.tree.map(lambda x: x.astype(np.int32), spoiled), RATES),
        compiled(MTML)(params, episodes, RATES),
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "shape, tiles",
    [
        (TileShape(1, 7, 4, 5), 7),
        (TileShape(1, 37, 23, 29), 1),
        (TileShape(2, 13, 7, 9, small=TileShape(1, 7, 4, 5)), 5),
    ],
    ids=["one example a tile and tiles of padding", "all in one row", "two kinds and two rows"],
)
def test_packing_does_not_matter(params, episodes, dialogues, shape, tiles):
    assert_close(
        compiled(MTML, FIRST_ORDER)(params, pack_all(dialogues, shape, tiles), RATES),
        compiled(MTML, FIRST_ORDER)(params, episodes, RATES),
        1e-10,
    )
