"""Record the versions and the devices that a run's numbers depend on."""

import importlib.metadata
import platform

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "mtml_jax")


def versions() -> dict[str, str]:
    """Returns the versions of Python and the packages, and the devices; starts the backend."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["backend"] = jax.default_backend()
    found["device_kind"] = jax.devices()[0].device_kind
    found["device_count"] = str(jax.device_count())
    return found
