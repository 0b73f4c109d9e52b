"""What a user types: every mistake gets one sentence, before anything is compiled."""

import dataclasses
import errno
import itertools
import json
import os
import pathlib
import re
import sys
import types

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import flags as settings
from experiments import startup, train
from mtml_jax.checks import config_warnings
from mtml_jax.config import PRESETS, TileShape, TrainConfig
from mtml_jax.config_decoder import LoraConfig, RowShape
from mtml_jax.data import personachat
from mtml_jax.data.episodes import training_batch
from mtml_jax.runs.lock import WorkdirLock


@pytest.fixture(autouse=True)
def fresh_flags(monkeypatch):
    """Flags at their defaults; nothing is compiled, nothing touches JAX's settings."""

    def compiled(*args, **kwargs):
        raise AssertionError("got as far as training")

    monkeypatch.setattr(train, "train", compiled)
    monkeypatch.setattr(startup, "start_jax", lambda: None)
    with flagsaver.flagsaver():
        train.define_flags()
        yield


def resolve(*arguments):
    flags.FLAGS(["train", *arguments])
    return settings.resolve_config()


def refusal(*arguments):
    """The one sentence that the command ends with."""
    flags.FLAGS(["train", *arguments])
    with pytest.raises(SystemExit) as ended:
        train.main(["train"])
    message = str(ended.value)
    assert message.startswith("error: ") and "\n" not in message
    return message


def test_a_start_takes_the_place_of_a_run(tmp_path, monkeypatch):
    (tmp_path / "mtml").mkdir()
    (tmp_path / "mtml" / "start.json").touch()
    (tmp_path / "unfinished").mkdir()
    monkeypatch.setattr(settings, "STARTS", tmp_path)
    assert settings.shipped_starts() == ["mtml"]
    given = types.SimpleNamespace(start="mtml", workdir=None)
    settings.use_start(given)
    assert given.workdir == str(tmp_path / "mtml")
    with pytest.raises(ValueError, match="expected --workdir or --start, got --workdir=.*mtml"):
        settings.use_start(given)


def test_presets_hold_where_no_flag_is_given():
    for name, preset in PRESETS.items():
        assert resolve(f"--preset={name}") == preset
    paper = resolve("--preset=paper")
    assert (paper.model.encoder_layers, paper.model.heads, paper.model.width) == (6, 4, 300)
    assert (paper.inner_lr, paper.outer_lr, paper.meta_batch) == (0.005, 0.003, 16)


def test_every_setting_has_a_flag_that_changes_it():
    values = {
        "strategy": "paml", "gradient": "exact", "reduction": "sum", "glove": "words.txt",
        "distinct_start": True, "activation": "gelu", "dtype": "bfloat16", "remat": True,
        "alpha": 0.25, "inner_lr": 0.25, "outer_lr": 0.25, "width": 48, "heads": 4,
        "persona_context": "own",
    }  # fmt: skip
    renamed = {
        "rows": "tile_rows",
        "context": "context_tokens",
        "response": "response_tokens",
        "persona": "persona_tokens",
    }
    base = PRESETS["small"]
    for group, holder in (("", base), ("model", base.model), ("shape", base.shape)):
        for field in dataclasses.fields(holder):
            if field.name in ("model", "shape", "small", "init_from", "adapters_from"):
                continue
            name = renamed.get(field.name, field.name)
            value = values.get(name, 7 if group != "model" else 8)
            with flagsaver.flagsaver():
                config = resolve(f"--{name}={value}")
            changed = getattr(config, group) if group else config
            assert getattr(changed, field.name) == value, name
            assert changed == dataclasses.replace(holder, **{field.name: value})


def test_every_setting_of_a_decoder_has_a_flag_that_changes_it():
    base = resolve("--init_from=smollm2-135m")
    assert base == PRESETS["pretrained"]
    model = dataclasses.replace(base.model, lora=LoraConfig(4, 1.5, ("key", "up"), 3, "kaiming"))
    changed = dataclasses.replace(base, model=model, shape=RowShape(200, "every"), inner_lr=0.5)
    assert changed == resolve(
        "--preset=pretrained", "--lora_rank=4", "--lora_scale=1.5", "--lora_targets=key,up",
        "--lora_layers=3", "--lora_initialiser=kaiming", "--row_tokens=200",
        "--persona_after=every", "--inner_lr=0.5",
    )  # fmt: skip


