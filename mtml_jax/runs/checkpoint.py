"""The states that a run can be continued from, saved and restored by Orbax."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mtml_jax.runs.folder import not_found
from mtml_jax.runs.integrity import find_damage, write_manifest
from mtml_jax.sharding import wait_for_all
from mtml_jax.types import MetaState, Params

_ABSENT = "nothing"
_A_CENTURY = 3_155_760_000  # seconds
_REMOVED = "removed"  # in the folder of checkpoints; what is in it is about to be deleted
_DAMAGED = "damaged"  # in the run's folder; never deleted here
ASIDE = ("_CHECKPOINT_METADATA", "commit_success.txt")  # Orbax writes them last and never reads them


class Saved(NamedTuple):
    """Parameters of a checkpoint, the step they were saved at and its counters."""

    params: Params
    step: int
    counters: dict[str, Any]


class Checkpoints:
    """The states of a run in `workdir/checkpoints`, a folder a step.

    The two latest are kept and the two that were the best last, so that there is a whole
    one before any that is lost. Saves go on in the background; an error of one is raised
    by the next call that waits for it. A folder gets its name when it is complete, with a
    manifest of its files in it, so a save that was cut off does not count; its remains
    are removed here, and the folder must therefore be this process's own
    (`runlog.WorkdirLock`). `restore_params` needs no lock.

    On opening, a checkpoint that is not as it was written is moved to `workdir/damaged`,
    and with it later ones that were judged by it, so that the run goes on from a whole one
    and writes them anew.

    Args:
      workdir: folder of the run; made if it is not there.

    Attributes:
      notes: sentences on what was moved away.
    """

    def __init__(self, workdir: str | os.PathLike):
        self._workdir = Path(workdir)
        self._folder = self._workdir / "checkpoints"
        self._saving = 0
        self._first = jax.process_index() == 0  # it alone moves and removes
        self._clean()
        found = _step_folders(self._folder) if self._first else []
        damaged = {n: harm for n in found if (harm := find_damage(self._folder / str(n), ASIDE))}
        moved = {step: self._move_away(step) for step in damaged}
        wait_for_all("damaged checkpoints are moved away")
        policies = ocp.checkpoint_managers
        self._manager = _open(
            self._workdir,
            ocp.StandardCheckpointHandler(),
            (ocp.args.StandardSave, ocp.args.StandardRestore),
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(2), policies.BestN(get_metric_fn=_rank, n=2)]
            ),
            cleanup_tmp_directories=True,
            todelete_subdir=_REMOVED,  # a name is gone at once: nothing is half-deleted
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=self._seal,
                # Orbax measures both waits by a clock that may jump, within the save too.
                timeout_secs=_A_CENTURY,
                create_directories_asynchronously=False,
            ),
        )
        later = self._judged_by_lost()
        wait_for_all("all checkpoints are judged")
        for step in later if self._first else []:
            self._move_away(step)
        wait_for_all("later checkpoints are moved away")
        if later:
            self._manager.reload()
        self._best = _best_step(self._manager)
        self.notes = [
            f"{self._workdir}: found a damaged checkpoint of step {step:,} ({damaged[step]}), want "
            f"it as it was written; it is in {moved[step]} now"
            + (f", the later ones of {', '.join(map(str, later))} beside it" if later else "")
            + f", and the run goes on from step {self.latest_step() or 0:,}"
            for step in damaged
        ]

    def save(self, step: int, state: MetaState, counters: dict[str, Any], best: bool) -> None:
        """Starts a save, after the one before it is done.

        The arrays and counters are the caller's again when this returns. What is not
        kept any more is removed once the save is complete. A step that is there already
        stays as it is, since a state is a function of its step; it is written anew only
        to become the best.

        Args:
          step: finished outer updates.
          state: MetaState of that step.
          counters: what the loop needs beside it; anything that JSON can hold.
          best: whether the step is the best from now on; until then an earlier one is.

        Raises:
          ValueError: the folder holds a later step.
          OSError: this save or the one before it failed; what was saved earlier is whole.
        """
        step = int(step)
        latest = self.latest_step()
        if latest is not None and step < latest:
            raise ValueError(
                f"{self._workdir}: found a checkpoint of step {latest}, want none after step "
                f"{step} that is saved now; continue from the latest or choose another --workdir"
            )
        if step == latest and (not best or step == self._best):
            return
        self.wait()
        with self._told():
            if step == latest:
                self._manager.delete(step)
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    # A copy: another thread writes it, and the caller may change its own.
                    counters=ocp.args.JsonSave(json.loads(json.dumps(counters))),
                ),
                metrics={"best": step if best else -1, "judged_by": self._best or 0},
                force=True,
            )
        if best:
            self._best = step

    def latest_step(self) -> int | None:
        """Returns the last step saved, or being saved; None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the last step saved as the best; None if there is none."""
        return self._best

    def restore(self, step: int, template: MetaState) -> tuple[MetaState, dict[str, Any]]:
        """Reads a state back, bit for bit.

        Args:
          step: `latest_step()` or `best_step()`.
          template: MetaState of arrays or `jax.ShapeDtypeStruct`. Arrays come back
            committed to the template's shardings; without one, to the first device.

        Returns:
          (state, counters).

        Raises:
          FileNotFoundError: the step is not there.
          ValueError: the checkpoint's arrays are not those of the template.
        """
        self.wait()
        if step not in self._manager.all_steps():
            raise not_found(self._workdir, f"checkpoint of step {step}")
        stored = self._manager.item_metadata(step)["state"].tree
        _require_same_arrays(stored, template, f"{self._workdir}, step {step}")
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(_placed, template)),
                counters=ocp.args.JsonRestore(),
            ),
        )
        return restored["state"], restored["counters"]

    def wait(self) -> None:
        """Returns when the save under way is complete.

        Raises:
          OSError: it failed; what was saved earlier is whole.
        """
        with self._told():
            self._manager.wait_until_finished()
            self._clean()

    def close(self) -> None:
        """Waits, then ends the threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # What ends the block already matters more than a save that fails at its end.
        with contextlib.suppress(*() if kind is None else (OSError,)):
            self.close()

    def _seal(self) -> None:
        """Writes the manifest into the folder of a save, before that gets its name."""
        if not self._first:
            return
        for folder in self._folder.glob(f"{self._saving}.*"):
            write_manifest(folder, ASIDE)

    def _clean(self) -> None:
        if self._first:
            shutil.rmtree(self._folder / _REMOVED, ignore_errors=True)

    def _move_away(self, step: int) -> Path:
        (self._workdir / _DAMAGED).mkdir(exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=self._workdir / _DAMAGED, prefix=f"{step}-"))
        (self._folder / str(step)).rename(place)
        return place

    def _judged_by_lost(self) -> list[int]:
        """Steps after the last one whose best, at the time it was saved, is still there."""
        steps = sorted(self._manager.all_steps())
        fits = [n for n in steps if self._manager.metrics(n)["judged_by"] in (0, *steps)]
        return [n for n in steps if n > max(fits, default=0)]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tells in one sentence of a save that failed, whatever Orbax raised."""
        try:
            yield
        except Exception as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            reason = reason.rsplit(": ", 1)[-1]  # TensorStore ends with what the system said
            raise OSError(
                f"{self._workdir}: the checkpoint of step {self._saving:,} could not be saved "
                f"({reason}), want a folder that can be written to and a disk with room; "
                "the earlier ones are whole: free some and give the same command again"
            ) from error


def restore_params(workdir: str | os.PathLike, which: Literal["best", "latest"]) -> Saved:
    """Reads the parameters of a run, and nothing of its optimiser.

    Writes nothing, so the run may go on meanwhile.

    Args:
      workdir: folder of the run.
      which: "best" or "latest".

    Returns:
      Saved; the arrays, uncommitted, on the default device. Tuples come back as lists.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: it is damaged.
    """
    workdir = Path(workdir)
    try:
        return _restore_params(workdir, which)
    except (_Damaged, FileNotFoundError):
        raise
    except Exception:
        _check_from(workdir, 0)  # Orbax reads more than what is asked for
        raise


class _Damaged(ValueError):
    """A checkpoint is not as it was written."""


def _check_from(workdir: Path, first: int) -> None:
    folder = workdir / "checkpoints"
    for step in _step_folders(folder):
        if step < first or not (harm := find_damage(folder / str(step), ASIDE)):
            continue
        if (folder / str(step)).is_dir():  # else the run, going on, has just removed it
            raise _Damaged(
                f"{workdir}: found a damaged checkpoint of step {step:,} ({harm}), want it as it "
                "was written; the command that trained the run moves it away and goes on from "
                "the one before it"
            )


def _restore_params(workdir: Path, which: str) -> Saved:
    with _open(
        workdir, ocp.PyTreeCheckpointHandler(), (ocp.args.PyTreeRestore,), create=False
    ) as manager:
        step = _best_step(manager) if which == "best" else manager.latest_step()
        if step is None:
            raise not_found(workdir, f"{which} checkpoint")
        _check_from(workdir, step)  # and the later ones: any of them may be the best
        params = manager.item_metadata(step)["state"].tree["params"]
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(
                    {"params": params},
                    restore_args={
                        "params": jax.tree.map(
                            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), params
                        )
                    },
                    partial_restore=True,
                ),
                counters=ocp.args.JsonRestore(),
            ),
        )
    params = jax.tree.map(jnp.asarray, restored["state"]["params"])
    return Saved(params, step, restored["counters"])


def _step_folders(folder: Path) -> list[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def _open(
    workdir: Path, handler: Any, arguments: tuple[type, ...], **options: Any
) -> ocp.CheckpointManager:
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for argument in arguments:
        registry.add("state", argument, handler)
    for argument in (ocp.args.JsonSave, ocp.args.JsonRestore):
        registry.add("counters", argument, ocp.JsonCheckpointHandler())
    return ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(),
        options=ocp.CheckpointManagerOptions(best_fn=_rank, **options),
        handler_registry=registry,
    )


def _rank(metrics: dict[str, int]) -> int:
    # Orbax keeps its metrics within the folder of the step, so that mark and state
    # appear at once. The rank is the step for one marked as the best, else -1.
    return metrics["best"]


def _best_step(manager: ocp.CheckpointManager) -> int | None:
    step = manager.best_step()
    return None if step is None or _rank(manager.metrics(step)) < 0 else step


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _require_same_arrays(stored: Any, template: MetaState, where: str) -> None:
    found, wanted = _described(stored), _described(template)
    differing = [
        f"{name} ({found.get(name, _ABSENT)}, want {wanted.get(name, _ABSENT)})"
        for name in sorted(found.keys() | wanted.keys(), key=_params_first)
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        rest = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ValueError(
            f"{where}: found other arrays than this model's, {', '.join(differing[:3])}{rest}; "
            "continue with the settings of the run or choose another --workdir"
        )


def _params_first(name: str) -> tuple[bool, str]:
    return not name.startswith("params"), name


def _described(tree: Any) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (
            f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
        )
        for path, leaf in leaves
    }
