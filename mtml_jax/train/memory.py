"""How much memory is free, on devices and within the limits of this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import psutil

# Of a control group, version 2 and 1: its limit, what it holds, and how its `memory.stat`
# calls what it holds of files and would let go.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(devices: Sequence[jax.Device]) -> int:
    """Bytes that each of these devices of this process can still take.

    An accelerator tells its own; devices of a CPU share what the machine has available
    and what the control groups of this process leave.
    """
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return min(one["bytes_limit"] - one["bytes_in_use"] for one in stats)
    machine = psutil.virtual_memory().available
    return min([machine, *_left_by_groups(Path("/"))]) // len(devices)


def _left_by_groups(root: Path) -> Iterator[int]:
    """What every control group with a limit leaves to this process, from its own to the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, kind, path in (line.split(":", 2) for line in lines):
        if kind and "memory" not in kind.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if kind else "")
        own = top / path.lstrip("/")  # not there within a container, whose own group is the top
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                yield from _left_by_group(folder)


def _left_by_group(folder):
    for limit, held, files in _FILES:
        try:
            numbers = [int((folder / name).read_text()) for name in (limit, held)]
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or a limit that reads "max"
            continue
        yield max(numbers[0] - numbers[1] + int(stat.get(files, 0)), 0)
