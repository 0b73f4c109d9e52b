"""Hold the counted operations of a decoder's step against XLA's own count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.config import StepConfig
from mtml_jax.config_decoder import LlamaConfig, LoraConfig
from mtml_jax.data.encode import EncodedDialogue
from mtml_jax.data.rows import Strand, pack_row
from mtml_jax.data.strands import Window
from mtml_jax.meta.cost_decoder import PRICES, Forward, count_decoder_step, forward_operations
from mtml_jax.meta.gradient import mean_gradient
from mtml_jax.model import llama, lora
from mtml_jax.strategies import STRATEGIES, TASKS
from mtml_jax.types import Episode, Rates

# One layer, because XLA counts the body of a loop once.
MODEL = LlamaConfig(
    layers=1, width=96, heads=3, key_value_heads=1, head_width=32, feed_forward=256,
    vocabulary=509, remat=False, lora=LoraConfig(rank=1, targets=("value",))
)  # fmt: skip
TRUNK = Strand(tuple(range(3, 43)), predicted=tuple(range(7, 31)))
BRANCH = Strand(tuple(range(50, 74)), predicted=tuple(range(9, 24)), task=1, fork=40)
WINDOW = Window(TRUNK, (BRANCH,), (7,))


def base():
    inner = MODEL.feed_forward
    shapes = {
        "query": (96, 96), "key": (96, 32), "value": (96, 32), "output": (96, 96),
        "gate": (96, inner), "up": (96, inner), "down": (inner, 96),
    }  # fmt: skip
    layers = {name: jnp.ones((1, *shape)) for name, shape in shapes.items()}
    layers |= {name: jnp.ones((1, 96)) for name in ("attention_norm", "feed_forward_norm")}
    return {"embedding": jnp.ones((509, 96)), "norm": jnp.ones(96), "layers": layers}


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def executed(window=WINDOW, tasks=TASKS):
    """The counted operations, with all pairs of slots instead of those that see each other."""
    counted = forward_operations(window, tasks, MODEL).adapted
    strands = window.strands(tasks)
    tokens = sum(len(s.ids) for s in strands)
    seen = sum(len(s.ids) * s.fork + len(s.ids) * (len(s.ids) + 1) // 2 for s in strands)
    return counted + 2 * 2 * 96 * (tokens**2 - seen)


def test_a_row_counts_its_tokens_and_pairs():
    products = 96 * (2 * 96 + 2 * 32 + 3 * 256)
    pairs = 40 * 41 // 2 + 24 * 40 + 24 * 25 // 2
    layer = 2 * (64 * products + 2 * 96 * pairs)
    logits = 2 * (24 + 15) * 509 * 96
    assert forward_operations(WINDOW, TASKS, MODEL) == Forward(0, layer + logits)
    alone = forward_operations(WINDOW, ("response",), MODEL).adapted
    assert alone == 2 * (40 * products + 2 * 96 * (40 * 41 // 2)) + 2 * 24 * 509 * 96


def test_a_forward_pass_is_what_xla_counts():
    row, targets, _ = pack_row([WINDOW.strands(TASKS)], 64, 39)
    adapters = lora.init(jax.random.key(0), base(), MODEL.lora)
    run = functools.partial(llama.token_nll, config=MODEL, chunk=39)
    found = flops(run, base(), adapters, row, targets)
    # XLA counts norms, softmax and activations, too.
    assert 1.0 <= found / executed() < 1.06


@pytest.mark.parametrize("gradient", ["first_order", "mixed", "finite_difference"])
def test_a_step_at_its_price(gradient):
    """Of a single layer, the gradient of what lies below it is not computed, which saves some."""
    examples = pack_row([WINDOW.strands(TASKS)], 64, 39)
    episode = jax.tree.map(lambda x: np.asarray(x)[None], Episode(examples, examples))
    [phase] = STRATEGIES["mtml"].phases
    step = functools.partial(
        mean_gradient, phase=phase, config=StepConfig(MODEL, gradient=gradient)
    )
    adapters = lora.init(jax.random.key(0), base(), MODEL.lora)
    found = flops(step, adapters, episode, Rates(0.8, 0.1, 0.1), base())
    assert found / executed() == pytest.approx(sum(PRICES[gradient]), rel=0.1)


def test_frozen_layers_run_once_for_each_set():
    model = LlamaConfig(**{**vars(MODEL), "layers": 5, "lora": LoraConfig(layers=2)})
    side = EncodedDialogue("c", [WINDOW])
    [phase] = STRATEGIES["mtml"].phases
    count = count_decoder_step([(None, side, side)], phase, model)
    whole = forward_operations(WINDOW, TASKS, MODEL).adapted
    logits = 2 * 39 * 509 * 96
    assert count.support == Forward(3 * (whole - logits), 2 * (whole - logits) + logits)
    assert count.tokens == 2 * 64
    assert count.operations("mixed") == 2 * count.query.frozen + 8 * count.query.adapted
