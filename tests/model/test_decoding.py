"""Check that decoding with a cache equals full forward passes and misses no likelier reply."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.config import ModelConfig
from mtml_jax.data.vocab import END, PAD, START, START_PERSONA, UNK
from mtml_jax.model import transformer
from mtml_jax.model.beam import beam_search
from mtml_jax.model.decoding import greedy, sample
from mtml_jax.sharding import map_personas, persona_mesh
from mtml_jax.types import Tokens

CONFIG = ModelConfig(
    encoder_layers=1, decoder_layers=2, heads=2, width=6, feed_forward=10, dtype="float64"
)
VOCABULARY = 13
NEVER = (PAD, START, START_PERSONA)
WORDS = [w for w in range(VOCABULARY) if w not in NEVER]  # what may be emitted
LENGTHS, SLOTS, REPLY = [3, 7, 1, 5, 2], 7, 6

quick_greedy = jax.jit(functools.partial(greedy, start=START, max_tokens=REPLY, config=CONFIG))


@pytest.fixture(scope="module")
def params(draw_params, float64):
    """Sharp enough inside for contexts to matter, flat enough outside for several words."""
    drawn = jax.tree.map(lambda x: jnp.asarray(3 * x), draw_params(CONFIG, VOCABULARY, seed=4))
    return {**drawn, "decoder_norm": jax.tree.map(lambda x: 0.5 * x, drawn["decoder_norm"])}


def leaning(params, token, strength):
    """The model with a constant added to the logits, in the direction of one token."""
    toward_D = params["embedding"][token]
    bias_D = params["decoder_norm"]["bias"] + strength * toward_D / jnp.linalg.norm(toward_D)
    return {**params, "decoder_norm": {**params["decoder_norm"], "bias": bias_D}}


def steady(params):
    """The model with a zero embedding but for the end: every logit but its own is zero."""
    bias_D = params["decoder_norm"]["bias"]
    return {
        **params,
        "embedding": jnp.zeros_like(params["embedding"]).at[END].set(bias_D),
        "decoder_norm": {"scale": jnp.zeros_like(bias_D), "bias": bias_D},
    }


def contexts(lengths, slots, seed=0):
    """Slots of padding hold words too, which nobody may read."""
    rng = np.random.default_rng(seed)
    slot = np.arange(slots)
    segment = (slot[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = rng.integers(6, VOCABULARY, segment.shape).astype(np.int32)
    position = np.broadcast_to(slot, segment.shape).astype(np.int32)
    return jax.tree.map(jnp.asarray, Tokens(ids, segment, position))


def row(batch, n):
    return jax.tree.map(lambda x: x[n], batch)


@jax.jit
def whole_pass(params, context, ids):
    """log p of every word after each of the start token and `ids`, without a cache."""
    memory_SD = transformer.encode(params, context, CONFIG)
    ids = jnp.concatenate([jnp.array([START], jnp.int32), ids])
    inputs = Tokens(ids, jnp.ones_like(ids), jnp.arange(ids.size, dtype=jnp.int32))
    hidden_TD = transformer.decode(
        params, memory_SD, context.segment, inputs, inputs.segment, CONFIG
    )
    return jax.nn.log_softmax(hidden_TD @ transformer.output_matrix(params, CONFIG).T)


def next_words(params, context, ids):
    padded = np.array([*ids] + [PAD] * (REPLY - len(ids)), np.int32)
    return np.asarray(whole_pass(params, context, padded))[len(ids)]


def teacher_forced(params, context, ids):
    """The sum of log p over a reply up to its end."""
    log_p_TV = np.asarray(whole_pass(params, context, ids))
    real = np.arange(REPLY) <= list(ids).index(END) if END in ids else np.ones(REPLY, bool)
    return log_p_TV[np.arange(REPLY), ids][real].sum()


def plain_beam_search(params, context, beams, max_tokens):
    """The textbook's, in lists, with a whole pass for every hypothesis at every step."""
    kept = [(0.0, [])]
    for _ in range(max_tokens):
        grown = []
        for score, ids in kept:
            if ids and ids[-1] == END:
                grown.append((score, ids))
                continue
            log_p_V = next_words(params, context, ids)
            grown += [(score + log_p_V[word], ids + [word]) for word in WORDS]
        kept = sorted(grown, key=lambda hypothesis: -hypothesis[0])[:beams]
    score, ids = kept[0]
    return ids + [PAD] * (max_tokens - len(ids)), score


