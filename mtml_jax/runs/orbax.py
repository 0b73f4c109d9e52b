"""Open Orbax's manager of a run's checkpoints, and compare stored arrays with a model's."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mtml_jax.runs.integrity import find_damage
from mtml_jax.types import MetaState

_ABSENT = "nothing"
ASIDE = ("_CHECKPOINT_METADATA", "commit_success.txt")  # Orbax writes them last, never reads them


class Damaged(ValueError):
    """A checkpoint's files differ from its manifest."""


def check_from(workdir: Path, first: int) -> None:
    """Raises `Damaged` if a checkpoint of step `first` or later is damaged."""
    for step in step_folders(workdir / "checkpoints"):
        folder = workdir / "checkpoints" / str(step)
        if step < first or not (harm := find_damage(folder, ASIDE)):
            continue
        if folder.is_dir():  # otherwise the run, still training, has just removed it
            raise Damaged(
                f"{workdir}: expected intact checkpoints, got a damaged checkpoint of step {step:,} "
                f"({harm}); run the training command again, which moves it away and resumes from "
                "the one before"
            )


def step_folders(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, in order."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def open_manager(
    workdir: Path, handler: Any, arguments: tuple[type, ...], **options: Any
) -> ocp.CheckpointManager:
    """Opens Orbax's manager of the checkpoints in `workdir/checkpoints`."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for argument in arguments:
        registry.add("state", argument, handler)
    for argument in (ocp.args.JsonSave, ocp.args.JsonRestore):
        registry.add("counters", argument, ocp.JsonCheckpointHandler())
    return ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(best_fn=rank, **options), handler_registry=registry
    )


def rank(metrics: dict[str, int]) -> int:
    # Orbax keeps metrics in the folder of the step, so that mark and state appear at once.
    # The rank is the step if it is marked as the best, else -1.
    return metrics["best"]


def best_step(manager: ocp.CheckpointManager) -> int | None:
    """Returns the last step that was marked as the best; None if there is none."""
    step = manager.best_step()
    return None if step is None or rank(manager.metrics(step)) < 0 else step


def placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns shape, dtype and sharding that an array is restored to."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def require_same_arrays(stored: Any, template: MetaState, where: str) -> None:
    """Checks that stored arrays have the template's names, shapes and dtypes."""
    found, wanted = _described(stored), _described(template)
    differing = [
        f"{name} ({wanted.get(name, _ABSENT)}, got {found.get(name, _ABSENT)})"
        for name in sorted(wanted | found, key=lambda name: (not name.startswith("params"), name))
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        rest = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ValueError(
            f"{where}: expected this model's arrays, {', '.join(differing[:3])}{rest}; resume with "
            "the settings of the run or choose another --workdir"
        )


def _described(tree: Any) -> dict[str, str]:
    leaves = named_leaves(tree)
    return {n: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for n, leaf in leaves.items()}


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a tree by the names of their paths, in the order of the tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
