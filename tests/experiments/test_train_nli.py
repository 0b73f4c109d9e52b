"""The command that makes a consistency scorer, on a tiny BERT and a handful of pairs."""

import json
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from experiments import train_nli
from mtml_jax.data.demo import demo_corpus
from mtml_jax.data.personas import group_personas
from mtml_jax.data.records import Dialogue, Persona, Turn
from mtml_jax.nli import bert, finetune
from mtml_jax.nli import huggingface as bert_folder
from mtml_jax.nli import scorer as nli
from mtml_jax.nli.dialogue_nli import LabelledPair, read_dialogue_nli, unrelated_pairs
from mtml_jax.nli.huggingface import read_classifier

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.usefixtures("quick_compile")

LINES = """\
i have two dogs .</s>i have dogs .</s>positive
my car is red .</s>my car is blue .</s>negative
we read books .</s>i have no cats .</s>neutral
"""


@pytest.fixture(autouse=True)
def one_width(monkeypatch):
    """All rows as long as the tiny BERT has positions: one shape to compile."""
    monkeypatch.setattr(bert_folder, "WIDTHS", ())


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "nli-train.txt").write_text(LINES * 4)
    (folder / "nli-valid.txt").write_text(LINES)
    return folder


@pytest.fixture
def given(tmp_path, data, draw_bert):
    """Flags of a run of seconds."""
    return types.SimpleNamespace(
        data=str(data), base=str(draw_bert(tmp_path / "base")), output=str(tmp_path / "out"),
        corpus="demo", data_dir=None, epochs=1, unrelated=0.5, batch=6, rate=1e-3, seed=0,
        replies=5,
    )  # fmt: skip


def test_makes_a_calibrated_scorer(given, tmp_path, monkeypatch):
    monkeypatch.setattr(train_nli, "_CALIBRATION_REPLIES", 7)
    text = train_nli.train_nli(given)
    scorer = nli.load_scorer(given.output)
    assert f"digest {scorer.digest}" in text
    kept = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert list(scorer.bias) == [kept["bias"][name] for name in nli.CLASSES]
    assert scorer.bias[1] == 0 and np.all(scorer.bias[[0, 2]] != 0)
    before = read_classifier(given.base, "--base")
    after = read_classifier(given.output, "--nli")
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, after.params)
    assert 1e-4 < max(jax.tree.leaves(moved)) < 1e-1
    pairs = [(p.reply, p.statement) for p in read_dialogue_nli(given.data, "valid")]
    for name, calibrated in (("uncalibrated", False), ("calibrated", True)):
        right = np.sum(scorer.labels(pairs, calibrated=calibrated) == [1, -1, 0])
        assert f"{name}: accuracy {100 * right / 3:.1f} %" in text
    assert len(re.findall(r"human C [+-]\d\.\d{3}, shuffled C [+-]\d\.\d{3}", text)) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "data", "out"]


def test_zero_epochs_calibrate_what_is_there(given, monkeypatch):
    monkeypatch.setattr(train_nli, "_CALIBRATION_REPLIES", 7)
    given.epochs = 0
    train_nli.train_nli(given)
    before, after = (read_classifier(f, "") for f in (given.base, given.output))
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)


def test_an_interrupted_run_leaves_nothing(given, tmp_path, monkeypatch, capsys):
    def killed(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(train_nli, "finetune", killed)
    monkeypatch.setattr(train_nli.startup, "start_jax", lambda: None)
    monkeypatch.setattr(train_nli.flags, "FLAGS", given)
    try:
        with pytest.raises(SystemExit, match="interrupted; .*out was not written"):
            train_nli.main(["train_nli"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "data"]


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"data": None}, "got no --data, want the folder of Dialogue NLI"),
        ({"data": "gone"}, "gone: found no such folder, want nli-train.txt or .* of --data"),
        ({"epochs": -1}, "got --epochs=-1, want 0 or more"),
        ({"batch": 0}, "got --batch=0, want 1 or more"),
        ({"rate": float("nan")}, "got --rate=nan, want a finite number"),
        ({"base": "gone"}, "gone: found no such folder, want the config.json, .* of --base"),
        ({"corpus": "huh"}, "got --data=huh, want demo"),
    ],
)
def test_a_mistake_gets_one_sentence(given, changed, sentence):
    vars(given).update(changed)
    with pytest.raises((ValueError, OSError), match=sentence) as raised:
        train_nli.train_nli(given)
    assert "\n" not in str(raised.value)


