"""Networks as files for others: any batch size, numbers as JAX's, and nothing kept that differs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from cnn_jax import answers, errors, ops, trained
from cnn_jax.data import decoding, sample_photographs
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.export import files, onnx, program
from cnn_jax.export.program import Program
from cnn_jax.models import faster_rcnn
from cnn_jax.models.registry import MODELS, create_model
from cnn_jax.trained import Trained
from tests.models import trained_like

TINY = {  # one of each kind of operation, at the smallest size that the network takes
    "lenet5": 32,
    "resnet20": 32,
    "mobilenet_v3_small": 32,
    "unet": 32,
}
MORE = {
    "alexnet_grouped": 99,
    "convnext_tiny": 32,
    "deeplabv3_resnet50": 33,
    "densenet_40_12": 32,
    "efficientnet_b0": 64,
    "fasterrcnn_resnet10_fpn": 128,
    "fcn8s_vgg16": 64,
    "googlenet": 64,
    "localizer_resnet18": 64,
    "nasneta_cifar": 32,
    "preact_resnet164": 32,
    "rcnn_resnet10": 48,
    "regnet_y_400mf": 64,
    "segnet": 32,
    "seresnet18": 64,
}


def photographs(network):
    return trained_like.photographs(network.preprocessing.image_size, network.model.channels)[:3]


@pytest.fixture
def small():
    return trained_like.network("lenet5", 32)._replace(class_names=tuple("abcdefghij"))


def symbolic_outputs(name):
    """The exported functions' outputs, traced with a free size and no weights drawn."""
    model, entry = create_model(name), MODELS[name]
    mean, std = entry.mean[: model.channels], entry.std[: model.channels]
    network = Trained(model, {}, Preprocessing(model.image_size), mean, std, (), {}, None)
    images = jnp.zeros((1, model.image_size, model.image_size, model.channels))
    size = program.image_size(network)

    def traced(function, inputs):
        def run(variables, *arrays):
            return function(network._replace(variables=variables))(*arrays)

        return jax.eval_shape(run, variables, *program.symbolic(inputs))

    with ops.portable():
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        pixels = {"pixels": ("batch", size, size, model.channels)}
        found = {"": traced(program.outputs, pixels)}
        maps = {name: (1, *found[""][name].shape[1:]) for name in program.head_maps(network)}
        for head in program.region_heads(network):
            inputs = maps | {"boxes": ("regions", 4)}
            found[head] = traced(lambda each, head=head: program.region_heads(each)[head], inputs)
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in TINY else pytest.mark.large)
        for name, entry in MODELS.items()
        if entry.task != "localization" or name == "localizer_resnet18"
    ],
)
def test_every_network_is_traced_with_a_free_number_of_images_and_of_regions(name):
    found = symbolic_outputs(name)
    heads = {"fastrcnn": ["box_head"], "fasterrcnn": ["box_head"]}
    heads["maskrcnn"] = ["box_head", "mask_head"]
    assert list(found) == ["", *heads.get(name.partition("_")[0], [])]
    for part, outputs in found.items():
        free = "regions" if part else "batch"
        assert outputs
        assert all(str(output.shape[0]) == free for output in outputs.values())


def test_what_is_traced_in_the_portable_form_is_not_reused_outside_of_it():
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))

    @jax.jit
    def depthwise(x):
        return ops.conv(x, kernel, groups=4)

    usual = str(jax.make_jaxpr(depthwise)(x))
    assert "platform_index" in usual
    with ops.portable():
        assert "platform_index" not in str(jax.make_jaxpr(depthwise)(x))
    assert str(jax.make_jaxpr(depthwise)(x)) == usual


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(pytest.param(*each, marks=pytest.mark.slow) for each in TINY.items()),
        *(pytest.param(*each, marks=pytest.mark.large) for each in MORE.items()),
    ],
)
def test_onnx_gives_jaxs_numbers_at_two_batch_sizes(name, size, tmp_path):
    pytest.importorskip("onnxruntime")
    network = trained_like.network(name, size)
    pixels = photographs(network)
    told = files.export(network, pixels, tmp_path, ["onnx"])["onnx"]
    assert told["difference_from_jax"] <= 1e-5
    assert told["inputs"]["pixels"]["shape"] == ["batch", size, size, network.model.channels]


