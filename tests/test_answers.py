"""What a network says of photographs, on networks whose answers are known."""

import io
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_jax import UsageError, answers
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.models.registry import Model
from cnn_jax.reports import classified, mask_figures
from cnn_jax.trained import Trained
from tests.test_object_detection import one_corner

NAMES = ("red", "green", "blue")
A_RUN = SimpleNamespace(image_size=40)


def network(task, apply, resize=None, config=None):
    """A network of three classes that sees photographs on 40 pixels."""
    model = Model("known", None, apply, 3, 40, 3, task)
    preprocessing = Preprocessing(40, resize)
    return Trained(model, {}, preprocessing, (0.0,) * 3, (1.0,) * 3, NAMES, {}, config)


def photograph(width, height):
    """Three quarters of it red, on the left; the rest blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : 3 * width // 4, 0] = 255
    pixels[:, 3 * width // 4 :, 2] = 255
    return Image.fromarray(pixels)


def test_a_class_s_probability_is_the_softmax_of_the_central_crop():
    seen = network("classification", lambda variables, x: x.mean((1, 2)))
    ask = answers.asker(seen, top=2, batch_size=3)
    wide, high = ask([photograph(80, 40), photograph(40, 80)])
    # of the 80 pixels the middle 40 are seen: 40 red ones; of the upright image all
    expected = {"name": "red", "index": 0, "probability": np.e / (np.e + 2)}
    assert wide.found[0] == pytest.approx(expected)
    assert [each["name"] for each in high.found] == ["red", "blue"]
    assert high.found[0]["probability"] == pytest.approx(
        np.exp(0.75) / (np.exp(0.75) + np.exp(0.25) + 1), rel=1e-6
    )
    assert wide.seen.size == (40, 40)
    several = [photograph(80, 40), photograph(40, 80)] * 3
    for size in (None, 4):  # the last batch is filled up
        found = answers.asker(seen, top=2, batch_size=size)(several)
        assert [each.found[0]["probability"] for each in found] == pytest.approx(
            [each.found[0]["probability"] for each in (wide, high)] * 3
        )


def test_a_class_s_box_lies_in_the_photographs_own_pixels():
    def apply(variables, x):
        logits = x.mean((1, 2))
        return {"logits": logits, "boxes": jnp.tile(jnp.array([0.1, 0, 0.5, 0.9]), (len(x), 3, 1))}

    (answer,) = answers.asker(network("localization", apply))([photograph(80, 40)])
    # the canvas is 80 of its pixels wide and as high, of which the photograph fills the upper half
    assert answer.found[0]["name"] == "red"
    assert answer.found[0]["box"] == [8, 0, 40, 40]
    assert len(answer.found) == 3


def test_a_pixel_s_class_is_that_of_the_nearest_pixel_seen():
    seen = network("segmentation", lambda variables, x: x, config=A_RUN)
    for size in [(80, 40), (40, 80), (20, 20)]:
        (answer,) = answers.asker(seen, batch_size=2)([photograph(*size)])
        expected = np.where(np.arange(size[0]) < 3 * size[0] // 4, 0, 2)
        np.testing.assert_array_equal(answer.regions, np.tile(expected, (size[1], 1)))
        assert answer.found == [
            {"name": "red", "index": 0, "share": 0.75},
            {"name": "blue", "index": 2, "share": 0.25},
        ]


def test_a_published_network_for_segmentation_sees_the_shorter_side_at_its_length():
    sizes = []

    def apply(variables, x):
        sizes.append(x.shape)
        return x

    (answer,) = answers.asker(network("segmentation", apply, resize=60))([photograph(80, 40)])
    assert sizes == [(1, 60, 120, 3)]
    assert answer.regions.shape == (40, 80)


def test_objects_below_a_score_of_one_half_are_left_out_unless_asked_for():
    seen = one_corner([])
    pixels = Image.new("RGB", (64, 48))
    (answer,) = answers.asker(seen)([pixels])
    assert answer.found == [
        {"name": "3", "index": 3, "score": pytest.approx(0.9), "box": [32, 24, 64, 48]}
    ]
    assert answer.masks.shape == (1, 48, 64)
    (none,) = answers.asker(seen, least=0.95)([pixels])
    assert none.found == []
    assert none.masks.shape == (0, 48, 64)
    row = classified.row("a.png", answer, "detection")
    assert row["objects"][0]["mask"]["size"] == [48, 64]


def test_a_network_for_another_task_is_refused():
    with pytest.raises(UsageError, match="known is a network for ranking, of which photographs"):
        answers.asker(network("ranking", lambda variables, x: x))


def test_regions_are_kept_as_the_classes_numbers():
    mask = np.array([[0, 1], [2, 1]])
    with Image.open(io.BytesIO(mask_figures.indexed_png(mask, 3))) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), mask)