def test_a_folder_with_something_in_it_is_left_alone(given, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(ValueError, match="found something there, want a new folder as --output"):
        train_nli.train_nli(given)


def test_without_a_base_the_packaged_one_is_named(given, monkeypatch):
    given.base = None
    monkeypatch.setattr(train_nli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"want the folder of a BERT or: pip install 'mtml_jax\["):
        train_nli.train_nli(given)


def test_the_bias_makes_mean_probabilities_the_natural_shares():
    """By the first-order condition of the log loss, with own and other pairs half the weight."""
    rng = np.random.default_rng(0)
    own, other = (nli.log_softmax(rng.standard_normal((n, 3))) for n in (11, 53))
    bias = train_nli.natural_bias(own, other)
    means = [np.exp(nli.log_softmax(s + bias[None])).mean(0) for s in (own, other)]
    np.testing.assert_allclose(np.mean(means, 0), train_nli.NATURAL, atol=1e-9)
    assert sum(train_nli.NATURAL) == pytest.approx(1)


def test_replies_meet_their_own_and_strange_statements():
    personas = group_personas(demo_corpus("valid"))
    own, other = train_nli.draw_replies(personas, 31, np.random.default_rng(0))
    assert len(own) == len(other) == 31
    speakers = {}
    for persona in personas:
        for dialogue in persona.dialogues:
            for turn in dialogue.turns:
                speakers.setdefault(turn.response, []).append((persona.name, dialogue.statements))
    for mine, theirs in zip(own, other, strict=True):
        (reply,) = {reply for reply, _ in mine + theirs}
        said_by = speakers[reply]
        assert tuple(statement for _, statement in mine) in [told for _, told in said_by]
        assert any(tuple(s for _, s in theirs) != told for _, told in said_by)


def test_unrelated_pairs_join_strangers():
    personas = group_personas(demo_corpus("train"))
    statements = {p.name: {s for d in p.dialogues for s in d.statements} for p in personas}
    pairs = unrelated_pairs(personas, 41, np.random.default_rng(0))
    assert len(pairs) == 41 and {pair.label for pair in pairs} == {1}
    for reply, statement, _ in pairs:
        sayers = {
            p.name for p in personas for d in p.dialogues for t in d.turns if t.response == reply
        }
        assert any(statement not in statements[name] for name in sayers)
    two_sets = [
        Persona(
            name, tuple(Dialogue(n, "", (name + n,), (Turn("", name),)) for n in ("one", "two"))
        )
        for name in ("ann", "bo")
    ]
    for reply, statement, _ in unrelated_pairs(two_sets, 20, np.random.default_rng(0)):
        assert not statement.startswith(reply)  # not even of another dialogue of theirs
    told = personas[0].dialogues[0]
    same = [Persona(name, (told,)) for name in "ab"]
    with pytest.raises(ValueError, match="found statements of another persona for 0 of 3 replies"):
        unrelated_pairs(same, 3, np.random.default_rng(0))


def test_batches_hold_alike_lengths_and_each_pair_once():
    lengths = np.random.default_rng(0).integers(5, 60, 2003)
    cut = finetune.batches(lengths, 8, np.random.default_rng(1))
    members = np.concatenate(cut)
    assert len(cut) == 250 and len(set(members)) == 2000
    spread = np.mean([np.ptp(lengths[batch]) for batch in cut])
    assert spread < 5  # of 55 without sorting nearly all
    means = [lengths[batch].mean() for batch in cut]
    assert abs(np.corrcoef(means, np.arange(250))[0, 1]) < 0.2  # the order tells no length


def test_fine_tuning_learns_the_pairs(given):
    """The first loss is the mean negative log-probability of the labels; the last is small."""
    pairs = read_dialogue_nli(given.data, "train")
    scores = nli.load_scorer(given.base).scores([(p.reply, p.statement) for p in pairs])
    first = -np.mean(scores[np.arange(12), [pair.label for pair in pairs]])
    told = []
    finetune.finetune(
        read_classifier(given.base, "--base"), [pairs] * 12, rows=12, rate=1e-2, seed=0,
        progress=lambda *numbers: told.append(numbers),
    )  # fmt: skip
    assert [row[:2] for row in told] == [(n, 12) for n in range(1, 13)]
    assert told[0][2] == pytest.approx(first, abs=1e-5)
    assert told[-1][2] < 0.2 < first


def test_a_loss_that_is_not_finite_ends_the_run(given):
    model = read_classifier(given.base, "--base")
    model.params["classifier"]["bias"][0] = np.inf
    with pytest.raises(FloatingPointError, match="the loss of step 1 is nan; lower --rate"):
        finetune.finetune(
            model, [[LabelledPair("i", "you", 0)] * 2], rows=2, rate=1.0, seed=0,
            progress=lambda *numbers: None,
        )  # fmt: skip


def test_devices_share_a_step(given):
    """Two devices take the step that one takes: their gradients are averaged."""
    model = read_classifier(given.base, "--base")
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


def test_a_fresh_head_replaces_other_labels(given, tmp_path, draw_bert):
    base = draw_bert(tmp_path / "mood", labels=("sad", "glad"))
    with pytest.raises(ValueError, match="found the labels sad, glad, want entailment, neutral"):
        read_classifier(base, "--nli")
    model = read_classifier(base, "--base", fresh_head=jax.random.key(0))
    fresh = bert.with_head(jax.random.key(0), {}, model.config, 3)
    np.testing.assert_array_equal(
        model.params["classifier"]["kernel"], fresh["classifier"]["kernel"]
    )
    assert not np.array_equal(model.params["pooler"]["kernel"], fresh["pooler"]["kernel"])


def test_nothing_heavy_is_imported():
    """Not even the NLI libraries, before a model is read."""
    program = (
        "import sys\n"
        "sys.modules['torch'] = None  # TensorBoard's writer takes it where it finds it\n"
        "import experiments.train_nli, mtml_jax.nli.scorer\n"
        "names = {'transformers', 'safetensors', 'tokenizers'}\n"
        "assert not names & {m.split('.')[0] for m in sys.modules}"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True)