def test_the_program_runs_where_this_project_is_not(small, tmp_path):
    pixels = photographs(small)
    told = files.export(small, pixels, tmp_path, ["stablehlo"])["stablehlo"]
    exported = jax.export.deserialize(bytearray((tmp_path / "lenet5.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(
        exported.call(pixels[:2])["logits"], trained.classifier(small)(pixels[:2]), atol=1e-5
    )
    assert told["difference_from_jax"] <= 1e-5
    written = json.loads((tmp_path / "lenet5.stablehlo.json").read_text())
    assert written == told
    assert written["class_names"] == list("abcdefghij")


def test_safetensors_hold_the_weights_the_class_names_and_the_preprocessing(small, tmp_path):
    files.export(small, photographs(small), tmp_path, ["safetensors"])
    path = tmp_path / "lenet5.safetensors"
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["class_names"]) == list("abcdefghij")
        assert json.loads(file.metadata()["preprocessing"])["centre_crop"] == 32
    again = trained.from_weights("lenet5", path)
    jax.tree.map(np.testing.assert_array_equal, again.variables, small.variables)


def test_the_onnx_file_says_itself_what_it_takes_and_gives(small, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    told = files.export(small, photographs(small), tmp_path, ["onnx"])["onnx"]
    found = onnxruntime.InferenceSession(tmp_path / "lenet5.onnx").get_modelmeta()
    said = {name: json.loads(value) for name, value in found.custom_metadata_map.items()}
    assert said == {name: told[name] for name in ("model", "class_names", "preprocessing")}
    assert said["preprocessing"]["mode"] == "L"


def test_weights_beyond_the_size_of_an_onnx_file_lie_beside_it(small, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx, "LARGEST", 100_000)
    told = files.export(small, photographs(small), tmp_path, ["onnx"])["onnx"]
    assert told["difference_from_jax"] <= 1e-5
    sizes = {each.name: each.stat().st_size for each in tmp_path.iterdir()}
    assert sizes.keys() == {"lenet5.onnx", "lenet5.onnx.data", "lenet5.onnx.json"}
    assert sizes["lenet5.onnx"] == told["bytes"] < 20_000
    assert sizes["lenet5.onnx.data"] == told["data"]["bytes"] > 200_000


def test_weights_beyond_the_size_of_a_program_are_told(small, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "LARGEST", 100_000)
    with pytest.raises(errors.UsageError, match="exceed the 2 GiB of a stablehlo file; give"):
        files.export(small, photographs(small), tmp_path, ["stablehlo"])
    assert not list(tmp_path.iterdir())


def with_head(network, change):
    """The network with its last layer changed."""
    params = network.variables["params"]
    params = {**params, "head": jax.tree.map(change, params["head"])}
    return network._replace(variables={**network.variables, "params": params})


def test_a_small_fault_in_tiny_outputs_is_refused(small, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    tiny = with_head(small, lambda x: 1e-6 * x)
    pixels = photographs(tiny)
    assert files.export(tiny, pixels, tmp_path, ["onnx"])["onnx"]["difference_from_jax"] <= 1e-5
    faultless = files.run_onnx

    def faulty(path, inputs):
        return [{"logits": 1.0001 * each["logits"]} for each in faultless(path, inputs)]

    monkeypatch.setattr(files, "run_onnx", faulty)
    with pytest.raises(errors.UsageError, match=r"would differ from JAX by 1\.0e-04"):
        files.export(tiny, pixels, tmp_path, ["onnx"])


@pytest.mark.slow
def test_rcnn_is_the_network_of_one_region(tmp_path):
    network = trained_like.network("rcnn_resnet10", 128)
    assert program.image_size(network) == 48
    region = trained_like.photographs(48, 3)[:1]
    logits = program.outputs(network)(region)["logits"]
    assert logits.shape == (1, network.model.num_classes)
    for leaf in ("box_head", "box_predictor"):
        params = {**network.variables["params"]}
        params[leaf] = jax.tree.map(lambda x: 1.1 * x, params[leaf])
        changed = network._replace(variables={**network.variables, "params": params})
        assert np.abs(program.outputs(changed)(region)["logits"] - logits).max() > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("fastrcnn_resnet10", marks=pytest.mark.slow),
        pytest.param("maskrcnn_resnet10_fpn", marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet14_c3", marks=pytest.mark.large),
    ],
)
def test_heads_on_regions_take_any_number_of_them(name, tmp_path):
    pytest.importorskip("onnxruntime")
    network = trained_like.network(name, 64)
    told = files.export(network, trained_like.photographs(64, 3)[:1], tmp_path, ["onnx"])
    heads = list(program.region_heads(network))
    assert list(told) == ["onnx", *(f"{head}.onnx" for head in heads)]
    for head in heads:
        each = told[f"{head}.onnx"]
        assert each["difference_from_jax"] <= 1e-5
        assert each["inputs"]["boxes"]["shape"] == ["regions", 4]
        assert all(of["shape"][0] == "regions" for of in each["outputs"].values())
    written = json.loads((tmp_path / f"{name}.onnx.json").read_text())
    assert written["detector"]["region_weights"] == [10, 10, 5, 5]


@pytest.mark.slow
def test_every_map_that_regions_are_cut_from_is_felt_by_the_heads():
    network = trained_like.network("maskrcnn_resnet10_fpn", 64)
    parts = files.compared(network, trained_like.photographs(64, 3)[:1])
    for head in ("box_head", "mask_head"):
        _, arrays, expected = parts[head]
        for name in ("map0", "map1", "map2", "map3", "boxes"):
            found = parts[head].program.function(*(arrays | {name: 1.1 * arrays[name]}).values())
            for output in expected:
                assert files.difference({"": found[output]}, {"": expected[output]}) > 1e-3


def with_near_boxes(network):
    """The network with small deltas, whose boxes lie about their anchors as trained ones do."""
    params = network.variables["params"]
    heads = {name: dict(params[name]) for name in ("rpn", "box_predictor")}
    for head in heads.values():
        head["bbox_pred"] = jax.tree.map(lambda x: 0.02 * x, head["bbox_pred"])
    return network._replace(variables={**network.variables, "params": params | heads})


@pytest.mark.slow
def test_the_files_of_a_detector_and_its_rules_for_boxes_are_the_detector(tmp_path):
    pytest.importorskip("onnxruntime")
    network = with_near_boxes(trained_like.network("maskrcnn_resnet10_fpn", 128))
    settings, pixels = program._settings(network), trained_like.photographs(128, 3)[:1]
    files.export(network, pixels, tmp_path, ["onnx"])

    def run(ending, **arrays):
        return files.run_onnx(tmp_path / f"{network.model.name}.{ending}", [arrays])[0]

    sizes = np.array([[128, 128]])
    seen = run("onnx", pixels=pixels)
    maps = {f"map{i}": seen[f"map{i}"] for i in range(5)}
    fixed = faster_rcnn.anchors(list(maps.values()), (128, 128), settings)
    raw = ([seen[f"{kind}{i}"] for i in range(5)] for kind in ("objectness", "deltas"))
    proposals, valid = faster_rcnn.propose(*raw, fixed, sizes, settings, train=False)
    del maps["map4"]
    told = run("box_head.onnx", **maps, boxes=np.asarray(proposals[0]))
    found = faster_rcnn.select(
        told["logits"][None], told["deltas"][None], proposals, valid, sizes, settings
    )
    masks = run("mask_head.onnx", **maps, boxes=np.asarray(found.boxes[0]))["masks"]
    own = np.stack([mask[..., label] for mask, label in zip(masks, found.labels[0], strict=True)])
    images = (pixels - np.float32(network.mean)) / np.float32(network.std)
    expected = network.model.apply(network.variables, images)
    assert expected.valid.sum() > 5
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(jax.nn.sigmoid(own), expected.masks[0], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("lenet5", 28, "lenet5 takes no images of 28x28x1; give 32x32"),
        ("rcnn_resnet10", 128, "rcnn_resnet10 takes no images of 128x128x3; give 48x48"),
    ],
)
def test_pixels_of_a_size_that_the_network_does_not_take_are_told(name, size, told, tmp_path):
    network = trained_like.network(name, MODELS[name].image_size)
    pixels = trained_like.photographs(size, network.model.channels)
    with pytest.raises(errors.UsageError, match=told):
        files.export(network, pixels, tmp_path, ["onnx"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("factor", "what"), [(0, "zero everywhere"), (np.inf, "not finite"), (np.nan, "not finite")]
)
def test_outputs_that_nothing_can_be_compared_with_are_refused(small, tmp_path, factor, what):
    network = with_head(small, lambda x: x * np.float32(factor))
    with pytest.raises(errors.UsageError, match=f"logits of lenet5 is {what} for these images"):
        files.export(network, photographs(network), tmp_path)
    assert not list(tmp_path.iterdir())


def test_each_output_is_compared_with_its_own_largest_value():
    wanted = {"map": np.float32([1000, -4000]), "deltas": np.float32([1e-6, -2e-6])}
    assert files.difference(wanted, wanted) == 0
    found = {**wanted, "deltas": np.float32([1e-6, -1e-6])}
    assert files.difference(found, wanted) == pytest.approx(0.5)
    found = {**wanted, "map": np.float32([1000, -4001])}
    assert files.difference(found, wanted) == pytest.approx(1 / 4000)


@pytest.mark.parametrize("value", [0, np.inf, np.nan])
def test_an_output_of_zeros_or_not_finite_agrees_with_none(value):
    fine, other = {"logits": np.float32([1, 2])}, {"logits": np.float32([value, value])}
    assert files.difference(other, other) == np.inf
    assert files.difference(fine, other) == np.inf
    assert files.difference(other, fine) == (1 if value == 0 else np.inf)


def test_other_names_and_shapes_agree_with_none():
    wanted = {"logits": np.float32([1, 2])}
    assert files.difference({"boxes": wanted["logits"]}, wanted) == np.inf
    assert files.difference({"logits": wanted["logits"][:1]}, wanted) == np.inf


def test_tensors_that_are_not_the_networks_are_refused(small, tmp_path, monkeypatch):
    def another(_, path):
        faulty = with_head(small, lambda x: x * np.float32(1.000001))
        written(faulty, path)

    written = files._write_safetensors
    monkeypatch.setattr(files, "_write_safetensors", another)
    with pytest.raises(errors.UsageError, match="tensors of the file are not the network's"):
        files.export(small, photographs(small), tmp_path, ["safetensors"])
    assert not list(tmp_path.iterdir())


def test_what_differs_from_jax_is_not_kept(small, tmp_path, monkeypatch):
    (tmp_path / "lenet5.onnx").write_bytes(b"an earlier one")
    monkeypatch.setattr(
        files, "run_onnx", lambda _, inputs: [{"logits": x["pixels"][:, 0, 0]} for x in inputs]
    )
    with pytest.raises(errors.UsageError, match="it is not kept"):
        files.export(small, photographs(small), tmp_path, ["onnx"])
    assert [each.name for each in tmp_path.iterdir()] == ["lenet5.onnx"]
    assert (tmp_path / "lenet5.onnx").read_bytes() == b"an earlier one"


def test_a_missing_library_and_an_unknown_format_are_told(monkeypatch):
    with pytest.raises(errors.UsageError, match="unknown format 'onx'; did you mean 'onnx'"):
        files.check_formats(["onx"])
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(errors.UsageError, match="needs onnx; install it: pip install onnx"):
        files.check_formats(["onnx"])


def test_an_operation_without_an_onnx_form_is_told(tmp_path):
    pytest.importorskip("onnx")

    def sorted_pixels(pixels):
        return {"sorted": jnp.sort(pixels, axis=1)}

    sorting = Program(sorted_pixels, {"pixels": ("batch", 4, 4, 1)})
    with pytest.raises(errors.UsageError, match="sort has no ONNX form here"):
        onnx.write(sorting, tmp_path / "sorted.onnx")
    assert not list(tmp_path.iterdir())


def test_activations_are_the_nodes_that_runtimes_fuse_with_convolutions(tmp_path):
    onnx_itself = pytest.importorskip("onnx")

    def activated(pixels):
        return {"y": ops.relu(pixels) + jax.nn.relu6(pixels)}

    onnx.write(Program(activated, {"pixels": ("batch", 4)}), tmp_path / "y.onnx")
    kinds = {each.op_type for each in onnx_itself.load(tmp_path / "y.onnx").graph.node}
    assert kinds >= {"Relu", "Clip"}
    assert kinds.isdisjoint({"Max", "Min"})


def test_a_function_is_not_taken_for_the_primitive_of_its_name(tmp_path):
    pytest.importorskip("onnxruntime")

    @jax.jit
    def pad(pixels):
        return {"y": jnp.round(3 * pixels)}

    onnx.write(Program(pad, {"pixels": ("batch", 4)}), tmp_path / "y.onnx")
    pixels = np.float32([[-0.4, 0.1, 0.3, 0.9]])
    (found,) = files.run_onnx(tmp_path / "y.onnx", [{"pixels": pixels}])
    np.testing.assert_array_equal(found["y"], pad(pixels)["y"])


@pytest.mark.slow
def test_the_command_writes_a_weights_file_in_every_format(small, tmp_path):
    files.export(small, photographs(small), tmp_path, ["safetensors"])
    command = [sys.executable, "-m", "experiments.export", "--model=lenet5"]
    command += [f"--weights={tmp_path}/lenet5.safetensors", f"--output={tmp_path}/out"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    kept = {each.name for each in (tmp_path / "out").iterdir()}
    assert kept == {f"lenet5.{form}{end}" for form in files.FORMATS for end in ("", ".json")}


@pytest.mark.slow
def test_the_command_refuses_an_unknown_format_in_one_line():
    command = [sys.executable, "-m", "experiments.export", "--workdir=none", "--format=tflite"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: unknown format 'tflite'")
    assert ended.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder as the guide's examples find it: a photograph and the files of the command."""
    folder = tmp_path_factory.mktemp("guide")
    photograph = next(e.path for e in sample_photographs.PHOTOGRAPHS if "chelsea" in e.path.name)
    shutil.copy(photograph, folder / "photo.jpg")
    network = trained.embedded()
    pixels = trained_like.photographs(224, 3)[:1]
    (folder / "exported").mkdir()
    files.export(network, pixels, folder / "exported")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("examples", [(0, 1, 3), (0, 2, 3)], ids=["onnx", "stablehlo"])
def test_the_guides_examples_see_on_a_photograph_what_the_network_sees(examples, exported):
    pytest.importorskip("onnxruntime")
    network = trained.embedded()
    ask = answers.asker(network)
    (answer,) = ask([decoding.read(exported / "photo.jpg", 3)])
    seen = [f"{each['name']} {each['probability']:.1%}" for each in answer.found]
    assert run_alone(examples, exported).splitlines() == seen


@pytest.mark.slow
def test_the_guides_example_reads_weights_and_what_they_are_for(exported):
    told = run_alone([4], exported)
    assert told.startswith("tf_efficientnet_lite0 {'mode': 'RGB', 'resize_shorter_side': 256, ")


def run_alone(examples, folder):
    """What these of the guide's examples print together, in a process without the project."""
    page = Path(__file__).parents[2] / "docs/guides/export.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    alone = "import sys\nassert not {'cnn_jax', 'flax'} & set(sys.modules)\n"
    code = "".join([*(blocks[i] for i in examples), alone])
    command = [sys.executable, "-I", "-c", code]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
