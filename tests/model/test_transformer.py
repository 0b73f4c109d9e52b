"""Check the Transformer: who attends to whom, that packing changes nothing, recomputed layers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.config import ModelConfig
from mtml_jax.model import transformer
from mtml_jax.types import Tokens

pytestmark = pytest.mark.usefixtures("float64")

MODEL = ModelConfig(
    encoder_layers=2,
    decoder_layers=1,
    heads=3,
    width=6,
    feed_forward=7,
    activation="gelu",
    dtype="float64",
)
VOCABULARY = 19


def row(segments, ids, slots):
    """Sequences of the given lengths side by side, numbered from 1, padded to `slots`."""
    free = slots - sum(segments)
    segment = np.repeat([*range(1, len(segments) + 1), 0], [*segments, free])
    position = np.concatenate([np.arange(length) for length in (*segments, free)])
    padded = np.concatenate([ids, np.zeros(slots - len(ids))])
    return Tokens(*(x.astype(np.int32) for x in (padded, segment, position)))


# Two sequences and padding; every slot has a word of its own, so that the gradient
# of a word's embedding is the gradient of that slot's input.
CONTEXT = row((3, 2), np.arange(0, 7), 7)
INPUTS = row((4, 5), np.arange(7, 18), 11)


init = jax.jit(transformer.init, static_argnums=(1, 2))


@functools.partial(jax.jit, static_argnames="config")
def run(params, context, inputs, config=MODEL):
    """(memory, hidden) of one row."""
    memory_SD = transformer.encode(params, context, config)
    return memory_SD, transformer.decode(
        params, memory_SD, context.segment, inputs, inputs.segment, config
    )


@pytest.fixture(scope="module")
def params(draw_params):
    return draw_params(MODEL, VOCABULARY)


@pytest.fixture(scope="module")
def influence(params, float64):
    """[slot, word] of memory and of hidden: the largest derivative by that word's embedding."""

    def of_embedding(embedding):
        return run({**params, "embedding": embedding}, CONTEXT, INPUTS)

    jacobians = jax.jit(jax.jacrev(of_embedding))(params["embedding"])
    return [np.abs(j).max(axis=(1, 3)) for j in jacobians]


def test_encoder_sees_its_own_segment_and_both_directions(influence):
    memory_SV, _ = influence
    same_SS = CONTEXT.segment[:, None] == CONTEXT.segment[None, :]
    real = CONTEXT.segment > 0
    wanted_SV = np.zeros((7, VOCABULARY), bool)
    wanted_SV[:, CONTEXT.ids] = same_SS
    np.testing.assert_array_equal(memory_SV[real] != 0, wanted_SV[real])


def test_decoder_sees_its_past_and_its_own_context(influence):
    _, hidden_TV = influence
    same_TT = INPUTS.segment[:, None] == INPUTS.segment[None, :]
    past_TT = INPUTS.position[:, None] >= INPUTS.position[None, :]
    real = INPUTS.segment > 0
    wanted_TV = np.zeros((11, VOCABULARY), bool)
    wanted_TV[:, INPUTS.ids] = same_TT & past_TT
    wanted_TV[:, CONTEXT.ids] = INPUTS.segment[:, None] == CONTEXT.segment[None, :]
    np.testing.assert_array_equal(hidden_TV[real] != 0, wanted_TV[real])


def test_a_word_that_is_absent_has_no_influence(influence):
    assert all((by_word[:, VOCABULARY - 1] == 0).all() for by_word in influence)


def test_segments_in_a_row_equal_rows_of_their_own(params):
    packed = run(params, CONTEXT, INPUTS)
    begins = (0, 0)
    for segment in (1, 2):
        ends = []
        own = []
        for tokens, begin in zip((CONTEXT, INPUTS), begins):
            length = int(np.sum(tokens.segment == segment))
            ids = tokens.ids[begin : begin + length]
            own.append(row((length,), ids, length))
            ends.append(begin + length)
        for together, alone, begin, end in zip(packed, run(params, *own), begins, ends):
            np.testing.assert_allclose(together[begin:end], alone, rtol=1e-12, atol=1e-12)
        begins = ends


