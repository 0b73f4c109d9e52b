"""Implements BERT as pure functions of (params, a batch of token rows).

Devlin et al. (2019), as `BertForSequenceClassification` of Hugging Face computes it:
layer normalisation after each sub-layer, learned positions, GELU with the exact error
function, a tanh pooler over the first token, a linear classifier; no dropout.

Axes: N row, S token, D width, H head, K head width, L layer, F feed-forward, C class.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mtml_jax.types import Params

_MASKED = -1e9  # finite, so that a row of only padding gives no NaN
_INIT_SCALE = 0.02  # Devlin et al. (2019), released code: initializer_range


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder; a static argument under jit."""

    layers: int
    heads: int
    width: int
    feed_forward: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


def encode(params: Params, ids_NS, types_NS, mask_NS, config: BertConfig) -> jax.Array:
    """Encodes rows of tokens.

    Args:
      params: from `from_tensors`.
      ids_NS: int32 [N, S] WordPiece ids.
      types_NS: int32 [N, S], 0 for the first text and 1 for the second.
      mask_NS: bool [N, S], true where there is a token.
      config: sizes of the encoder.

    Returns:
      hidden_NSD, float32.
    """
    tables = params["embeddings"]
    hidden_NSD = tables["word"][ids_NS] + tables["type"][types_NS]
    hidden_NSD += tables["position"][None, : ids_NS.shape[1]]
    hidden_NSD = _layer_norm(tables["norm"], hidden_NSD, config.epsilon)

    def layer(hidden_NSD, weights):
        mixed_NSD = _attend(weights, hidden_NSD, mask_NS, config)
        hidden_NSD = hidden_NSD + _dense(weights["attention_output"], mixed_NSD)
        hidden_NSD = _layer_norm(weights["attention_norm"], hidden_NSD, config.epsilon)
        inner_NSF = jax.nn.gelu(_dense(weights["hidden"], hidden_NSD), approximate=False)
        hidden_NSD = hidden_NSD + _dense(weights["output"], inner_NSF)
        return _layer_norm(weights["output_norm"], hidden_NSD, config.epsilon), None

    return jax.lax.scan(layer, hidden_NSD, params["layers"])[0]


def classify(params: Params, ids_NS, types_NS, mask_NS, config: BertConfig) -> jax.Array:
    """Computes logits_NC = W_c tanh(W_p h_first + b_p) + b_c; arguments as in `encode`."""
    first_ND = encode(params, ids_NS, types_NS, mask_NS, config)[:, 0]
    pooled_ND = jnp.tanh(_dense(params["pooler"], first_ND))
    return _dense(params["classifier"], pooled_ND)


def from_tensors(
    tensors: Mapping[str, np.ndarray], config: BertConfig, classes: int, where: str
) -> Params:
    """Arranges the tensors of a checkpoint as parameters; the inverse of `to_tensors`.

    Args:
      tensors: tensors by Hugging Face's names, with or without the prefix `bert.`.
      config: sizes of the encoder.
      classes: number of outputs of the classifier.
      where: the file, for error messages.

    Returns:
      Nested dict of float32 arrays; layers are stacked along a leading axis. The dict has no
      pooler or classifier if `tensors` has none; see `with_head`.

    Raises:
      ValueError: a tensor is missing or has another shape.
    """
    by_name = {_modern(name): tensor for name, tensor in tensors.items()}
    params: Params = {}
    for path, (names, shape) in _layout(config, classes).items():
        if path[0] in ("pooler", "classifier") and not by_name.keys() & set(names):
            continue
        leaf = np.stack([_tensor(by_name, name, shape, where) for name in names])
        if path[-1] == "kernel":
            leaf = leaf.swapaxes(1, 2)  # Hugging Face stores [outputs, inputs]
        *above, last = path
        inner = params
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = leaf if path[0] == "layers" else leaf[0]
    return params


def to_tensors(params: Params, config: BertConfig) -> dict[str, np.ndarray]:
    """Returns the tensors of `BertForSequenceClassification`, by its names."""
    tensors = {}
    for path, (names, _) in _layout(config, params["classifier"]["bias"].size).items():
        leaf = params
        for key in path:
            leaf = leaf[key]
        leaf = np.asarray(leaf, np.float32)
        leaf = leaf if path[0] == "layers" else leaf[None]
        if path[-1] == "kernel":
            leaf = leaf.swapaxes(1, 2)
        for name, tensor in zip(names, leaf, strict=True):
            whole = name if name.startswith("classifier.") else f"bert.{name}"
            tensors[whole] = np.ascontiguousarray(tensor)
    return tensors


