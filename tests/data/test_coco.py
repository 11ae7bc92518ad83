"""People's own COCO JSON: every layout, and what pycocotools reads from the same file."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from cnn_jax.data import classes, coco, datasets, detection
from cnn_jax.errors import UsageError
from tests.data import coco_folders
from tests.data.coco_folders import CLASSES, HEIGHT, WIDTH, content


def reference(file) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "own"
    return coco_folders.as_coco(root, content(5), content(4))


@pytest.mark.parametrize("layout", ["coco", "roboflow", "folders", "root", "single"])
def test_every_layout_is_found(tmp_path, layout):
    train, held_out = content(5), content(4)
    if layout == "coco":
        coco_folders.as_coco(tmp_path, train, held_out)
    elif layout == "roboflow":
        coco_folders.as_roboflow(tmp_path, train, held_out)
    elif layout == "folders":  # images in folders of images/
        (tmp_path / "annotations").mkdir()
        for split, own in (("train", train), ("val", held_out)):
            (tmp_path / f"annotations/{split}.json").write_text(json.dumps(own))
            coco_folders.write_images(tmp_path / "images" / split, own["images"])
    elif layout == "root":  # paths in the file, from the folder on
        for split, own in (("Train", train), ("Validation", held_out)):
            coco_folders.write_images(tmp_path / "pictures" / split, own["images"])
            for image in own["images"]:
                image["file_name"] = f"pictures\\{split}\\{image['file_name']}"
            (tmp_path / f"my_{split}.json").write_text(json.dumps(own))
    else:
        coco_folders.as_single_file(tmp_path, content(10))
        assert coco.splits(str(tmp_path)) == ("train[:90%]", "train[90%:]")
        parts = [coco.load(str(tmp_path), split)[0] for split in coco.splits(str(tmp_path))]
        assert [len(part) for part in parts] == [9, 1]
        files = [part[i]["filename"] for part in parts for i in range(len(part))]
        assert len(set(files)) == 10
        assert files != sorted(files)
        return
    assert coco.splits(str(tmp_path)) == ("train", "validation")
    for split, count in (("train", 5), ("validation", 4), ("train[:40%]", 2)):
        source, names = coco.load(str(tmp_path), split)
        assert (len(source), names) == (count, CLASSES)
        with Image.open(io.BytesIO(source[count - 1]["image"])) as image:
            assert image.size == (WIDTH, HEIGHT)


def test_a_test_split_is_what_results_are_reported_on(tmp_path):
    coco_folders.as_roboflow(tmp_path, content(5), content(4))
    coco_folders.write_images(tmp_path / "test", content(3)["images"])
    (tmp_path / "test" / "_annotations.coco.json").write_text(json.dumps(content(3)))
    assert datasets.evaluation_split(f"coco:{tmp_path}") == "test"


def test_polygons_run_lengths_and_crowds_are_as_pycocotools_reads_them(folder):
    theirs = reference(folder / "annotations/instances_train2017.json")
    dataset = detection.load(f"coco:{folder}", "train")
    assert dataset.class_names == ("background", *CLASSES)
    names = {own["id"]: own["name"] for own in theirs.loadCats(theirs.getCatIds())}
    for i, number in enumerate(sorted(theirs.imgs)):
        objects = detection.true_objects(dataset, i)
        annotations = theirs.loadAnns(theirs.getAnnIds([number]))
        assert [dataset.class_names[label] for label in objects.labels] == [
            names[own["category_id"]] for own in annotations
        ]
        assert list(objects.difficult) == [bool(own["iscrowd"]) for own in annotations]
        assert list(objects.areas) == [own["area"] for own in annotations]
        for box, mask, own in zip(objects.boxes, objects.masks, annotations, strict=True):
            x, y, width, height = own["bbox"]
            np.testing.assert_allclose(box, [x, y, x + width, y + height], rtol=1e-12)
            np.testing.assert_array_equal(run_lengths.decode(mask), theirs.annToMask(own))


def test_overlapping_masks_are_both_whole_in_a_batch(folder):
    """The pot of 100x120 and the cat of 20x24 inside it, halved."""
    dataset = detection.load(f"coco:{folder}", "train")
    found = detection.read(dataset, 3, WIDTH // 2, 1)
    masks = np.unpackbits(found["instances"], axis=-1, count=3, bitorder="little")
    areas = masks.sum((0, 1), dtype=int)
    assert list(areas) == [30 * 30, 50 * 60, 10 * 12]
    assert list(found["original_size"]) == [HEIGHT, WIDTH]
    assert (masks[..., 1] >= masks[..., 2]).all()


def test_the_other_split_s_classes_are_matched_by_name(tmp_path):
    held_out = content(4)
    numbers = {90: 1, 3: 2, 7: 0}
    held_out["categories"] = [
        {**own, "id": numbers[own["id"]]} for own in reversed(held_out["categories"])
    ]
    for own in held_out["annotations"]:
        own["category_id"] = numbers[own["category_id"]]
    coco_folders.as_coco(tmp_path, content(4), held_out)
    one, other = (detection.load(f"coco:{tmp_path}", name) for name in ("train", "validation"))
    assert one.class_names == other.class_names
    for i in range(4):
        labels = [detection.true_objects(each, i).labels for each in (one, other)]
        np.testing.assert_array_equal(*labels)
    held_out["categories"][0]["name"] = "dog"
    coco_folders.as_coco(tmp_path / "two", content(4), held_out)
    with pytest.raises(UsageError, match=r"objects of class 'dog', which .*train2017.json lacks"):
        detection.load(f"coco:{tmp_path}/two", "validation")


def test_the_group_that_roboflow_lists_as_a_category_is_no_class(tmp_path):
    own = content(4)
    own["categories"] = [{"id": 0, "name": "things", "supercategory": "none"}, *own["categories"]]
    coco_folders.as_roboflow(tmp_path, own, own)
    assert coco.load(str(tmp_path), "train")[1] == CLASSES


def test_boxes_without_segmentation_are_for_detectors_of_boxes(tmp_path):
    own = content(4)
    for one in own["annotations"][:5]:
        one["segmentation"] = []
    coco_folders.as_roboflow(tmp_path, own, content(4))
    dataset = detection.load(f"coco:{tmp_path}", "train")
    assert detection.true_objects(dataset, 0).masks is None
    assert "instances" not in detection.read(dataset, 3, 64, 0)
    with pytest.raises(UsageError, match=r"5 annotations of .* \(train\) have no segmentation"):
        detection.check_masks(dataset)
    detection.check_masks(detection.load(f"coco:{tmp_path}", "validation"))


def test_the_room_for_objects_is_what_the_fullest_image_needs(folder):
    dataset = detection.load(f"coco:{folder}", "train")
    assert detection.room_for(dataset, None) == 3
    assert detection.room_for(dataset, 8) == 8
    with pytest.raises(UsageError, match=r"has 3 objects; give --max_objects=3"):
        detection.room_for(dataset, 2)
    reordered = classes.matched(dataset, ("background", *reversed(CLASSES)), "a run", first=1)
    assert detection.room_for(reordered, None) == 3
    detection.check_masks(reordered)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.pop("categories"), "lacks 'categories'"),
        (lambda own: own["annotations"][0].pop("bbox"), "lacks 'bbox'"),
        (lambda own: own["annotations"][3].update(category_id=5), "annotation 4 is of category 5"),
        (lambda own: own["annotations"][0].update(bbox=[1, 2, -3, 4]), "annotation 1 has the bbox"),
        (lambda own: own["images"][1].update(id=100), "two images of one id"),
        (lambda own: own["images"][1].update(width=0), "image 110 has no width and height"),
        (lambda own: own["categories"][0].update(name="猫"), "two categories"),
        (lambda own: own["images"][2].update(file_name="no.png"), "1 of the 4 images of .* no.png"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(tmp_path, change, message):
    own = copy.deepcopy(content(4))
    change(own)
    coco_folders.as_coco(tmp_path, content(4), content(4))
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(own))
    with pytest.raises(UsageError, match=message) as error:
        detection.load(f"coco:{tmp_path}", "train")
    assert "\n" not in str(error.value)


def test_a_folder_without_annotations_and_an_unknown_split_are_named(tmp_path, folder):
    with pytest.raises(UsageError, match="has no annotations in COCO's JSON"):
        detection.load(f"coco:{tmp_path}", "train")
    with pytest.raises(UsageError, match="no such folder"):
        detection.load(f"coco:{tmp_path}/none", "train")
    with pytest.raises(UsageError, match=r"unknown split of .* 'test'; known: train, validation"):
        detection.load(f"coco:{folder}", "test")
    with pytest.raises(UsageError, match="no class of an image as a whole; it is for detect"):
        datasets.load(f"coco:{folder}", "train")


def test_an_image_of_another_size_than_its_annotations_is_named(tmp_path):
    coco_folders.as_coco(tmp_path, content(4), content(4))
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "train2017/img 2.png")
    dataset = detection.load(f"coco:{tmp_path}", "train")
    with pytest.raises(UsageError, match=r"img 2.png: an image of 240x320 does not fit annotation"):
        detection.read(dataset, 3, 64, 2)
    with pytest.raises(UsageError, match=r"img 2\.png"):
        detection.true_objects(dataset, 2)


def test_a_segmentation_that_is_not_coco_s_is_named(tmp_path):
    own = content(4)
    own["annotations"][0]["segmentation"] = {"size": [7, 9], "counts": [63]}
    own["annotations"][3]["segmentation"] = [[1.0]]
    coco_folders.as_coco(tmp_path, own, content(4))
    source, _ = coco.load(str(tmp_path), "train")
    with pytest.raises(UsageError, match="annotation 1 is not COCO's: it is of 9x7 pixels, not"):
        source[0]
    with pytest.raises(UsageError, match="annotation 4 is not COCO's"):
        source[1]