def test_contents_of_padding_are_not_seen(params):
    def spoiled(tokens):
        free = tokens.segment == 0
        return tokens.replace(
            ids=np.where(free, 5, tokens.ids), position=np.where(free, 3, tokens.position)
        )

    wanted = run(params, CONTEXT, INPUTS)
    got = run(params, spoiled(CONTEXT), spoiled(INPUTS))
    for tokens, before, after in zip((CONTEXT, INPUTS), wanted, got):
        assert (before != after).any()  # at the slots of padding itself
        np.testing.assert_array_equal(before[tokens.segment > 0], after[tokens.segment > 0])


@pytest.mark.parametrize("width", [6, 7])
def test_embedding_is_scaled_and_positions_are_sinusoids(width):
    config = dataclasses.replace(MODEL, width=width)
    table = np.random.default_rng(0).standard_normal((VOCABULARY, width))
    tokens = row((2, 11), np.arange(13), 13)
    wanted = width**0.5 * table[tokens.ids]
    for slot, position in enumerate(tokens.position):
        for i in range(width):
            half = (width + 1) // 2
            angle = position / 10000 ** (2 * (i % half) / width)
            wanted[slot, i] += np.sin(angle) if i < half else np.cos(angle)
    got = transformer.embed({"embedding": jnp.asarray(table)}, tokens, config)
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


@functools.partial(jax.jit, static_argnames="config")
def gradient(params, context, inputs, config=MODEL):
    """Of a number in which every real token of the decoder counts."""

    def objective(params):
        _, hidden_TD = run(params, context, inputs, config)
        weight_TD = jnp.cos(jnp.arange(hidden_TD.size)).reshape(hidden_TD.shape)
        real_T1 = (inputs.segment > 0)[:, None]
        return jnp.sum(jnp.where(real_T1, hidden_TD.astype(weight_TD.dtype) * weight_TD, 0.0))

    return jax.grad(objective)(params)


def test_a_row_of_padding_has_a_gradient_of_zero(params):
    nothing = row((), np.zeros(0), 7), row((), np.zeros(0), 11)
    for values in run(params, *nothing):
        assert np.isfinite(values).all()
    for leaf in jax.tree.leaves(gradient(params, *nothing)):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


def test_targets_of_padding_beside_a_full_context_are_harmless(params):
    """They see nothing at all; the rest is as it is with a slot of padding in the context."""
    full, roomy = (row((3, 2), CONTEXT.ids[:5], slots) for slots in (5, 7))
    jax.tree.map(
        lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12),
        gradient(params, full, INPUTS),
        gradient(params, roomy, INPUTS),
    )


def test_recomputed_layers_give_the_same_gradient(params):
    remat = dataclasses.replace(MODEL, remat=True)
    products = [
        str(gradient.trace(params, CONTEXT, INPUTS, config).jaxpr).count("dot_general")
        for config in (MODEL, remat)
    ]
    assert products[1] > 1.2 * products[0]
    jax.tree.map(
        lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12),
        gradient(params, CONTEXT, INPUTS, remat),
        gradient(params, CONTEXT, INPUTS),
    )


