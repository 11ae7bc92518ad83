"""experiments.segment as its users run it, on a few of the drawn shapes."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.command import run_command

TINY = [
    "--model_options=features=(4, 8)",
    "--image_size=16",
    "--train_split=train[:32]",
    "--eval_split=test[:12]",
    "--batch_size=8",
    "--steps=4",
    "--checkpoint_every=2",
    "--pictures=3",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of four steps: its folder and its results.json."""
    workdir = tmp_path_factory.mktemp("runs") / "segment"
    finished = run_command("segment", *TINY, f"--workdir={workdir}")
    assert finished.returncode == 0, finished.stderr
    return workdir, json.loads((workdir / "results.json").read_text()), finished.stdout


@pytest.mark.slow
def test_a_run_leaves_results_pictures_and_a_page(done):
    workdir, results, printed = done
    evaluation = results["evaluation"]
    assert results["step"] == 4
    assert evaluation["examples"] == 12
    assert evaluation["pixels"] == sum(map(sum, evaluation["confusion"])) == 12 * 16 * 16
    assert f"mean IoU {evaluation['mean_iou']:.4f}" in printed
    wrong = sum(results["errors"].values())
    assert wrong == pytest.approx(1 - evaluation["pixel_accuracy"], abs=1e-3)
    for name in ("config.json", "masks.png", "iou_by_class.png", "confusion.png", "training.png"):
        assert (workdir / name).stat().st_size > 0
    assert 'src="http' not in (workdir / "report.html").read_text()


@pytest.mark.slow
def test_the_same_command_again_evaluates_the_same_network(done):
    workdir, results, _ = done
    again = run_command("segment", *TINY, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    found = json.loads((workdir / "results.json").read_text())
    assert found["parameters_sha256"] == results["parameters_sha256"]
    assert found["evaluation"] == results["evaluation"]


@pytest.mark.slow
def test_photographs_are_answered_with_a_class_for_every_pixel_of_theirs(done, two_photographs):
    workdir, *_ = done
    finished = run_command("classify", two_photographs, f"--workdir={workdir}")
    assert finished.returncode == 0, finished.stderr
    folder = workdir / "classify"
    images = json.loads((folder / "results.json").read_text())["images"]
    for image, size in zip(images, [(30, 70), (60, 40)], strict=True):
        assert sum(each["share"] for each in image["regions"]) == pytest.approx(1)
        with Image.open(folder / image["mask"]) as mask:
            assert mask.size == size
            first = image["regions"][0]
            share = np.mean(np.asarray(mask) == first["index"])
        assert share == pytest.approx(first["share"])
    assert (folder / "regions.csv").read_text().startswith("file,rank,name,index,share\n")
    assert (folder / "report.html").read_text().count("<img") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("segment", ["--model=resnet20"], "resnet20 is a classification network; here a segm"),
        ("segment", ["--dataset=digits"], "unknown data set with masks 'digits'"),
        ("segment", ["--image_size=30"], "30x30 do not halve"),
        ("segment", ["--mixup=0.5"], "--mixup is not for segmentation"),
        ("train", ["--model=unet", "--dataset=digits", "--steps=1"], "unet is a segmentation"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, name, flags, message):
    finished = run_command(name, f"--workdir={tmp_path}/run", *flags)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr


@pytest.mark.slow
def test_binary_masks_of_a_class_with_dollars_and_a_test_split_without_objects(tmp_path):
    """Nothing of this loses the training: the page has its pictures, and says what IoU means."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for split, names in (("train", ["a b", "c", "d", "e"]), ("val", ["f", "g"])):
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
        for name in names:
            mask = np.zeros((16, 16), np.uint8)
            mask[4:9, 4:12] = 255 * (split == "train")
            Image.fromarray(mask).save(tmp_path / f"SegmentationClass/{name}.png")
            Image.fromarray(255 - mask).save(tmp_path / f"JPEGImages/{name}.png")
    flags = [flag for flag in TINY if "_split" not in flag and "batch" not in flag]
    flags += ["--batch_size=2", f"--dataset=voc:{tmp_path}", f"--workdir={tmp_path}/run"]
    finished = run_command("segment", *flags)
    assert finished.returncode == 2
    assert "--mask_values=0:background,255:object" in finished.stderr
    finished = run_command("segment", *flags, "--mask_values=0:background,255:ca$$h")
    assert finished.returncode == 0, finished.stderr
    assert "failed" not in finished.stderr
    alone = "The masks of the evaluation split hold 'background' alone"
    assert alone in finished.stdout
    assert "hold &#x27;background&#x27; alone" in (tmp_path / "run/report.html").read_text()
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["evaluation"]["class_names"] == ["background", "ca$$h"]
    assert results["evaluation"]["per_class_accuracy"]["ca$$h"] is None
    for name in ("masks.png", "iou_by_class.png", "confusion.png", "training.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
