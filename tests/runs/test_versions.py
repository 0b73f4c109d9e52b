"""Test the record of versions and devices."""

import json

import numpy as np

from mtml_jax.runs.versions import versions


def test_versions():
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["device_count"].isdigit()
    assert found.keys() == {
        "python", "platform", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy",
        "mtml_jax", "backend", "device_kind", "device_count",
    }
    assert all(isinstance(version, str) and version for version in found.values())
    json.dumps(found)


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr("mtml_jax.runs.versions._PACKAGES", ("jax", "no-such-package"))
    assert versions()["no-such-package"] == "not installed"
