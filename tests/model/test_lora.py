"""Adapters: what they begin as, where they act, and that merging changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.rows import Strand, pack_row
from mtml_jax.model import llama, lora
from mtml_jax.model.lora import LoraConfig

pytestmark = pytest.mark.usefixtures("float64")

SIZES = {"layers": 3, "width": 10, "heads": 4, "key_value_heads": 2, "head_width": 6}
CONFIG = LlamaConfig(**SIZES, feed_forward=13, vocabulary=17, dtype="float64")
ROW, TARGETS, _ = pack_row([[Strand((3, 1, 4, 1, 5), predicted=(1, 2, 4))]], slots=7, predicted=3)


def draw_base():
    """A base of `CONFIG` with random matrices."""
    rng = np.random.default_rng(0)
    queries, keys = 4 * 6, 2 * 6
    shapes = {
        "query": (10, queries), "key": (10, keys), "value": (10, keys), "output": (queries, 10),
        "gate": (10, 13), "up": (10, 13), "down": (13, 10),
    }  # fmt: skip
    layers = {name: 0.3 * rng.standard_normal((3, *shape)) for name, shape in shapes.items()}
    layers |= {name: np.ones((3, 10)) for name in ("attention_norm", "feed_forward_norm")}
    return {"embedding": rng.standard_normal((17, 10)), "norm": np.ones(10), "layers": layers}


def adapted(layers=None, targets=lora.TARGETS, initialiser="gaussian"):
    """(config, base, fresh adapters)."""
    settings = LoraConfig(
        rank=2, scale=1.5, targets=targets, layers=layers, initialiser=initialiser
    )
    base = lora.split_layers(draw_base(), settings)
    adapters = lora.init(jax.random.key(1), base, settings)
    return dataclasses.replace(CONFIG, lora=settings), base, adapters


decode = jax.jit(llama.decode, static_argnames="config")


def loss(adapters, base, config):
    return jnp.sum(llama.token_nll(base, adapters, ROW, TARGETS, config))


gradient = jax.jit(jax.grad(loss), static_argnums=2)


def test_fresh_adapters_change_nothing_and_move_b_first():
    config, base, adapters = adapted()
    np.testing.assert_array_equal(
        decode(base, adapters, ROW, config), decode(base, {}, ROW, config)
    )
    slopes = gradient(adapters, base, config)
    assert slopes.keys() == set(lora.TARGETS)
    for name in slopes:
        assert (slopes[name]["a"] == 0).all()
        assert (np.abs(slopes[name]["b"]).max(axis=(1, 2)) > 0).all()


def test_initialisers():
    shapes = {"layers": {"query": jax.ShapeDtypeStruct((30, 576, 576), jnp.float32)}}
    for name, deviation in (("gaussian", 8**-0.5), ("kaiming", (3 * 576) ** -0.5)):
        config = LoraConfig(targets=("query",), initialiser=name)
        a = lora.init(jax.random.key(0), shapes, config)["query"]["a"]
        assert a.shape == (30, 576, 8) and a.dtype == jnp.float32
        np.testing.assert_allclose(np.std(a), deviation, rtol=0.01)
        np.testing.assert_allclose(np.mean(a), 0.0, atol=0.01 * deviation)
    assert np.abs(a).max() <= 576**-0.5


@pytest.mark.parametrize("target", lora.TARGETS)
def test_each_target_is_its_own_product(target):
    config, base, adapters = adapted(targets=(target,))
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    merged = lora.merge(base, adapters, config.lora)
    changed = {
        name for name in base["layers"] if (merged["layers"][name] != base["layers"][name]).any()
    }
    assert changed == {target}
    got_TD = decode(base, adapters, ROW, config)
    np.testing.assert_allclose(got_TD, decode(merged, {}, ROW, config), rtol=1e-12, atol=1e-12)
    assert np.abs(got_TD - decode(base, {}, ROW, config)).max() > 1e-3


@pytest.mark.parametrize("layers", [1, 2])
def test_adapters_of_the_last_layers_alone(layers):
    config, base, adapters = adapted(layers)
    whole = draw_base()["layers"]
    for name, stack in whole.items():
        np.testing.assert_array_equal(base["frozen"][name], stack[: 3 - layers])
        np.testing.assert_array_equal(base["layers"][name], stack[3 - layers :])
    assert np.shares_memory(base["layers"]["gate"], base["frozen"]["gate"].base)
    assert all(leaf.shape[0] == layers for leaf in jax.tree.leaves(adapters))
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    merged = lora.merge(base, adapters, config.lora)
    np.testing.assert_allclose(
        decode(merged, {}, ROW, config), decode(base, adapters, ROW, config), rtol=1e-12, atol=1e-12
    )


def test_what_cannot_be_adapted_is_refused():
    for changed, message in (
        ({"rank": 0}, "1 or more, got --lora_rank=0"),
        ({"scale": 0.0}, "1e-06 or more, got --lora_scale=0.0"),
        ({"scale": float("nan")}, "1e-06 or more, got --lora_scale=nan"),
        ({"targets": ("query", "head")}, "one of query, key.*got --lora_targets=query,head"),
        ({"targets": ("query", "query")}, "different targets"),
        ({"targets": ()}, "got --lora_targets="),
        ({"layers": 0}, "1 or more, got --lora_layers=0"),
        ({"initialiser": "zero"}, "one of gaussian, kaiming, got --lora_initialiser=zero"),
    ):
        with pytest.raises(ValueError, match=message):
            LoraConfig(**changed)
    with pytest.raises(ValueError, match="at most 3 adapted layers.*got 4; lower --lora_layers"):
        lora.split_layers(draw_base(), LoraConfig(layers=4))
    base = lora.split_layers(draw_base(), LoraConfig(layers=2))
    with pytest.raises(ValueError, match="parted"):
        lora.split_layers(base, LoraConfig(layers=1))
