"""Print what a run learnt, by the test protocol on a few valid personas."""

import functools
import shlex

import jax
import jax.numpy as jnp
import numpy as np

from experiments.printing import say
from experiments.samples import drawn_places
from mtml_jax.config import TrainConfig
from mtml_jax.data.encode import own_side
from mtml_jax.data.layout import lay_out_contexts
from mtml_jax.data.prepare import Prepared
from mtml_jax.data.text import detokenize, persona_text
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
    print()
    say(
        f"{len(scores.plans)} held-out dialogues of valid personas, {len(first.own)} other dialogues "
        f"to adapt to, {data.encoding.epochs[-1]} epochs of SGD at {config.inner_lr}, best checkpoint:"
    )
    say(f"  response PPL unadapted                       {scores.initial:8.2f}")
    say(f"  adapted to the speaker's own dialogues       {scores.own:8.2f}")
    say(f"  adapted to another speaker's (the control)   {scores.other:8.2f}")
    batches = jax.tree.map(lambda x: jnp.asarray(x[0]), scores.folds.batches)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batches)
    adapted = jax.jit(functools.partial(adapt_to, config=config.loss()))(
        params, flat, jnp.float32(config.inner_lr), base
    )
    dialogue = data.valid_personas[first.persona].dialogues[first.dialogue]
    _show_replies(model, adapted, first.held_out, dialogue)
    if STRATEGIES[config.strategy].reconstructs(config.alpha):
        _show_persona(model, dialogue)
    print()
    say(
        f"next: python -m experiments.evaluate --workdir={shlex.quote(str(workdir))}, or the same "
        "command with --strategy=paml to compare"
    )


def _show_replies(model, adapted, held_out, dialogue):
    """The replies before and after adapting, at places of the held-out dialogue drawn by seed."""
    encoding = model.encoding
    decode = jax.jit(
        functools.partial(greedy, config=model.config.model, **dict(decoding_of(encoding)))
    )
    contexts = held_out.contexts
    chosen = drawn_places(len(contexts), model.config.seed)
    rows = lay_out_contexts([contexts[i] for i in chosen], encoding, len(chosen))
    before, after = (
        np.asarray(decode(p, rows, base=model.base).ids) for p in (model.params, adapted)
    )
    for index, first, second in zip(chosen, before, after):
        turn = dialogue.turns[index - len(contexts)]  # long dialogues keep their end
        print()
        say(detokenize(turn.context), "  ... ")
        say(detokenize(turn.response), "    true      ")
        say(encoding.shown(first), "    unadapted ")
        say(encoding.shown(second), "    adapted   ")


def _show_persona(model, dialogue):
    """The statements of a valid persona, and those that the model reconstructs from a dialogue."""
    read = own_side(dialogue) if model.config.persona_context == "own" else dialogue
    print()
    say(persona_text(dialogue.statements), "  true persona          ")
    say(believed_persona(model, model.params, read), "  reconstructed persona ")
    if caveat := persona_caveat(model):
        say(f"({caveat})", "  ")
