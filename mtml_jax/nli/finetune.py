"""Fine-tunes a BERT classifier: its loss, its batches, its steps."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from mtml_jax.nli import bert
from mtml_jax.nli.dialogue_nli import LabelledPair
from mtml_jax.nli.huggingface import Classifier, pad, padded_width, tokenise
from mtml_jax.sharding import PERSONAS, persona_mesh, replicate, split_personas
from mtml_jax.types import Params

_POOL = 32  # batches sorted by length together: little padding, batches still mixed
_WARM = 0.1  # part of the steps in which the rate rises
_DECAY = 0.01  # Devlin et al. (2019), appendix A.2: L2 weight decay
_CLIP = 1.0  # released code of Devlin et al.: global norm


def finetune(
    model: Classifier,
    epochs: Sequence[Sequence[LabelledPair]],
    *,
    rows: int,
    rate: float,
    seed: int,
    progress: Callable[[int, int, float], object],
) -> Params:
    """Minimises the cross-entropy of the labels by AdamW, linear warm-up and decay.

    Args:
      model: where to start.
      epochs: labelled pairs of each epoch.
      rows: pairs a step; an epoch's few last pairs that fill no step are left out.
      rate: the highest learning rate.
      seed: of the batches.
      progress: is told (finished steps, all steps, loss) after each step.

    Returns:
      Parameters, on the host.

    Raises:
      FloatingPointError: the loss is no longer finite.
    """
    mesh = persona_mesh(rows)
    total = sum(len(pairs) // rows for pairs in epochs)
    optimiser = _optimiser(rate, total)
    params = replicate(model.params, mesh)
    state = replicate(optimiser.init(params), mesh)
    step = _compiled_step(model.config, optimiser, mesh)
    done = 0
    for epoch, pairs in enumerate(epochs):
        tokens = tokenise(model, [(pair.reply, pair.statement) for pair in pairs])
        lengths = np.array([len(ids) for ids, _ in tokens])
        for members in batches(lengths, rows, np.random.default_rng((seed, epoch))):
            width = padded_width(int(lengths[members].max()), model.config)
            batch = pad([tokens[n] for n in members], rows, width)
            labels = np.array([pairs[n].label for n in members], np.int32)
            params, state, loss = step(params, state, *split_personas((*batch, labels), mesh))
            done += 1
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss of step {done} is {loss}; lower --rate")
            progress(done, total, float(loss))
    return jax.device_get(params)


def batches(lengths: np.ndarray, rows: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cuts an epoch into batches of alike lengths, in a random order.

    Args:
      lengths: int [N] tokens of each pair.
      rows: pairs a batch.
      rng: source of chance.

    Returns:
      N // rows arrays of distinct indices, int [rows].
    """
    order = rng.permutation(len(lengths))[: len(lengths) // rows * rows]
    cut = []
    for start in range(0, len(order), rows * _POOL):
        pool = order[start : start + rows * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        cut += list(pool.reshape(-1, rows))
    return [cut[n] for n in rng.permutation(len(cut))]


def loss(params: Params, ids_NS, types_NS, mask_NS, labels_N, *, config) -> jax.Array:
    """Mean cross-entropy, nats a pair; rows as `bert.classify`, labels_N int32 [N]."""
    logits_NC = bert.classify(params, ids_NS, types_NS, mask_NS, config)
    return optax.softmax_cross_entropy_with_integer_labels(logits_NC, labels_N).mean()


def _optimiser(rate, total):
    warm = max(1, round(_WARM * total))
    up = optax.linear_schedule(rate / warm, rate, warm - 1)  # the first step moves already
    down = optax.linear_schedule(rate, 0.0, max(1, total - warm))
    schedule = optax.join_schedules([up, down], [warm])

    def matrices(params):  # biases and normalisation are not drawn to zero
        return jax.tree.map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)

    return optax.chain(
        optax.clip_by_global_norm(_CLIP),
        optax.adamw(schedule, weight_decay=_DECAY, mask=matrices),
    )


def _compiled_step(config, optimiser, mesh):
    def local(params, *batch):
        found = jax.value_and_grad(functools.partial(loss, config=config))(params, *batch)
        return jax.lax.pmean(found, PERSONAS)

    rows = PartitionSpec(PERSONAS)  # pairs are split over the devices as personas are
    gradient = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), rows, rows, rows, rows),
        out_specs=PartitionSpec(),
        check_vma=False,  # the checked kind sums gradients of replicated values by itself
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, *batch):
        value, grads = gradient(params, *batch)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, jnp.asarray(value)

    return step
