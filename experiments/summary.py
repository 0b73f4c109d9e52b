"""Print what a run learnt, by the test protocol on a few valid personas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import Encoding, encode_dialogue, own_side
from mtml_jax.data.packing import pack_rows
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.vocab import START, START_PERSONA
from mtml_jax.eval.adaptation import adapt_to
from mtml_jax.eval.quick import EPOCHS, own_and_other
from mtml_jax.model.decoding import MAX_TOKENS, greedy
from mtml_jax.runs.checkpoint import restore_params
from mtml_jax.strategies import STRATEGIES

_FOLDS = 8  # a sample


def show(workdir: str, config: TrainConfig, data: Prepared) -> None:
    """Prints PPL before and after adapting, own against other; replies; a persona."""
    if len(data.valid) < 2:
        print("no summary: it compares two valid personas, and there is only one")
        return
    params = restore_params(workdir, "best").params
    scores = own_and_other(params, config, data, _FOLDS)
    first = scores.plans[0]
    print(
        f"\n{len(scores.plans)} held-out dialogues of valid personas, {len(first.own)} other "
        f"dialogues to adapt to, {EPOCHS} epochs of SGD at {config.inner_lr}, best checkpoint:\n"
        f"  response PPL unadapted                       {scores.initial:8.2f}\n"
        f"  adapted to the speaker's own dialogues       {scores.own:8.2f}\n"
        f"  adapted to another speaker's (the control)   {scores.other:8.2f}"
    )
    batches = jax.tree.map(lambda x: jnp.asarray(x[0]), scores.folds.batches)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    adapted = jax.jit(functools.partial(adapt_to, config=config.loss()))(
        params, flat, jnp.float32(config.inner_lr)
    )
    _show_replies(params, adapted, first.held_out, config, data)
    if STRATEGIES[config.strategy].reconstructs(config.alpha):
        dialogue = data.valid_personas[first.persona].dialogues[first.dialogue]
        _show_persona(params, dialogue, config, data)
    print(
        f"\nnext: python -m experiments.evaluate --workdir={workdir}, or the same command with "
        "--strategy=paml to compare"
    )


def _show_replies(params, adapted, dialogue, config, data):
    """Two contexts of the held-out dialogue, each with the reply before and after adapting."""
    decode = jax.jit(
        functools.partial(greedy, start=START, max_tokens=MAX_TOKENS, config=config.model)
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
    """The statements of a valid persona, and those that the model reconstructs from a dialogue."""
    read = own_side(dialogue) if config.persona_context == "own" else dialogue
    example = encode_dialogue(read, Encoding(data.vocabulary, config.shape))[0][-1]
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
        print("  (both tasks begin with the same token; --distinct_start gives each its own)")
