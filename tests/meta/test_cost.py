"""Hold counted operations against XLA's own count, and the packed share against a count by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark.slots import real_shares, tile_work
from mtml_jax.config import ModelConfig, StepConfig, TileShape
from mtml_jax.data.encode import EncodedDialogue, Encoding, Example
from mtml_jax.data.episodes import stack_episodes
from mtml_jax.data.packing import pack
from mtml_jax.data.vocab import SPECIALS, Vocabulary
from mtml_jax.meta.cost import PRICES, Work, count_step, forward_operations, work_of
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.model import transformer
from mtml_jax.strategies import STRATEGIES, TASKS
from mtml_jax.types import Rates, Tokens

MODEL = ModelConfig(encoder_layers=2, decoder_layers=3, heads=2, width=128, feed_forward=320)
WORDS = 509
VOCABULARY = Vocabulary(SPECIALS)
EXAMPLE = Example(tuple(range(6, 67)), tuple(range(6, 19)), tuple(range(6, 37)))


def flops(function, *arguments, optimised=True):
    """XLA's count for the optimised program, or for the one before compilation."""
    lowered = jax.jit(function).lower(*arguments)
    return (lowered.compile() if optimised else lowered).cost_analysis()["flops"]


def shapes(config):
    return jax.eval_shape(lambda: transformer.init(jax.random.key(0), WORDS, config))


def tokens(length):
    ids = np.arange(5, 5 + length, dtype=np.int32)
    return Tokens(ids, np.ones_like(ids), ids - 5)


@pytest.mark.parametrize("tasks", [("response",), ("response", "persona")])
def test_a_forward_pass_without_padding(tasks):
    lengths = [len(getattr(EXAMPLE, task)) for task in tasks]

    def forward(params, context, *targets):
        memory_SD = transformer.encode(params, context, MODEL)
        matrix_VD = transformer.output_matrix(params, MODEL)
        return [
            transformer.decode(params, memory_SD, context.segment, inputs, inputs.segment, MODEL)
            @ matrix_VD.T
            for inputs in targets
        ]

    arguments = (tokens(len(EXAMPLE.context)), *map(tokens, lengths))
    counted = forward_operations(work_of([EXAMPLE], tasks), MODEL, WORDS)
    # XLA counts norms, softmax and activations, too.
    assert 1.0 <= flops(forward, shapes(MODEL), *arguments) / counted < 1.03


@pytest.mark.long
@pytest.mark.parametrize("gradient", ["first_order", "finite_difference", "mixed", "exact"])
def test_a_step_at_its_price(gradient):
    """One occupied tile of two, so that XLA counts each loop's body once and hoists nothing."""
    model = ModelConfig(encoder_layers=1, decoder_layers=1, heads=2, width=128, feed_forward=320)
    context, response, persona = EXAMPLE.context, EXAMPLE.response, EXAMPLE.persona
    shape = TileShape(1, len(context), len(response), len(persona))
    side = EncodedDialogue("c", [EXAMPLE])
    episodes = stack_episodes([(None, side, side)], Encoding(VOCABULARY, shape), {TASKS: (2,)})
    [phase] = STRATEGIES["mtml"].phases
    step = functools.partial(
        mean_gradient, phase=phase, config=StepConfig(model, gradient=gradient)
    )
    rates = Rates(jnp.float32(0.8), jnp.float32(0.1), jnp.float32(0.1))
    forward = forward_operations(work_of([EXAMPLE], TASKS), model, WORDS)
    # A tile's stream lets both tasks' targets meet, in masked pairs.
    targets = len(response), len(persona)
    forward += forward_operations(Work(target_pairs=2 * targets[0] * targets[1]), model, WORDS)
    # Only the program of "mixed" repeats work, which XLA finds and removes.
    found = flops(step, shapes(model), episodes, rates, optimised=gradient == "mixed") / forward
    assert found == pytest.approx(sum(PRICES[gradient]), rel=0.04)


def test_a_dialogue_counts_its_tokens_and_pairs():
    small = Example((7,) * 5, (8,) * 2, (9,) * 3)
    assert work_of([small], ["response"]) == (5, 2, 25, 4, 10)
    assert work_of([small, small], ["response", "persona"]) == (10, 10, 50, 26, 50)


def test_a_step_counts_both_sets_with_their_own_targets():
    small = EncodedDialogue("a", [Example((7,) * 5, (8,) * 2, (9,) * 3)])
    large = EncodedDialogue("b", [Example((7,) * 11, (8,) * 13, (9,) * 17)])
    even, odd = STRATEGIES["amtml"].phases
    forward = functools.partial(forward_operations, model=MODEL, vocabulary=WORDS)
    found = count_step([(None, small, large)], even, MODEL, WORDS)
    assert found.support == forward(work_of(small.examples, ["response"]))
    assert found.query == forward(work_of(large.examples, ["persona"]))
    assert found.tokens == 5 + 2 + 11 + 17
    assert found.operations("mixed") == 11 * found.support + 3 * found.query
    assert count_step([(None, small, large)], odd, MODEL, WORDS).tokens == 5 + 3 + 11 + 13


def test_packing_keeps_the_work():
    rng = np.random.default_rng(0)
    examples = [
        Example(*(tuple(rng.integers(6, 99, rng.integers(1, most))) for most in (23, 7, 11)))
        for _ in range(9)
    ]
    shape = TileShape(rows=2, context=29, response=13, persona=31)
    packed = pack(examples, shape, 9)
    [tiles] = packed
    targets = tiles.targets
    real, executed = tile_work(tiles.context.segment, targets.reads, targets.task)
    assert real == work_of(examples, ["response", "persona"])
    used = int(np.any(tiles.context.segment > 0, axis=(1, 2)).sum())
    assert 1 < used < 9
    assert executed == tuple(
        used * n for n in (2 * 29, 13 + 31, 2 * 29**2, (13 + 31) ** 2, (13 + 31) * 2 * 29)
    )


def test_a_full_tile_is_all_real():
    shape = TileShape(1, len(EXAMPLE.context), len(EXAMPLE.response), len(EXAMPLE.persona))
    side, half = EncodedDialogue("c", [EXAMPLE]), EncodedDialogue("h", [
        Example(EXAMPLE.context[:30], EXAMPLE.response, EXAMPLE.persona)
    ])  # fmt: skip
    tasks = (("response",), ("response",))

    def shares(query):
        episodes = stack_episodes(
            [(None, side, query)], Encoding(VOCABULARY, shape), {tasks[0]: (2,)}, tasks=tasks
        )
        return real_shares(episodes, MODEL, WORDS)

    assert set(shares(side).values()) == {1.0}
    found = shares(half)
    assert found["encoder"] == (61 + 30) / (61 + 61)
    assert found["decoder"] == 1.0
    assert found["encoder"] < found["products"] < 1.0
    assert found["attention"] < found["total"] < found["products"]