@pytest.fixture
def whole_compile():
    """XLA as it is used, which merges what is computed twice."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.usefixtures("whole_compile")
@pytest.mark.long
def test_recomputed_layers_take_less_memory():
    """A pullback through all layers holds those of one, and so does its derivative."""
    config = dataclasses.replace(MODEL, encoder_layers=8, decoder_layers=1)
    params = jax.eval_shape(lambda: init(jax.random.key(0), VOCABULARY, config))
    context = row((60,), np.zeros(60, int), 64)

    def held(remat):
        def loss(params):
            return jnp.sum(transformer.encode(params, context, dataclasses.replace(config, remat=remat)) ** 3)

        def curved(params, direction):
            return jax.jvp(jax.grad(loss), (params,), (direction,))[1]

        compiled = jax.jit(curved).lower(params, params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert held(True) < 0.5 * held(False)


def test_every_parameter_has_a_gradient(params):
    """Nothing idle, such as a key bias, which softmax would cancel."""
    for leaf in jax.tree.leaves(gradient(params, CONTEXT, INPUTS)):
        per_layer = np.abs(leaf).reshape(-1, leaf.shape[-1])
        assert per_layer.max(axis=0).min() > 1e-9


def test_vectors_of_another_width_are_projected(params):
    rng = np.random.default_rng(3)
    table, projection = rng.standard_normal((VOCABULARY, 5)), rng.standard_normal((5, 6))
    projected = {**params, "embedding": table, "projection": projection}
    plain = {**params, "embedding": table @ projection}
    for got, wanted in zip(run(projected, CONTEXT, INPUTS), run(plain, CONTEXT, INPUTS)):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    matrix_VD = transformer.output_matrix(projected, MODEL)
    np.testing.assert_allclose(matrix_VD, plain["embedding"], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(transformer.output_matrix(params, MODEL), params["embedding"])


@pytest.mark.long
def test_init_takes_vectors_and_adds_a_projection_only_where_widths_differ():
    key = jax.random.key(0)
    wide = np.random.default_rng(0).standard_normal((VOCABULARY, 5))
    drawn = init(key, VOCABULARY, MODEL)
    assert drawn["embedding"].shape == (VOCABULARY, 6) and "projection" not in drawn
    given = init(key, VOCABULARY, MODEL, wide)
    assert given["projection"].shape == (5, 6)
    np.testing.assert_array_equal(given["embedding"], wide.astype(np.float32))
    fitting = init(key, VOCABULARY, MODEL, drawn["embedding"])
    assert jax.tree.structure(fitting) == jax.tree.structure(drawn)
    for leaf in jax.tree.leaves((drawn, given, fitting)):
        assert leaf.dtype == np.float32


def test_init_draws_each_matrix_by_its_own_fans():
    """Glorot's limit sqrt(6 / (in + out)) of every block of a fused matrix, none drawn twice."""
    config = dataclasses.replace(MODEL, encoder_layers=2, width=30, feed_forward=70)
    drawn = init(jax.random.key(1), VOCABULARY, config)
    fused = [layer["self_attention"]["query_key_value"] for layer in drawn["encoder"]]
    blocks = np.concatenate(np.split(np.stack(fused), 3, axis=-1))
    hidden = [layer["feed_forward"]["hidden"] for layer in drawn["encoder"]]
    for matrix, fans in [*((b, 60) for b in blocks), *((h, 100) for h in hidden)]:
        limit = (6 / fans) ** 0.5
        assert 0.97 * limit < np.abs(matrix).max() <= limit
        assert abs(matrix.mean()) < 0.1 * limit
    assert len(np.unique(blocks[:, 0, 0])) == 6
    assert drawn["embedding"].std() == pytest.approx(30**-0.5, rel=0.1)


@pytest.mark.long
def test_bfloat16_is_close_to_float32(params):
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    config = dataclasses.replace(MODEL, activation="relu", dtype="float32")
    half = dataclasses.replace(config, dtype="bfloat16")
    got, wanted = (run(single, CONTEXT, INPUTS, c) for c in (half, config))
    for mine, reference in zip(got, wanted):
        assert (mine.dtype, reference.dtype) == (jnp.bfloat16, jnp.float32)
        difference = np.abs(mine.astype(np.float32) - reference)
        assert 1e-4 < difference.max() < 0.1
    for leaf in jax.tree.leaves(gradient(single, CONTEXT, INPUTS, half)):
        assert leaf.dtype == np.float32
        assert np.isfinite(leaf).all()
