"""Save and restore the states that a run can be resumed from, by Orbax."""

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

from mtml_jax.runs.files import Closing
from mtml_jax.runs.folder import not_found
from mtml_jax.runs.integrity import find_damage, write_manifest
from mtml_jax.runs.orbax import (
    ASIDE,
    Damaged,
    best_step,
    check_from,
    open_manager,
    placed,
    rank,
    require_same_arrays,
    step_folders,
)
from mtml_jax.sharding import wait_for_all
from mtml_jax.types import MetaState, Params

_policies = ocp.checkpoint_managers
_A_CENTURY = 3_155_760_000  # seconds
_REMOVED = "removed"  # in the folder of checkpoints; its contents are about to be deleted
_DAMAGED = "damaged"  # in the run's folder; its contents are never deleted here


class Saved(NamedTuple):
    """The parameters, step and counters of a checkpoint."""

    params: Params
    step: int
    counters: dict[str, Any]


class Checkpoints(Closing):
    """The states of a run in `workdir/checkpoints`, one folder per step.

    The two latest and the last two that were the best are kept, so that an intact one remains
    if any one is lost. Saving continues in the background; its error is raised by the next
    call that waits for it. A folder gets its name when it is complete and holds a manifest of
    its files, so an interrupted save does not count. Opening removes its remains; the caller
    must therefore hold the run's folder (`lock.WorkdirLock`). `restore_params` needs no lock.

    Opening also moves damaged checkpoints to `workdir/damaged`, together with later ones that
    were compared with them as the best. The run resumes from an intact one and saves the
    later steps again.

    Args:
      workdir: folder of the run; it is created if it does not exist.

    Attributes:
      notes: one sentence for each damaged checkpoint.
    """

    def __init__(self, workdir: str | os.PathLike):
        self._workdir = Path(workdir)
        self._folder = self._workdir / "checkpoints"
        self._saving = 0
        self._first = jax.process_index() == 0  # only this process moves and removes folders
        self._clean()

        # Move damaged checkpoints away before Orbax looks at the folder.
        steps = step_folders(self._folder) if self._first else []
        damaged = {n: harm for n in steps if (harm := find_damage(self._folder / str(n), ASIDE))}
        places = {step: self._move_away(step) for step in damaged}
        wait_for_all("damaged checkpoints are moved away")
        self._manager = open_manager(
            self._workdir,
            ocp.StandardCheckpointHandler(),
            (ocp.args.StandardSave, ocp.args.StandardRestore),
            preservation_policy=_policies.AnyPreservationPolicy(
                [_policies.LatestN(2), _policies.BestN(get_metric_fn=rank, n=2)]
            ),
            cleanup_tmp_directories=True,
            todelete_subdir=_REMOVED,  # renaming is atomic: no checkpoint is half deleted
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=self._seal,
                # Orbax measures both waits by a clock that may jump, even during a save.
                timeout_secs=_A_CENTURY,
                create_directories_asynchronously=False,
            ),
        )

        # Move away later checkpoints whose best one is lost.
        later = self._judged_by_lost()
        wait_for_all("all checkpoints are judged")
        for step in later if self._first else []:
            self._move_away(step)
        wait_for_all("later checkpoints are moved away")
        if later:
            self._manager.reload()
        self._best = best_step(self._manager)
        also = f", with the later ones of {', '.join(map(str, later))}" if later else ""
        self.notes = [
            f"{self._workdir}: moved the damaged checkpoint of step {step:,} ({damaged[step]}) to "
            f"{places[step]}{also}; the run continues from step {self.latest_step() or 0:,}"
            for step in damaged
        ]

    def save(self, step: int, state: MetaState, counters: dict[str, Any], best: bool) -> None:
        """Waits for the save before, then starts this one in the background.

        The caller may change arrays and counters when this returns. Checkpoints that are no
        longer kept are removed once the save is complete. A state is a function of its step,
        so a step that is saved already is written again only to mark it as the best.

        Args:
          step: finished outer updates.
          state: MetaState of that step.
          counters: further state of the training loop; any JSON value.
          best: whether this step is the best so far.

        Raises:
          ValueError: the folder holds a later step.
          OSError: this save or the one before failed; earlier checkpoints are intact.
        """
        step = int(step)
        latest = self.latest_step()
        if latest is not None and step < latest:
            raise ValueError(
                f"{self._workdir}: expected no checkpoint after step {step}, which is saved now, got "
                f"one of step {latest}; resume from the latest or choose another --workdir"
            )
        if step == latest and (not best or step == self._best):
            return
        self.wait()
        with self._errors():
            if step == latest:
                self._manager.delete(step)
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    # A copy, because another thread writes it and the caller may change the original.
                    counters=ocp.args.JsonSave(json.loads(json.dumps(counters))),
                ),
                metrics={"best": step if best else -1, "judged_by": self._best or 0},
                force=True,
            )
        if best:
            self._best = step

    def latest_step(self) -> int | None:
        """Returns the last step that is saved or being saved; None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the last step that was saved as the best; None if there is none."""
        return self._best

    def restore(self, step: int, template: MetaState) -> tuple[MetaState, dict[str, Any]]:
        """Reads a state, bit for bit.

        Args:
          step: `latest_step()` or `best_step()`.
          template: MetaState of arrays or `jax.ShapeDtypeStruct`. Arrays come back
            committed to the template's shardings, or to the first device without one.

        Returns:
          (state, counters).

        Raises:
          FileNotFoundError: there is no checkpoint of the step.
          ValueError: the checkpoint's arrays differ from the template's.
        """
        self.wait()
        if step not in self._manager.all_steps():
            raise not_found(self._workdir, f"checkpoint of step {step}")
        stored = self._manager.item_metadata(step)["state"].tree
        require_same_arrays(stored, template, f"{self._workdir}, step {step}")
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(placed, template)),
                counters=ocp.args.JsonRestore(),
            ),
        )
        return restored["state"], restored["counters"]

    def wait(self) -> None:
        """Waits until the save in the background is complete.

        Raises:
          OSError: it failed; earlier checkpoints are intact.
        """
        with self._errors():
            self._manager.wait_until_finished()
            self._clean()

    def close(self) -> None:
        """Waits for the save, then ends the threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _seal(self) -> None:
        """Writes the manifest into a saved folder before it gets its final name."""
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
        """Returns the steps after the last one whose best step, when it was saved, still exists."""
        steps = sorted(self._manager.all_steps())
        intact = [n for n in steps if self._manager.metrics(n)["judged_by"] in (0, *steps)]
        return [n for n in steps if n > max(intact, default=0)]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns any error of a save into one OSError of one sentence."""
        try:
            yield
        except Exception as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            reason = reason.rsplit(": ", 1)[-1]  # TensorStore ends with the system's message
            raise OSError(
                f"{self._workdir}: the checkpoint of step {self._saving:,} could not be saved "
                f"({reason}), earlier ones are intact; free disk space, check the folder's "
                "permissions and run the same command again"
            ) from error


