"""--help of every command: all of its flags, each with a subject, and true defaults."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import flags as settings
from mtml_jax.config import PRESETS

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "experiments").rglob("*.py"))
    if "    app.run(main, flags" in path.read_text()
]
# A help text begins with what the flag is, or with what a switch does.
SWITCHES = set("recompute give count put skip stop split show print measure report".split())
HEADLESS = re.compile(r"(of|with|in|at|to|from|by|for|over|how|what|whose|whom|when|where)\b")


def test_there_are_as_many_commands_as_tables_promise():
    assert len(COMMANDS) == 16


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_flag_of_a_command(name):
    command = importlib.import_module(name)
    with flagsaver.flagsaver():
        before = set(flags.FLAGS)
        command.define_flags()
        own = {flag: flags.FLAGS[flag] for flag in set(flags.FLAGS) - before}
        shown = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(name)}
        text = flags.FLAGS.module_help(name)
    assert own and own.keys() <= shown
    for flag, one in own.items():
        assert f"--{flag}: " in text or f"--[no]{flag}: " in text
        first, *others = one.help.split()
        assert len(others) >= 2, f"--{flag}: {one.help}"
        assert not one.help.endswith("."), f"--{flag}: {one.help}"
        assert not HEADLESS.match(one.help), f"--{flag}: {one.help}"
        if one.flag_type() == "bool" and first not in SWITCHES:
            pytest.fail(f"--{flag} does not say what it does: {one.help}")


def test_the_command_line_shows_settings_with_their_defaults():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    text = " ".join(done.stdout.split())
    rates = ", ".join(f"{name} {preset.inner_lr}" for name, preset in PRESETS.items())
    for part in (
        f"--inner_lr: learning rate of SGD in the inner step (eta_t in eq. 11 and section 3.2; "
        f"paper: 0.005) (default: the preset's; {rates})",
        "(default: runs/DATA-PRESET-STRATEGY",
        "--alpha: weight of the response loss",
        "--data: corpus: demo or personachat",
        "--coordinator: HOST:PORT",
    ):
        assert part in text


def test_the_page_of_settings_is_current():
    assert (ROOT / "docs" / "settings.md").read_text() == settings.settings_page()
