"""The Llama family: equal to `transformers`, who sees whom, cached decoding, derivatives."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import llama_golden
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from mtml_jax.data.rows import Strand, pack_row
from mtml_jax.data.vocab import Symbols
from mtml_jax.model import llama, lora
from mtml_jax.model.beam import beam_search
from mtml_jax.model.decoding import greedy
from mtml_jax.model.lora import LoraConfig
from mtml_jax.model.pretrained_folder import read_folder
from mtml_jax.types import Tokens

pytest.importorskip("safetensors")
pytestmark = pytest.mark.usefixtures("float64")

FAMILIES = tuple(llama_golden.FAMILIES)
LORA = LoraConfig(rank=2, scale=1.5, targets=lora.TARGETS)

# Two dialogues, two branches each; every slot has a token of its own.
DIALOGUES = (
    (
        Strand((0, 1, 2, 3, 4), predicted=(2, 3)),
        Strand((5, 6, 7), predicted=(0, 2), task=1, fork=2),
        Strand((8, 9), predicted=(1,), task=1, fork=5),
    ),
    (
        Strand((10, 11, 12), predicted=(1,)),
        Strand((13, 14), predicted=(1,), task=1, fork=3),
        Strand((15, 16, 17), predicted=(2,), task=1, fork=1),
    ),
)
ROW, TARGETS, _ = pack_row(DIALOGUES, slots=20, predicted=11)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """(family, layers to adapt) -> (config, base, adapters with B that is not zero), float64."""

    @functools.cache
    def read(family, layers=None):
        folder = tmp_path_factory.mktemp(family)
        config, base = read_folder(llama_golden.write_checkpoint(folder, family))
        settings = dataclasses.replace(LORA, layers=layers)
        config = dataclasses.replace(config, dtype="float64", lora=settings)
        base = jax.tree.map(lambda x: jnp.asarray(x, "float64"), base)
        base = lora.split_layers(base, settings)
        rng = np.random.default_rng(1)
        adapters = jax.tree.map(
            lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape)),
            lora.init(jax.random.key(0), base, settings),
        )
        return config, base, adapters

    return read


decode = jax.jit(llama.decode, static_argnames="config")
token_nll = jax.jit(llama.token_nll, static_argnames=("config", "chunk"))


def plain(ids, slots=11):
    """A row with one dialogue and no branch."""
    return pack_row([[Strand(tuple(ids))]], slots, 1)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers(read, family):
    config, base, _ = read(family)
    hidden_TD = decode(base, {}, plain(llama_golden.IDS), config)
    logits_TV = hidden_TD @ llama.output_matrix(base, config).T
    wanted_TV = np.load(llama_golden.GOLDEN)[family]
    np.testing.assert_allclose(logits_TV, wanted_TV, rtol=0, atol=2e-6 * np.abs(wanted_TV).max())


def sees():
    """[slot, slot] by the definition, slot by slot."""
    strands = [
        (dialogue, branch, strand)
        for dialogue, strands in enumerate(DIALOGUES)
        for branch, strand in enumerate(strands)
        for _ in strand.ids
    ]
    index = [i for dialogue in DIALOGUES for strand in dialogue for i in range(len(strand.ids))]
    count = len(index)
    wanted = np.zeros((count, count), bool)
    for t, (dialogue, branch, strand) in enumerate(strands):
        for s, (other_dialogue, other_branch, _) in enumerate(strands):
            own_past = other_branch == branch and index[s] <= index[t]
            trunk = branch > 0 and other_branch == 0 and index[s] < strand.fork
            wanted[t, s] = dialogue == other_dialogue and (own_past or trunk)
    return wanted


def test_a_token_sees_its_branch_and_the_trunk_before_it_alone(read):
    config, base, adapters = read("llama")
    embedded_TD = llama.prefix(base, ROW, config)

    @jax.jit
    @jax.jacrev
    def influence(embedded_TD):
        return llama.decode(base, adapters, ROW, config, prefix_TD=embedded_TD)

    seen_TT = np.abs(influence(embedded_TD)).max(axis=(1, 3)) > 0
    wanted_TT = sees()
    count = len(wanted_TT)
    assert wanted_TT.sum() == 64  # counted by hand: 15 + (6 + 6) + (3 + 10), 6 + (3 + 6) + (6 + 3)
    np.testing.assert_array_equal(seen_TT[:count, :count], wanted_TT)
    assert not seen_TT[:count, count:].any()  # padding
    assert not seen_TT[count:, :count].any()


def test_losses_of_a_branch_have_no_gradient_from_later_turns_or_others(read):
    config, base, adapters = read("llama")

    @jax.jit
    @jax.jacrev
    def influence(embedded_TD):
        return llama.token_nll(base, adapters, ROW, TARGETS, config, prefix_TD=embedded_TD)

    seen_UT = np.abs(influence(llama.prefix(base, ROW, config))).max(axis=2) > 0
    real_U = TARGETS.segment > 0
    np.testing.assert_array_equal(seen_UT[real_U][:, :18], sees()[TARGETS.slot[real_U]])
    assert not seen_UT[~real_U].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_in_a_row_equal_sequences_of_their_own(read, family):
    config, base, adapters = read(family)
    packed_TD = decode(base, adapters, ROW, config)
    begin = 0
    for strands in DIALOGUES:
        for strand in strands:
            history = strands[0].ids[: strand.fork]
            alone_TD = decode(base, adapters, plain(history + strand.ids), config)
            end = begin + len(strand.ids)
            np.testing.assert_allclose(
                packed_TD[begin:end],
                alone_TD[strand.fork : strand.fork + len(strand.ids)],
                rtol=1e-11,
                atol=1e-11,
            )
            begin = end


def test_contents_of_padding_are_not_seen(read):
    config, base, adapters = read("llama")
    free = ROW.segment == 0
    spoiled = ROW.replace(
        ids=np.where(free, 5, ROW.ids),
        position=np.where(free, 3, ROW.position),
        fork=np.where(free, 9, ROW.fork),
    )
    before, after = (decode(base, adapters, row, config) for row in (ROW, spoiled))
    assert (before[free] != after[free]).any()
    np.testing.assert_array_equal(before[~free], after[~free])


@pytest.mark.parametrize("layers", [1, 2])
def test_frozen_prefix_can_be_computed_once(read, layers):
    config, base, adapters = read("qwen3", layers)
    prefix_TD = jax.jit(llama.prefix, static_argnames="config")(base, ROW, config)
    whole_TD = decode(base, adapters, ROW, config)
    np.testing.assert_array_equal(
        decode(base, adapters, ROW, config, prefix_TD=prefix_TD), whole_TD
    )
    # The same as adapters in all layers of which the first have no effect.
    config, base, _ = read("qwen3")
    none = jax.tree.map(
        lambda x: jnp.concatenate([jnp.zeros((3 - layers, *x.shape[1:])), x]), adapters
    )
    np.testing.assert_allclose(decode(base, none, ROW, config), whole_TD, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", ["llama", "llama3"])  # untied, tied
def test_losses_are_minus_the_log_of_the_softmax(read, family):
    config, base, adapters = read(family)
    hidden_TD = decode(base, adapters, ROW, config)
    matrix_VD = base["embedding"] if family == "llama3" else base["output"]
    shares_TV = jax.nn.softmax(hidden_TD @ matrix_VD.T)
    wanted = []
    for target in range(TARGETS.ids.size):
        real = TARGETS.segment[target] > 0
        share = shares_TV[TARGETS.slot[target], TARGETS.ids[target]]
        wanted.append(-np.log(share) if real else 0.0)
    assert np.count_nonzero(wanted) == 8
    for chunk in (1, 4, 11, 128):
        nll_U = token_nll(base, adapters, ROW, TARGETS, config, chunk=chunk)
        np.testing.assert_allclose(nll_U, wanted, rtol=1e-11, atol=1e-12)


def contexts(prompts, slots):
    """Tokens [E, slots] of prompts of different lengths."""
    free = [slots - len(prompt) for prompt in prompts]
    rows = [np.concatenate([prompt, np.full(f, 7)]) for prompt, f in zip(prompts, free)]
    segment = [np.repeat([1, 0], [len(prompt), f]) for prompt, f in zip(prompts, free)]
    position = [np.concatenate([np.arange(len(p)), np.arange(f)]) for p, f in zip(prompts, free)]
    return Tokens(*(np.array(x, np.int32) for x in (rows, segment, position)))


@pytest.mark.parametrize("family, layers", [("llama3", None), ("qwen2", 1), ("qwen3", 2)])
def test_cached_decoding_equals_the_forward_pass(read, family, layers):
    """For two contexts, each of them held once for its two beams, as a beam search has them."""
    config, base, adapters = read(family, layers)
    prompts = llama_golden.IDS[:6], llama_golden.IDS[3:7]
    context = contexts(prompts, slots=9)
    continued_EBT = np.random.default_rng(3).integers(31, size=(2, 2, 5))
    start = jax.vmap(llama.start_cache, in_axes=(None, None, 0, None, None))
    cache = jax.jit(start, static_argnums=(3, 4))(base, adapters, context, 5, config)
    cache["own"] = jax.tree.map(lambda x: jnp.repeat(x[:, None], 2, axis=1), cache["own"])
    axes = {"memory": None, "own": 0}
    beams = jax.vmap(
        llama.decode_step, in_axes=(None, None, axes, None, 0, None, None), out_axes=(0, axes)
    )
    step = jax.vmap(beams, in_axes=(None, None, 0, 0, 0, None, None))
    step = jax.jit(step, static_argnums=6)
    found = []
    for n in range(5):
        hidden_EBD, cache = step(
            base, adapters, cache, context.segment, continued_EBT[:, :, n], jnp.int32(n), config
        )
        found.append(hidden_EBD)
    found_EBTD = np.stack(found, axis=2)
    for example, prompt in enumerate(prompts):
        for beam in range(2):
            row = plain([*prompt, *continued_EBT[example, beam]])
            wanted_TD = decode(base, adapters, row, config)[len(prompt) : len(prompt) + 5]
            np.testing.assert_allclose(found_EBTD[example, beam], wanted_TD, rtol=1e-11, atol=1e-11)


@pytest.mark.long
@pytest.mark.parametrize("search", [greedy, functools.partial(beam_search, beams=3)])
def test_contexts_that_begin_one_row_are_continued_as_on_their_own(read, search):
    config, base, adapters = read("llama", 1)
    lengths, ids = [7, 2, 5], np.arange(3, 12)
    apart = contexts([ids[:n] for n in lengths], 9)
    together = Tokens(ids, apart.segment, apart.position[0])
    symbols = Symbols(end=1, pad=1, never=(0,))
    decode = jax.jit(functools.partial(
        search, start=2, max_tokens=6, config=config, base=base, symbols=symbols
    ))  # fmt: skip
    found, wanted = (decode(adapters, c) for c in (together, apart))
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.log_prob, wanted.log_prob, rtol=1e-12)
    assert len(np.unique(wanted.log_prob)) == 3


def weighted_loss(adapters, base, config):
    """A number in which every target counts differently."""
    nll_U = llama.token_nll(base, adapters, ROW, TARGETS, config, chunk=4)
    return jnp.sum(nll_U * jnp.cos(jnp.arange(nll_U.size)))


@pytest.mark.long
@pytest.mark.parametrize(
    "family, layers", [("llama", None), ("llama3", 1), ("qwen2", 2), ("qwen3", 1)]
)
def test_first_and_second_derivatives_by_the_adapters(read, family, layers):
    config, base, adapters = read(family, layers)
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda x: rng.standard_normal(x.shape), adapters)

    def along(adapters):
        """The loss, and its derivative in a direction; the gradient of the latter is second order."""
        loss, gradient = jax.value_and_grad(weighted_loss)(adapters, base, config)
        return loss, optax.tree.vdot(gradient, direction)

    check_grads(
        jax.jit(along), (adapters,), order=1, modes=("rev",), eps=1e-5, atol=1e-6, rtol=1e-6
    )


@pytest.mark.long
def test_keeping_residuals_or_computing_them_again_is_the_same(read):
    config, base, adapters = read("qwen3", 2)
    gradient = jax.jit(jax.grad(weighted_loss), static_argnums=2)
    again, kept = (
        gradient(adapters, base, dataclasses.replace(config, remat=remat))
        for remat in (True, False)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13), again, kept)


def test_no_gradient_flows_into_the_base(read):
    config, base, adapters = read("llama3", 1)
    by_base = jax.jit(jax.grad(weighted_loss, argnums=1), static_argnums=2)(adapters, base, config)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(by_base))


def test_bfloat16_is_close(read):
    config, base, adapters = read("qwen3", 2)
    wanted_U = token_nll(base, adapters, ROW, TARGETS, config)
    config = dataclasses.replace(config, dtype="bfloat16")
    got_U = token_nll(base, adapters, ROW, TARGETS, config)
    assert got_U.dtype == jnp.float32
    np.testing.assert_allclose(got_U, wanted_U, atol=0.3)
