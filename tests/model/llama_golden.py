"""Golden logits of the Llama family from `transformers` on PyTorch, and the recipe of its checkpoints.

To rebuild llama_golden.npz, in an environment with torch, transformers, accelerate, gguf and safetensors
(PyTorch 2.13, transformers 5.24 at the time), from the repository's root:

    python tests/model/llama_golden.py [FOLDER_OF_SMOLLM2_GGUF]

*Checkpoints.* For each of `FAMILIES` config.json as below and tensors drawn in sorted order of
their names: 0.5 / sqrt(inputs) times the standard normal of `default_rng(0)`, 0.5 times for
biases and embeddings, plus 1 for the scales of norms; rounded to bfloat16 for `llama3`. Qwen3
lies in two files with an index.

*Values.* float32, eager attention: logits [11, 31] of `IDS`, a family each; of the packaged
SmolLM2 (Q4_1, dequantised by transformers) the logits of every 769th token at each position of
`PROMPT`.
"""

import json
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_suffix(".npz")
PACKAGED = "SmolLM2-135M-Instruct.Q4_1.gguf"
IDS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 30, 0, 17], np.int32)
PROMPT = (
    "<|im_start|>user\nWhat do you do for work?<|im_end|>\n<|im_start|>assistant\nI am a baker."
)

_SIZES = {
    "num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 37, "vocab_size": 31,
    "hidden_act": "silu", "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
FAMILIES = {
    "llama": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5,
        "rope_theta": 100.0, "tie_word_embeddings": False,
    },
    "llama3": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5,
        "rope_theta": 500.0, "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    },
    "qwen2": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6,
        "rope_theta": 1000.0, "tie_word_embeddings": True, "use_sliding_window": False,
        "head_dim": 6,
    },
    "qwen3": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "tie_word_embeddings": False,
    },
}  # fmt: skip


def write_checkpoint(folder: Path, family: str, vocabulary: int | None = None, **changed) -> Path:
    """Writes config.json and safetensors of one of `FAMILIES`.

    `changed` are settings that the tensors do not follow.
    """
    import ml_dtypes
    from safetensors.numpy import save

    settings = _SIZES | FAMILIES[family] | ({"vocab_size": vocabulary} if vocabulary else {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings | changed))
    dtype = ml_dtypes.bfloat16 if family == "llama3" else np.float32
    tensors = {name: tensor.astype(dtype) for name, tensor in draw_tensors(settings).items()}
    if family != "qwen3":
        (folder / "model.safetensors").write_bytes(save(tensors, {"format": "pt"}))
        return folder
    files: dict[str, dict] = {}
    for number, name in enumerate(sorted(tensors)):
        files.setdefault(f"model-{number % 2}.safetensors", {})[name] = tensors[name]
    for name, part in files.items():
        (folder / name).write_bytes(save(part, {"format": "pt"}))
    where = {tensor: name for name, part in files.items() for tensor in part}
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def draw_tensors(settings) -> dict[str, np.ndarray]:
    """Random float64 tensors by Hugging Face's names."""
    width, inner, size = (settings[n] for n in ("hidden_size", "intermediate_size", "head_dim"))
    queries = settings["num_attention_heads"] * size
    keys = settings["num_key_value_heads"] * size
    shapes = {
        "model.embed_tokens.weight": (settings["vocab_size"], width),
        "model.norm.weight": (width,),
    }
    if not settings["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (settings["vocab_size"], width)
    for n in range(settings["num_hidden_layers"]):
        layer = {
            "input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,),
            "self_attn.q_proj.weight": (queries, width), "self_attn.k_proj.weight": (keys, width),
            "self_attn.v_proj.weight": (keys, width), "self_attn.o_proj.weight": (width, queries),
            "mlp.gate_proj.weight": (inner, width), "mlp.up_proj.weight": (inner, width),
            "mlp.down_proj.weight": (width, inner),
        }  # fmt: skip
        if settings["model_type"] == "qwen2":
            layer |= {
                f"self_attn.{x}_proj.bias": (s,) for x, s in zip("qkv", (queries, keys, keys))
            }
        if settings["model_type"] == "qwen3":
            layer |= {f"self_attn.{x}_norm.weight": (size,) for x in "qk"}
        shapes |= {f"model.layers.{n}.{name}": shape for name, shape in layer.items()}
    rng = np.random.default_rng(0)
    tensors = {}
    for name in sorted(shapes):
        drawn = 0.5 * rng.standard_normal(shapes[name])
        if name.endswith("proj.weight"):
            drawn *= 2 * shapes[name][1] ** -0.5
        tensors[name] = drawn + (len(shapes[name]) == 1 and "norm" in name)
    return tensors


def main(packaged=None):
    """Writes llama_golden.npz; without the folder of the packaged file its part stays."""
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def logits(ids, *where, **options):
        model = AutoModelForCausalLM.from_pretrained(
            *where, dtype=torch.float32, attn_implementation="eager", **options
        ).eval()
        with torch.no_grad():
            return model(torch.tensor(np.asarray(ids))[None].long()).logits[0].numpy()

    golden = dict(np.load(GOLDEN)) if GOLDEN.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            golden[family] = logits(IDS, write_checkpoint(Path(folder) / family, family))
    if packaged is not None:
        ids = AutoTokenizer.from_pretrained(packaged, gguf_file=PACKAGED)(PROMPT).input_ids
        golden["smollm2_ids"] = np.array(ids, np.int32)
        golden["smollm2"] = logits(ids, packaged, gguf_file=PACKAGED)[:, ::769]
    np.savez_compressed(GOLDEN, **golden)
    for name, value in golden.items():
        print(name, value.shape, float(np.abs(value).max()))


if __name__ == "__main__":
    main(*sys.argv[1:])
