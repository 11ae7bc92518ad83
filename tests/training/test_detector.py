"""Training tiny detectors by the loop of all tasks: resumed, on many devices, odd objects."""

import dataclasses
import json
import os
import signal
from unittest.mock import ANY

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnn_jax import trained
from cnn_jax.data import detection as data
from cnn_jax.errors import UsageError
from cnn_jax.layers import conv, conv_bn
from cnn_jax.models import fast_rcnn, faster_rcnn, rcnn, registry
from cnn_jax.ops import roi_pool
from cnn_jax.training import checkpoint, detector, loop
from cnn_jax.training import rcnn as rcnn_training
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.log import read_log
from cnn_jax.training.loop import Diverged
from cnn_jax.training.task import DETECTION, given_proposals, unmeasured
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
    regions_sampled=4,  # always found
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
    max_objects=8,
    flip=True,
    steps=4,
    batch_size=2,
    optimizer="adamw",
    learning_rate=1e-3,
    checkpoint_every=2,
    log_every=1,
)


# whose update does not blow up what rounding leaves of a gradient
STEADY = dataclasses.replace(
    CONFIG, steps=8, optimizer="sgd", learning_rate=0.01, checkpoint_every=4
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
GIVEN = given_proposals(BOXES, 5)
# whose networks are not evaluated, which takes as long to compile again
ALONE = DETECTION._replace(evaluator=unmeasured)


def register(monkeypatch):
    for name, function, settings in (
        ("tiny_faster", faster_rcnn.detector, FASTER),
        ("tiny_fast", fast_rcnn.detector, FAST),
        ("tiny_rcnn", fast_rcnn.detector, RCNN),
    ):
        monkeypatch.setitem(registry.MODELS, name, function(settings, 32, 9))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    register(monkeypatch)


def on(scenes, task):
    """The row of the table whose splits are both these scenes."""
    return task._replace(
        load=lambda name, split, data_dir=None: scenes,
        splits=lambda name, data_dir: ("train", "test"),
    )


def run(workdir, config=CONFIG, task=ALONE, scenes=SCENES, devices=1, **more):
    return loop.train(
        config, workdir, devices=jax.devices()[:devices], task=on(scenes, task), **more
    )


def changed(**options):
    return dataclasses.replace(CONFIG, **options)


def variables_of(workdir):
    return trained.from_workdir(workdir, task="detection").variables


def assert_close(one, other, **tolerance):
    for ours, theirs in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(ours, theirs, **tolerance)


def same(one, other) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def stop_at_two(step, metrics):
    if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def stopped(workdir, config=CONFIG, task=ALONE):
    """Run until SIGTERM comes; the steps that were made."""
    said = []
    result = run(workdir, config, task, progress=loop.Callbacks(said.append, update=stop_at_two))
    assert 2 <= result.step < config.steps
    assert said[-1] == f"told to stop: saved step {result.step}; the same command goes on"
    return result.step


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run on one device: its result and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        workdir = tmp_path_factory.mktemp("whole")
        return run(workdir, STEADY), workdir


def test_a_detector_stopped_by_sigterm_and_resumed_has_the_bits_of_the_whole(whole, tmp_path):
    stopped(tmp_path, STEADY)
    resumed = run(tmp_path, STEADY)
    assert resumed.step == whole[0].step == 8
    assert resumed.parameters_sha256 == whole[0].parameters_sha256
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 9))
    assert all(np.isfinite(list(line.values())).all() for line in read_log(tmp_path))


def test_so_does_one_whose_regions_come_with_the_images(tmp_path):
    config = changed(model="tiny_fast", steps=8)
    uninterrupted = run(tmp_path / "whole", config, GIVEN)
    stopped(tmp_path / "run", config, GIVEN)
    assert run(tmp_path / "run", config, GIVEN) == uninterrupted._replace(
        images_per_second=ANY, goodput=ANY
    )


def test_a_finished_detector_repeats_its_result_and_its_losses(whole):
    losses = loop.last_metrics(whole[1])
    assert set(losses) >= {"loss", "objectness", "rpn_box", "classifier", "box", "gradient_norm"}
    assert losses == {name: read_log(whole[1])[-1][name] for name in losses}
    again = run(whole[1], STEADY)
    assert again.parameters_sha256 == whole[0].parameters_sha256
    assert loop.last_metrics(whole[1]) == losses


def test_a_detector_of_a_version_that_logged_its_losses_alone_still_tells_them(whole, monkeypatch):
    expected = loop.last_metrics(whole[1])
    monkeypatch.setattr(checkpoint, "newest_metrics", lambda directory: {})
    assert loop.last_metrics(whole[1]) == expected


