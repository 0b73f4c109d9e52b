"""What a run learnt, by the test protocol on a few valid personas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax import evaluation
from mtml_jax.checkpoint import restore_params
from mtml_jax.config import TrainConfig
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.decoding import greedy
from mtml_jax.metrics import perplexity
from mtml_jax.sharding import persona_mesh, replicate, split_personas
from mtml_jax.types import Tokens

SHOTS, FOLDS, EPOCHS = 5, 8, 10  # k-shot and epochs as in section 3.4; folds are a sample
_SEED = 0
_REPLY_TOKENS = 20


def show(workdir: str, config: TrainConfig, data: Prepared) -> None:
    """Prints PPL before and after adapting, own against other; replies; a persona."""
    if len(data.valid) < 2:
        print("one valid persona: none to compare adapting with, so no summary")
        return
    params = restore_params(workdir, "best").params
    folds = evaluation.choose_folds(data.valid, SHOTS, FOLDS, _SEED)
    own = [(held_out, dialogues) for _, held_out, dialogues, _, _ in folds]
    other = [(held_out, dialogues) for _, held_out, _, _, dialogues in folds]
    packed = evaluation.make_folds(own + other, config.shape, epochs=EPOCHS, seed=_SEED)
    mesh = persona_mesh(2 * FOLDS)
    curves = jax.jit(
        functools.partial(evaluation.adaptation_curves, config=config.loss(), mesh=mesh)
    )
    sums = jax.device_get(
        curves(
            replicate(params, mesh),
            split_personas(packed, mesh),
            replicate(jnp.float32(config.inner_lr), mesh),
        )
    ).response
    initial, own_ppl, other_ppl = (
        perplexity(sums.nll[part, epoch].sum(), sums.tokens[part, epoch].sum())
        for part, epoch in (
            (slice(0, FOLDS), 0),
            (slice(0, FOLDS), -1),
            (slice(FOLDS, None), -1),
        )
    )
    print(
        f"\n{FOLDS} held-out dialogues of valid personas, {SHOTS} other dialogues to adapt to, "
        f"{EPOCHS} epochs of SGD at {config.inner_lr}, best checkpoint:\n"
        f"  response PPL unadapted                       {initial:8.2f}\n"
        f"  adapted to the speaker's own dialogues       {own_ppl:8.2f}\n"
        f"  adapted to another speaker's (the control)   {other_ppl:8.2f}"
    )
    batches = jax.tree.map(lambda x: jnp.asarray(x[0]), packed.batches)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    adapted = jax.jit(functools.partial(evaluation.adapt_to, config=config.loss()))(
        params, flat, jnp.float32(config.inner_lr)
    )
    _show_replies(params, adapted, own[0][0], config, data)
    if config.strategy in ("mtml", "amtml"):
        _show_persona(params, folds[0], config, data)
    print(
        f"\nnext: tensorboard --logdir={workdir}/tensorboard, or the same command with "
        "--strategy=paml to compare"
    )


def _show_replies(params, adapted, dialogue, config, data):
    """Two contexts of the held-out dialogue, each with the reply before and after adapting."""
    decode = jax.jit(
        functools.partial(
            greedy, start=START, max_tokens=_REPLY_TOKENS, config=config.model
        )
    )
    examples = [dialogue.examples[i] for i in (len(dialogue.examples) // 2, -1)]
    contexts = _rows([e.context for e in examples], config.shape.context)
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


def _show_persona(params, fold, config, data):
    """The statements of a valid persona, and what the model makes of a whole dialogue."""
    example = fold[1].examples[-1]
    start = START_PERSONA if config.distinct_start else START
    decode = jax.jit(
        functools.partial(
            greedy, start=start, max_tokens=len(example.persona) + 10, config=config.model
        )
    )
    ids = np.asarray(decode(params, _rows([example.context], config.shape.context)).ids)[0]
    print(
        f"\n  true persona          {data.vocabulary.decode(example.persona)}\n"
        f"  reconstructed persona {data.vocabulary.decode(ids)}"
    )
    if not config.distinct_start:
        print("  (both tasks begin with the same token; --distinct_start tells them apart)")


def _rows(contexts, slots):
    """One context a row, for decoding."""
    ids = np.zeros((len(contexts), slots), np.int32)
    segment = np.zeros_like(ids)
    for row, context in enumerate(contexts):
        ids[row, : len(context)] = context
        segment[row, : len(context)] = 1
    position = np.broadcast_to(np.arange(slots, dtype=np.int32), ids.shape)
    return jax.tree.map(jnp.asarray, Tokens(ids, segment, position))
