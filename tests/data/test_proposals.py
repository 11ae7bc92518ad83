"""Selective search's boxes: of an image, and of a split in files that are made once."""

import sys

import numpy as np
import pytest

from cnn_jax.data import detection as data
from cnn_jax.data import proposals
from cnn_jax.errors import UsageError
from tests.data.test_detection import SCENES

PARTS = SCENES._replace(source=SCENES.source[:3])


def square() -> np.ndarray:
    image = np.full((64, 80, 3), 200, np.uint8)
    image[16:48, 20:60] = (200, 30, 30)
    return image


def test_a_square_on_plain_ground_is_proposed():
    pytest.importorskip("cv2")
    found = proposals.selective_search(square())
    assert found.dtype == np.float32
    assert np.abs(found - [20, 16, 60, 48]).max(1).min() <= 1
    assert (found >= 0).all()
    assert (found[:, 2:] <= [80, 64]).all()
    assert (found[:, 2:] > found[:, :2]).all()


def test_the_same_boxes_in_the_same_order_each_time():
    pytest.importorskip("cv2")
    image = data.read(SCENES, 6, 64, 0)["image"]
    one, again = proposals.selective_search(image), proposals.selective_search(image)
    np.testing.assert_array_equal(one, again)
    assert len(np.unique(one, axis=0)) == len(one)


def test_a_split_is_searched_once_and_a_stopped_search_goes_on(tmp_path, monkeypatch):
    """Stopped in the second file of two examples each."""
    searched = []

    def search(image):
        searched.append(image.shape)
        if len(searched) == 3:
            raise KeyboardInterrupt
        return np.full((len(searched), 4), len(searched), np.float32)

    monkeypatch.setattr(proposals, "PART", 2)
    monkeypatch.setattr(proposals, "selective_search", search)
    monkeypatch.setattr(proposals, "_segmentation", lambda: None)
    monkeypatch.setattr(proposals, "cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        proposals.of_split(PARTS, 32, tmp_path)
    found = proposals.of_split(PARTS, 32, tmp_path)
    assert searched == [(32, 32, 3)] * 4
    assert [len(boxes) for boxes in found] == [1, 2, 4]
    again = proposals.of_split(PARTS, 32, tmp_path)
    assert len(searched) == 4
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UsageError, match=r"of shapes test 32, not of shapes test 64"):
        proposals.of_split(PARTS, 64, tmp_path)


def test_without_opencv_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "cv2.ximgproc", None)
    with pytest.raises(UsageError, match="pip install") as error:
        proposals.selective_search(square())
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="opencv-contrib-python-headless"):
        proposals.of_split(PARTS, 32, tmp_path)
