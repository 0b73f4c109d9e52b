"""Read the peak memory of this process from Linux."""

import pathlib


def most_resident() -> int:
    """The peak resident size in bytes since the start, or since `reset_most_resident`."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("expected VmHWM in /proc/self/status, got none; run --peers on Linux")


def reset_most_resident() -> None:
    """Resets the peak to the current resident size."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
