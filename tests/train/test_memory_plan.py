"""Check that the chosen setting is the fastest that fits; memory and steps are faked here."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest

from mtml_jax.config import TrainConfig
from mtml_jax.sharding import Placement
from mtml_jax.train import memory_plan

CONFIG = TrainConfig(strategy="amtml", meta_batch=12)
MIB = 2**20


def phases_of(needed, compiled):
    """Stands for `lower_steps`: phases that need as many bytes as `needed` says of a setting."""

    class Step(SimpleNamespace):
        def compile(self):
            compiled.append((self.setting.persona_chunk, self.setting.model.remat))
            return self

        def memory_analysis(self):
            return SimpleNamespace(
                temp_size_in_bytes=self.needed - 7,
                output_size_in_bytes=50 + 7,  # all of it but 7 bytes in place of the state
                alias_size_in_bytes=50,
            )

    def lower_steps(setting, placement):
        return [functools.partial(Step, setting=setting, needed=n) for n in needed(setting)]

    return lower_steps


@pytest.fixture
def fit(monkeypatch):
    """(config, platform, free bytes, devices, needed) -> (Fitted, what was compiled)."""

    def run(config, platform, free, devices, needed):
        compiled: list = []
        all_of_them = [SimpleNamespace(platform=platform)] * devices
        mesh = SimpleNamespace(
            devices=np.array(all_of_them), size=devices, local_devices=all_of_them
        )
        monkeypatch.setattr(memory_plan, "free_memory", lambda devices: free)
        monkeypatch.setattr(memory_plan, "lower_steps", phases_of(needed, compiled))
        return memory_plan.fit_steps(config, Placement(mesh), [()] * 2), compiled

    return run


def in_proportion(setting):
    """100 MiB a persona at a time, a tenth of it with layers recomputed; the second needs more."""
    size = 100 * MIB * setting.persona_chunk // (10 if setting.model.remat else 1)
    return size // 2, size


def alike(setting):
    """The same, of both phases."""
    return in_proportion(setting)[1:] * 2


def test_the_fastest_is_taken_where_it_fits_and_compiled_once(fit):
    fitted, compiled = fit(CONFIG, "cpu", 1000 * MIB, 2, in_proportion)
    assert compiled == [(1, False)] * 2
    assert (fitted.config.persona_chunk, fitted.config.model.remat) == (1, False)
    assert len(fitted.steps) == 2
    assert fitted.note == (
        "a step takes 0.1 GB of 1.0 GB of free memory on each device: one persona at a time"
    )


def test_layers_are_recomputed_where_memory_is_short(fit):
    fitted, compiled = fit(CONFIG, "cpu", 100 * MIB, 2, in_proportion)
    assert compiled == [(1, False), (1, False), (1, True), (1, True)]
    assert fitted.config == dataclasses.replace(
        CONFIG, persona_chunk=1, model=dataclasses.replace(CONFIG.model, remat=True)
    )
    assert fitted.note == (
        "a step takes 10.5 MB of 0.1 GB of free memory on each device: one persona at a time, layers "
        "recomputed, 1.2 times the operations; the fastest way would take 0.1 GB"
    )


def test_an_accelerator_takes_as_many_personas_at_once_as_fit(fit):
    fitted, compiled = fit(CONFIG, "gpu", 700 * MIB, 1, in_proportion)
    # A quarter of what 12 need is 300 MiB: 12 at once do not fit, and the half of them do.
    assert compiled == [(12, False)] * 2 + [(6, False)] * 2
    assert "6 personas at a time" in fitted.note


def test_what_cannot_fit_in_proportion_is_not_compiled(fit):
    _, compiled = fit(CONFIG, "gpu", 120 * MIB, 1, alike)
    assert compiled == [(12, False), (1, False), (1, False)]


@pytest.mark.parametrize(
    "changed, wanted",
    [
        ({"persona_chunk": 4}, [(4, False), (4, True)]),
        ({"model": dataclasses.replace(CONFIG.model, remat=True)}, [(1, True)]),
    ],
)
def test_what_was_set_stays(changed, wanted):
    settings = list(memory_plan._settings(dataclasses.replace(CONFIG, **changed), "cpu", 12))
    assert [(chunk, s.model.remat) for chunk, s in settings] == wanted
    assert all(s.persona_chunk == chunk for chunk, s in settings)


def test_a_step_that_cannot_fit_says_what_to_lower(fit):
    with pytest.raises(ValueError) as raised:
        fit(dataclasses.replace(CONFIG, persona_chunk=6), "cpu", 30 * MIB, 2, alike)
    told = str(raised.value)
    assert told.startswith(
        "expected a step that takes at most 28.3 MB of the 31.5 MB of free memory on each device, "
        "got one of 62.9 MB, even 6 personas at a time, layers recomputed; lower --width"
    )
    for flag in ("--tile_rows", "--persona_chunk", "--cpu_devices"):
        assert flag in told


def test_processes_agree_on_the_least_free_memory(fit, monkeypatch):
    monkeypatch.setattr(memory_plan, "fetch", lambda mine: np.append(mine, 50.0 * MIB))
    fitted, _ = fit(CONFIG, "cpu", 1000 * MIB, 2, in_proportion)
    assert fitted.config.model.remat


def test_accelerators_tell_what_is_free():
    def device(limit, used):
        stats = {"bytes_limit": limit, "bytes_in_use": used}
        return SimpleNamespace(memory_stats=lambda: stats)

    assert memory_plan.free_memory([device(100, 20), device(100, 30)]) == 70


def test_devices_of_a_cpu_share_what_is_available(monkeypatch):
    cpus = [SimpleNamespace(memory_stats=lambda: None)] * 2
    monkeypatch.setattr(memory_plan.psutil, "virtual_memory", lambda: SimpleNamespace(available=90))
    monkeypatch.setattr(memory_plan, "_left_by_groups", lambda root: iter([60, 80]))
    assert memory_plan.free_memory(cpus) == 30
    monkeypatch.setattr(memory_plan, "_left_by_groups", lambda root: iter([]))
    assert memory_plan.free_memory(cpus) == 45


V2 = {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 3\ninactive_file 40"}
V1 = {
    "memory.limit_in_bytes": "900",
    "memory.usage_in_bytes": "800",
    "memory.stat": "inactive_file 1\ntotal_inactive_file 50",
}


@pytest.mark.parametrize(
    "line, folders, wanted",
    [
        ("0::/a/b", {"a/b": V2}, [340]),
        ("0::/a/b", {"a/b": {**V2, "memory.max": "max"}, "a": V2}, [340]),
        ("0::/not/here", {".": V2}, [340]),
        ("4:memory:/a", {"memory/a": V1, "memory": V1}, [150, 150]),
        ("3:cpu,cpuacct:/a", {"a": V2, "cpu/a": V1}, []),
        ("0::/a", {"a": {**V2, "memory.current": "2000"}}, [0]),
    ],
)
def test_control_groups_limit_what_is_free(tmp_path, line, folders, wanted):
    for folder, files in folders.items():
        (tmp_path / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / "sys/fs/cgroup" / folder / name).write_text(text + "\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(line + "\n")
    assert list(memory_plan._left_by_groups(tmp_path)) == wanted


def test_without_control_groups_none_limits(tmp_path):
    assert list(memory_plan._left_by_groups(tmp_path)) == []
