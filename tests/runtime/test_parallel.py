"""What devices do by themselves, and what they tell each other."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax.models import faster_rcnn
from cnn_jax.runtime import parallel

ANCHORS = [np.tile(np.array([[0.0, 0, 16, 16]]), (24, 1)) + 8 * np.arange(24)[:, None]]
SETTINGS = faster_rcnn.Settings(candidates=(24, 24), proposals=(12, 12))


def test_devices_suppress_boxes_without_a_word_to_each_other():
    """Whose loop goes on until nothing changes, so that it would be the same in all of them."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(8, 24)).astype(np.float32)
    deltas = random.normal(size=(8, 24, 4)).astype(np.float32) / 4
    sizes = np.full((8, 2), 200)

    def propose(logits, deltas, sizes):
        return faster_rcnn.propose([logits], [deltas], ANCHORS, sizes, SETTINGS, True)

    mesh = parallel.data_mesh()
    spread = NamedSharding(mesh, PartitionSpec(parallel.AXIS))
    given = [jax.device_put(x, spread) for x in (logits, deltas, sizes)]
    told, found = [], []
    for function in (propose, parallel.within(mesh, propose)):
        program = jax.jit(function, out_shardings=spread).lower(*given).compile()
        told.append(len(re.findall(r" (?:all-|collective)\S+\(", program.as_text())))
        found.append(program(*given))
    assert told[0] > 0
    assert told[1] == 0
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert jnp.any(found[0][1])