def test_a_run_of_a_version_without_max_objects_goes_on(tmp_path):
    config = changed(max_objects=None, steps=1)  # the fullest of these has five
    scenes = SCENES._replace(source=SCENES.source[1:2])
    first = run(tmp_path, config, scenes=scenes)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written.pop("max_objects") == 5
    (tmp_path / "config.json").write_text(json.dumps(written))
    again = run(tmp_path, config, scenes=scenes)
    assert again.parameters_sha256 == first.parameters_sha256
    with pytest.raises(UsageError, match="max_objects: null there, 8 here"):
        run(tmp_path, changed(steps=1), scenes=scenes)


def test_precision_is_measured_during_training_and_chooses_the_best_checkpoint(tmp_path):
    config = changed(eval_every=2, checkpoint_every=2, keep=1, keep_best="box_map50")
    said = []
    result = run(tmp_path, config, DETECTION, progress=loop.Callbacks(said.append))
    measured = {line["step"]: line for line in read_log(tmp_path) if "eval_box_map50" in line}
    assert list(measured) == [2, 4]
    assert set(measured[4]) == {"step", "eval_box_map50", "eval_box_map"}
    precision = result.evaluation["box_ap50"]["map"]
    assert measured[4]["eval_box_map50"] == precision
    assert f"step 4: box AP50 {precision:.3f}" in said
    best = max(measured.values(), key=lambda line: (line["eval_box_map50"], line["step"]))
    assert result.best["step"] == best["step"]
    assert trained.from_workdir(tmp_path, "best", "detection").source["step"] == best["step"]


def test_masks_that_a_detector_does_not_find_choose_no_checkpoint(tmp_path):
    with pytest.raises(UsageError, match="tiny_faster finds no masks; take --keep_best=box_map"):
        run(tmp_path / "run", changed(keep_best="mask_map"))
    assert not (tmp_path / "run").exists()


def test_averaged_weights_are_kept_and_evaluated(whole, tmp_path):
    config = dataclasses.replace(STEADY, ema_decay=0.5)
    seen = []

    def evaluator(*args):
        return lambda variables: seen.append(jax.tree.map(np.asarray, variables)) or {}

    result = run(tmp_path, config, DETECTION._replace(evaluator=evaluator))
    assert result.parameters_sha256 == whole[0].parameters_sha256  # beside them, not of them
    assert trained.from_workdir(tmp_path, task="detection").source["averaged"]
    averaged = variables_of(tmp_path)["params"]
    assert same(averaged, seen[0]["params"])  # then those without averaging
    assert not same(averaged, variables_of(whole[1])["params"])


@pytest.mark.parametrize(
    ("devices", "options"),
    [
        (1, {"accumulate": 2}),
        (2, {"parallel": "jit"}),
        (2, {"parallel": "pmap"}),
    ],
)
def test_devices_and_accumulated_parts_make_the_update_of_one_device(
    whole, tmp_path, devices, options
):
    """The same samples are drawn, and as many in each part."""
    run(tmp_path, dataclasses.replace(STEADY, **options), devices=devices)
    ours, theirs = variables_of(tmp_path), variables_of(whole[1])
    assert_close(ours, theirs, rtol=2e-3, atol=2e-5)
    lines = zip(*map(read_log, (tmp_path, whole[1])), strict=True)
    for one, other in lines:
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4), one["step"]


def test_an_evaluation_on_several_devices_is_that_of_one(whole):
    network = trained.from_workdir(whole[1], task="detection")
    one, four = (
        DETECTION.evaluator(network.model, SCENES, network.config, jax.devices()[:count])
        for count in (1, 4)
    )
    expected, found = (evaluate(network.variables) for evaluate in (one, four))
    for metrics in (expected, found):
        metrics.pop("seconds_per_image")
    assert found == expected
    assert found["images"] == 4


def test_two_hosts_train_on_different_examples():
    settings = {"image_size": 32, "start_step": 0, "process_count": 2}
    config = changed(flip=False, num_threads=0)
    hosts = [DETECTION.train_batches(SCENES, config, process_index=i, **settings) for i in range(2)]
    for _ in range(2):  # an epoch of four examples
        first, second = (next(host)["image"] for host in hosts)
        assert len(first) == len(second) == 1
        assert (first != second).any()


def test_a_detector_trains_on_batches_of_one_image(tmp_path):
    assert run(tmp_path, changed(batch_size=1, steps=2)).step == 2


def test_a_finished_detector_that_is_given_more_steps_goes_on(tmp_path):
    said = []
    constant = dataclasses.replace(STEADY, schedule="constant", steps=4)
    run(tmp_path / "run", dataclasses.replace(constant, steps=2))
    extended = run(tmp_path / "run", constant, progress=loop.Callbacks(said.append))
    assert said[1].startswith("the run grows from 2 to 4 steps; so far it went as 4 steps")
    assert extended.parameters_sha256 == run(tmp_path / "whole", constant).parameters_sha256


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


