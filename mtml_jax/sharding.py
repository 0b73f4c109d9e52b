"""Place personas on the devices of all processes, and parameters whole or split over them."""

import dataclasses
import functools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PERSONAS = "personas"  # the mesh's one axis


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the arrays of a training step lie; static under jit.

    Attributes:
      mesh: devices that share the personas.
      split_state: whether parameters and optimiser are split over the mesh, too, instead of
        being whole on every device.
    """

    mesh: Mesh
    split_state: bool = False

    def place(self, state):
        """Puts a state, which every process holds whole, on the devices."""
        return split_params(state, self.mesh) if self.split_state else replicate(state, self.mesh)


def persona_mesh(personas: int) -> Mesh:
    """Returns a mesh of as many devices of all processes as divide the personas evenly.

    Devices of one process are neighbours, so that its personas are one slice.

    Raises:
      ValueError: there are several processes, and some of their devices would be idle.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    mesh = _even_mesh(devices, personas)
    if jax.process_count() > 1 and mesh.size < len(devices):
        raise ValueError(
            f"expected --meta_batch to be a multiple of {len(devices)}, the number of devices of "
            f"{jax.process_count()} processes, got {personas}; change --meta_batch"
        )
    return mesh


def local_mesh(personas: int) -> Mesh:
    """Returns the same over this process's own devices, for work that each process does alone."""
    return _even_mesh(jax.local_devices(), personas)


def _even_mesh(devices, personas):
    count = max(n for n in range(1, min(len(devices), personas) + 1) if personas % n == 0)
    return Mesh(np.array(devices[:count]), (PERSONAS,))


def own_share(personas: int, process: int | None = None) -> slice:
    """Returns the slice of personas on the devices of a process; None for this process."""
    process = jax.process_index() if process is None else process
    each = personas // jax.process_count()
    return slice(process * each, (process + 1) * each)


def split_specs(tree, mesh: Mesh):
    """Returns how each array lies on the mesh when parameters are split.

    An array is split along its longest axis that the devices divide; an array without such an
    axis is whole on every device. The optimiser's moments lie as their parameters do.
    """

    def spec(leaf):
        even = [n for n, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not even:
            return PartitionSpec()
        return PartitionSpec(*[None] * max(even, key=lambda n: leaf.shape[n]), PERSONAS)

    return jax.tree.map(spec, tree)


def split_params(tree, mesh: Mesh):
    """Splits arrays, which every process holds whole, according to `split_specs`."""
    return jax.tree.map(functools.partial(_place, mesh), split_specs(tree, mesh), tree)


def replicate(tree, mesh: Mesh):
    """Puts a whole copy of every array on every device; every process holds the arrays."""
    return jax.tree.map(functools.partial(_place, mesh, PartitionSpec()), tree)


def _place(mesh, spec, array):
    return jax.make_array_from_process_local_data(
        NamedSharding(mesh, spec), array, np.shape(array)
    )


def split_personas(tree, mesh: Mesh):
    """Splits every array along its leading axis, personas, over the devices.

    Each process passes only its own share (`own_share`).
    """
    return jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec(PERSONAS)), tree
    )


def fetch(tree):
    """Returns arrays of any placement as whole numpy arrays, in every process."""
    return multihost_utils.process_allgather(tree, tiled=True)


def from_first(tree):
    """Returns process 0's numpy arrays, in every process."""
    return multihost_utils.broadcast_one_to_all(tree)


def wait_for_all(place: str) -> None:
    """Waits until every process has reached this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def any_process(flag: bool) -> bool:
    """Tells whether the flag is set in any process; all processes must call it together."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def map_personas(function, mesh: Mesh, chunk: int = 1):
    """Maps over the leading persona axis: split over devices, `chunk` vmapped at a time.

    Args:
      function: (shared, one persona's data) -> pytree of arrays.
      mesh: from `persona_mesh`; its size divides the number of personas.
      chunk: personas vmapped at a time on a device.

    Returns:
      (shared, data with a leading persona axis) -> results with that axis.
    """

    def local(shared, data):
        # A batch axis of one would make batched products, slower on a CPU.
        batch_size = chunk if chunk > 1 else None
        return jax.lax.map(lambda one: function(shared, one), data, batch_size=batch_size)

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(PERSONAS)),
        out_specs=PartitionSpec(PERSONAS),
        check_vma=False,
    )


def sum_personas(function, mesh: Mesh, specs=None):
    """Sums gradients over the personas of all devices, communicating once per step.

    If parameters are whole, the gradient is summed over the devices. If they are split, they
    are gathered first, and the sum leaves every device its part of the gradient. The number of
    personas and chunks of a device does not matter.

    Args:
      function: (params, personas' data, shared) -> (gradient, numbers), sums over personas.
      mesh: from `persona_mesh`.
      specs: of split parameters, from `split_specs`; None if they are whole.

    Returns:
      The same function of the data of all devices; the gradient lies as the parameters do.
    """

    def local(params, data, shared):
        if specs is None:
            return jax.lax.psum(function(params, data, shared), PERSONAS)
        grads, numbers = function(jax.tree.map(_gather, params, specs), data, shared)
        return jax.tree.map(_sum_parts, grads, specs), jax.lax.psum(numbers, PERSONAS)

    params_specs = PartitionSpec() if specs is None else specs
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(params_specs, PartitionSpec(PERSONAS), PartitionSpec()),
        out_specs=(params_specs, PartitionSpec()),
        check_vma=False,  # the custom derivatives of `tiles` do not carry the types that it expects
    )


def _gather(part, spec):
    if PERSONAS not in spec:
        return part
    return jax.lax.all_gather(part, PERSONAS, axis=spec.index(PERSONAS), tiled=True)


def _sum_parts(whole, spec):
    if PERSONAS not in spec:
        return jax.lax.psum(whole, PERSONAS)
    return jax.lax.psum_scatter(
        whole, PERSONAS, scatter_dimension=spec.index(PERSONAS), tiled=True
    )
