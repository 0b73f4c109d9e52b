"""Hold the loss against one example at a time, without packing, padding or tiles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.config import LossConfig, ModelConfig, TileShape
from mtml_jax.data.packing import pack
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.model import losses, transformer
from mtml_jax.types import Tokens

pytestmark = pytest.mark.usefixtures("float64")

MODEL = ModelConfig(
    encoder_layers=1,
    decoder_layers=2,
    heads=2,
    width=10,
    feed_forward=7,
    activation="relu",
    dtype="float64",
)
MEAN = LossConfig(MODEL, "mean")
SUM = LossConfig(MODEL, "sum")
VOCABULARY = 17
SHAPE = TileShape(rows=2, context=11, response=7, persona=13)
TILES = 3
ALPHA = 0.7

RESPONSE, PERSONA = losses.RESPONSE_ONLY, losses.PERSONA_ONLY
BOTH = (ALPHA, 1 - ALPHA)

weighted_loss = jax.jit(losses.weighted_loss, static_argnames="config")


@pytest.fixture(scope="module")
def params(draw_params):
    return draw_params(MODEL, VOCABULARY)


@pytest.fixture(scope="module")
def dialogue(draw_dialogue):
    return draw_dialogue(np.random.default_rng(5), 5, VOCABULARY)


@pytest.fixture(scope="module")
def packed(dialogue):
    return pack(dialogue, SHAPE, TILES)


def one_task(dialogue, task):
    return pack(dialogue, SHAPE, TILES, tasks=(task,))


@jax.jit
def log_probabilities(params, context, inputs):
    def tokens(ids):
        return Tokens(ids, jnp.ones_like(ids), jnp.arange(len(ids)))

    context = tokens(context)
    memory_SD = transformer.encode(params, context, MODEL)
    hidden_TD = transformer.decode(
        params, memory_SD, context.segment, tokens(inputs), jnp.ones_like(inputs), MODEL
    )
    return jax.nn.log_softmax(hidden_TD @ transformer.output_matrix(params, MODEL).T)


def plain_nll(params, examples, task, start=START):
    """(summed negative log-likelihood, tokens) of `task` over examples, one at a time."""
    nll = tokens = 0
    for example in examples:
        ids = getattr(example, task)
        inputs = np.asarray((start, *ids[:-1]), np.int32)
        log_TV = log_probabilities(params, np.asarray(example.context, np.int32), inputs)
        nll -= sum(log_TV[t, word] for t, word in enumerate(ids))
        tokens += len(ids)
    return nll, tokens


@pytest.fixture(scope="module")
def wanted(params, dialogue):
    """(nll, tokens) of each task."""
    return {task: plain_nll(params, dialogue, task) for task in ("response", "persona")}


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weights, task", [(RESPONSE, "response"), (PERSONA, "persona")])
@pytest.mark.parametrize("plain", [False, True])
def test_one_task(params, dialogue, packed, wanted, weights, task, plain):
    mean, summed = (dataclasses.replace(config, plain=plain) for config in (MEAN, SUM))
    nll, tokens = wanted[task]
    close(weighted_loss(params, packed, weights, config=mean)[0], nll / tokens)
    packed = one_task(dialogue, task)
    value, sums = weighted_loss(params, packed, weights, config=mean)
    close(value, nll / tokens)
    close(getattr(sums, task).nll, nll)
    assert getattr(sums, task).tokens == tokens
    other = sums.persona if task == "response" else sums.response
    assert (other.nll, other.tokens) == (0, 0)
    close(weighted_loss(params, packed, weights, config=summed)[0], nll)


@pytest.mark.parametrize("config", [MEAN, SUM], ids=["mean", "sum"])
def test_both_tasks(params, packed, wanted, config):
    (response, response_tokens), (persona, persona_tokens) = wanted.values()
    if config is MEAN:
        response, persona = response / response_tokens, persona / persona_tokens
    value, sums = weighted_loss(params, packed, BOTH, config=config)
    close(value, ALPHA * response + (1 - ALPHA) * persona)
    close((sums.response.nll, sums.persona.nll), [nll for nll, _ in wanted.values()])
    assert (sums.response.tokens, sums.persona.tokens) == (response_tokens, persona_tokens)
    close(weighted_loss(params, packed, (1.0, 0.0), config=config)[0], response)
    close(weighted_loss(params, packed, (0.0, 1.0), config=config)[0], persona)


def without(targets, lost):
    """Targets of which some tokens are made padding."""
    segment = np.where(lost, 0, targets.inputs.segment)
    return targets.replace(inputs=targets.inputs.replace(segment=segment))


def test_masked_targets_leave_the_loss_of_the_rest(params, dialogue):
    """Examples in tiles of their own, longest context first, so that tile n holds example n."""
    dialogue = sorted(dialogue, key=lambda e: -len(e.context))
    (packed,) = pack(dialogue, SHAPE, TILES)
    place = {}  # example -> (tile, segment of its context)
    for tile in range(TILES):
        for number in range(1, packed.context.segment[tile].max() + 1):
            here = packed.context.segment[tile] == number
            ids = tuple(packed.context.ids[tile][here])
            (index,) = [i for i, e in enumerate(dialogue) if e.context == ids]
            place[index] = (tile, number)
    assert len(place) == len(dialogue)
    dropped = [1, 3]
    rest = [e for i, e in enumerate(dialogue) if i not in dropped]
    lost = np.zeros_like(packed.targets.ids, bool)
    for tile, number in (place[i] for i in dropped):
        lost[tile] |= packed.targets.reads[tile] == number
    masked = (packed.replace(targets=without(packed.targets, lost)),)
    for weights, task in ((RESPONSE, "response"), (PERSONA, "persona")):
        nll, tokens = plain_nll(params, rest, task)
        value, sums = weighted_loss(params, masked, weights, config=MEAN)
        close(value, nll / tokens)
        close(getattr(sums, task).nll, nll)
        assert getattr(sums, task).tokens == tokens


def test_persona_task_with_a_start_token_of_its_own(params, dialogue, wanted):
    packed = pack(dialogue, SHAPE, TILES, distinct_start=True)
    nll, tokens = plain_nll(params, dialogue, "persona", START_PERSONA)
    close(weighted_loss(params, packed, PERSONA, config=MEAN)[0], nll / tokens)
    assert abs(nll - wanted["persona"][0]) > 1e-3
    nll, tokens = wanted["response"]
    close(weighted_loss(params, packed, RESPONSE, config=MEAN)[0], nll / tokens)


def test_a_model_of_zeros_is_uniform(params, packed, wanted):
    zeros = jax.tree.map(np.zeros_like, params)
    tokens = wanted["response"][1]
    close(weighted_loss(zeros, packed, RESPONSE, config=MEAN)[0], np.log(VOCABULARY))
    close(weighted_loss(zeros, packed, RESPONSE, config=SUM)[0], tokens * np.log(VOCABULARY))
    close(weighted_loss(zeros, packed, BOTH, config=MEAN)[0], np.log(VOCABULARY))


@pytest.mark.long
def test_sums_have_no_gradient(params, packed):
    def objective(params, weight):
        value, sums = losses.weighted_loss(params, packed, BOTH, config=MEAN)
        return value + weight * (sums.response.nll + sums.persona.nll)

    gradient = jax.jit(jax.grad(objective))
    without_sums, with_sums = gradient(params, 0.0), gradient(params, 1.0)
    jax.tree.map(np.testing.assert_array_equal, without_sums, with_sums)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(without_sums))


def test_nothing_to_learn_has_a_loss_of_zero(params, packed, wanted):
    value, sums = weighted_loss(
        params, jax.tree.map(np.zeros_like, packed), BOTH, config=MEAN
    )
    assert value == 0
    assert jax.tree.leaves(sums) == [0, 0, 0, 0]
    (tiles,) = packed
    silent = tiles.replace(targets=without(tiles.targets, tiles.targets.task == 1))
    value, sums = weighted_loss(params, (silent,), BOTH, config=MEAN)
    nll, tokens = wanted["response"]
    close(value, ALPHA * nll / tokens)
    assert (sums.persona.nll, sums.persona.tokens) == (0, 0)