@functools.cache
def quick_beam(beams, max_tokens=REPLY):
    return jax.jit(
        functools.partial(
            beam_search, start=START, max_tokens=max_tokens, beams=beams, config=CONFIG
        )
    )


def test_each_cached_step_equals_the_whole_pass(params):
    context = row(contexts([5], slots=7), 0)
    tokens = jnp.array([START, 8, 11, 6, 9], jnp.int32)
    memory_SD = jax.jit(functools.partial(transformer.encode, config=CONFIG))(params, context)
    inputs = Tokens(tokens, jnp.ones(5, jnp.int32), jnp.arange(5, dtype=jnp.int32))
    decode = jax.jit(functools.partial(transformer.decode, config=CONFIG))
    want_TD = decode(params, memory_SD, context.segment, inputs, inputs.segment)
    step = jax.jit(functools.partial(transformer.decode_step, config=CONFIG))
    cache = transformer.start_cache(params, memory_SD, 5, CONFIG)
    for position, token in enumerate(tokens):
        hidden_D, cache = step(params, cache, context.segment, token, jnp.int32(position))
        np.testing.assert_allclose(hidden_D, want_TD[position], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strength", [2.0, 3.0])
@pytest.mark.parametrize("beams", [1, 4])
def test_search_equals_one_by_one_whole_passes(params, strength, beams):
    """With one beam this is greedy search; no row of the batch may see another's context."""
    model = leaning(params, END, strength)
    batch = contexts(LENGTHS, SLOTS)
    found = quick_beam(beams)(model, batch)
    assert found.ids.dtype == jnp.int32
    for n in range(len(LENGTHS)):
        ids, score = plain_beam_search(model, row(batch, n), beams, REPLY)
        assert found.ids[n].tolist() == ids
        np.testing.assert_allclose(found.log_prob[n], score, rtol=1e-12)
    assert len(np.unique(found.ids, axis=0)) > 1  # the context matters
    ends = (np.asarray(found.ids) == END).any(axis=1)
    assert ends.any() and (strength > 2.0 or not ends.all())


def test_one_beam_is_greedy(params):
    model, batch = leaning(params, END, 2.0), contexts(LENGTHS, SLOTS)
    one, best = quick_beam(1)(model, batch), quick_greedy(model, batch)
    np.testing.assert_array_equal(one.ids, best.ids)
    np.testing.assert_allclose(one.log_prob, best.log_prob, rtol=1e-13)


@pytest.mark.parametrize("search", [quick_greedy, quick_beam(4)])
def test_the_score_is_that_of_teacher_forcing(params, search):
    model, batch = leaning(params, END, 2.0), contexts(LENGTHS, SLOTS)
    found = search(model, batch)
    for n, ids in enumerate(found.ids):
        want = teacher_forced(model, row(batch, n), np.asarray(ids))
        np.testing.assert_allclose(found.log_prob[n], want, rtol=1e-12)


def test_other_rows_and_padding_change_nothing(params):
    batch = contexts(LENGTHS, SLOTS)
    want = quick_beam(4)(params, batch)
    wide = contexts([11] * 5, slots=11, seed=1)
    wide = jax.tree.map(lambda a, b: a.at[2, :SLOTS].set(b[1]), wide, batch)
    wide = wide.replace(segment=wide.segment.at[2, SLOTS:].set(0))
    found = quick_beam(4)(params, wide)
    np.testing.assert_array_equal(found.ids[2], want.ids[1])
    np.testing.assert_allclose(found.log_prob[2], want.log_prob[1], rtol=1e-12)


def test_enough_beams_find_the_likeliest_of_all_replies(params):
    """After two of three tokens there are 91 hypotheses: finished 1 + 9, others 81."""
    model, batch = leaning(params, END, 2.0), contexts(LENGTHS, SLOTS)
    found = quick_beam(91, max_tokens=3)(model, batch)
    missed = 0
    for n in range(len(LENGTHS)):
        after = functools.cache(functools.partial(next_words, model, row(batch, n)))
        scores = {}
        for ids in itertools.product(WORDS, repeat=3):
            ids = ids[: ids.index(END) + 1] if END in ids else ids
            if ids not in scores:
                scores[ids] = sum(after(ids[:t])[word] for t, word in enumerate(ids))
        assert len(scores) == 1 + 9 + 81 * 10
        best = max(scores, key=scores.get)
        assert found.ids[n].tolist() == list(best) + [PAD] * (3 - len(best))
        np.testing.assert_allclose(found.log_prob[n], scores[best], rtol=1e-12)
        steps = [START]
        while len(steps) < 4 and steps[-1] != END:
            log_p_V = after(tuple(steps[1:]))
            steps.append(max(WORDS, key=lambda word: log_p_V[word]))
        assert scores[best] >= scores[tuple(steps[1:])]
        missed += scores[best] > scores[tuple(steps[1:])]
    assert missed  # by greedy decoding


@pytest.mark.parametrize("search", [quick_greedy, quick_beam(4)])
def test_nothing_follows_the_end(params, search):
    model = steady(params)
    found = search(model, contexts(LENGTHS, SLOTS))
    assert found.ids[0].tolist() == [END] + [PAD] * (REPLY - 1)
    bias_D = model["decoder_norm"]["bias"]
    likely = jnp.exp(bias_D @ bias_D)
    want = jnp.log(likely / (likely + VOCABULARY - 1))
    np.testing.assert_allclose(found.log_prob[0], want, rtol=1e-12)


def test_ties_go_to_the_lowest_id(params):
    model = {**params, "embedding": jnp.zeros_like(params["embedding"])}
    batch = contexts(LENGTHS, SLOTS)
    found = quick_greedy(model, batch)
    assert found.ids[0].tolist() == [UNK] * REPLY  # not padding, whose id is lower
    np.testing.assert_allclose(found.log_prob[0], -REPLY * np.log(VOCABULARY), rtol=1e-12)
    assert quick_beam(1)(model, batch).ids[0].tolist() == [UNK] * REPLY
    # Two beams hold UNK and END after one token; END is never overtaken.
    assert quick_beam(4)(model, batch).ids[0].tolist() == [END] + [PAD] * (REPLY - 1)


@pytest.mark.parametrize("token", NEVER)
def test_padding_and_start_tokens_are_never_emitted(params, token):
    """They keep their share of the probability, which is nearly all here."""
    longer = {**params, "embedding": params["embedding"].at[token].multiply(5.0)}
    model, batch = leaning(longer, token, 9.0), contexts(LENGTHS, SLOTS)
    assert next_words(model, row(batch, 0), []).argmax() == token
    for search in (quick_greedy, quick_beam(4)):
        found = search(model, batch)
        for n, ids in enumerate(np.asarray(found.ids)):
            stop = list(ids).index(END) if END in ids else REPLY
            assert not np.isin(ids[:stop], NEVER).any() and not ids[stop + 1 :].any()
            want = teacher_forced(model, row(batch, n), ids)
            np.testing.assert_allclose(found.log_prob[n], want, rtol=1e-12)


@pytest.mark.long
def test_every_fold_decodes_with_its_own_parameters_on_its_own_device(params):
    """As evaluation calls it: adapted parameters differ from fold to fold."""
    folds = [
        (leaning(params, END, strength), contexts(LENGTHS, SLOTS, seed))
        for seed, strength in enumerate([0.0, 1.0, 2.0, 3.0])
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *folds)
    mesh = persona_mesh(4)
    assert mesh.size == 2
    over_folds = map_personas(lambda _, fold: quick_beam(4)(*fold), mesh, chunk=2)
    replies = jax.jit(over_folds)(0.0, stacked)
    for n, (model, batch) in enumerate(folds):
        want = quick_beam(4)(model, batch)
        np.testing.assert_array_equal(replies.ids[n], want.ids)
        np.testing.assert_allclose(replies.log_prob[n], want.log_prob, rtol=1e-12)


DRAWS = 3000


@jax.jit
def draw(params, batch, top_p, temperature, seed):
    return sample(
        params,
        batch,
        START,
        jax.random.key(seed),
        max_tokens=REPLY,
        top_p=top_p,
        temperature=temperature,
        config=CONFIG,
    )


def tiled(batch):
    """Contexts many times: every copy draws for itself."""
    return jax.tree.map(lambda x: jnp.tile(x, (DRAWS // len(x), 1)), batch)


def nucleus(log_p_V, top_p, temperature):
    """The probabilities to draw with, by adding up the words in falling order."""
    share = {word: np.exp(log_p_V[word] / temperature) for word in WORDS}
    total = sum(share.values())
    kept, mass = {}, 0.0
    for word in sorted(WORDS, key=lambda word: -share[word]):
        if mass >= top_p:
            break
        kept[word] = share[word] / total
        mass += kept[word]
    return {word: p / mass for word, p in kept.items()}


def assert_drawn_from(shares, words):
    """Pearson's chi-square: mean n - 1, variance 2 (n - 1); six standard deviations."""
    assert set(words.tolist()) <= shares.keys()
    counts = np.array([(words == word).sum() for word in shares])
    expected = len(words) * np.array(list(shares.values()))
    freedom = len(shares) - 1
    surprise = ((counts - expected) ** 2 / expected).sum()
    assert surprise <= freedom + 6 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "top_p, temperature", [(1.0, 1.0), (1.0, 2.0), (0.7, 1.0), (0.7, 2.0), (0.9, 0.5)]
)
def test_samples_come_from_the_nucleus_as_often_as_they_should(params, top_p, temperature):
    model = leaning(params, END, 0.5)
    batch = contexts([5], SLOTS)
    found = draw(model, tiled(batch), top_p, temperature, 0)
    ids, context = np.asarray(found.ids), row(batch, 0)
    want = nucleus(next_words(model, context, []), top_p, temperature)
    assert 1 < len(want) and (len(want) == len(WORDS)) == (top_p == 1.0)
    assert_drawn_from(want, ids[:, 0])
    # The second token is drawn anew, given the first.
    first = max(want.keys() - {END}, key=want.get)
    after = nucleus(next_words(model, context, [first]), top_p, temperature)
    assert_drawn_from(after, ids[ids[:, 0] == first, 1])
    for reply, log_prob in itertools.islice(zip(ids.tolist(), found.log_prob), 20):
        for position, word in enumerate(reply):
            if END in reply[:position]:
                assert word == PAD
                continue
            assert word in nucleus(
                next_words(model, context, reply[:position]), top_p, temperature
            )
        want_score = teacher_forced(model, context, np.array(reply, np.int32))
        np.testing.assert_allclose(log_prob, want_score, rtol=1e-12)


def test_a_tiny_nucleus_is_greedy(params):
    model = leaning(params, END, 2.0)
    want = quick_greedy(model, contexts(LENGTHS, SLOTS))
    found = draw(model, tiled(contexts(LENGTHS, SLOTS)), 1e-9, 1.0, 0)
    np.testing.assert_array_equal(found.ids, np.tile(want.ids, (DRAWS // 5, 1)))
    np.testing.assert_allclose(found.log_prob, np.tile(want.log_prob, DRAWS // 5), rtol=1e-12)


def test_a_seed_and_a_row_fix_the_sample(params):
    batch = tiled(contexts(LENGTHS, SLOTS))
    first = draw(params, batch, 1.0, 1.0, 0)
    others = tiled(contexts([4] * 5, SLOTS, seed=3))
    others = jax.tree.map(lambda a, b: b.at[1].set(a[1]), batch, others)
    again = draw(params, others, 1.0, 1.0, 0)
    np.testing.assert_array_equal(again.ids[1], first.ids[1])
    assert (draw(params, batch, 1.0, 1.0, 1).ids != first.ids).any()


@pytest.mark.parametrize(
    "decode, settings",
    [
        (greedy, {"max_tokens": 0}),
        (beam_search, {"max_tokens": 0}),
        (beam_search, {"beams": 0}),
        (sample, {"top_p": 0.0}),
        (sample, {"top_p": 1.5}),
        (sample, {"temperature": 0.0}),
    ],
)
def test_a_setting_out_of_range_is_named(params, decode, settings):
    key = {"key": jax.random.key(0)} if decode is sample else {}
    with pytest.raises(ValueError, match=next(iter(settings))):
        decode(params, contexts([3], 3), START, **key, **settings, config=CONFIG)
