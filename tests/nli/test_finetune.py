"""Tests fine-tuning on a tiny BERT: batches, the loss, and several devices."""

import jax
import numpy as np
import optax
import pytest

from mtml_jax.nli import finetune, huggingface
from mtml_jax.nli import scorer as nli
from mtml_jax.nli.dialogue_nli import LabelledPair
from mtml_jax.nli.huggingface import read_classifier

pytest.importorskip("tokenizers")


@pytest.fixture(autouse=True)
def one_width(monkeypatch):
    """Pads all rows to the length of the tiny BERT's positions: one shape to compile."""
    monkeypatch.setattr(huggingface, "WIDTHS", ())


@pytest.fixture
def base(tmp_path, draw_bert):
    return draw_bert(tmp_path / "base")


def test_batches_hold_alike_lengths_and_each_pair_once():
    lengths = np.random.default_rng(0).integers(5, 60, 2003)
    cut = finetune.batches(lengths, 8, np.random.default_rng(1))
    members = np.concatenate(cut)
    assert len(cut) == 250 and len(set(members)) == 2000
    spread = np.mean([np.ptp(lengths[batch]) for batch in cut])
    assert spread < 5  # of 55 without sorting nearly all
    means = [lengths[batch].mean() for batch in cut]
    assert abs(np.corrcoef(means, np.arange(250))[0, 1]) < 0.2  # the order tells no length


def test_fine_tuning_learns_the_pairs(base):
    """The first loss is the mean negative log-probability of the labels; the last is small."""
    pairs = 4 * [
        LabelledPair("i have two dogs .", "i have dogs .", 0),
        LabelledPair("my car is red .", "my car is blue .", 2),
        LabelledPair("we read books .", "i have no cats .", 1),
    ]
    scores = nli.load_scorer(base).scores([(p.reply, p.statement) for p in pairs])
    first = -np.mean(scores[np.arange(12), [pair.label for pair in pairs]])
    steps = []
    finetune.finetune(
        read_classifier(base, "--base"), [pairs] * 12, rows=12, rate=1e-2, seed=0,
        progress=lambda *numbers: steps.append(numbers),
    )  # fmt: skip
    assert [row[:2] for row in steps] == [(n, 12) for n in range(1, 13)]
    assert steps[0][2] == pytest.approx(first, abs=1e-5)
    assert steps[-1][2] < 0.2 < first


def test_a_loss_that_is_not_finite_ends_the_run(base):
    model = read_classifier(base, "--base")
    model.params["classifier"]["bias"][0] = np.inf
    with pytest.raises(FloatingPointError, match="expected a finite loss, got nan in step 1; lower --rate"):
        finetune.finetune(
            model, [[LabelledPair("i", "you", 0)] * 2], rows=2, rate=1.0, seed=0,
            progress=lambda *numbers: None,
        )  # fmt: skip


@pytest.mark.long
def test_devices_share_a_step(base):
    """Two devices take the same step as one, since their gradients are averaged."""
    model = read_classifier(base, "--base")
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 29, (6, 16), dtype=np.int32)
    batch = (ids, ids % 2, ids > 7, rng.integers(0, 3, 6, dtype=np.int32))
    plain = optax.sgd(1.0)

    def stepped(devices):
        mesh = finetune.persona_mesh(devices)
        assert mesh.size == devices
        params = finetune.replicate(model.params, mesh)
        step = finetune._compiled_step(model.config, plain, mesh)
        rows = finetune.split_personas(batch, mesh)
        return jax.device_get(step(params, plain.init(params), *rows))

    one, two = stepped(1), stepped(2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, two)
