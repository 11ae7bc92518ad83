import jax
import pytest

from tests.models.tracing import parameters, shapes, variables


def test_parameters_layer_by_layer():
    """LeCun et al. 1998, section II.B, by layer; C3 there sees some maps alone: 1,516."""
    params = variables("lenet5")["params"]
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(layer)) for name, layer in params.items()
    }
    assert counts == {
        "conv1": 156,  # C1: 6 (25 + 1)
        "conv2": 2_416,  # 16 (6 * 25 + 1)
        "fc3": 48_120,  # C5
        "fc4": 10_164,  # F6
        "head": 850,  # 10 (84 + 1); radial basis functions there
    }
    assert parameters("lenet5") == 61_706


def test_shapes_are_the_papers():
    """Figure 2: C1 28x28, S2 14x14, C3 10x10, S4 5x5."""
    outputs = shapes("lenet5")
    assert outputs["conv1"] == (28, 28, 6)
    assert outputs["pool1"] == (14, 14, 6)
    assert outputs["conv2"] == (10, 10, 16)
    assert outputs["pool2"] == (5, 5, 16)
    assert [outputs[name] for name in ("fc3", "fc4", "head")] == [(120,), (84,), (10,)]


@pytest.mark.parametrize(("size", "rows"), [(28, 256), (16, 16)])
def test_other_sizes_change_the_first_dense_layer_alone(size, rows):
    assert variables("lenet5", size)["params"]["fc3"]["kernel"].shape == (rows, 120)


def test_depth_and_widths_are_options():
    outputs = shapes("lenet5", filters=(4, 8, 16), neurons=(32,), image_size=60)
    assert outputs["pool3"] == (4, 4, 16)
    assert [path for path in outputs if path.startswith("fc")] == ["fc4"]
