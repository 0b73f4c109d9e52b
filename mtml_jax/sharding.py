"""Placement: the personas of a meta-batch over the devices, the parameters on each of them."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PERSONAS = "personas"  # the mesh's one axis


def persona_mesh(personas: int) -> Mesh:
    """A mesh over as many devices as divide the number of personas evenly."""
    devices = jax.devices()
    count = max(n for n in range(1, min(len(devices), personas) + 1) if personas % n == 0)
    return Mesh(np.array(devices[:count]), (PERSONAS,))


def replicate(tree, mesh: Mesh):
    """Puts a whole copy of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_personas(tree, mesh: Mesh):
    """Splits every array along its leading axis, personas, over the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(PERSONAS)))


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
