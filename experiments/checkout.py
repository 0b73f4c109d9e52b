"""Which version of the project makes the numbers."""

import pathlib
import subprocess


def commit() -> str | None:
    """The checkout's commit, with "-dirty" where it was changed; None without git."""
    root = pathlib.Path(__file__).resolve().parents[1]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