@pytest.mark.parametrize(
    "argument, parts",
    [
        ("--lora_rank=4", "no --lora_rank without --init_from"),
        ("--adapters_from=x", "--init_from with --adapters_from --adapters_from=x"),
        ("--init_from=smollm2-135m --adapters_from=/no/such", "/no/such adapter_config.json"),
        ("--init_from=smollm2-135m --width=64", "no --width with a pretrained decoder"),
        ("--init_from=smollm2-135m --tile_rows=2", "no --tile_rows with a pretrained decoder"),
        ("--init_from=smollm2-135m --preset=small", "leave --preset out"),
        ("--init_from=smollm2-135m --distinct_start", "no --distinct_start with --init_from"),
        ("--init_from=smollm2-135m --lora_layers=31", "at most 30 adapted --lora_layers=31"),
        ("--init_from=smollm2-135m --lora_targets=head", "one of query --lora_targets=head"),
        ("--init_from=smollm2-135m --lora_rank=0", "--lora_rank=0 1 or more"),
        ("--init_from=/no/such/folder", "/no/such/folder smollm2-135m no such file"),
        ("--alpha=1.5", "--alpha=1.5 from 0 to 1"),
        ("--alpha=-0.1", "--alpha=-0.1 from 0 to 1"),
        ("--alpha=nan", "--alpha=nan from 0 to 1"),
        ("--inner_lr=-1", "--inner_lr=-1.0 0 or more"),
        ("--outer_lr=inf", "--outer_lr=inf finite"),
        ("--meta_batch=0", "--meta_batch=0 1 or more"),
        ("--inner_steps=0", "--inner_steps=0 1 or more"),
        ("--width=63", "--width=63 --heads=2 divide"),
        ("--gradient=finite_difference --dtype=bfloat16", "finite_difference bfloat16 float32"),
        (
            "--gradient=finite_difference --activation=relu",
            "finite_difference --activation=relu --activation=gelu",
        ),
        ("--tile_rows=0", "--tile_rows=0 1 or more"),
        ("--warmup=-1", "--warmup=-1 0 or more"),
        ("--persona_chunk=3", "--persona_chunk=3 divisor"),
        ("--meta_batch=200", "100 personas 200 lower --meta_batch"),
        ("--glove=/no/such/file", "/no/such/file --glove"),
    ],
)
def test_a_wrong_flag_is_named_with_what_is_wanted(tmp_path, argument, parts):
    message = refusal(*argument.split(), f"--workdir={tmp_path / 'w'}")
    for part in parts.split():
        assert part in message
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "arguments, warning",
    [
        ("--strategy=mtml --alpha=0", "warning: --alpha=0 .*never on a reply"),
        ("--strategy=mtml --alpha=1", "warning: --alpha=1 .*as paml does"),
        ("--inner_lr=0", "warning: --inner_lr=0 adapts to nobody"),
        ("--outer_lr=0", "warning: --outer_lr=0 trains nothing"),
        ("--max_skipped=7 --iterations=6", "warning: --max_skipped is more than"),
        ("--strategy=mtml --alpha=0.5 --max_skipped=6 --iterations=6", "^$"),
        ("--strategy=amtml --alpha=1", "^$"),
    ],
)
def test_settings_that_are_rarely_intended_are_reported(arguments, warning):
    assert re.search(warning, "\n".join(config_warnings(resolve(*arguments.split()))))


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    message = refusal(f"--workdir={tmp_path / 'file' / 'w'}")
    assert "cannot be written to (Not a directory)" in message and "--workdir" in message

    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(pathlib.Path, "mkdir", read_only)
    assert f"{tmp_path / 'w'}: the folder cannot be written to (Read-only" in refusal(
        f"--workdir={tmp_path / 'w'}"
    )


def test_only_the_echo_of_a_failed_save_is_hidden(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "__unraisablehook__", told.append)
    errors = [RuntimeError("Event loop is closed"), RuntimeError("another")]
    echo, other = (types.SimpleNamespace(exc_value=error) for error in errors)
    startup._report_unraisable(echo)
    startup._report_unraisable(other)
    assert told == [other]


def test_without_a_network_the_folder_is_asked_for(monkeypatch):
    monkeypatch.setattr(personachat, "URL", "http://127.0.0.1:9/personachat.tgz")
    message = refusal("--data=personachat")
    for part in ("127.0.0.1:9", "without a network", "--data_dir"):
        assert part in message


