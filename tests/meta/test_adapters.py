"""Check the meta-gradient through the adapters of a frozen decoder, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mtml_jax.config import LossConfig, StepConfig
from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.packing import stack
from mtml_jax.data.rows import Strand, pack_row
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.model import llama, lora
from mtml_jax.model.lora import LoraConfig
from mtml_jax.model.losses import weighted_loss
from mtml_jax.sharding import Placement, persona_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES, TASKS
from mtml_jax.types import Episode, Rates

pytestmark = pytest.mark.usefixtures("float64")

VOCABULARY, PERSONAS, SLOTS, PREDICTED = 17, 4, 40, 24
MODEL = LlamaConfig(
    layers=2, width=8, heads=2, key_value_heads=1, head_width=4, feed_forward=6,
    vocabulary=VOCABULARY, dtype="float64", remat=False, lora=LoraConfig(rank=2, layers=1)
)  # fmt: skip
EXACT = StepConfig(MODEL)
RATES = Rates(alpha=np.float64(0.7), inner_lr=np.float64(0.5), outer_lr=np.float64(0.01))
QUICK = {("std", 0), ("mtml", 0)}
CASES = [
    pytest.param(name, i, marks=() if (name, i) in QUICK else pytest.mark.long)
    for name, s in STRATEGIES.items()
    for i in range(len(s.phases))
]
META_CASES = [case for case in CASES if STRATEGIES[case.values[0]].adapts]
(MTML,) = STRATEGIES["mtml"].phases


@pytest.fixture(scope="module")
def model(float64):
    """(base, adapters with B that is not zero)."""
    rng = np.random.default_rng(0)
    shapes = {
        "query": (8, 8), "key": (8, 4), "value": (8, 4), "output": (8, 8),
        "gate": (8, 6), "up": (8, 6), "down": (6, 8),
    }  # fmt: skip
    layers = {name: jnp.asarray(0.4 * rng.standard_normal((2, *s))) for name, s in shapes.items()}
    layers |= {name: jnp.ones((2, 8)) for name in ("attention_norm", "feed_forward_norm")}
    embedding = jnp.asarray(rng.standard_normal((VOCABULARY, 8)))
    base = {"embedding": embedding, "norm": jnp.ones(8), "layers": layers}
    base = lora.split_layers(base, MODEL.lora)
    adapters = jax.tree.map(
        lambda x: jnp.asarray(0.4 * rng.standard_normal(x.shape)),
        lora.init(jax.random.key(0), base, MODEL.lora),
    )
    return base, adapters


def draw_dialogue(rng, in_front=()):
    """A dialogue of one to three replies, and a persona branch after each of them."""
    persona = tuple(int(i) for i in rng.integers(1, VOCABULARY, 3))
    trunk, predicted, branches = [*in_front], [], []
    for _ in range(rng.integers(1, 4)):
        trunk += (int(i) for i in rng.integers(1, VOCABULARY, rng.integers(1, 4)))
        reply = [int(i) for i in rng.integers(1, VOCABULARY, rng.integers(1, 4))]
        predicted += range(len(trunk), len(trunk) + len(reply))
        trunk += reply
        branches.append(Strand(persona, predicted=(0, 1, 2), task=1, fork=len(trunk)))
    return [Strand(tuple(trunk), tuple(predicted)), *branches]


def draw_episodes(in_front=()):
    rng = np.random.default_rng(1)

    def side():
        return stack(
            [pack_row([draw_dialogue(rng, in_front)], SLOTS, PREDICTED) for _ in range(PERSONAS)]
        )

    return Episode(side(), side())


EPISODES, INFORMED = draw_episodes(), draw_episodes(in_front=(3, 1, 4))


def episodes_of(strategy):
    return INFORMED if STRATEGIES[strategy].persona_in_context else EPISODES


@functools.cache
def compiled(phase, config=EXACT):
    """`mean_gradient` of (adapters, episodes, base)."""

    def gradient(adapters, episodes, base):
        return mean_gradient(adapters, episodes, RATES, base, phase=phase, config=config)

    return jax.jit(gradient)


def changed(**changes):
    return dataclasses.replace(EXACT, **changes)


def check(function, model, episodes):
    """Checks that the gradient of `mean_gradient` is the derivative of its loss."""
    base, adapters = model

    @jax.custom_vjp
    def objective(adapters):
        return function(adapters, episodes, base)[1].loss

    def forward(adapters):
        grads, metrics = function(adapters, episodes, base)
        return metrics.loss, grads

    objective.defvjp(forward, lambda grads, v: (jax.tree.map(lambda g: v * g, grads),))
    check_grads(objective, (adapters,), order=1, modes=("rev",), atol=1e-6, rtol=1e-6, eps=1e-6)


def assert_close(got, wanted, tolerance):
    """Every leaf, relative to its largest element."""

    def one(got, wanted):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())

    jax.tree.map(one, got, wanted)


@pytest.mark.parametrize("strategy, phase", CASES)
def test_gradient_is_the_derivative(model, strategy, phase):
    check(compiled(STRATEGIES[strategy].phases[phase]), model, episodes_of(strategy))


@pytest.mark.parametrize("strategy, phase", META_CASES)
def test_the_first_order_gradient_is_not(model, strategy, phase):
    phase = STRATEGIES[strategy].phases[phase]
    with pytest.raises(AssertionError):
        check(compiled(phase, changed(gradient="first_order")), model, EPISODES)


@pytest.mark.long
@pytest.mark.parametrize("strategy, phase", META_CASES)
# A one-sided difference over 1.5e-7 of an inner step is off by about as much times the curvature.


@pytest.mark.long
@pytest.mark.parametrize("gradient, tolerance", [("mixed", 1e-12), ("finite_difference", 1e-5)])
def test_other_second_order_modes_agree(model, strategy, phase, gradient, tolerance):
    base, adapters = model
    phase = STRATEGIES[strategy].phases[phase]
    wanted = compiled(phase)(adapters, EPISODES, base)
    got = compiled(phase, changed(gradient=gradient))(adapters, EPISODES, base)
    assert_close(got, wanted, tolerance)


@pytest.mark.long
@pytest.mark.parametrize(
    "config",
    [
        changed(persona_chunk=1),
        changed(persona_chunk=2, gradient="mixed"),
        changed(model=dataclasses.replace(MODEL, remat=True), gradient="mixed"),
    ],
    ids=["one by one", "two at a time", "layers recomputed"],
)


@pytest.mark.long
def test_settings_of_memory_do_not_change_the_gradient(model, config):
    base, adapters = model
    wanted = compiled(MTML)(adapters, EPISODES, base)
    assert_close(compiled(MTML, config)(adapters, EPISODES, base), wanted, 1e-12)


@pytest.mark.long
def test_two_inner_steps(model):
    check(compiled(MTML, changed(inner_steps=2, gradient="mixed")), model, EPISODES)


@pytest.mark.long
def test_devices_share_the_personas_and_each_has_the_base(model):
    base, adapters = model
    mesh = persona_mesh(PERSONAS)
    assert mesh.size > 1
    config = changed(gradient="mixed")
    step = jax.jit(
        functools.partial(mean_gradient, phase=MTML, config=config, placement=Placement(mesh))
    )
    shared = replicate((adapters, RATES, base), mesh)
    got = step(shared[0], split_personas(EPISODES, mesh), *shared[1:])
    assert_close(got, compiled(MTML)(adapters, EPISODES, base), 1e-12)


def test_loss_by_hand(model):
    """alpha and 1 - alpha times the mean over the tokens of each task (eq. 6)."""
    base, adapters = model
    row, targets, _ = one = jax.tree.map(lambda x: x[0], EPISODES.support)
    hidden_TD = jax.jit(functools.partial(llama.decode, config=MODEL))(base, adapters, row)
    log_p_TV = jax.nn.log_softmax(hidden_TD @ base["embedding"].T)
    losses: dict[int, list] = {0: [], 1: []}
    for slot, token, task, segment in zip(targets.slot, targets.ids, targets.task, targets.segment):
        if segment:
            losses[int(task)].append(-log_p_TV[slot, token])
    config = LossConfig(MODEL)
    loss, sums = jax.jit(functools.partial(weighted_loss, config=config))(
        adapters, one, (0.7, 0.3), base=base
    )
    wanted = 0.7 * np.mean(losses[0]) + 0.3 * np.mean(losses[1])
    np.testing.assert_allclose(loss, wanted, rtol=1e-12)
    for number, task in enumerate(TASKS):
        sum_ = getattr(sums, task)
        assert sum_.tokens == len(losses[number]) > 0
        np.testing.assert_allclose(sum_.nll, np.sum(losses[number]), rtol=1e-12)
