"""Persona meta-learning for dialogue: a handful of dialogues instead of a written persona."""

import sys

__version__ = "0.1.0"

if sys.platform == "win32":
    raise ImportError("expected Linux or macOS, got Windows; use the Windows Subsystem for Linux")