def with_head(key: jax.Array, params: Params, config: BertConfig, classes: int) -> Params:
    """Adds a missing pooler or classifier: kernels from N(0, 0.02^2), biases 0."""
    pooler, classifier = jax.random.split(key)

    def drawn(key, outputs):
        kernel = _INIT_SCALE * jax.random.normal(key, (config.width, outputs), jnp.float32)
        return {"kernel": kernel, "bias": jnp.zeros((outputs,), jnp.float32)}

    head = {"pooler": drawn(pooler, config.width), "classifier": drawn(classifier, classes)}
    return head | params


def _layout(config, classes):
    """Maps each path in params to (names of tensors, one per layer; shape in the file)."""
    wide, inner = config.width, config.feed_forward
    layout = {}

    def add(path, name, suffixes, *shape):
        stacked = range(config.layers) if path[0] == "layers" else [0]
        for leaf, suffix in suffixes.items():
            names = [f"{name.format(n)}.{suffix}" for n in stacked]
            layout[(*path, leaf)] = names, shape[:1] if leaf == "bias" else shape

    dense, norm = {"kernel": "weight", "bias": "bias"}, {"scale": "weight", "bias": "bias"}
    rows = {"word": config.vocabulary, "position": config.positions, "type": config.types}
    for part, count in rows.items():
        kind = "token_type" if part == "type" else part
        layout["embeddings", part] = [f"embeddings.{kind}_embeddings.weight"], (count, wide)
    add(("embeddings", "norm"), "embeddings.LayerNorm", norm, wide)
    layer = "encoder.layer.{}."
    for part in ("query", "key", "value"):
        add(("layers", part), f"{layer}attention.self.{part}", dense, wide, wide)
    add(("layers", "attention_output"), layer + "attention.output.dense", dense, wide, wide)
    add(("layers", "attention_norm"), layer + "attention.output.LayerNorm", norm, wide)
    add(("layers", "hidden"), layer + "intermediate.dense", dense, inner, wide)
    add(("layers", "output"), layer + "output.dense", dense, wide, inner)
    add(("layers", "output_norm"), layer + "output.LayerNorm", norm, wide)
    add(("pooler",), "pooler.dense", dense, wide, wide)
    add(("classifier",), "classifier", dense, classes, wide)
    return layout


def _modern(name):
    """Returns a name without `bert.`, and renames gamma and beta of the oldest checkpoints."""
    name = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


def _tensor(by_name, name, shape, where):
    if name not in by_name:
        raise ValueError(f"{where}: expected the weights of a BERT, got no tensor {name}")
    if by_name[name].shape != shape:
        raise ValueError(
            f"{where}: expected {name} of shape {list(shape)}, as in config.json, "
            f"got {list(by_name[name].shape)}"
        )
    return np.asarray(by_name[name], np.float32)


def _dense(weights, inputs):
    # One matrix product over all tokens: XLA's batched products are slow on a CPU.
    flat = inputs.reshape(-1, inputs.shape[-1]) @ weights["kernel"]
    return (flat + weights["bias"][None]).reshape(*inputs.shape[:-1], -1)


def _layer_norm(weights, hidden, epsilon):
    centred = hidden - hidden.mean(-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    ones = (1,) * (hidden.ndim - 1)
    return normal * weights["scale"].reshape(*ones, -1) + weights["bias"].reshape(*ones, -1)


def _attend(weights, hidden_NSD, mask_NS, config):
    """Computes softmax(q k' / sqrt(K)) v per head, over the tokens of a row."""
    rows, tokens, width = hidden_NSD.shape

    def split(part):
        mixed = _dense(weights[part], hidden_NSD)
        return mixed.reshape(rows, tokens, config.heads, width // config.heads)

    size = width // config.heads
    scores_NHSS = jnp.einsum("nqhk,nshk->nhqs", split("query") * size**-0.5, split("key"))
    scores_NHSS = jnp.where(mask_NS[:, None, None], scores_NHSS, _MASKED)
    mixed = jnp.einsum("nhqs,nshk->nqhk", jax.nn.softmax(scores_NHSS, axis=-1), split("value"))
    return mixed.reshape(rows, tokens, width)
