"""Run the commands of README and of the pages in docs/, and hold what they print against the pages.

    python docs/run.py                 # every command; names what differs
    python docs/run.py --write         # puts the new outputs into the pages
    python docs/run.py --quick         # only what takes seconds
    python docs/run.py docs/data.md    # only this page

Commands run in a copy of the checkout (--folder keeps it and what was trained in it). In a page,

- a block without a language holds commands, one a line; a backslash continues a line, and lines
  that install something are taken as done. A comment before it can say `<!-- slow -->` or
  `<!-- not run: REASON -->`;
- a block after `<!-- output -->` holds what the last command before it printed;
  `<!-- output: FILTER -->` sends that through a shell filter first. Lines of a chat that begin
  with "you: " are typed.

Numbers may differ by one in their last digit and by 1 %, durations by anything.
"""

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md")))
BLOCK = re.compile(r"(?:<!-- ([^>]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INSTALLING = re.compile(r"^(?:[^&\n]*(?:-m venv|activate|pip install)[^&\n]*(?:&&|$)\s*)+")
DURATION = re.compile(r"\b(?:\d+(?:\.\d+)? (?:h|min|minutes?|s|seconds?|ms)\b ?)+")
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?!\w)")


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str  # "commands", "output", or "" for what is neither run nor compared
    note: str  # what the comment before it says after the first word
    text: str
    span: tuple[int, int]  # of the text in the page
    slow: bool


class Printed(NamedTuple):
    """What a command printed, and how long it took."""

    text: str
    errors: str
    status: int
    seconds: float


def blocks_of(page: str) -> list[Block]:
    """Finds the blocks of a page in order; an output is as slow as the commands before it."""
    found, slow = [], False
    for match in BLOCK.finditer(page):
        comment, language, text = match.groups()
        head, _, note = (comment or "").partition(":")
        if head == "output":
            kind = "output"
        elif language or head == "not run":
            kind = ""
        else:
            kind, slow = "commands", head == "slow"
        found.append(Block(kind, note.strip(), text, match.span(3), slow))
    return found


def commands_of(block: Block) -> list[str]:
    """The commands of a block, without those that install something."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [c for c in (INSTALLING.sub("", line).split("  #")[0].strip() for line in lines) if c]


@functools.cache
def run(command: str, folder: Path, typed: str = "") -> Printed:
    """Runs a shell command, which reads the typed lines; once, however many pages show it."""
    begun = time.monotonic()
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, input=typed, text=True,
        capture_output=True
    )  # fmt: skip
    return Printed(done.stdout, done.stderr, done.returncode, time.monotonic() - begun)


def same(shown: str, printed: str) -> bool:
    """Whether two outputs agree but for rounding and durations."""

    def parts(text):
        text = DURATION.sub("TIME ", re.sub(r"\s+", " ", text).strip())
        return NUMBER.sub("#", text), [n.replace(",", "") for n in NUMBER.findall(text)]

    (words, numbers), (other_words, others) = parts(shown), parts(printed)
    return words == other_words and all(map(_close, numbers, others))


def _close(one: str, other: str) -> bool:
    last_digit = 10.0 ** -len(one.partition(".")[2])
    return abs(float(one) - float(other)) <= max(1.001 * last_digit, 0.01 * abs(float(one)))


def run_page(name: str, folder: Path, quick: bool, write: bool) -> list[str]:
    """Runs a page's commands and returns a sentence for everything that differs."""
    page = (ROOT / name).read_text(encoding="utf-8")
    blocks, problems, printed, new = blocks_of(page), [], None, []
    for number, block in enumerate(blocks):
        if not block.kind or (quick and block.slow):
            continue
        if block.kind == "commands":
            outputs = [b for b in blocks[number + 1 : number + 2] if b.kind == "output"]
            typed = "".join(re.findall(r"^you: (.*\n)", "".join(b.text for b in outputs), re.MULTILINE))
            for command in commands_of(block):
                print(f"{name}: {command}", flush=True)
                printed = run(command, folder, typed if "experiments.chat" in command else "")
                print(f"    {printed.seconds:.0f} s", flush=True)
                if printed.status:
                    end = "\n".join((printed.text + printed.errors).splitlines()[-5:])
                    problems.append(f"{name}: {command}\n  ended with {printed.status}:\n{end}")
                    printed = None  # nothing of it belongs in a page
        elif printed is not None:
            shown = printed.text
            if block.note:
                shown = subprocess.run(
                    ["bash", "-c", block.note], input=shown, text=True, capture_output=True, check=True
                ).stdout
            shown = shown.strip("\n") + "\n"
            new.append((block.span, shown))
            if not same(block.text, shown):
                problems.append(f"{name}: the page shows\n{block.text}the command prints\n{shown}")
    if write:
        for (begin, end), text in reversed(new):
            page = page[:begin] + text + page[end:]
        (ROOT / name).write_text(page, encoding="utf-8")
    return problems


def copy_checkout(folder: Path) -> None:
    """Copies the files that git knows or does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pages", nargs="*", default=PAGES, help="pages to run (default: all)")
    parser.add_argument("--write", action="store_true", help="put the new outputs into the pages")
    parser.add_argument("--quick", action="store_true", help="leave out what is marked as slow")
    parser.add_argument("--folder", type=Path, help="folder to run in (default: a temporary one)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mtml_jax_docs_") as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        copy_checkout(folder)
        problems = [p for name in given.pages for p in run_page(name, folder, given.quick, given.write)]
    print("\n\n".join(problems) or "the pages show what their commands print")
    sys.exit(bool(problems) and not given.write)


if __name__ == "__main__":
    main()