def test_a_missing_folder_is_named(tmp_path):
    message = refusal("--data=personachat", f"--data_dir={tmp_path / 'gone'}")
    assert str(tmp_path / "gone") in message and "--data_dir" in message


def test_a_reader_error_names_file_and_line(tmp_path):
    path = tmp_path / "train_self_original_no_cands.txt"
    path.write_text("1 your persona: i sail .\n2 no tab here\n")
    message = refusal("--data=personachat", f"--data_dir={tmp_path}")
    assert f"{path}:2" in message


def test_a_word_vector_of_another_width_is_named(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("work 0.1 0.2 0.3\nlove 0.1 0.2\n")
    message = refusal(f"--glove={path}", f"--workdir={tmp_path / 'w'}")
    assert f"{path}:2" in message and "--glove" in message


def corpus(path, personas, conversations=2):
    """Conversations of made-up words, each seen from one side."""
    lines = []
    for p in range(personas):
        for c in range(conversations):
            lines += [f"1 your persona: fact {p} a .", f"2 your persona: fact {p} b ."]
            lines += [f"3 hello {p} {c}\thi from {p} {c}", f"4 and {c} ?\twell {p} {c}"]
    path.write_text("\n".join(lines) + "\n")


def test_personas_with_one_conversation_are_too_few(tmp_path):
    corpus(tmp_path / "train_self_original_no_cands.txt", personas=4, conversations=1)
    corpus(tmp_path / "valid_self_original_no_cands.txt", personas=2)
    message = refusal("--data=personachat", f"--data_dir={tmp_path}", "--meta_batch=2")
    assert "2 personas" in message and "got 0;" in message and "--meta_batch" in message


def test_another_configuration_in_the_workdir_is_refused(tmp_path):
    arguments = [f"--workdir={tmp_path}", "--preset=tiny"]
    flags.FLAGS(["train", *arguments])
    with pytest.raises(AssertionError, match="as far as training"):
        train.main(["train"])
    message = refusal(*arguments, "--alpha=0.25", "--width=16")
    assert "alpha (saved 0.8, now 0.25)" in message
    assert "model.width (saved 32, now 16)" in message and "--workdir" in message
    flags.FLAGS(["train", *arguments, "--alpha=0.8", "--width=32", "--iterations=999"])
    with pytest.raises(AssertionError, match="as far as training"):
        train.main(["train"])


def test_a_workdir_in_use_is_refused(tmp_path):
    with WorkdirLock(tmp_path):
        message = refusal(f"--workdir={tmp_path}")
    assert str(tmp_path) in message and "--workdir" in message


def test_a_stray_argument_is_refused():
    with pytest.raises(SystemExit, match="expected flags only.*got 'amtml'"):
        train.main(["train", "amtml"])


def talks(path, speakers="ann bo cy", times=2, **more):
    """Speakers without statements; every two talk as often as said."""
    lines = []
    for n, (one, other) in enumerate(list(itertools.combinations(speakers.split(), 2)) * times):
        said = [(one, f"hello {other}"), (other, f"hi {one}!"), (one, f"well {n}")]
        utterances = [{"speaker": speaker, "text": text} for speaker, text in said]
        lines.append(json.dumps({"conversation": n, "utterances": utterances, **more}))
    path.write_text("\n".join(lines) + "\n")
    return path


def prepared(monkeypatch, *arguments):
    """What the command trains on."""
    seen = []

    def stop(config, data, *rest, **more):
        seen.append(data)
        raise FloatingPointError("far enough")

    monkeypatch.setattr(train, "train", stop)
    assert refusal(*arguments) == "error: far enough"
    return seen[0]


@pytest.mark.parametrize("strategy", ["paml", "std"])
def test_three_speakers_without_statements_train(tmp_path, monkeypatch, strategy):
    data = prepared(
        monkeypatch, f"--data={talks(tmp_path / 'talk.jsonl')}", f"--strategy={strategy}",
        "--meta_batch=2", "--preset=tiny", f"--workdir={tmp_path / 'w'}",
    )  # fmt: skip
    names = [persona.name for persona in (*data.train, *data.valid)]
    assert sorted(names) == ["ann", "bo", "cy"] and len(data.train) == 2
    batch = training_batch(data, TrainConfig(strategy=strategy, meta_batch=2, shape=PRESETS["tiny"].shape), 0)
    assert not any(tiles.targets.task.any() for tiles in batch.support)
    assert any("join two splits" in note for note in data.notes)


@pytest.mark.parametrize("strategy", ["mtml", "amtml", "std_p"])
def test_three_speakers_without_statements_are_refused(tmp_path, strategy):
    message = refusal(
        f"--data={talks(tmp_path / 'talk.jsonl')}", f"--strategy={strategy}", "--meta_batch=2",
        f"--workdir={tmp_path / 'w'}",
    )  # fmt: skip
    assert "expected persona statements in every" in message and "got none for speaker '" in message
    assert f"--strategy={strategy}" in message and "--strategy=paml" in message
    assert not (tmp_path / "w").exists()


def test_statements_of_some_dialogues_alone_are_unused(tmp_path, monkeypatch):
    path = talks(tmp_path / "talk.jsonl")
    lines = path.read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"statements": {"ann": ["i row"]}})
    path.write_text("\n".join(lines))
    data = prepared(
        monkeypatch, f"--data={path}", "--strategy=paml", "--meta_batch=2",
        f"--workdir={tmp_path / 'w'}",
    )  # fmt: skip
    assert not any(e.persona for p in data.train for d in p.dialogues for e in d.examples)
    assert any("have no statements" in note for note in data.notes)


