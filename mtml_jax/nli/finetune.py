"""Fine-tunes a BERT classifier on labelled pairs: loss, batches and steps."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from mtml_jax.nli import bert
from mtml_jax.nli.dialogue_nli import LabelledPair
from mtml_jax.nli.huggingface import Classifier, encode_pairs, pad, padded_width
from mtml_jax.sharding import PERSONAS, persona_mesh, replicate, split_personas
from mtml_jax.types import Params

_POOL = 32  # batches that are sorted by length together: little padding, still random
_WARM = 0.1  # share of the steps in which the learning rate rises
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
    """Minimises the cross-entropy of the labels by AdamW with linear warm-up and decay.

    Args:
      model: the classifier to start from.
      epochs: the labelled pairs of each epoch.
      rows: pairs per step; the last pairs of an epoch that do not fill a step are left out.
      rate: the highest learning rate.
      seed: random seed of the batches.
      progress: receives (finished steps, all steps, loss) after each step.

    Returns:
      The parameters, on the host.

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
        tokens = encode_pairs(model, [(pair.reply, pair.statement) for pair in pairs])
        lengths = np.array([len(ids) for ids, _ in tokens])
        for members in batches(lengths, rows, np.random.default_rng((seed, epoch))):
            width = padded_width(int(lengths[members].max()), model.config)
            batch = pad([tokens[n] for n in members], rows, width)
            labels = np.array([pairs[n].label for n in members], np.int32)
            params, state, loss = step(params, state, *split_personas((*batch, labels), mesh))
            done += 1
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"expected a finite loss, got {loss} in step {done}; lower --rate"
                )
            progress(done, total, float(loss))
    return jax.device_get(params)


def batches(lengths: np.ndarray, rows: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cuts an epoch into batches of pairs of similar lengths, in a random order.

    `lengths`, int [N], counts the tokens of each pair. Returns N // rows arrays of distinct
    indices, int [rows].
    """
    order = rng.permutation(len(lengths))[: len(lengths) // rows * rows]
    cut = []
    for start in range(0, len(order), rows * _POOL):
        pool = order[start : start + rows * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        cut += list(pool.reshape(-1, rows))
    return [cut[n] for n in rng.permutation(len(cut))]


def loss(params: Params, ids_NS, types_NS, mask_NS, labels_N, *, config) -> jax.Array:
    """Mean cross-entropy in nats per pair; rows as in `bert.classify`, labels_N int32 [N]."""
    logits_NC = bert.classify(params, ids_NS, types_NS, mask_NS, config)
    return optax.softmax_cross_entropy_with_integer_labels(logits_NC, labels_N).mean()


def _optimiser(rate, total):
    warm = max(1, round(_WARM * total))
    up = optax.linear_schedule(rate / warm, rate, warm - 1)  # the first step already has a rate above 0
    down = optax.linear_schedule(rate, 0.0, max(1, total - warm))
    schedule = optax.join_schedules([up, down], [warm])

    def matrices(params):  # weight decay excludes biases and normalisation
        return jax.tree.map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)

    adamw = optax.adamw(schedule, weight_decay=_DECAY, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(_CLIP), adamw)


def _compiled_step(config, optimiser, mesh):
    def local(params, *batch):
        value_and_grads = jax.value_and_grad(functools.partial(loss, config=config))
        return jax.lax.pmean(value_and_grads(params, *batch), PERSONAS)

    # Pairs are split over the devices as personas are. With check_vma, gradients of replicated
    # values would be summed.
    specs = PartitionSpec(), *[PartitionSpec(PERSONAS)] * 4
    gradient = jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
    )

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, *batch):
        value, grads = gradient(params, *batch)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, jnp.asarray(value)

    return step