def restore_params(workdir: str | os.PathLike, which: Literal["best", "latest"]) -> Saved:
    """Reads the parameters of a run without its optimiser's state.

    Nothing is written, so the run may continue at the same time.

    Returns:
      Saved; its arrays are on the default device, uncommitted. Tuples come back as lists.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: it is damaged.
    """
    workdir = Path(workdir)
    try:
        with open_manager(
            workdir, ocp.PyTreeCheckpointHandler(), (ocp.args.PyTreeRestore,), create=False
        ) as manager:
            return _restore_params(manager, workdir, which)
    except (Damaged, FileNotFoundError):
        raise
    except Exception:
        check_from(workdir, 0)  # Orbax also reads checkpoints that were not asked for
        raise


def _restore_params(manager: ocp.CheckpointManager, workdir: Path, which: str) -> Saved:
    step = best_step(manager) if which == "best" else manager.latest_step()
    if step is None:
        raise not_found(workdir, f"{which} checkpoint")
    check_from(workdir, step)  # later ones, too: any of them may be the best
    params = manager.item_metadata(step)["state"].tree["params"]
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), params)
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                {"params": params}, restore_args={"params": as_numpy}, partial_restore=True
            ),
            counters=ocp.args.JsonRestore(),
        ),
    )
    params = jax.tree.map(jnp.asarray, restored["state"]["params"])
    return Saved(params, step, restored["counters"])