def test_a_malformed_line_stops_or_is_counted(tmp_path, monkeypatch):
    path = talks(tmp_path / "talk.jsonl")
    path.write_text(path.read_text() + "{oops\n")
    arguments = [f"--data={path}", "--strategy=paml", "--meta_batch=2", f"--workdir={tmp_path}"]
    assert re.search(rf"{path}:7: expected a JSON object .*, got '{{oops'", refusal(*arguments))
    data = prepared(monkeypatch, *arguments, "--skip_bad")
    assert f"{path}: 7 conversations, 6 read; 1 skipped (malformed)" in data.notes[0]


def test_a_folder_of_splits_is_taken_as_it_is(tmp_path, monkeypatch):
    talks(tmp_path / "train.jsonl", speakers="ann bo")
    talks(tmp_path / "valid.jsonl", speakers="bo cy")
    arguments = ["--strategy=paml", "--meta_batch=2", f"--workdir={tmp_path / 'w'}"]
    data = prepared(monkeypatch, f"--data={tmp_path}", *arguments)
    assert [p.name for p in data.train] == ["ann", "bo"]
    assert any("1 speakers of valid are in train too, 'bo'" in note for note in data.notes)
    (tmp_path / "valid.jsonl").unlink()
    assert "expected a file valid.jsonl" in refusal(f"--data={tmp_path}", *arguments)


def test_personachat_is_read_from_its_prepared_copy(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("TFDS_DATA_DIR", str(home))
    corpus(tmp_path / "train_self_original.txt", personas=3)
    corpus(tmp_path / "valid_self_original.txt", personas=2)
    data = prepared(
        monkeypatch, "--data=personachat", f"--data_dir={tmp_path}", "--meta_batch=2",
        f"--workdir={tmp_path / 'w'}",
    )  # fmt: skip
    assert (len(data.train), len(data.valid)) == (3, 2)
    assert len(list(home.glob("personachat/*/*/*.array_record*"))) == 2


def test_another_split_seed_in_the_workdir_is_refused(tmp_path, monkeypatch):
    path = talks(tmp_path / "talk.jsonl", speakers="a b c d e f g")
    arguments = [f"--data={path}", "--strategy=paml", "--meta_batch=2", f"--workdir={tmp_path}"]
    prepared(monkeypatch, *arguments)
    assert "split_seed (saved 0, now 1)" in refusal(*arguments, "--split_seed=1")


@pytest.mark.parametrize("data, parts", [
    ("parrots", "--data=parrots demo .jsonl folder"),
    ("gone.jsonl", "gone.jsonl"),
])  # fmt: skip
def test_a_wrong_corpus_is_named(data, parts):
    message = refusal(f"--data={data}")
    for part in parts.split():
        assert part in message


def test_a_tile_of_ones_own_has_no_small_kind_beside_it():
    assert resolve("--preset=paper").shape.small
    assert resolve("--preset=paper", "--context_tokens=300").shape == TileShape(1, 300, 40, 96)