def test_a_run_goes_on_by_the_names_of_its_classes(whole, tmp_path):
    stopped(tmp_path, STEADY)
    train_set, eval_set = loop.load_datasets(
        STEADY, on(turned(SCENES), DETECTION), SCENES.class_names, "the run"
    )
    assert train_set.class_names == eval_set.class_names == SCENES.class_names
    for i, scene in enumerate(SCENES.source):
        for again in (train_set, eval_set):
            np.testing.assert_array_equal(
                again.source[i]["objects"]["label"], scene["objects"]["label"]
            )
    resumed = run(tmp_path, STEADY, scenes=turned(SCENES))
    assert resumed.parameters_sha256 == whole[0].parameters_sha256


def test_a_class_renamed_between_two_halves_of_a_run_is_one_error(whole):
    names = ("background", "blob", *SCENES.class_names[2:])
    with pytest.raises(UsageError, match=r"'blob' \(1 of 9\) unknown"):
        run(whole[1], STEADY, scenes=SCENES._replace(class_names=names))


def test_a_detector_starts_from_another_s_network_and_keeps_the_classes_it_knows(whole, tmp_path):
    config = changed(steps=1, learning_rate=0.0, weight_decay=0.0, init_from=str(whole[1]))
    said = []
    run(tmp_path / "again", config, progress=loop.Callbacks(said.append))
    assert said[0].endswith("step 8: the head with it")
    assert same(variables_of(tmp_path / "again"), variables_of(whole[1]))
    names = ("background", "blob", *SCENES.class_names[2:])
    scenes = SCENES._replace(class_names=names)
    run(tmp_path / "other", config, scenes=scenes, progress=loop.Callbacks(said.append))
    assert any("of the head 8 of 9 classes, by name" in line for line in said)
    kept, new = (variables_of(each)["params"] for each in (whole[1], tmp_path / "other"))
    kernels = (each["backbone"]["conv"]["kernel"] for each in (kept, new))
    np.testing.assert_array_equal(*kernels)


def test_frozen_norms_keep_their_running_statistics(tmp_path, monkeypatch):
    def backbone(scope, images):
        return [scope.child(conv_bn, "conv")(images, 4, size=3, stride=4)]

    entry = faster_rcnn.detector(FASTER._replace(backbone=backbone), 32, 9)
    monkeypatch.setitem(registry.MODELS, "tiny_faster", entry)
    for freeze, stays in ((".*bn", True), (".*bn/scale", False)):
        config = dataclasses.replace(CONFIG, steps=1, freeze=freeze)
        run(tmp_path / str(stays), config)
        found = variables_of(tmp_path / str(stays))["batch_stats"]
        means = [leaf for path, leaf in flatten_dict(found).items() if path[-1] == "mean"]
        assert all(not np.any(mean) for mean in means) == stays


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(tmp_path):
    config = changed(learning_rate=1e30, checkpoint_every=1, steps=8, warmup_steps=2)
    with pytest.raises(Diverged, match=r"is (nan|inf) at step \d; last good checkpoint: step \d"):
        run(tmp_path, config)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables_of(tmp_path)))


@pytest.mark.parametrize(("name", "task"), [("tiny_faster", GIVEN), ("tiny_fast", DETECTION)])
def test_proposals_go_with_the_detectors_that_propose_none(tmp_path, name, task):
    with pytest.raises(UsageError, match=f"{name} (proposes regions itself|needs proposals)"):
        run(tmp_path, changed(model=name), task)
    assert not list(tmp_path.iterdir())


def test_rcnn_is_finetuned_fitted_and_finds(tmp_path):
    run(tmp_path, changed(model="tiny_rcnn", steps=2), GIVEN)
    losses = loop.last_metrics(tmp_path)
    assert set(losses) == {"loss", "classifier", "gradient_norm", "learning_rate"}
    settings = {"canvas": 32, "max_objects": 8, "proposals": BOXES, "max_proposals": 5}
    batches = list(data.evaluation_batches(SCENES, batch_size=3, **settings))
    variables = variables_of(tmp_path)
    near = {"near": 0.1}  # of so few proposals
    fitted = rcnn_training.fit(variables, batches, 9, RCNN, SCENES, **near)
    rcnn_training.save(tmp_path / "fitted.npz", fitted)
    fitted = rcnn_training.load(tmp_path / "fitted.npz")
    detect = rcnn_training.create_detector(RCNN, 9, SCENES)
    found = list(detector.detect_all(detect, (variables, fitted), batches))
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
