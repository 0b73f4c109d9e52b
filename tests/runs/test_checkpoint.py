"""Test that states come back bit for bit, and which of them are kept."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtml_jax
from mtml_jax.meta.outer import init_state
from mtml_jax.runs.checkpoint import Checkpoints, restore_params
from mtml_jax.types import MetaState

_ROOT = Path(mtml_jax.__file__).parents[1]


def _state(seed: int, width: int = 7) -> MetaState:
    """A state of any bits at all: NaNs, denormals and negative zeros among them."""
    params = {
        "embedding": jnp.zeros((11, width)),
        "encoder": {"norm": {"scale": jnp.zeros((3, width))}, "half": jnp.zeros(5, jnp.bfloat16)},
    }
    rng = np.random.default_rng(seed)

    def fill(leaf):
        return jnp.asarray(np.frombuffer(rng.bytes(leaf.nbytes), leaf.dtype).reshape(leaf.shape))

    return jax.tree.map(fill, init_state(params))


def _assert_same_bits(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert isinstance(a, jax.Array)
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _steps(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").iterdir()}


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_comes_back_bit_for_bit(tmp_path, abstract):
    state, counters = _state(2), {"best": {"score": 3.5, "step": None}, "tokens": 2**40}
    with Checkpoints(tmp_path / "new" / "run") as checkpoints:
        checkpoints.save(13, state, counters, best=False)
    with Checkpoints(tmp_path / "new" / "run") as checkpoints:
        template = jax.eval_shape(lambda: state) if abstract else _state(3)
        found, found_counters = checkpoints.restore(checkpoints.latest_step(), template)
    _assert_same_bits(found, state)
    assert found_counters == counters


@pytest.mark.parametrize("hours", [3, -2])
def test_a_clock_that_jumps_within_a_save_changes_nothing(tmp_path, monkeypatch, hours):
    real, readings = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + 3600.0 * hours * next(readings))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(13, _state(2), {}, best=True)
        checkpoints.save(14, _state(3), {}, best=False)
    assert next(readings) > 50  # it is read, and each time it is far from what it was
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 14 and checkpoints.best_step() == 13
        for step, seed in [(13, 2), (14, 3)]:
            _assert_same_bits(checkpoints.restore(step, _state(5))[0], _state(seed))


def test_arrays_come_back_where_the_template_has_them(tmp_path):
    mesh = jax.sharding.Mesh(jax.devices(), "x")
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    template = jax.device_put(_state(3), sharding)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, _state(2), {}, best=False)
        one_to_all, _ = checkpoints.restore(2, template)
        checkpoints.save(3, one_to_all, {}, best=False)
        all_to_one, _ = checkpoints.restore(3, _state(3))
    for found, wanted in [(one_to_all, template), (all_to_one, _state(3))]:
        _assert_same_bits(found, _state(2))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
            assert a.sharding == b.sharding


def test_the_two_latest_and_the_two_best_are_kept(tmp_path):
    kept = []
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None and checkpoints.best_step() is None
        for step, best in [(2, False), (3, False), (5, True), (7, False), (11, False), (13, True)]:
            checkpoints.save(step, _state(step), {}, best)
            assert checkpoints.latest_step() == step
            checkpoints.wait()
            kept.append((_steps(tmp_path), checkpoints.best_step()))
    assert kept == [
        ({"2"}, None), ({"2", "3"}, None), ({"3", "5"}, 5), ({"5", "7"}, 5),
        ({"5", "7", "11"}, 5), ({"5", "11", "13"}, 13),
    ]


def test_the_best_is_known_after_a_restart(tmp_path):
    for step, best in [(97, True), (101, False), (103, False)]:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, _state(step), {"step": step}, best)
    assert _steps(tmp_path) == {"97", "101", "103"}
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (103, 97)
        found, counters = checkpoints.restore(97, _state(2))
        _assert_same_bits(found, _state(97))
        assert counters == {"step": 97}


def test_saving_the_same_step_again(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, _state(2), {}, best=True)
        checkpoints.save(3, _state(3), {"at": 1}, best=False)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, _state(3), {"at": 2}, best=False)
        assert checkpoints.restore(3, _state(5))[1] == {"at": 1}
        checkpoints.save(3, _state(3), {"at": 3}, best=True)
        assert checkpoints.best_step() == 3
        checkpoints.save(3, _state(3), {"at": 4}, best=False)
        assert checkpoints.best_step() == 3
        found, counters = checkpoints.restore(3, _state(5))
    _assert_same_bits(found, _state(3))
    assert counters == {"at": 3}
    assert _steps(tmp_path) == {"2", "3"}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step() == 3
        with pytest.raises(ValueError, match=rf"{tmp_path}.*after step 2, .*step 3; .*--workdir"):
            checkpoints.save(2, _state(2), {}, best=False)


def test_the_caller_may_change_what_was_saved(tmp_path, monkeypatch):
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
    overwrite(_state(2, width=10007))  # compiled, so that it runs at once below
    dumps = json.dumps

    def late_dumps(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.05)
        return dumps(*args, **kwargs)

    monkeypatch.setattr(json, "dumps", late_dumps)
    state, counters = _state(2, width=10007), {"patience": [2]}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state, counters, best=False)
        state = jax.block_until_ready(overwrite(state))
        counters["patience"].append(3)
        found, found_counters = checkpoints.restore(2, state)
    _assert_same_bits(found, _state(2, width=10007))
    assert found_counters == {"patience": [2]}


def _run(program: str, workdir: Path) -> int:
    program = (
        "import os, signal, sys\n"
        "import jax\n"
        "import numpy as np\n"
        "from mtml_jax.runs.checkpoint import Checkpoints\n"
        "from mtml_jax.meta.outer import init_state\n"
        "def state(size, seed):\n"
        "    noise = np.random.default_rng(seed).random((size, 1009), np.float32)\n"
        "    return init_state({'w': noise})\n"
    ) + program
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(workdir)], cwd=_ROOT, env=environment, timeout=300
    )
    return done.returncode


def test_close_ends_a_save_before_the_process_ends(tmp_path):
    code = _run(
        "with Checkpoints(sys.argv[1]) as checkpoints:\n"
        "    checkpoints.save(2, state(1009, 3), {'a': 5}, best=True)\n"
        "os._exit(7)\n",
        tmp_path,
    )
    assert code == 7
    saved = restore_params(tmp_path, "best")
    noise = np.random.default_rng(3).random((1009, 1009), np.float32)
    np.testing.assert_array_equal(saved.params["w"], noise)
    assert (saved.step, saved.counters) == (2, {"a": 5})


def test_a_save_that_was_cut_off_does_not_count(tmp_path):
    code = _run(
        "checkpoints = Checkpoints(sys.argv[1])\n"
        "checkpoints.save(2, state(3, 2), {'a': 2}, best=False)\n"
        "checkpoints.wait()\n"
        "checkpoints.save(3, state(10007, 3), {'a': 3}, best=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
    )
    assert code == -9
    leftover = _steps(tmp_path) - {"2"}
    assert "2" in _steps(tmp_path) and len(leftover) == 1 and "3" not in leftover
    with pytest.raises(FileNotFoundError, match="best"):
        restore_params(tmp_path, "best")
    assert restore_params(tmp_path, "latest").step == 2
    template = init_state({"w": jnp.zeros((3, 1009))})
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (2, None)
        state, counters = checkpoints.restore(2, template)
        noise = np.random.default_rng(2).random((3, 1009), np.float32)
        np.testing.assert_array_equal(state.params["w"], noise)
        assert counters == {"a": 2}
        checkpoints.save(5, state, {"a": 5}, best=False)
    assert _steps(tmp_path) == {"2", "5"}


def test_a_state_from_another_machine(tmp_path):
    code = _run(
        "jax.config.update('jax_num_cpu_devices', 5)\n"
        "with Checkpoints(sys.argv[1]) as checkpoints:\n"
        "    checkpoints.save(\n"
        "        2, jax.device_put(state(3, 2), jax.devices()[4]), {'a': 2}, best=True\n"
        "    )\n",
        tmp_path,
    )
    assert code == 0
    noise = np.random.default_rng(2).random((3, 1009), np.float32)
    with Checkpoints(tmp_path) as checkpoints:
        template = jax.eval_shape(lambda: init_state({"w": jnp.zeros((3, 1009))}))
        found, _ = checkpoints.restore(2, template)
    for params in (found.params, restore_params(tmp_path, "best").params):
        np.testing.assert_array_equal(params["w"], noise)
        assert params["w"].devices() == {jax.devices()[0]}


def test_a_failed_save_is_told_and_costs_nothing(tmp_path):
    # A limit on the size of a file stands for a full disk.
    code = _run(
        "import resource\n"
        "checkpoints = Checkpoints(sys.argv[1])\n"
        "checkpoints.save(2, state(3, 2), {}, best=True)\n"
        "checkpoints.wait()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, resource.RLIM_INFINITY))\n"
        "checkpoints.save(3, state(1009, 3), {}, best=True)\n"
        "try:\n"
        "    checkpoints.wait()\n"
        "except OSError as error:\n"
        "    told = 'step 3 could not be saved' in str(error) and 'too large' in str(error)\n"
        "    os._exit(11 if told and '\\n' not in str(error) else 1)\n",
        tmp_path,
    )
    assert code == 11
    assert restore_params(tmp_path, "best").step == 2
    assert restore_params(tmp_path, "latest").step == 2


def test_params_need_no_template(tmp_path, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, _state(2), {"a": 2}, best=True)
        checkpoints.save(3, _state(3), {"a": 3}, best=False)
        checkpoints.wait()
        before = sorted(tmp_path.rglob("*"))
        best, latest = (restore_params(tmp_path, which) for which in ("best", "latest"))
        assert sorted(tmp_path.rglob("*")) == before
    assert not [record for record in caplog.records if record.levelname != "INFO"]
    _assert_same_bits(best.params, _state(2).params)
    _assert_same_bits(latest.params, _state(3).params)
    assert (best.step, best.counters) == (2, {"a": 2})
    assert (latest.step, latest.counters) == (3, {"a": 3})


def test_params_are_read_beside_a_save_under_way(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, _state(2), {}, best=True)
        checkpoints.wait()
        checkpoints.save(3, _state(3, width=100003), {}, best=False)
        _assert_same_bits(restore_params(tmp_path, "best").params, _state(2).params)
        found, _ = checkpoints.restore(3, _state(5, width=100003))
    _assert_same_bits(found, _state(3, width=100003))


def test_nothing_there(tmp_path):
    wanted = rf"{tmp_path}: expected .*--workdir"
    for which in ("best", "latest"):
        with pytest.raises(FileNotFoundError, match=wanted):
            restore_params(tmp_path, which)
    assert not list(tmp_path.iterdir())
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(FileNotFoundError, match=wanted):
            checkpoints.restore(2, _state(2))
    with pytest.raises(FileNotFoundError, match=wanted):
        restore_params(tmp_path, "latest")


def test_other_arrays_are_refused(tmp_path):
    state = _state(2)
    more = state.replace(params={**state.params, "decoder": jnp.zeros(3)})
    other_type = state.replace(step=jnp.zeros((), jnp.uint32))
    wider = r"arrays, params.embedding \(float32\[11, 13\], got float32\[11, 7\]\)"
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state, {}, best=False)
        for template, message in [
            (_state(2, width=13), wider),
            (more, r"params.decoder \(float32\[3\], got nothing\)"),
            (other_type, r"step \(uint32\[\], got int32\[\]\)"),
        ]:
            with pytest.raises(ValueError, match=rf"{tmp_path}, step 5: .*{message}.*--workdir"):
                checkpoints.restore(5, template)
