"""Reads GGUF files of architecture llama as the base of `llama`."""

from mtml_jax.config_decoder import LlamaConfig
from mtml_jax.data.gguf_file import GgufFile, read_tensor
from mtml_jax.model.pretrained_layout import arrange, checked_config, ratio, require_all_used
from mtml_jax.types import Params

_LAYER = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def read_gguf(file: GgufFile) -> tuple[LlamaConfig, Params]:
    """Reads sizes and tensors.

    Args:
      file: from `open_gguf`.

    Returns:
      (sizes of the decoder, its base: see `pretrained.Pretrained`).

    Raises:
      ValueError: the architecture is another one, or the file is damaged.
    """
    config = _config(file)
    names = {leaf: f"blk.{{}}.{name}.weight" for leaf, name in _LAYER.items()}
    top = {"embedding": "token_embd.weight", "norm": "output_norm.weight"}
    if "output.weight" in file.tensors:
        top["output"] = "output.weight"
    heads = {".attn_q.weight": config.heads, ".attn_k.weight": config.key_value_heads}

    def read(name):
        tensor = read_tensor(file, name)
        for ending, count in heads.items():
            if name.endswith(ending) and tensor.ndim == 2:
                tensor = _unpermuted(tensor, count)
        return tensor

    base, used = arrange(read, names, top, config, str(file.path))
    require_all_used(file.tensors.keys() - {"rope_freqs.weight"}, used, str(file.path), "llama")
    return config, base


def _unpermuted(matrix_OI, heads):
    """Rows as Hugging Face has them; the converter interleaves the two halves of each head."""
    rows, inputs = matrix_OI.shape
    if rows % (2 * heads):
        return matrix_OI  # of a wrong shape, which is refused later
    pairs = matrix_OI.reshape(heads, rows // heads // 2, 2, inputs)
    return pairs.swapaxes(1, 2).reshape(rows, inputs)


def _config(file):
    where, metadata = file.path, file.metadata
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(
            f"{where}: expected a GGUF file of architecture llama, got {architecture!r}; use the "
            "decoder's folder of Hugging Face instead"
        )

    def get(key, default=None):
        return metadata.get(f"llama.{key}", default)

    if get("expert_count"):
        raise ValueError(
            f"{where}: expected one feed-forward layer a block, got a mixture of experts"
        )
    scaling = get("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ValueError(f"{where}: expected rope scaling none or linear, got {scaling!r}")
    heads, width = get("attention.head_count"), get("embedding_length")
    embedding = file.tensors.get("token_embd.weight")
    sizes = {
        "layers": get("block_count"),
        "width": width,
        "heads": heads,
        "key_value_heads": get("attention.head_count_kv", heads),
        "head_width": get("attention.key_length", ratio(width, heads)),
        "feed_forward": get("feed_forward_length"),
        "vocabulary": embedding.shape[0] if embedding else get("vocab_size"),
    }
    half = ratio(sizes["head_width"], 2)
    factors = ()
    if scaling == "linear":
        factors = (float(get("rope.scaling.factor", 1.0)),) * (half or 0)
    if "rope_freqs.weight" in file.tensors:  # Llama 3.1 and later
        factors = tuple(float(f) for f in read_tensor(file, "rope_freqs.weight").ravel())
    config = checked_config(
        sizes,
        get("attention.layer_norm_rms_epsilon", 1e-5),
        get("rope.freq_base", 10000.0),
        factors,
        where,
    )
    if get("rope.dimension_count", config.head_width) != config.head_width:
        raise ValueError(
            f"{where}: expected all {config.head_width} numbers of a head to be rotated, got "
            f"{get('rope.dimension_count')}"
        )
    return config
