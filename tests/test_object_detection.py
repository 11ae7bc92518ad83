"""Asking a detector about images of any size: as torchvision's whole forward pass."""

import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, create_model
from cnn_jax import object_detection as asking
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.models.entry import IMAGENET_MEAN, IMAGENET_STD
from cnn_jax.models.faster_rcnn import Detections
from cnn_jax.models.registry import MODELS, Model
from cnn_jax.trained import Trained
from tests.models.test_detectors import filled, settings_of
from tests.models.tracing import drawn, variables
from tests.references import detection_scene as scene

STORED = dict(np.load(Path(__file__).with_name("references") / "detection_images.npz"))
ASKED = {"shorter": scene.SHORTER, "longer": scene.LONGER}


def trained(model, variables, config=None):
    preprocessing = Preprocessing(800, 800)
    return Trained(model, variables, preprocessing, IMAGENET_MEAN, IMAGENET_STD, (), {}, config)


def one_corner(canvases):
    """Return a network that finds the lower right corner of every image, and notes its canvases."""

    def apply(variables, images, *, sizes):
        canvases.append(images.shape[1:3])  # while tracing: once a program
        height, width = sizes[:, 0], sizes[:, 1]
        boxes = jnp.stack([width / 2, height / 2, width, height], -1)[:, None] * jnp.ones((1, 2, 1))
        valid = jnp.array([[True, False]])
        return Detections(
            boxes,
            jnp.array([[0.9, 0.0]]),
            jnp.array([[3, 0]]),
            valid,
            jnp.array([True]),
            jnp.ones((1, 2, 28, 28)),
        )

    name = "maskrcnn_resnet50_fpn"
    return trained(Model(name, None, apply, 91, 800, 3, "detection"), {})


@pytest.mark.slow
def test_equals_torchvisions_whole_forward_pass():
    """Images of odd sizes in one call: boxes, scores, labels and masks, in float64."""
    name = "maskrcnn_resnet50_fpn"
    model = create_model(name, settings=settings_of(name))
    with jax.enable_x64(True):
        network = trained(model, filled(name))
        everything = asking.detector(network, canvases=(), **ASKED)(scene.odd_images())
    for i, (found, size) in enumerate(zip(everything, scene.ODD_SIZES, strict=True)):
        assert found.exact
        assert found.scores.dtype == np.float64
        np.testing.assert_array_equal(found.labels, STORED[f"labels/{i}"])
        np.testing.assert_allclose(found.scores, STORED[f"scores/{i}"], atol=1e-9)
        # torchvision's ratios of sizes are float32
        np.testing.assert_allclose(found.boxes, STORED[f"boxes/{i}"], atol=1e-4)
        bits = np.unpackbits(STORED[f"masks/{i}"], count=found.masks.size)
        assert bits.any()
        assert found.masks.shape == (len(found.boxes), *size)
        assert np.mean(found.masks != bits.reshape(found.masks.shape)) < 1e-4


def test_images_get_torchvisions_sizes():
    ours = [asking.scaled_size(*size, 800, 1333) for size in STORED["sizes"].tolist()]
    np.testing.assert_array_equal(ours, STORED["resized_sizes"])


def test_images_are_resized_as_torch_does_it():
    """In float64, also where an axis shrinks."""
    ours = asking.resize(scene.odd_images()[0], 128, 172)
    np.testing.assert_allclose(ours[::7, ::7], STORED["resized"], rtol=0, atol=1e-12)
    line = np.arange(8.0)[:, None, None]
    np.testing.assert_allclose(asking.resize(line, 4, 1).ravel(), [0.5, 2.5, 4.5, 6.5])
    assert asking.resize(line.astype("float32"), 5, 3).dtype == np.float32


