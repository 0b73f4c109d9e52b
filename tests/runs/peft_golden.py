"""Golden adapters and logits from `peft` on PyTorch, and the recipe of both.

To rebuild peft_golden.npz, in an environment with mtml_jax, torch, transformers, gguf, accelerate
and peft (PyTorch 2.14, transformers 5.24, peft 0.21 at the time), from the repository's root:

    PYTHONPATH=.:tests/model python tests/runs/peft_golden.py [FOLDER_OF_SMOLLM2_GGUF]

*Read.* The two files that `peft` saved for each of `READ`, as bytes, with all adapters drawn by
torch (seed 0); the decoder is the checkpoint `llama` of `llama_golden`.

*Written.* The two files of `write_peft` for `WRITTEN`, whose adapters are those of `draw`, as
bytes.

*Logits.* float32, eager attention, of `llama_golden.IDS` with the adapters that `peft` loaded
from each pair of files, and from those of `write_peft` for the other families (`WRITTEN`,
adapters of `draw`); of the packaged SmolLM2 (dequantised by transformers) with `PACKAGED`,
at every 769th token and each position of `llama_golden.PROMPT`.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import llama_golden
import numpy as np

from mtml_jax.model import lora
from mtml_jax.model.lora import LoraConfig
from mtml_jax.model.pretrained import read_pretrained
from mtml_jax.model.pretrained_folder import read_folder
from mtml_jax.runs.peft import CONFIG, WEIGHTS, write_peft

GOLDEN = Path(__file__).with_suffix(".npz")
READ = {
    "seven": {
        "r": 3, "lora_alpha": 5, "layers_to_transform": [1, 2], "init_lora_weights": "gaussian",
        "target_modules": [
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
    },
    "rslora": {
        "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ["v_proj", "q_proj"],
        "lora_dropout": 0.1,
    },
}  # fmt: skip
FAMILIES = ("llama3", "qwen2", "qwen3")
BFLOAT16 = ("rslora",)  # saved as bfloat16
WRITTEN = LoraConfig(rank=3, scale=2.5, targets=lora.TARGETS, layers=2)
PACKAGED = LoraConfig(rank=8, scale=2.0, targets=lora.TARGETS, layers=10)


def draw(base, settings: LoraConfig):
    """Adapters whose product is about a tenth of the decoder's: normal numbers, float32."""
    rng = np.random.default_rng(2)
    shapes = lora.split_layers(base, settings)["layers"]
    adapters = {}
    for name in settings.targets:
        layers, inputs, outputs = shapes[name].shape
        a = inputs**-0.5 * rng.standard_normal((layers, inputs, settings.rank))
        b = 0.02 * rng.standard_normal((layers, settings.rank, outputs))
        adapters[name] = {"a": a.astype(np.float32), "b": b.astype(np.float32)}
    return adapters


def main(packaged=None):
    """Writes peft_golden.npz; without the folder of the packaged file its part stays."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    def load(*where, **options):
        return AutoModelForCausalLM.from_pretrained(
            *where, dtype=torch.float32, attn_implementation="eager", **options
        ).eval()

    def logits(model, ids):
        with torch.no_grad():
            return model(torch.tensor(np.asarray(ids))[None].long()).logits[0].numpy()

    golden = dict(np.load(GOLDEN)) if GOLDEN.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        decoder = llama_golden.write_checkpoint(Path(temporary) / "llama", "llama")
        config, base = read_folder(decoder)
        for name, options in READ.items():
            torch.manual_seed(0)
            settings = peft.LoraConfig(task_type="CAUSAL_LM", **options)
            model = peft.get_peft_model(load(decoder), settings)
            for key, value in model.named_parameters():
                if "lora_" in key:
                    value.data = 0.2 * torch.randn(value.shape)
                    if name in BFLOAT16:
                        value.data = value.data.bfloat16()
            model.save_pretrained(Path(temporary) / name)
        config = dataclasses.replace(config, lora=WRITTEN)
        write_peft(Path(temporary) / "written", draw(base, WRITTEN), config, "a/decoder")
        for name in (*READ, "written"):
            folder = Path(temporary) / name
            for file in (CONFIG, WEIGHTS):
                golden[f"{name}/{file}"] = np.frombuffer((folder / file).read_bytes(), np.uint8)
            model = peft.PeftModel.from_pretrained(load(decoder), folder).eval()
            golden[name] = logits(model, llama_golden.IDS)
        for family in FAMILIES:
            decoder = llama_golden.write_checkpoint(Path(temporary) / family, family)
            config, base = read_folder(decoder)
            folder = Path(temporary) / f"adapters of {family}"
            config = dataclasses.replace(config, lora=WRITTEN)
            write_peft(folder, draw(base, WRITTEN), config, "a/decoder")
            model = peft.PeftModel.from_pretrained(load(decoder), folder).eval()
            golden[family] = logits(model, llama_golden.IDS)
        if packaged is not None:
            found = read_pretrained(str(Path(packaged) / llama_golden.PACKAGED))
            config = dataclasses.replace(found.config, lora=PACKAGED)
            folder = Path(temporary) / "packaged"
            write_peft(folder, draw(found.base, PACKAGED), config, "smollm2-135m")
            ids = np.load(llama_golden.GOLDEN)["smollm2_ids"]
            model = load(packaged, gguf_file=llama_golden.PACKAGED)
            model = peft.PeftModel.from_pretrained(model, folder).eval()
            golden["smollm2"] = logits(model, ids)[:, ::769]
    np.savez_compressed(GOLDEN, **golden)
    for name, value in golden.items():
        print(name, value.shape, float(np.abs(value).max()))


if __name__ == "__main__":
    main(*sys.argv[1:])
