"""Test that a damaged checkpoint is named, kept, and never resumed from."""

import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtml_jax.meta.outer import init_state
from mtml_jax.runs.checkpoint import ASIDE, Checkpoints, restore_params
from mtml_jax.runs.integrity import NAME, find_damage, write_manifest


def _state(step):
    return init_state({"w": jnp.full((7, 11), step, jnp.float32)})


def _saved(workdir, steps):
    with Checkpoints(workdir) as checkpoints:
        for step, best in steps:
            checkpoints.save(step, _state(step), {"at": step}, best)


def _restored(workdir):
    """(step, what the parameters say, the counters' step, notes) of a run that goes on."""
    with Checkpoints(workdir) as checkpoints:
        step = checkpoints.latest_step()
        if step is None:
            return None, None, None, checkpoints.notes
        state, counters = checkpoints.restore(step, _state(0))
        return step, float(state.params["w"][3, 5]), counters["at"], checkpoints.notes


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _remove(path):
    path.unlink()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints 2 and 3, both once the best, and 5."""
    workdir = tmp_path_factory.mktemp("run")
    _saved(workdir, [(2, True), (3, True), (5, False)])
    return workdir


def _copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def _files(folder):
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in names if name not in ASIDE)


def test_the_manifest_is_the_one_of_sha256sum(run):
    folder = run / "checkpoints" / "5"
    listed = [line.split("  ")[1] for line in (folder / NAME).read_text().splitlines()]
    assert sorted([*listed, NAME]) == _files(folder)
    if shutil.which("sha256sum"):
        subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", NAME], cwd=folder, check=True
        )


@pytest.mark.parametrize("harm", [_flip, _truncate, _remove])
def test_any_damage_to_any_file_is_found(run, tmp_path, harm):
    whole = run / "checkpoints" / "5"
    names = _files(whole)
    assert len(names) > 9 and find_damage(whole, ASIDE) is None
    for name in names:
        copy = shutil.copytree(whole, tmp_path / name.replace("/", "-"))
        harm(copy / name)
        found = find_damage(copy, ASIDE)
        assert found is not None, name
        assert NAME in found if name == NAME else name in found, (name, found)


def test_what_a_manifest_may_hold(tmp_path):
    (tmp_path / "a").write_bytes(b"gull")
    write_manifest(tmp_path)
    text = (tmp_path / NAME).read_text()
    assert find_damage(tmp_path) is None
    for broken, reason in [
        ("", "does not list a"), (text[:-1], "cut off"), (text + text[:9], "cut off"),
        (text.replace("  a", "  b"), "does not list a"), (text + "\x00\n", "cut off"),
    ]:  # fmt: skip
        (tmp_path / NAME).write_text(broken)
        assert reason in find_damage(tmp_path)
    (tmp_path / NAME).write_bytes(b"\xff\xfe\n")
    assert "cut off" in find_damage(tmp_path)
    (tmp_path / NAME).write_text(text.replace("  a", "  A"))
    assert find_damage(tmp_path).startswith(NAME)  # "A is not there" would be as true
    assert NAME in find_damage(tmp_path / "nothing")


@pytest.mark.parametrize("harm", [_flip, _truncate, _remove])
def test_the_run_goes_on_from_the_step_before(run, tmp_path, harm):
    workdir = _copy(run, tmp_path)
    bad = next((workdir / "checkpoints" / "5" / "state" / "d").iterdir())
    harm(bad)
    remains = sorted(p.name for p in (workdir / "checkpoints" / "5").rglob("*"))
    step, value, counted, (note,) = _restored(workdir)
    assert (step, value, counted) == (3, 3.0, 3)
    assert f"{workdir}: moved the damaged checkpoint of step 5 (state/d/{bad.name} is " in note
    assert note.endswith("the run continues from step 3") and "\n" not in note
    (kept,) = (workdir / "damaged").iterdir()
    assert str(kept) in note and sorted(p.name for p in kept.rglob("*")) == remains
    _saved(workdir, [(5, False)])
    assert _restored(workdir) == (5, 5.0, 5, [])


def test_half_a_checkpoint_and_none_at_all(run, tmp_path):
    workdir = _copy(run, tmp_path)
    shutil.rmtree(workdir / "checkpoints" / "5" / "state")
    for name in ("metrics", "counters"):
        _flip(workdir / "checkpoints" / "3" / name / {"metrics": "metrics"}.get(name, "metadata"))
    step, _, _, notes = _restored(workdir)
    assert step == 2 and [note.split(" (")[0][-6:] for note in notes] == ["step 3", "step 5"]
    (workdir / "checkpoints" / "2" / NAME).unlink()
    step, _, _, (note,) = _restored(workdir)
    assert step is None and "manifest.sha256 is not there" in note and "from step 0" in note
    assert len(list((workdir / "damaged").iterdir())) == 3


def test_a_lost_best_is_trained_again(run, tmp_path):
    workdir = _copy(run, tmp_path)
    _flip(workdir / "checkpoints" / "3" / "counters" / "metadata")
    step, _, _, (note,) = _restored(workdir)
    # Step 5 was judged by step 3: without it no later step could tell the best.
    assert step == 2 and "with the later ones of 5; the run continues from step 2" in note
    assert sorted(p.name.split("-")[0] for p in (workdir / "damaged").iterdir()) == ["3", "5"]
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.best_step() == 2


def test_a_spare_that_is_damaged_costs_nothing(run, tmp_path):
    workdir = _copy(run, tmp_path)
    _truncate(workdir / "checkpoints" / "2" / "metrics" / "metrics")
    step, _, _, (note,) = _restored(workdir)
    assert step == 5 and "checkpoint of step 2" in note
    with Checkpoints(workdir) as checkpoints:
        assert (checkpoints.best_step(), checkpoints.notes) == (3, [])


@pytest.mark.parametrize("name", ["metrics/metrics", "counters/metadata", "state/_METADATA", NAME])
def test_readers_name_a_damaged_checkpoint(run, tmp_path, name):
    workdir = _copy(run, tmp_path)
    _truncate(workdir / "checkpoints" / "2" / "state" / "manifest.ocdbt")
    assert restore_params(workdir, "best").step == 3  # nobody asks for step 2
    for step, which in [(5, "latest"), (3, "best")]:
        _flip(workdir / "checkpoints" / str(step) / name)
        before = sorted(workdir.rglob("*"))
        with pytest.raises(
            ValueError, match=rf"damaged checkpoint of step {step} \({name}"
        ) as told:
            restore_params(workdir, which)
        assert "\n" not in str(told.value) and sorted(workdir.rglob("*")) == before
        shutil.rmtree(workdir / "checkpoints" / "5", ignore_errors=True)


def test_a_best_that_is_not_told_any_more_is_not_replaced_by_another(run, tmp_path):
    workdir = _copy(run, tmp_path)
    told = workdir / "checkpoints" / "3" / "metrics" / "metrics"
    told.write_text(told.read_text().replace('"best": 3', '"best": 1'))
    with pytest.raises(ValueError, match="step 3 "):
        restore_params(workdir, "best")


def test_what_was_about_to_be_deleted_is_no_checkpoint(run, tmp_path):
    workdir = _copy(run, tmp_path)
    removed = workdir / "checkpoints" / "removed"
    shutil.copytree(workdir / "checkpoints" / "2" / "state", removed / "2" / "state")
    assert restore_params(workdir, "latest").step == 5
    assert _restored(workdir)[3] == [] and not removed.exists()


def test_deleting_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    # What Orbax would do file by file is one renaming here: see it before the cleaning.
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints, "_clean", lambda: None)
        for step in (2, 3, 5):
            checkpoints.save(step, _state(step), {}, best=False)
        checkpoints.wait()
        removed = tmp_path / "checkpoints" / "removed" / "2"
        assert find_damage(removed, ASIDE) is None
    assert np.array_equal(
        restore_params(tmp_path, "latest").params["w"], jax.device_get(_state(5).params["w"])
    )