def test_boxes_and_masks_come_in_the_pixels_of_each_image():
    detect = asking.detector(one_corner([]))
    images = [np.zeros((height, width, 3), np.uint8) for height, width in ((300, 700), (50, 40))]
    for image, found in zip(images, detect(images), strict=True):
        height, width = image.shape[:2]
        np.testing.assert_allclose(found.boxes, [[width / 2, height / 2, width, height]], rtol=1e-5)
        assert (found.labels.tolist(), found.exact) == ([3], True)
        assert found.masks.shape == (1, height, width)
        assert found.masks[0, 3 * height // 4, 3 * width // 4]
        assert not found.masks[0, height // 4].any()
    assert detect([]) == []


def test_a_few_programs_serve_images_of_all_sizes():
    canvases = []
    detect = asking.detector(one_corner(canvases))
    rng = np.random.default_rng(0)
    for height, width in rng.integers(20, 90, (40, 2)):
        detect([np.zeros((height, width, 3), np.uint8)])
    assert 3 <= len(canvases) == len(set(canvases)) <= 5
    assert set(canvases) <= {(800, 800), (800, 1088), (1088, 800), (800, 1344), (1344, 800)}


def test_canvases_may_be_given():
    canvases = []
    detect = asking.detector(one_corner(canvases), shorter=64, longer=100, canvases=[(64, 96)])
    detect([np.zeros((64, 90, 3), np.uint8)])
    assert canvases == [(64, 96)]
    with pytest.raises(UsageError, match="scaled to 90x64 pixels fits none of the canvases 64x96"):
        detect([np.zeros((90, 64, 3), np.uint8)])
    with pytest.raises(UsageError, match="no multiple of 32"):
        asking.detector(one_corner([]), canvases=[(64, 100)])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"image 0 has shape \(8, 8\); give \[height, width, 3\]"),
        (np.zeros((8, 8, 4), np.uint8), "image 0 has shape"),
        (np.zeros((0, 8, 3), np.uint8), "image 0 has shape"),
        (np.zeros((8, 8, 3), np.int64), "image 0 is int64; give uint8, or floats in 0..1"),
        (np.full((8, 8, 3), 255.0), "image 0 has values from 255 to 255"),
        (np.full((8, 8, 3), np.nan), "image 0 has values from nan"),
        (np.zeros((20000, 1, 3), np.uint8), "20000x1 pixels would have a side of none"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(UsageError, match=message):
        asking.detector(one_corner([]))([image])


def test_networks_that_find_nothing_by_themselves_are_refused():
    for name in ("resnet18", "fastrcnn_resnet10"):
        with pytest.raises(UsageError, match=f"{name} finds no objects by itself"):
            asking.detector(trained(create_model(name), {}))


@pytest.mark.slow
def test_a_detector_of_a_run_sees_images_as_its_training_did():
    """Its answer is that of its evaluation: scaled to fit its canvas, and mapped back."""
    name = "fasterrcnn_resnet10_fpn"
    model, values = create_model(name), drawn(variables(name))
    network = trained(model, values, types.SimpleNamespace(image_size=128))
    image = np.random.default_rng(0).integers(0, 256, (128, 96, 3), np.uint8)
    (found,) = asking.detector(network)([image])
    canvas = np.zeros((1, 128, 128, 3), np.float32)
    canvas[0, :, :96] = (image / np.float32(255) - np.float32(IMAGENET_MEAN)) / np.float32(
        IMAGENET_STD
    )
    seen = jax.jit(model.apply)(values, canvas, sizes=np.array([[128, 96]]))
    assert seen.valid.any()
    np.testing.assert_allclose(found.boxes, seen.boxes[0][seen.valid[0]], rtol=1e-5, atol=1e-4)
    assert found.masks is None
    (twice,) = asking.detector(network)([image.repeat(2, 0).repeat(2, 1)])
    assert twice.boxes[:, 2].max() > 100
    with pytest.raises(UsageError, match="takes images of uint8"):
        asking.detector(network)([image / 255])


def test_sizes_are_an_argument_of_apply_and_others_are_named():
    model = create_model("fasterrcnn_resnet10_fpn")
    images = jax.ShapeDtypeStruct((1, 128, 128, 3), "float32")
    with pytest.raises(UsageError, match="unknown argument of apply 'size'; did you mean 'sizes'"):
        model.apply(variables("fasterrcnn_resnet10_fpn"), images, size=None)
    assert MODELS[model.name].task == "detection"
