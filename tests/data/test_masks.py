"""Data sets with masks: VOC's own, people's folders built like it, and COCO's JSON."""

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cnn_jax.data import masks, segmentation
from cnn_jax.data.preprocessing import Preprocessing
from cnn_jax.errors import UsageError
from cnn_jax.tasks.segmentation import IGNORED
from cnn_jax.training import loop
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.task import CLASSIFICATION, SEGMENTATION
from tests.data import coco_folders

SIZE = (6, 4)
GREY = np.zeros((4, 6), np.uint8)


def voc_palette() -> list[int]:
    """VOC's colours: the bits of a class's number, spread over red, green and blue."""
    colours = []
    for label in range(256):
        for channel in range(3):
            bits = [(label >> (3 * k + channel) & 1) << (7 - k) for k in range(3)]
            colours.append(sum(bits))
    return colours


def with_corner(value: int, rest: int = 0) -> np.ndarray:
    mask = np.full((4, 6), rest, np.uint8)
    mask[:2, :3] = value
    return mask


def voc_folder(root, examples, split="train", photo="jpg"):
    """Write a folder like VOC's; examples: name -> mask, as an image or an array."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(examples) + "\n\n")
    for name, mask in examples.items():
        Image.new("RGB", SIZE).save(root / f"JPEGImages/{name}.{photo}")
        mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        mask.save(root / f"SegmentationClass/{name}.png")
    return f"voc:{root}"


def in_palette(values: np.ndarray) -> Image.Image:
    mask = Image.fromarray(values)
    mask.putpalette(voc_palette())
    return mask


@pytest.mark.parametrize("name", ["2007_000032", "2011_003271", "000032"])
def test_voc_s_own_folder_has_voc_s_classes(tmp_path, name):
    values = with_corner(15)
    values[0, 0] = 255
    dataset = voc_folder(tmp_path, {name: in_palette(values)})
    found = masks.load(dataset, "train")
    assert found.class_names[15] == "person"
    assert found.num_classes == 21
    mask = found.source[0]["mask"]
    assert mask.shape == (4, 6)
    assert (mask[0, 0], mask[1, 1], mask[3, 5]) == (IGNORED, 15, 0)
    with pytest.raises(UsageError, match=r"unknown split of voc:.* 'test'; known: train"):
        masks.load(dataset, "test")
    with pytest.raises(UsageError, match="is no VOC folder"):
        masks.load(f"{dataset}/none", "train")


def test_masks_of_0_and_255_are_not_silently_background_alone(tmp_path):
    """255 is no object by itself: the user says what it is, and is told how."""
    dataset = voc_folder(tmp_path, {"one": with_corner(255), "two": GREY})
    wanted = "--mask_values=0:background,255:object"
    with pytest.raises(UsageError, match=wanted):
        masks.load(dataset, "train")
    found = masks.load(dataset, "train", mask_values=wanted.partition("=")[2])
    assert found.class_names == ("background", "object")
    np.testing.assert_array_equal(found.source[0]["mask"], with_corner(1))
    np.testing.assert_array_equal(segmentation.class_counts(found), [42, 6])


@pytest.mark.parametrize("name", ["2007_000032", "000032"])
def test_so_it_is_where_they_are_called_as_voc_s(tmp_path, name):
    dataset = voc_folder(tmp_path, {name: in_palette(with_corner(255))})
    message = r"hold 'background' and pixels that are ignored, .* --mask_values=0:background,255:ob"
    with pytest.raises(UsageError, match=message):
        masks.load(dataset, "train")
    everything = voc_folder(tmp_path / "all", {name: in_palette(with_corner(255, 255))})
    with pytest.raises(UsageError, match="hold no class and pixels that are ignored"):
        masks.load(everything, "train")


def test_own_classes_have_their_own_names(tmp_path):
    dataset = voc_folder(tmp_path, {"a b": with_corner(1), "b": with_corner(4)}, photo="png")
    message = r"not PASCAL VOC itself.* --mask_values=0:background,1:class1,4:class4 "
    with pytest.raises(UsageError, match=message):
        masks.load(dataset, "train")
    found = masks.load(dataset, "train", mask_values="0:ground, 1:rust, 4:crack, 7:rust")
    assert found.class_names == ("ground", "rust", "crack")
    assert found.source[1]["mask"][0, 0] == 2
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\nx\ny\nz\nca$$h\n")
    found = masks.load(dataset, "train")
    assert found.class_names == ("_background_", "x", "y", "z", "ca$$h")
    assert found.source[1]["mask"][0, 0] == 4


def test_numbered_photographs_of_one_s_own_are_not_taken_for_voc_s(tmp_path):
    dataset = voc_folder(tmp_path, {"000001": with_corner(1)})
    with pytest.raises(UsageError, match="not PASCAL VOC itself"):
        masks.load(dataset, "train")


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(with_corner(255)),
        Image.fromarray(with_corner(255) > 0),
        Image.fromarray(with_corner(255)).convert("RGB"),
        Image.fromarray(with_corner(255)).convert("RGBA"),
        Image.fromarray(with_corner(255)).convert("LA"),
        Image.fromarray(with_corner(255).astype(np.uint16)),
        in_palette(with_corner(255)),
    ],
    ids=["8 bits", "1 bit", "RGB", "RGBA", "with transparency", "16 bits", "palette"],
)
def test_binary_masks_are_read_however_they_are_stored(tmp_path, image):
    dataset = voc_folder(tmp_path, {"one": image})
    found = masks.load(dataset, "train", mask_values="0:background,255:object")
    np.testing.assert_array_equal(found.source[0]["mask"], with_corner(1))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", SIZE, (128, 0, 0)), "is no grey image, whose values are classes"),
        (Image.fromarray(np.full((4, 6), 700, np.uint16)), "holds 700; classes have the values"),
        (Image.fromarray(with_corner(9)), "holds 9, which is none of its 2 classes; mend"),
    ],
)
def test_masks_that_hold_something_else_are_named(tmp_path, image, message):
    dataset = voc_folder(tmp_path, {"one": image})
    with pytest.raises(UsageError, match=f"mask of example 0 of .* {message}"):
        masks.load(dataset, "train", mask_values="0:background,255:object")


def test_missing_files_are_named_before_anything_begins(tmp_path):
    dataset = voc_folder(tmp_path, {"one": with_corner(1), "two words": with_corner(1), "c": GREY})
    values = "0:background,1:object"
    assert len(masks.load(dataset, "train", mask_values=values).source) == 3
    (tmp_path / "SegmentationClass/two words.png").unlink()
    (tmp_path / "SegmentationClass/c.png").unlink()
    with pytest.raises(UsageError, match=r"2 of the 3 names in .*: 'two words', 'c'"):
        masks.load(dataset, "train", mask_values=values)
    voc_folder(tmp_path, {"one": with_corner(1)})
    (tmp_path / "SegmentationClass/one.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"the mask of example 0 of .* is not a readable image"):
        masks.load(dataset, "train", mask_values=values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("0:background", "names 1 classes; give 2 to 255"),
        ("0:background,255:ignored", "names 1 classes"),
        ("0:background,256:object", "'256:object' is not VALUE:NAME"),
        ("0:background,1", "'1' is not VALUE:NAME"),
        ("0:background,x:object", "'x:object' is not VALUE:NAME"),
        ("0:background,0:object", "names the value 0 twice"),
    ],
)
def test_mask_values_that_say_nothing_are_one_line(values, message):
    with pytest.raises(UsageError, match=message):
        masks.parse(values)


def test_a_run_takes_mask_values_and_other_tasks_refuse_them(tmp_path):
    dataset = voc_folder(tmp_path, {"one": with_corner(255)})
    voc_folder(tmp_path, {"two": GREY}, split="val")
    config = TrainConfig(model="unet", dataset=dataset, mask_values="0:ground,255:object")
    train_set, eval_set = loop.load_datasets(config, SEGMENTATION)
    assert train_set.class_names == eval_set.class_names == ("ground", "object")
    batch = next(
        segmentation.evaluation_batches(
            eval_set, preprocessing=Preprocessing(8), batch_size=1, num_threads=0
        )
    )
    assert set(np.unique(batch["mask"])) == {0, IGNORED}
    with pytest.raises(UsageError, match="--mask_values is not for classification"):
        loop.train(
            TrainConfig(model="lenet5", dataset=dataset, mask_values="0:a,1:b"),
            tmp_path / "run",
            task=CLASSIFICATION,
        )
    with pytest.raises(UsageError, match="--mask_values is for voc:FOLDER; digits has classes"):
        masks.load("digits", "train", mask_values="0:a,1:b")


def test_a_data_set_without_masks_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"unknown data set with masks 'digits'; .*shapes"):
        masks.load("digits", "train", str(tmp_path))


def test_coco_s_objects_are_drawn_as_masks(tmp_path, capsys):
    """Where objects of two classes overlap, no pixel counts; a crowd is of its class."""
    coco_folders.as_coco(tmp_path, coco_folders.content(4), coco_folders.content(4))
    found = masks.load(f"coco:{tmp_path}", "train")
    assert found.class_names == ("background", *coco_folders.CLASSES)
    theirs = COCO(tmp_path / "annotations/instances_train2017.json")
    capsys.readouterr()
    for i, number in enumerate(sorted(theirs.imgs)):
        expected, covered = np.zeros((coco_folders.HEIGHT, coco_folders.WIDTH), int), {}
        for own in theirs.loadAnns(theirs.getAnnIds([number])):
            name = theirs.cats[own["category_id"]]["name"]
            covered.setdefault(name, np.zeros(expected.shape, bool))
            covered[name] |= theirs.annToMask(own).astype(bool)
        for name, pixels in covered.items():
            expected[pixels] = found.class_names.index(name)
        expected[sum(pixels.astype(int) for pixels in covered.values()) > 1] = IGNORED
        np.testing.assert_array_equal(found.source[i]["mask"], expected)
        assert (IGNORED in expected) == bool(i % 2)


def test_coco_s_boxes_alone_are_no_masks(tmp_path):
    own = coco_folders.content(4)
    own["annotations"][0]["segmentation"] = []
    coco_folders.as_roboflow(tmp_path, own, own)
    with pytest.raises(UsageError, match=r"1 annotations of .* \(train\) have no segmentation"):
        masks.load(f"coco:{tmp_path}", "train")


def test_a_split_without_examples_is_refused_before_training(tmp_path):
    coco_folders.as_coco(tmp_path, coco_folders.content(4), coco_folders.content(4))
    config = TrainConfig(model="unet", dataset=f"coco:{tmp_path}", eval_split="validation[:0]")
    with pytest.raises(UsageError, match=r"\(validation\[:0\]\) has no examples"):
        loop.load_datasets(config, SEGMENTATION)
