"""Tests the command that prints the data sheet of a corpus."""

import itertools
import json
import re
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import check_data, plots

ROOT = Path(__file__).resolve().parents[2]


def sheet_of(*paths, **given):
    defaults = {
        "preset": "tiny", "json": False, "html": None, "compare": None, "split_seed": 0,
        "skip_bad": False,
    }  # fmt: skip
    given = SimpleNamespace(**defaults | given)
    return check_data.sheet_of(["check_data", *map(str, paths)], given)


@pytest.fixture
def corpus(tmp_path):
    """Seven speakers, every two in one conversation; one of them is malformed."""
    lines = ["{broken"]
    for one, other in itertools.combinations("abcdefg", 2):
        said = [(one, "Hi!"), (other, f"I know {one}."), (one, "Me too")]
        utterances = [{"speaker": speaker, "text": text} for speaker, text in said]
        lines.append(json.dumps({"conversation": one + other, "utterances": utterances}))
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_the_sheet_of_a_file_is_of_the_splits_that_training_reads(corpus):
    numbers = json.loads(sheet_of(corpus, json=True, skip_bad=True))
    assert [s["personas"] for s in numbers["splits"].values()] == [3, 2, 2]
    assert [o["personas"] for o in numbers["overlap"]] == [0, 0, 0]
    assert "22 conversations, 21 read; 1 skipped (malformed)" in numbers["notes"][0]
    assert "no: train has 3 personas" in numbers["strategies"]["paml"]
    text = sheet_of(corpus, skip_bad=True)
    assert re.search(r"^personas +3 +2 +2$", text, re.MULTILINE)


def test_the_page_is_self_contained(corpus, tmp_path):
    pytest.importorskip("matplotlib")
    sheet_of(corpus, skip_bad=True, html=tmp_path / "sheet.html")
    text = (tmp_path / "sheet.html").read_text()
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 12  # of four quantities and three splits: nobody has statements
    assert all(xml.dom.minidom.parseString(chart) for chart in charts)
    addresses = set(re.findall(r"""https?://[^"' <]+""", text))
    # Names of XML vocabularies, which are not fetched.
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in text and "src=" not in text


def test_only_the_page_needs_matplotlib(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    assert sheet_of(corpus, skip_bad=True).startswith("data sheet of ")
    sentence = r"error: expected matplotlib for --html, .* pip install -e '.\[plot\]' installs it"
    with pytest.raises(SystemExit, match=sentence):
        sheet_of(corpus, skip_bad=True, html=tmp_path / "sheet.html")
    assert not (tmp_path / "sheet.html").exists()


@pytest.mark.parametrize("paths, given, parts", [
    ([], {}, "0 paths one"),
    (["a", "b"], {}, "2 paths one"),
    (["gone.jsonl"], {}, "gone.jsonl"),
    (["parrots"], {}, "parrots expected demo"),
    (["demo"], {"compare": "gone.json"}, "gone.json"),
])  # fmt: skip
def test_mistakes_get_one_sentence(paths, given, parts):
    with pytest.raises(SystemExit) as ended:
        sheet_of(*paths, **given)
    message = str(ended.value)
    assert message.startswith("error: ") and "\n" not in message
    for part in parts.split():
        assert part in message


@pytest.mark.parametrize("text", ["{", "[]", '{"1": ["a"]}', '{"1": [[2]]}', "[" * 100_000])
def test_another_form_of_grouping_is_refused(tmp_path, corpus, text):
    path = tmp_path / "clusters.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="clusters.json: expected {label: .* got "):
        sheet_of(corpus, compare=path, skip_bad=True)


def test_the_command_runs():
    line = [sys.executable, "-m", "experiments.check_data", "demo", "--json", "--preset=tiny"]
    done = subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    numbers = json.loads(done.stdout)
    assert [s["personas"] for s in numbers["splits"].values()] == [100, 16, 24]
    assert set(numbers["strategies"].values()) == {"yes"}


@pytest.mark.long
def test_the_real_personas_agree_with_other_clusters(shared_data):
    numbers = json.loads(
        sheet_of(
            shared_data / "personachat", json=True,
            compare=shared_data / "persona_maps" / "train.json",
        )
    )  # fmt: skip
    found = numbers["compare"]["train"]
    assert (found["sets"], found["shared"]) == (2836, 2149)
    assert 0.95 < found["adjusted_rand_index"] < 0.96
    assert numbers["splits"]["train"]["lengths"]["context"]["99"] == 203
