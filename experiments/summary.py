"""What a run learnt, by the test protocol on a few valid personas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import Encoding, encode_dialogue, own_side
from mtml_jax.data.packing import pack_rows
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.eval.adaptation import adapt_to, score_stages
from mtml_jax.eval.folds import choose_folds, measure_folds, pack_folds
from mtml_jax.eval.metrics import perplexity
from mtml_jax.model.decoding import MAX_TOKENS, greedy
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.sharding import local_mesh, replicate, split_personas
from mtml_jax.strategies import STRATEGIES

SHOTS, FOLDS, EPOCHS = 5, 8, 10  # k-shot and epochs as in section 3.4; folds are a sample
_SEED = 0


def show(workdir: str, config: TrainConfig, data: Prepared) -> None:
    """Prints PPL before and after adapting, own against other; replies; a persona."""
    if len(data.valid) < 2:
        print("one valid persona: none to compare adapting with, so no summary")
        return
    params = restore_params(workdir, "best").params
    (initial, own_ppl, other_ppl), plans, own = own_and_other(params, config, data, FOLDS)
    shots = len(plans[0].own)
    print(
        f"\n{len(plans)} held-out dialogues of valid personas, {shots} other dialogues to adapt "
        f"to, {EPOCHS} epochs of SGD at {config.inner_lr}, best checkpoint:\n"
        f"  response PPL unadapted                       {initial:8.2f}\n"
        f"  adapted to the speaker's own dialogues       {own_ppl:8.2f}\n"
        f"  adapted to another speaker's (the control)   {other_ppl:8.2f}"
    )
    batches = jax.tree.map(lambda x: jnp.asarray(x[0]), own.batches)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    adapted = jax.jit(functools.partial(adapt_to, config=config.loss()))(
        params, flat, jnp.float32(config.inner_lr)
    )
    _show_replies(params, adapted, plans[0].held_out, config, data)
    if STRATEGIES[config.strategy].reconstructs(config.alpha):
        told = data.valid_personas[plans[0].persona].dialogues[plans[0].dialogue]
        _show_persona(params, told, config, data)
    print(
        f"\nnext: python -m experiments.evaluate --workdir={workdir}, or the same command with "
        "--strategy=paml to compare"
    )


def own_and_other(params, config: TrainConfig, data: Prepared, count: int):
    """Response PPL of so many folds of valid personas, adapted as at test.

    Returns:
      ((unadapted, adapted to own dialogues, to another persona's), the plans, the folds
      that are adapted to own dialogues).
    """
    most = max(len({d.conversation for d in p.dialogues}) for p in data.valid) - 1
    plans = choose_folds(data.valid, min(SHOTS, most), _SEED, count)
    sizes = measure_folds(plans, config.shape, epochs=EPOCHS, seed=_SEED)
    own, other = (
        pack_folds(plans, config.shape, sizes, control=control, epochs=EPOCHS, seed=_SEED)
        for control in (False, True)
    )
    folds = jax.tree.map(lambda *both: np.concatenate(both), own, other)
    mesh = local_mesh(2 * len(plans))
    sums = jax.device_get(
        _before_and_after(config.loss(), mesh)(
            replicate(params, mesh),
            split_personas(folds, mesh),
            replicate(jnp.float32(config.inner_lr), mesh),
        )
    ).response
    half = len(plans)
    ppl = tuple(
        perplexity(sums.nll[part, stage].sum(), sums.tokens[part, stage].sum())
        for part, stage in (
            (slice(0, half), 0),
            (slice(0, half), 1),
            (slice(half, None), 1),
        )
    )
    return ppl, plans, own


@functools.lru_cache(maxsize=4)
def _before_and_after(config, mesh):
    return jax.jit(
        functools.partial(score_stages, stages=(0, EPOCHS), config=config, mesh=mesh)
    )


def _show_replies(params, adapted, dialogue, config, data):
    """Two contexts of the held-out dialogue, each with the reply before and after adapting."""
    decode = jax.jit(
        functools.partial(
            greedy, start=START, max_tokens=MAX_TOKENS, config=config.model
        )
    )
    examples = [dialogue.examples[i] for i in (len(dialogue.examples) // 2, -1)]
    contexts = pack_rows([e.context for e in examples], config.shape.context, len(examples))
    before, after = (np.asarray(decode(p, contexts).ids) for p in (params, adapted))
    words = data.vocabulary.decode
    for example, first, second in zip(examples, before, after):
        context = words(example.context).split()
        print(
            f"\n  ... {' '.join(context[-25:])}\n"
            f"    true      {words(example.response)}\n"
            f"    unadapted {words(first)}\n"
            f"    adapted   {words(second)}"
        )


def _show_persona(params, dialogue, config, data):
    """The statements of a valid persona, and what the model makes of a whole dialogue."""
    heard = own_side(dialogue) if config.persona_context == "own" else dialogue
    example = encode_dialogue(heard, Encoding(data.vocabulary, config.shape))[0][-1]
    start = START_PERSONA if config.distinct_start else START
    decode = jax.jit(
        functools.partial(
            greedy, start=start, max_tokens=len(example.persona) + 10, config=config.model
        )
    )
    context = pack_rows([example.context], config.shape.context, 1)
    ids = np.asarray(decode(params, context).ids)[0]
    print(
        f"\n  true persona          {data.vocabulary.decode(example.persona)}\n"
        f"  reconstructed persona {data.vocabulary.decode(ids)}"
    )
    if not config.distinct_start:
        print("  (both tasks begin with the same token; --distinct_start tells them apart)")
