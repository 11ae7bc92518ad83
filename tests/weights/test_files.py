"""Loading and saving the weights of a model by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from cnn_jax import UsageError, create_model, load_weights, save_weights
from tests.models.tracing import drawn, variables

assert_equal = np.testing.assert_array_equal


@pytest.fixture
def saved(tmp_path):
    """LeNet-5's variables and the file they are saved in."""
    values = drawn(variables("lenet5"))
    save_weights("lenet5", values, tmp_path / "lenet5.safetensors")
    return values, tmp_path / "lenet5.safetensors"


def rewrite(path, change):
    """Change the tensors of a file by a function of their dict."""
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "resnet18"])
def test_what_is_saved_is_loaded(name, tmp_path):
    values = drawn(variables(name))
    path = tmp_path / f"{name}.safetensors"
    save_weights(name, values, path)
    loaded = load_weights(name, path)
    jax.tree.map(assert_equal, loaded, values)
    assert jax.tree.structure(loaded) == jax.tree.structure(values)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype("float32")}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_of_torchvisions_names(tmp_path):
    path = tmp_path / "resnet18.safetensors"
    save_weights("resnet18", drawn(variables("resnet18")), path)
    tensors = safetensors.numpy.load_file(path)
    assert len(tensors) == 122 - 20  # torchvision's state dict has 20 counters besides
    assert tensors["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert tensors["layer2.0.downsample.1.running_var"].shape == (128,)
    assert tensors["fc.weight"].shape == (1000, 512)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_are_loaded_as_float32(dtype, saved):
    values, path = saved

    def cast(tensors):
        tensors.update({name: tensor.astype(dtype) for name, tensor in tensors.items()})

    rewrite(path, cast)
    loaded = load_weights("lenet5", path)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b.astype(dtype).astype("float32")),
        loaded,
        values,
    )


def test_the_head_is_drawn_anew_for_another_number_of_classes(saved):
    values, path = saved
    loaded = load_weights("lenet5", path, num_classes=3)["params"]
    assert loaded["head"]["kernel"].shape == (84, 3)
    assert np.abs(loaded["head"]["kernel"]).max() > 0
    assert_equal(loaded["head"]["bias"], np.zeros(3))
    for layer in ("conv1", "conv2", "fc3", "fc4"):
        jax.tree.map(assert_equal, loaded[layer], values["params"][layer])
    again, other = (
        load_weights("lenet5", path, num_classes=3, key=jax.random.key(seed))["params"]["head"]
        for seed in (0, 1)
    )
    assert_equal(again["kernel"], loaded["head"]["kernel"])
    assert (other["kernel"] != loaded["head"]["kernel"]).any()
    logits = create_model("lenet5", num_classes=3).apply(
        {"params": loaded}, jnp.zeros((1, 32, 32, 1))
    )
    assert logits.shape == (1, 3)


def test_a_head_of_as_many_classes_is_kept(saved):
    values, path = saved
    loaded = load_weights("lenet5", path, num_classes=10)
    jax.tree.map(assert_equal, loaded, values)


def test_another_number_of_classes_is_an_error_where_no_new_head_is_wanted(saved):
    _, path = saved

    def shrink(tensors):
        tensors["head.weight"], tensors["head.bias"] = np.zeros((3, 84), "f"), np.zeros(3, "f")

    rewrite(path, shrink)
    message = r"head\.bias is \[3\], not \[10\], head\.weight is \[3, 84\], not \[10, 84\]"
    with pytest.raises(UsageError, match=message):
        load_weights("lenet5", path)
    with pytest.raises(UsageError, match=message):
        load_weights("lenet5", path, num_classes=10, replace_head=False)
    assert load_weights("lenet5", path, num_classes=3)["params"]["head"]["bias"].shape == (3,)


def test_a_new_head_excuses_no_other_layer(saved):
    _, path = saved
    rewrite(path, lambda tensors: tensors.update({"fc4.bias": np.zeros(5, "f")}))
    with pytest.raises(UsageError, match=r"1 of another shape: fc4\.bias is \[5\], not \[84\]"):
        load_weights("lenet5", path, num_classes=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "body"),
    [("fcn_resnet50", ("backbone",)), ("fasterrcnn_resnet50_fpn", ("backbone", "body"))],
)
def test_a_classifiers_file_fills_the_backbone_of_a_network_that_is_built_on_it(
    name, body, tmp_path
):
    classifier = drawn(variables("resnet50"))
    save_weights("resnet50", classifier, tmp_path / "resnet50.safetensors")
    found = load_weights(name, tmp_path / "resnet50.safetensors", 21, image_shape=(64, 64, 3))
    filled = found["params"]
    for part in body:
        filled = filled[part]
    convolutions = {
        path: leaf
        for path, leaf in flatten_dict(classifier["params"]).items()
        if path[-1] == "kernel" and path[0] != "head"
    }
    assert len(convolutions) == 53
    filled = flatten_dict(filled)
    for path, kernel in convolutions.items():
        assert_equal(filled[path], kernel)
    with pytest.raises(UsageError, match=r"missing: .*backbone\."):
        load_weights(name, tmp_path / "resnet50.safetensors")


