"""Training tiny detectors: to the bit when resumed, without NaN whatever the objects."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnn_jax.data import detection as data
from cnn_jax.errors import UsageError
from cnn_jax.layers import conv, conv_bn
from cnn_jax.models import fast_rcnn, faster_rcnn, rcnn, registry
from cnn_jax.ops import roi_pool
from cnn_jax.training import detector
from cnn_jax.training import rcnn as rcnn_training
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.log import read_log
from cnn_jax.training.loop import Diverged
from tests.data.test_detection import dataset, example

pytestmark = pytest.mark.slow

FASTER = faster_rcnn.Settings(
    backbone=lambda scope, images: [scope.child(conv, "conv")(images, 4, size=3, stride=4)],
    region_maps=1,
    anchor_sizes=((8, 16),),
    anchors_sampled=16,
    candidates=(20, 20),
    proposals=(10, 10),
    region_size=2,
    head_features=8,
    regions_sampled=8,
    suppressed=30,
    detections=6,
    least_score=0.01,
)
FAST = FASTER._replace(anchor_sizes=(), region_pool=roi_pool, region_background=0.1)
RCNN = FASTER._replace(
    backbone=rcnn.images_themselves,
    lowest_level=0,
    anchor_sizes=(),
    region_pool=rcnn.warp,
    region_size=8,
    head=lambda scope, regions, features: rcnn.warped_network(
        scope, regions, features, convolutions=lambda scope, x: scope.child(conv, "conv")(x, 2)
    ),
    learns_boxes=False,
)
CONFIG = TrainConfig(
    model="tiny_faster",
    dataset="shapes",
    num_classes=9,
    image_size=32,
    flip=True,
    steps=4,
    batch_size=2,
    optimizer="adamw",
    learning_rate=1e-3,
    checkpoint_every=2,
    log_every=1,
)


def awkward() -> list[dict]:
    """Scenes: one without objects, one whose boxes have no area or lie outside, two usual ones."""
    scenes = [example(seed, 32) for seed in range(4)]
    for scene in scenes:
        del scene["instance_mask"]
    scenes[0]["objects"] = {"bbox": np.zeros((0, 4), np.float32), "label": np.zeros(0, int)}
    odd = [[0.2, 0.2, 0.2, 0.6], [0.5, 0.5, 0.4, 0.3], [1.5, 1.5, 2, 2], [-9, -9, 9, 9]]
    scenes[1]["objects"] = {"bbox": np.array(odd, np.float32), "label": np.arange(4)}
    return scenes


SCENES = dataset(awkward())
BOXES = [np.float32([[1, 2, 20, 18], [8, 8, 30, 31], [5, 5, 5, 9], [0, 0, 32, 32]])] * 4
GIVEN = {"proposals": BOXES, "max_proposals": 5}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    for name, function, settings in (
        ("tiny_faster", faster_rcnn.detector, FASTER),
        ("tiny_fast", fast_rcnn.detector, FAST),
        ("tiny_rcnn", fast_rcnn.detector, RCNN),
    ):
        monkeypatch.setitem(registry.MODELS, name, function(settings, 32, 9))
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1])


def run(workdir, config=CONFIG, **more):
    return detector.train(config, workdir, SCENES, max_objects=8, **more)


def same(one, other) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


class Stopped(Exception):
    pass


def stop_at_three(line: str) -> None:
    if line.startswith("step 3"):
        raise Stopped


@pytest.mark.parametrize(("name", "given"), [("tiny_faster", {}), ("tiny_fast", GIVEN)])
def test_a_stopped_run_goes_on_to_the_bits_of_a_whole_one(tmp_path, name, given):
    config = dataclasses.replace(CONFIG, model=name)
    whole = run(tmp_path / "whole", config, **given)
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", config, say=stop_at_three, **given)
    resumed = run(tmp_path / "stopped", config, **given)
    assert resumed.step == whole.step == 4
    assert same(resumed.variables, whole.variables)
    assert resumed.losses == whole.losses
    finished = run(tmp_path / "stopped", config, **given)  # nothing is left to do
    assert finished.losses == whole.losses
    assert [line["step"] for line in read_log(tmp_path / "stopped")] == [1, 2, 3, 4]
    assert all(np.isfinite(list(line.values())).all() for line in read_log(tmp_path / "whole"))


def test_a_finished_detector_that_is_given_more_steps_goes_on(tmp_path):
    said = []
    constant = dataclasses.replace(CONFIG, schedule="constant")
    run(tmp_path / "run", dataclasses.replace(constant, steps=2))
    extended = run(tmp_path / "run", constant, say=said.append)
    assert said[0].startswith("the run grows from 2 to 4 steps; so far it went as 4 steps")
    assert same(extended.variables, run(tmp_path / "whole", constant).variables)


def turned(scenes):
    """The same scenes of a data set that lists its classes in the opposite order."""
    last = scenes.num_classes - 2

    def example(scene):
        objects = scene["objects"]
        return scene | {"objects": objects | {"label": last - np.asarray(objects["label"])}}

    ground, *names = scenes.class_names
    return scenes._replace(
        source=list(map(example, scenes.source)), class_names=(ground, *names[::-1])
    )


def test_a_run_goes_on_by_the_names_of_its_classes(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", say=stop_at_three)
    train_set, eval_set = detector.in_numbers_of_run(
        tmp_path / "stopped", turned(SCENES), turned(turned(SCENES))
    )
    assert train_set.class_names == eval_set.class_names == SCENES.class_names
    for i, scene in enumerate(SCENES.source):
        for again in (train_set, eval_set):
            np.testing.assert_array_equal(
                again.source[i]["objects"]["label"], scene["objects"]["label"]
            )
    resumed = detector.train(CONFIG, tmp_path / "stopped", turned(SCENES), max_objects=8)
    assert same(resumed.variables, whole.variables)


def test_a_class_renamed_between_two_halves_of_a_run_is_one_error(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path, say=stop_at_three)
    names = ("background", "blob", *SCENES.class_names[2:])
    with pytest.raises(UsageError, match=r"'blob' \(1 of 9\) unknown"):
        detector.train(CONFIG, tmp_path, SCENES._replace(class_names=names), max_objects=8)


def test_a_detector_starts_from_another_s_network_and_keeps_the_classes_it_knows(tmp_path):
    first = run(tmp_path / "first", dataclasses.replace(CONFIG, steps=2))
    config = dataclasses.replace(CONFIG, steps=1, learning_rate=0.0, weight_decay=0.0)
    config = dataclasses.replace(config, init_from=str(tmp_path / "first"))
    said = []
    again = run(tmp_path / "again", config, say=said.append)
    assert said[0].endswith("step 2: the head with it")
    assert same(again.variables, first.variables)
    names = ("background", "blob", *SCENES.class_names[2:])
    other = detector.train(
        config,
        tmp_path / "other",
        SCENES._replace(class_names=names),
        max_objects=8,
        say=said.append,
    )
    assert any("of the head 8 of 9 classes, by name" in line for line in said)
    kept, new = (each.variables["params"] for each in (first, other))
    np.testing.assert_array_equal(kept["conv"]["kernel"], new["conv"]["kernel"])


def test_frozen_norms_keep_their_running_statistics(tmp_path, monkeypatch):
    def backbone(scope, images):
        return [scope.child(conv_bn, "conv")(images, 4, size=3, stride=4)]

    entry = faster_rcnn.detector(FASTER._replace(backbone=backbone), 32, 9)
    monkeypatch.setitem(registry.MODELS, "tiny_faster", entry)
    for freeze, stays in ((".*bn", True), (".*bn/scale", False)):
        config = dataclasses.replace(CONFIG, steps=1, freeze=freeze)
        found = run(tmp_path / str(stays), config).variables["batch_stats"]
        means = [leaf for path, leaf in flatten_dict(found).items() if path[-1] == "mean"]
        assert all(not np.any(mean) for mean in means) == stays


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(Diverged, match=r"a loss is not finite at step \d"):
        run(tmp_path, dataclasses.replace(CONFIG, learning_rate=1e30))


@pytest.mark.parametrize(("name", "given"), [("tiny_faster", GIVEN), ("tiny_fast", {})])
def test_proposals_go_with_the_detectors_that_propose_none(tmp_path, name, given):
    with pytest.raises(UsageError, match=f"{name} (proposes regions itself|needs proposals)"):
        run(tmp_path, dataclasses.replace(CONFIG, model=name), **given)
    assert not list(tmp_path.iterdir())


def test_rcnn_is_finetuned_fitted_and_finds(tmp_path):
    result = run(tmp_path, dataclasses.replace(CONFIG, model="tiny_rcnn", steps=2), **GIVEN)
    assert set(result.losses) == {"loss", "classifier", "gradient_norm", "learning_rate"}
    batches = list(data.evaluation_batches(SCENES, batch_size=3, canvas=32, max_objects=8, **GIVEN))
    near = {"near": 0.1}  # of so few proposals
    fitted = rcnn_training.fit(result.variables, batches, 9, RCNN, SCENES, **near)
    rcnn_training.save(tmp_path / "fitted.npz", fitted)
    fitted = rcnn_training.load(tmp_path / "fitted.npz")
    detect = rcnn_training.create_detector(RCNN, 9, SCENES)
    found = list(detector.detect_all(detect, (result.variables, fitted), batches))
    assert len(found) == 4
    for _, each in found:
        assert each.boxes.shape == (6, 4)
        assert all(np.isfinite(leaf).all() for leaf in each if leaf is not None)
        assert (each.boxes >= 0).all()
        assert (each.boxes <= 32).all()
    labels = {label for each in SCENES.source for label in each["objects"]["label"]}
    seen = {label - 1 for _, each in found for label in each.labels[each.valid]}
    assert seen
    assert seen <= labels  # a class without objects has no machine
