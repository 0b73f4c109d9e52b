"""Test what runs the commands of the documentation, on a page of its own."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("docs_run", ROOT / "docs" / "run.py")
docs = sys.modules["docs_run"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(docs)

PAGE = """# A page

```
python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[x]' && echo 12 words, 3 s
pip install x
echo  hi \\
    there  # a comment
```

<!-- output: tail -n 1 | tr a-z A-Z -->
```
HI THERE
```

<!-- slow -->
```
echo 1.00
```

<!-- output -->
```
1.005
```

<!-- not run: it needs a TPU -->
```
false
```

```python
raise ValueError
```
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


def run_page(page, *, quick=False, write=False):
    docs.run.cache_clear()
    return docs.run_page(page.name, page.parent, quick, write)


def test_commands_are_found_and_installing_is_not_run():
    blocks = docs.blocks_of(PAGE)
    assert [b.kind for b in blocks] == ["commands", "output", "commands", "output", "", ""]
    assert [b.slow for b in blocks[:4]] == [False, False, True, True]
    assert docs.commands_of(blocks[0]) == ["echo 12 words, 3 s", "echo  hi      there"]


def test_a_page_that_shows_what_is_printed_has_no_problems(page):
    assert run_page(page) == [] and run_page(page, quick=True) == []


def test_what_differs_is_named_and_written(page):
    page.write_text(PAGE.replace("HI THERE", "HO").replace("1.005", "1.2"))
    assert len(run_page(page, quick=True)) == 1
    words, number = run_page(page)
    assert "the page shows\nHO\nthe command prints\nHI THERE" in words and "1.2" in number
    run_page(page, write=True)
    assert page.read_text() == PAGE.replace("1.005", "1.00")


def test_a_command_that_fails_is_named(page):
    page.write_text(PAGE.replace("echo 1.00", "ls nowhere"))
    failed, *_ = run_page(page)
    assert "page.md: ls nowhere\n  ended with 2" in failed and "No such file" in failed


@pytest.mark.parametrize(
    "shown, printed, wanted",
    [
        ("step 40: PPL 215.8, took 2 min 10 s", "step 40: PPL 215.9, took 7 s", True),
        ("a  b\nc", "a b c", True),
        ("1,234 words", "1,240 words", True),
        ("PPL 9.68", "PPL 9.9", False),
        ("own 9.68", "other 9.68", False),
        ("-0.20", "0.20", False),
        ("5-shot", "10-shot", False),
    ],
)
def test_rounding_and_durations_may_differ(shown, printed, wanted):
    assert docs.same(shown, printed) == wanted
