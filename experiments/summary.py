"""Print what a run learnt, by the test protocol on a few valid personas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import own_side
from mtml_jax.data.layout import lay_out_contexts
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.text import persona_text
from mtml_jax.eval.adaptation import adapt_to
from mtml_jax.eval.protocol import decoding_of
from mtml_jax.eval.quick import own_and_other
from mtml_jax.inference.responder import believed_persona, persona_caveat
from mtml_jax.model.decoding import greedy
from mtml_jax.runs.trained import load_trained
from mtml_jax.strategies import STRATEGIES

_FOLDS = 8  # a sample
_DECODER_FOLDS = 2  # each takes a minute or more on a CPU


def show(workdir: str, config: TrainConfig, data: Prepared) -> None:
    """Prints PPL before and after adapting, own against other; replies; a persona."""
    if len(data.valid) < 2:
        print("no summary: it compares two valid personas, and there is only one")
        return
    model = load_trained(workdir, "best")
    params, base = model.params, model.base
    count = _FOLDS if base is None else _DECODER_FOLDS
    scores = own_and_other(params, config, data, count, base)
    first = scores.plans[0]
    print(
        f"\n{len(scores.plans)} held-out dialogues of valid personas, {len(first.own)} other "
        f"dialogues to adapt to, {data.encoding.epochs[-1]} epochs of SGD at {config.inner_lr}, best checkpoint:\n"
        f"  response PPL unadapted                       {scores.initial:8.2f}\n"
        f"  adapted to the speaker's own dialogues       {scores.own:8.2f}\n"
        f"  adapted to another speaker's (the control)   {scores.other:8.2f}"
    )
    batches = jax.tree.map(lambda x: jnp.asarray(x[0]), scores.folds.batches)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    adapted = jax.jit(functools.partial(adapt_to, config=config.loss()))(
        params, flat, jnp.float32(config.inner_lr), base
    )
    _show_replies(model, adapted, first.held_out)
    if STRATEGIES[config.strategy].reconstructs(config.alpha):
        dialogue = data.valid_personas[first.persona].dialogues[first.dialogue]
        _show_persona(model, dialogue)
    print(
        f"\nnext: python -m experiments.evaluate --workdir={workdir}, or the same command with "
        "--strategy=paml to compare"
    )


def _show_replies(model, adapted, dialogue):
    """Two contexts of the held-out dialogue, each with the reply before and after adapting."""
    encoding = model.encoding
    decode = jax.jit(
        functools.partial(
            greedy, config=model.config.model, **dict(decoding_of(encoding))
        )
    )
    replies = [reply for example in dialogue.examples for reply in example.spoken()]
    chosen = [len(replies) // 2, -1]
    contexts = [dialogue.contexts[i] for i in chosen]
    rows = lay_out_contexts(contexts, encoding, len(contexts))
    before, after = (
        np.asarray(decode(p, rows, base=model.base).ids) for p in (model.params, adapted)
    )
    for index, context, first, second in zip(chosen, contexts, before, after):
        said = encoding.heard(context).split()
        print(
            f"\n  ... {' '.join(said[-25:])}\n"
            f"    true      {encoding.words(replies[index])}\n"
            f"    unadapted {encoding.words(first)}\n"
            f"    adapted   {encoding.words(second)}"
        )


def _show_persona(model, dialogue):
    """The statements of a valid persona, and those that the model reconstructs from a dialogue."""
    read = own_side(dialogue) if model.config.persona_context == "own" else dialogue
    print(
        f"\n  true persona          {persona_text(dialogue.statements)}\n"
        f"  reconstructed persona {believed_persona(model, model.params, read)}"
    )
    if caveat := persona_caveat(model):
        print(f"  ({caveat})")
