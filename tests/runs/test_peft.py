"""Adapters in PEFT's layout: equal to `peft` in both directions, refused in one sentence."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import llama_golden
import ml_dtypes
import numpy as np
import peft_golden
import pytest

from mtml_jax.data.rows import Strand, pack_row
from mtml_jax.model import llama, lora
from mtml_jax.model.lora import LoraConfig
from mtml_jax.model.pretrained import read_pretrained
from mtml_jax.model.pretrained_folder import read_folder
from mtml_jax.runs.peft import CONFIG, WEIGHTS, read_peft, write_peft

safetensors = pytest.importorskip("safetensors.numpy")

GOLDEN = np.load(peft_golden.GOLDEN)
QUERY_A = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """(config, base) of the checkpoint that the golden values were computed with."""
    folder = tmp_path_factory.mktemp("decoder")
    return read_folder(llama_golden.write_checkpoint(folder, "llama"))


@pytest.fixture
def saved(tmp_path):
    """Writes a pair of golden files: name -> folder."""

    def saved(name):
        folder = tmp_path / name
        folder.mkdir()
        for file in (CONFIG, WEIGHTS):
            (folder / file).write_bytes(GOLDEN[f"{name}/{file}"].tobytes())
        return folder

    return saved


def logits(base, adapters, ids, config):
    row, *_ = pack_row([[Strand(tuple(int(i) for i in ids))]], len(ids), 0)
    base = lora.split_layers(base, config.lora)
    hidden_TD = jax.jit(llama.decode, static_argnames="config")(base, adapters, row, config)
    return np.asarray(hidden_TD @ llama.output_matrix(base, config).T)


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name in wanted:
        assert got[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(got[name], wanted[name], strict=True)


@pytest.mark.parametrize("name", [*peft_golden.READ, "written"])
def test_logits_equal_those_of_peft(decoder, saved, name):
    config, base = decoder
    settings, adapters = read_peft(saved(name), config)
    config = dataclasses.replace(config, lora=settings)
    wanted_TV = GOLDEN[name]
    got_TV = logits(base, adapters, llama_golden.IDS, config)
    np.testing.assert_allclose(got_TV, wanted_TV, rtol=0, atol=4e-6 * np.abs(wanted_TV).max())
    without_TV = logits(base, {}, llama_golden.IDS, config)
    assert np.abs(without_TV - wanted_TV).max() > 0.1 * np.abs(wanted_TV).max()


@pytest.mark.parametrize("family", peft_golden.FAMILIES)
def test_logits_of_other_families_equal_those_of_peft(tmp_path, family):
    config, base = read_folder(llama_golden.write_checkpoint(tmp_path, family))
    config = dataclasses.replace(config, lora=peft_golden.WRITTEN)
    write_peft(tmp_path / "adapters", peft_golden.draw(base, config.lora), config, "a/decoder")
    wanted_TV = GOLDEN[family]
    got_TV = logits(base, read_peft(tmp_path / "adapters", config)[1], llama_golden.IDS, config)
    np.testing.assert_allclose(got_TV, wanted_TV, rtol=0, atol=4e-6 * np.abs(wanted_TV).max())


@pytest.mark.long
def test_logits_of_the_packaged_decoder_equal_those_of_peft(tmp_path):
    try:
        found = read_pretrained("smollm2-135m")
    except ImportError as error:
        pytest.skip(str(error))
    config = dataclasses.replace(found.config, lora=peft_golden.PACKAGED)
    write_peft(tmp_path, peft_golden.draw(found.base, config.lora), config, "smollm2-135m")
    settings, adapters = read_peft(tmp_path, found.config)
    assert settings == config.lora
    ids = np.load(llama_golden.GOLDEN)["smollm2_ids"]
    wanted_TV = GOLDEN["smollm2"]
    got_TV = logits(found.base, adapters, ids, config)[:, ::769]
    np.testing.assert_allclose(got_TV, wanted_TV, rtol=0, atol=1e-5 * np.abs(wanted_TV).max())


def test_settings_that_peft_saved(decoder, saved):
    config, _ = decoder
    assert read_peft(saved("seven"), config)[0] == LoraConfig(3, 5 / 3, lora.TARGETS, 2)
    settings, adapters = read_peft(saved("rslora"), config)
    assert settings == LoraConfig(4, 3.0, ("query", "value"), None, "kaiming")
    assert adapters["value"]["b"].shape == (3, 4, 20) and adapters["value"]["b"].dtype == np.float32


def test_written_files_are_those_that_peft_loaded(decoder, saved, tmp_path):
    config, base = decoder
    config = dataclasses.replace(config, lora=peft_golden.WRITTEN)
    write_peft(tmp_path / "now", peft_golden.draw(base, config.lora), config, "a/decoder")
    then = saved("written")
    now, wanted = ((f / WEIGHTS).read_bytes() for f in (tmp_path / "now", then))
    assert_same(safetensors.load(now), safetensors.load(wanted))
    now, wanted = (json.loads((f / CONFIG).read_text()) for f in (tmp_path / "now", then))
    assert now == wanted


@pytest.mark.parametrize("targets", [("query", "value"), ("key",), lora.TARGETS])
@pytest.mark.parametrize("layers", [None, 1, 2])
def test_round_trip_is_exact(decoder, tmp_path, targets, layers):
    config, base = decoder
    settings = LoraConfig(5, 1.5, targets, layers, "kaiming")
    config = dataclasses.replace(config, lora=settings)
    adapters = peft_golden.draw(base, settings)
    write_peft(tmp_path / "a" / "b", jax.tree.map(jnp.asarray, adapters), config, "a/decoder")
    got_settings, got = read_peft(tmp_path / "a" / "b", config)
    assert got_settings == settings and got.keys() == adapters.keys()
    for target in targets:
        assert_same(got[target], adapters[target])
    wanted = jax.eval_shape(
        lambda base: lora.init(jax.random.key(0), lora.split_layers(base, settings), settings), base
    )
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, wanted)
    written = json.loads((tmp_path / "a" / "b" / CONFIG).read_text())
    assert written["layers_to_transform"] == (layers and [0, 1, 2][-layers:])
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == [CONFIG, WEIGHTS]


def test_card_and_float16(decoder, tmp_path):
    config, base = decoder
    config = dataclasses.replace(config, lora=peft_golden.WRITTEN)
    adapters = peft_golden.draw(base, config.lora)
    write_peft(tmp_path, adapters, config, "a/decoder", card="# Robin\n", dtype="float16")
    assert (tmp_path / "README.md").read_text() == "# Robin\n"
    tensors = safetensors.load((tmp_path / WEIGHTS).read_bytes())
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    halves = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), adapters)
    assert_same(read_peft(tmp_path, config)[1]["down"], halves["down"])


def test_writing_that_is_cut_off_leaves_no_settings(decoder, saved, monkeypatch):
    config, base = decoder
    config = dataclasses.replace(config, lora=peft_golden.WRITTEN)
    folder = saved("written")

    def fail(path, data):
        raise OSError(f"{path}: disk full")

    monkeypatch.setattr("mtml_jax.runs.peft.write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write_peft(folder, peft_golden.draw(base, config.lora), config, "a/decoder")
    with pytest.raises(FileNotFoundError, match=f"got no {CONFIG}"):
        read_peft(folder, config)


def changed_leaf(adapters, change):
    return adapters | {"key": adapters["key"] | {"b": change(adapters["key"]["b"])}}


@pytest.mark.parametrize(
    "change, dtype, message",
    [
        (dict, "bfloat16", "dtype out of float32, float16, got 'bfloat16'"),
        (lambda a: {"query": a["query"]}, "float32", "adapters of query, key, .* got query; pass"),
        (
            lambda a: changed_leaf(a, lambda b: b[1:]), "float32",
            r"shape \(2, 3, 20\) as B of key, got \(1, 3, 20\)",
        ),
        (
            lambda a: changed_leaf(a, lambda b: b / 0), "float32",
            "finite in float32, got others in layer 1, B of key",
        ),
        (lambda a: changed_leaf(a, lambda b: 1e8 * b), "float16", "finite in float16, got others"),
    ],
)  # fmt: skip
def test_adapters_that_are_not_written(decoder, tmp_path, change, dtype, message):
    config, base = decoder
    config = dataclasses.replace(config, lora=peft_golden.WRITTEN)
    adapters = peft_golden.draw(base, config.lora)
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        write_peft(tmp_path / "new", change(adapters), config, "a/decoder", dtype=dtype)
    assert not (tmp_path / "new").exists()


def test_more_layers_than_the_decoder_has_are_not_written(decoder, tmp_path):
    config, base = decoder
    adapters = peft_golden.draw(base, peft_golden.WRITTEN)
    config = dataclasses.replace(config, lora=LoraConfig(layers=4, targets=lora.TARGETS))
    with pytest.raises(ValueError, match="at most the 3 layers of the decoder, got 4"):
        write_peft(tmp_path, adapters, config, "a/decoder")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"peft_type": "IA3"}, "peft_type 'LORA', got 'IA3'"),
        ({"peft_type": None}, "peft_type 'LORA', got None"),
        ({"task_type": "SEQ_CLS"}, "task_type 'CAUSAL_LM', got 'SEQ_CLS'"),
        ({"bias": "all"}, "bias 'none', got 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights out of True, .* got 'pissa'"),
        ({"use_dora": True}, "expected no use_dora, got True"),
        ({"modules_to_save": ["lm_head"]}, r"no modules_to_save, got \['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 4}}, "no rank_pattern, got {'q_proj': 4}"),
        ({"alpha_pattern": {"q_proj": 4}}, "no alpha_pattern"),
        ({"exclude_modules": "q_proj"}, "no exclude_modules"),
        ({"alora_invocation_tokens": [3]}, "no alora_invocation_tokens"),
        ({"target_modules": ".*_proj"}, "target_modules as a list out of q_proj, .*'.*_proj'; pat"),
        ({"target_modules": []}, "target_modules as a list"),
        ({"target_modules": None}, "target_modules as a list"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules as a list"),
        ({"target_modules": [["q_proj"]]}, "target_modules as a list"),
        ({"target_modules": ["q_proj"]}, "in layers 1 to 2, got another tensor, .*mlp.down_proj"),
        ({"r": 0}, "r as a whole number from 1 to 65536, got 0"),
        ({"r": "3"}, "r as a whole number"),
        ({"r": True}, "r as a whole number"),
        ({"r": 10**400}, "r as a whole number"),
        ({"r": 4}, r"lora_A.weight of shape \(4, 24\), got \(3, 24\); the adapters belong to an"),
        ({"lora_alpha": 0}, "lora_alpha as a positive number, got 0"),
        ({"lora_alpha": None}, "lora_alpha as a positive number"),
        ({"lora_alpha": float("nan")}, "lora_alpha as a positive number, got nan"),
        ({"use_rslora": "yes"}, "use_rslora as true or false, got 'yes'"),
        ({"layers_to_transform": [0, 2]}, r"the last of the decoder's layers 0 to 2, got \[0, 2\]"),
        ({"layers_to_transform": [0, 1]}, "layers_to_transform as the last"),
        ({"layers_to_transform": 0}, r"layers_to_transform as the last .* got \[0\]"),
        ({"layers_to_transform": [2, 2]}, "layers_to_transform as the last"),
        ({"layers_to_transform": [0, 1, 2, 3]}, "layers_to_transform as the last"),
        ({"layers_to_transform": ["2"]}, "layers_to_transform as the last"),
        ({"layers_to_transform": "12"}, "layers_to_transform as the last"),
        ({"layers_to_transform": [2]}, "in layers 2 to 2, got another tensor, .*layers.1"),
        ({"layers_to_transform": None}, "in layers 0 to 2, got no tensor .*layers.0"),
    ],
)
def test_options_that_are_refused(decoder, saved, changed, message):
    folder = saved("seven")
    settings = json.loads((folder / CONFIG).read_text()) | changed
    (folder / CONFIG).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=message) as error:
        read_peft(folder, decoder[0])
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_the_last_layer_as_a_number_and_layers_in_any_order(decoder, tmp_path):
    config, base = decoder
    config = dataclasses.replace(config, lora=LoraConfig(layers=1))
    write_peft(tmp_path, peft_golden.draw(base, config.lora), config, "a/decoder")
    settings = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(settings | {"layers_to_transform": 2}))
    assert read_peft(tmp_path, config)[0] == config.lora
    config = dataclasses.replace(config, lora=LoraConfig())
    write_peft(tmp_path, peft_golden.draw(base, config.lora), config, "a/decoder")
    settings = json.loads((tmp_path / CONFIG).read_text())
    for layers in ([], [2, 0, 1]):
        (tmp_path / CONFIG).write_text(json.dumps(settings | {"layers_to_transform": layers}))
        assert read_peft(tmp_path, config)[0] == config.lora


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"layers": 2}, "layers_to_transform as the last"),
        ({"layers": 4}, "layers_to_transform as the last"),
        ({"width": 26}, r"q_proj.lora_A.weight of shape \(3, 26\), got \(3, 24\)"),
        ({"heads": 6}, r"q_proj.lora_B.weight of shape \(60, 3\), got \(40, 3\)"),
        ({"feed_forward": 38}, r"gate_proj.lora_B.weight of shape \(38, 3\), got \(37, 3\)"),
    ],
)
def test_adapters_of_another_decoder(decoder, saved, sizes, message):
    with pytest.raises(ValueError, match=message):
        read_peft(saved("seven"), dataclasses.replace(decoder[0], **sizes))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x * np.inf, "expected finite numbers in .*layers.1.self_attn.q_proj.lora_A"),
        (lambda x: x.astype(ml_dtypes.bfloat16) * np.nan, "expected finite numbers in"),
        (lambda x: x.astype(np.int8), r"as numbers, got none \(its type is int8\)"),
        (lambda x: x[None], r"of shape \(3, 24\), got \(1, 3, 24\)"),
    ],
)
def test_tensors_that_are_refused(decoder, saved, change, message):
    folder = saved("seven")
    tensors = safetensors.load((folder / WEIGHTS).read_bytes())
    tensors[QUERY_A.format(1)] = change(tensors[QUERY_A.format(1)])
    (folder / WEIGHTS).write_bytes(safetensors.save(tensors))
    with pytest.raises(ValueError, match=message) as error:
        read_peft(folder, decoder[0])
    assert str(folder / WEIGHTS) in str(error.value) and "\n" not in str(error.value)


def test_damaged_and_missing_files(decoder, saved):
    config, _ = decoder
    folder = saved("seven")
    whole = (folder / WEIGHTS).read_bytes()
    for content in (b"", whole[:100], whole[:-7], b"\x80\x04K\x01."):  # the last is a pickle
        (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(ValueError, match="expected a safetensors file, got a damaged"):
            read_peft(folder, config)
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=f"got no {WEIGHTS}"):
        read_peft(folder, config)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match="got adapter_model.bin, which may run code"):
        read_peft(folder, config)
    (folder / WEIGHTS).write_bytes(whole)
    for content in ("{", "[]", ""):
        (folder / CONFIG).write_text(content)
        with pytest.raises(ValueError, match=f"{CONFIG}: expected a JSON object"):
            read_peft(folder, config)
    (folder / CONFIG).unlink()
    with pytest.raises(FileNotFoundError, match=f"got no {CONFIG}"):
        read_peft(folder, config)
