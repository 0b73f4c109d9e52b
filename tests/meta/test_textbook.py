"""Hold the textbook's meta-step against the one that training takes, for every strategy.

The lines between the two marks are self-contained, so that documentation can show them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtml_jax.config import LossConfig, ModelConfig, StepConfig, TileShape
from mtml_jax.data.packing import pack, stack
from mtml_jax.meta import outer
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.model.losses import weighted_loss
from mtml_jax.strategies import STRATEGIES, task_weights
from mtml_jax.types import Episode, MetaState, Rates

pytestmark = pytest.mark.usefixtures("float64")

MODEL = ModelConfig(
    encoder_layers=1,
    decoder_layers=1,
    heads=2,
    width=6,
    feed_forward=11,
    activation="gelu",
    dtype="float64",
)
VOCABULARY, PERSONAS = 17, 3
SHAPE, TILES = TileShape(rows=1, context=11, response=7, persona=13), 4
RATES = Rates(np.float64(0.7), np.float64(0.3), np.float64(0.01))
CASES = [(name, i) for name, s in STRATEGIES.items() for i in range(len(s.phases))]
QUICK = {("mtml", 0)}  # the others take minutes to compile


# textbook: begin
def adapt(params, support, inner_loss, inner_lr):
    grads = jax.grad(inner_loss)(params, support)
    return jax.tree.map(lambda p, g: p - inner_lr * g, params, grads)  # eq. 11


def meta_objective(params, episodes, inner_loss, outer_loss, inner_lr):
    def one_persona(episode):
        adapted = adapt(params, episode.support, inner_loss, inner_lr)
        return outer_loss(adapted, episode.query)  # eq. 12

    return jnp.mean(jax.vmap(one_persona)(episodes))  # eq. 14


def meta_step(params, opt_state, optimizer, episodes, inner_loss, outer_loss, inner_lr):
    objective = functools.partial(meta_objective, inner_loss=inner_loss, outer_loss=outer_loss)
    loss, grads = jax.value_and_grad(objective)(params, episodes, inner_lr=inner_lr)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss, grads
# textbook: end


@pytest.fixture(scope="module")
def params(draw_params, float64):
    return jax.tree.map(jnp.asarray, draw_params(MODEL, VOCABULARY))


@pytest.fixture(scope="module")
def episodes(draw_dialogue):
    rng = np.random.default_rng(1)
    support, query = (
        stack(
            [
                pack(draw_dialogue(rng, turns, VOCABULARY), SHAPE, TILES)
                for turns in rng.integers(1, 4, PERSONAS)
            ]
        )
        for _ in range(2)
    )
    return Episode(support, query)


def losses_of(phase, episodes):
    """The textbook's (inner loss, outer loss, episodes) of a phase."""

    def loss(tasks, reduction, scales):
        weights = [w * s for w, s in zip(task_weights(tasks, RATES.alpha), scales)]
        config = LossConfig(MODEL, reduction, plain=True)
        return lambda params, examples: weighted_loss(params, examples, weights, config=config)[0]

    if phase.inner:
        return loss(phase.inner, "mean", (1, 1)), loss(phase.outer, "mean", (1, 1)), episodes
    # Supervised: no inner step, and all turns in one batch, which has one mean for each task.
    every = episodes.replace(query=episodes.support + episodes.query)
    counts = [
        sum(np.sum((t.targets.task == n) & (t.targets.ids > 0)) for t in every.query)
        for n in range(2)
    ]
    scales = [PERSONAS / count for count in counts]
    return lambda params, support: 0.0 * params["embedding"][0, 0], loss(phase.outer, "sum", scales), every


def assert_close(got, wanted, tolerance):
    """Every leaf, relative to its largest element."""
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * np.abs(w).max()),
        got,
        wanted,
    )


@pytest.fixture(scope="module")
def textbook(params, episodes):
    """(strategy, number of the phase) -> (new parameters, loss, gradient), computed once."""

    @functools.cache
    def of(strategy, number):
        inner_loss, outer_loss, its_episodes = losses_of(STRATEGIES[strategy].phases[number], episodes)
        optimizer = optax.chain(optax.clip_by_global_norm(2.0), optax.adam(RATES.outer_lr))
        step = functools.partial(
            meta_step, optimizer=optimizer, inner_loss=inner_loss, outer_loss=outer_loss,
            inner_lr=RATES.inner_lr
        )
        stepped, _, loss, grads = jax.jit(step)(params, optimizer.init(params), episodes=its_episodes)
        return stepped, loss, grads

    return of


def ours(params, episodes, phase, gradient):
    config = StepConfig(MODEL, gradient=gradient)
    return jax.jit(functools.partial(mean_gradient, phase=phase, config=config))(params, episodes, RATES)


@pytest.mark.parametrize(
    "strategy, number", [pytest.param(*c, marks=() if c in QUICK else pytest.mark.long) for c in CASES]
)
def test_the_textbook_computes_the_same(params, episodes, textbook, strategy, number, monkeypatch):
    phase = STRATEGIES[strategy].phases[number]
    stepped, loss, grads = textbook(strategy, number)
    our_grads, metrics = ours(params, episodes, phase, "mixed")
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-12)
    assert_close(our_grads, grads, 1e-10)

    # From the gradient to the new parameters.
    monkeypatch.setattr(outer, "mean_gradient", lambda *_, **__: (our_grads, metrics))
    state, _ = outer.outer_step(
        outer.init_state(params), episodes, RATES, phase=phase, config=StepConfig(MODEL)
    )
    assert isinstance(state, MetaState)
    assert_close(state.params, stepped, 1e-9)


@pytest.mark.long
@pytest.mark.parametrize("strategy, number", [c for c in CASES if STRATEGIES[c[0]].phases[c[1]].inner])
def test_reverse_over_reverse_is_the_textbook_too_and_the_first_order_is_not(
    params, episodes, textbook, strategy, number
):
    phase = STRATEGIES[strategy].phases[number]
    _, loss, grads = textbook(strategy, number)
    our_grads, metrics = ours(params, episodes, phase, "exact")
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-12)
    assert_close(our_grads, grads, 1e-10)
    with pytest.raises(AssertionError):
        assert_close(ours(params, episodes, phase, "first_order")[0], grads, 1e-2)
