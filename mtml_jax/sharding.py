"""Placement: personas over the devices of all processes, parameters whole or split over them."""

import functools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PERSONAS = "personas"  # the mesh's one axis


def persona_mesh(personas: int) -> Mesh:
    """A mesh over as many devices of all processes as divide the number of personas evenly.

    Each process has a run of neighbouring devices, so that its personas are one slice.

    Raises:
      ValueError: there are several processes, and some of their devices would stay idle.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    mesh = _even_mesh(devices, personas)
    if jax.process_count() > 1 and mesh.size < len(devices):
        raise ValueError(
            f"got --meta_batch={personas} for {len(devices)} devices of {jax.process_count()} "
            f"processes, want a multiple of {len(devices)}"
        )
    return mesh


def local_mesh(personas: int) -> Mesh:
    """The same over this process's own devices, for what every process does by itself."""
    return _even_mesh(jax.local_devices(), personas)


def _even_mesh(devices, personas):
    count = max(n for n in range(1, min(len(devices), personas) + 1) if personas % n == 0)
    return Mesh(np.array(devices[:count]), (PERSONAS,))


def own_share(personas: int, process: int | None = None) -> slice:
    """Which personas of a mesh over all processes are on a process's devices, on this one's."""
    process = jax.process_index() if process is None else process
    each = personas // jax.process_count()
    return slice(process * each, (process + 1) * each)


def split_specs(tree, mesh: Mesh):
    """How each array lies on the mesh when parameters are split.

    Along its longest axis that the devices divide; an array without one is whole
    on every device. The optimiser's moments lie as their parameters do.
    """

    def spec(leaf):
        even = [n for n, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not even:
            return PartitionSpec()
        return PartitionSpec(*[None] * max(even, key=lambda n: leaf.shape[n]), PERSONAS)

    return jax.tree.map(spec, tree)


def split_params(tree, mesh: Mesh):
    """Splits arrays, which every process has whole, as `split_specs` says."""
    return jax.tree.map(functools.partial(_place, mesh), split_specs(tree, mesh), tree)


def replicate(tree, mesh: Mesh):
    """Puts a whole copy of every array, which every process has, on every device."""
    return jax.tree.map(functools.partial(_place, mesh, PartitionSpec()), tree)


def _place(mesh, spec, array):
    return jax.make_array_from_process_local_data(
        NamedSharding(mesh, spec), array, np.shape(array)
    )


def split_personas(tree, mesh: Mesh):
    """Splits every array along its leading axis, personas, over the devices.

    Each process gives its own share alone (`own_share`).
    """
    return jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec(PERSONAS)), tree
    )


def fetch(tree):
    """Arrays of any placement as whole numpy arrays, in every process."""
    return multihost_utils.process_allgather(tree, tiled=True)


def from_first(tree):
    """Process 0's numpy arrays, in every process."""
    return multihost_utils.broadcast_one_to_all(tree)


def wait_for_all(place: str) -> None:
    """Returns when every process is at this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def any_process(flag: bool) -> bool:
    """Whether any process says so: all of them get the same answer, at the same place."""
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
    """Sums gradients over the personas of all devices, with what communication that takes.

    Whole parameters: one sum of the gradient over the devices. Split ones: one gather of
    the parameters before, and one sum that leaves every device its part of the gradient.
    Once a step, however many personas and chunks a device has.

    Args:
      function: (params, personas' data, shared) -> (gradient, numbers), sums over personas.
      mesh: from `persona_mesh`.
      specs: of split parameters, from `split_specs`; None where they are whole.

    Returns:
      The same function of the data of all devices; the gradient lies as the parameters do.
    """

    def local(params, data, shared):
        if specs is None:
            return jax.lax.psum(function(params, data, shared), PERSONAS)
        grads, numbers = function(jax.tree.map(_gather, params, specs), data, shared)
        return jax.tree.map(_sum_parts, grads, specs), jax.lax.psum(numbers, PERSONAS)

    lying = PartitionSpec() if specs is None else specs
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(lying, PartitionSpec(PERSONAS), PartitionSpec()),
        out_specs=(lying, PartitionSpec()),
        check_vma=False,  # the custom derivatives of `tiles` do not carry the types it wants
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