@pytest.fixture
def segmenter(tmp_path):
    """A small DeepLabv3-like file, as torchvision saves one without its auxiliary head."""
    values = drawn(variables("fcn_resnet50", 64))
    path = tmp_path / "fcn.safetensors"
    save_weights("fcn_resnet50", values, path)

    def drop(tensors):
        for name in [name for name in tensors if name.startswith("aux_classifier.")]:
            del tensors[name]

    rewrite(path, drop)
    return values, path


@pytest.mark.slow
def test_a_segmenters_file_without_its_auxiliary_head_is_loaded_and_told(segmenter, capsys):
    values, path = segmenter
    loaded = load_weights("fcn_resnet50", path)
    told = "holds no auxiliary head; it is drawn anew, or left out by aux_heads=False\n"
    assert capsys.readouterr().err == f"note: {path} {told}"
    assert loaded["params"]["aux1"]["logits"]["kernel"].shape == (1, 1, 256, 21)
    for part in ("backbone", "head"):
        jax.tree.map(assert_equal, loaded["params"][part], values["params"][part])
    loaded = load_weights("fcn_resnet50", path, aux_heads=False)
    assert "aux1" not in loaded["params"]
    assert capsys.readouterr().err == ""

    def drop_one(tensors):
        tensors["aux_classifier.0.weight"] = np.zeros((256, 1024, 3, 3), "f")

    rewrite(path, drop_one)  # a part of the head is no head left out
    with pytest.raises(UsageError, match=r"6 missing: aux_classifier\.1\."):
        load_weights("fcn_resnet50", path)


def test_image_shape_sets_the_shapes_that_depend_on_it(tmp_path):
    values = drawn(variables("lenet5", image_size=16))
    save_weights("lenet5", values, tmp_path / "small.safetensors")
    with pytest.raises(UsageError, match=r"fc3\.weight is \[120, 16\], not \[120, 400\]"):
        load_weights("lenet5", tmp_path / "small.safetensors")
    loaded = load_weights("lenet5", tmp_path / "small.safetensors", image_shape=(16, 16, 1))
    jax.tree.map(assert_equal, loaded, values)


def test_a_file_of_another_model_is_named(saved):
    _, path = saved
    with pytest.raises(UsageError, match=r"does not fit resnet20: .* missing: "):
        load_weights("resnet20", path)


def test_integers_are_refused(saved):
    _, path = saved
    rewrite(path, lambda tensors: tensors.update({"head.bias": np.zeros(10, "int32")}))
    with pytest.raises(UsageError, match="quantised"):
        load_weights("lenet5", path)


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read weights from .*none\.pth: No such file"):
        load_weights("lenet5", tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"cannot read weights from .*: Is a directory"):
        load_weights("lenet5", tmp_path)
    for content in (b"", b"<html>404 not found</html>", b"\x80\x04K\x01."):
        (tmp_path / "page.pth").write_bytes(content)
        with pytest.raises(UsageError, match=r"neither a safetensors nor a \.pth file"):
            load_weights("lenet5", tmp_path / "page.pth")


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_file_larger_than_the_memory_is_an_error(start, tmp_path):
    path = tmp_path / "huge.pth"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(2**42)  # sparse: takes no room on the disk
    with pytest.raises(UsageError, match=r"huge\.pth has 4096 GiB"):
        load_weights("lenet5", path)


def test_an_unknown_model_is_named_before_the_file_is_read():
    with pytest.raises(UsageError, match="unknown model 'lenet'; did you mean 'lenet5'"):
        load_weights("lenet", "nowhere.pth")


def test_variables_of_another_model_are_not_saved(tmp_path):
    with pytest.raises(UsageError, match="not the variables of resnet20"):
        save_weights("resnet20", drawn(variables("lenet5")), tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot write weights to .*: No such file"):
        save_weights("lenet5", drawn(variables("lenet5")), tmp_path / "none" / "w.safetensors")


def test_the_variables_of_a_run_are_written_though_a_collection_is_empty(tmp_path):
    model = create_model("lenet5")
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    save_weights("lenet5", {**variables, "batch_stats": {}}, tmp_path / "run.safetensors")
    again = load_weights("lenet5", tmp_path / "run.safetensors")
    jax.tree.map(np.testing.assert_array_equal, again["params"], variables["params"])
