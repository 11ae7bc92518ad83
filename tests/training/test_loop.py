"""A whole run: resumed, stopped, killed, diverged; each ends as it should, to the bit."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import create_model, save_weights, trained
from cnn_jax.data import datasets
from cnn_jax.errors import UsageError
from cnn_jax.training import checkpoint, loop
from cnn_jax.training import config as configs
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.log import read_log
from cnn_jax.training.recipes import recipe
from cnn_jax.training.task import CLASSIFICATION, TASKS

CONFIG = TrainConfig(
    model="lenet5",
    model_options="filters=(4,), neurons=(16,)",
    dataset="digits",
    crop="pad",
    pad=1,
    mixup=0.2,
    steps=12,
    batch_size=32,
    learning_rate=0.05,
    checkpoint_every=4,
    log_every=2,
    ema_decay=0.9,
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("digits", folder)
    return str(folder)


@pytest.fixture
def config(data_dir):
    return dataclasses.replace(CONFIG, data_dir=data_dir)


def run(config, workdir, **kwargs):
    return loop.train(config, workdir, devices=jax.devices()[:1], **kwargs)


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """The uninterrupted run: its result and its folder."""
    workdir = tmp_path_factory.mktemp("whole")
    return run(dataclasses.replace(CONFIG, data_dir=data_dir), workdir), workdir


def test_a_run_leaves_what_it_says(whole):
    result, workdir = whole
    assert result.step == 12
    assert result.evaluation["examples"] == len(datasets.load("digits", "test").source)
    assert {line["step"] for line in read_log(workdir)} == {2, 4, 6, 8, 10, 12}
    assert (workdir / "config.json").exists()
    assert list((workdir / "tensorboard").iterdir())


def test_a_short_run_is_not_evaluated_by_its_initial_weights(whole):
    """Of the decay alone 0.9**12 = 28 % of the average would be those."""
    result, workdir = whole
    averaged, raw = result.evaluation["loss"], result.raw_evaluation["loss"]
    assert averaged == pytest.approx(raw, rel=0.02)
    assert averaged != raw
    assert set(result.raw_evaluation) == set(CLASSIFICATION.logged)
    ours, theirs = (trained.from_workdir(workdir, averaged=each) for each in (False, True))
    assert ours.source["parameters_sha256"] == result.parameters_sha256
    assert ours.source["parameters_sha256"] != theirs.source["parameters_sha256"]
    assert (ours.source["averaged"], theirs.source["averaged"]) == (False, True)


@pytest.mark.slow
def test_two_hundred_steps_with_a_slow_average_recognise_digits(data_dir, tmp_path):
    digits = recipe("digits") | {"steps": 200, "epochs": None, "ema_decay": 0.999}
    result = run(TrainConfig(**digits, data_dir=data_dir), tmp_path)
    assert result.evaluation["top1_error"] < 0.03
    assert result.raw_evaluation["top1_error"] < 0.03


def test_a_run_stopped_by_sigterm_and_resumed_has_the_bits_of_the_whole(whole, config, tmp_path):
    def stop_at_six(step, metrics):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    said = []
    first = run(config, tmp_path, progress=loop.Callbacks(say=said.append, update=stop_at_six))
    assert 6 <= first.step < 12
    assert f"saved step {first.step}" in said[-1]
    second = run(config, tmp_path)
    assert second.goodput["starts"] == 2
    assert second.goodput["repeated"] == 0
    assert second.goodput["seconds"] > first.goodput["seconds"]
    assert second.parameters_sha256 == whole[0].parameters_sha256
    assert second.evaluation == whole[0].evaluation
    ours, theirs = (
        [(line["step"], line.get("loss")) for line in read_log(folder)]
        for folder in (tmp_path, whole[1])
    )
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    assert ours[-2:] == theirs[-2:]


def test_a_finished_run_repeats_its_result(whole, config):
    again = run(config, whole[1])
    assert again.parameters_sha256 == whole[0].parameters_sha256
    assert again.loss == whole[0].loss


def evaluating_to(values):
    """Classification whose evaluations come to these top-1 errors, one after the other."""
    left = iter(values)

    def evaluator(*args):
        evaluate = CLASSIFICATION.evaluator(*args)
        return lambda variables: evaluate(variables) | {"top1_error": next(left)}

    return CLASSIFICATION._replace(evaluator=evaluator)


def test_the_best_checkpoint_stays_beside_the_latest_and_can_be_taken(config, tmp_path):
    config = dataclasses.replace(
        config, steps=6, checkpoint_every=1, keep=1, keep_best="top1_error", eval_every=2
    )
    task = evaluating_to(
        [0.5, 0.2, float("nan"), 0.2, 0.4, 0.3, 0.3]
    )  # each step once, the last twice
    said = []
    result = run(config, tmp_path, task=task, progress=loop.Callbacks(say=said.append))
    assert result.best == {"metric": "top1_error", "step": 4, "value": 0.2}  # the later of equals
    assert "best top1_error of the checkpoints: 0.2000 at step 4" in said
    assert checkpoint.steps(tmp_path / "checkpoints") == [4, 6]
    assert trained.from_workdir(tmp_path, "best").source["step"] == 4
    assert trained.from_workdir(tmp_path).source["step"] == 6


def test_a_resumed_run_still_knows_its_best_checkpoint(config, tmp_path):
    config = dataclasses.replace(config, steps=6, checkpoint_every=1, keep=1)
    best = dataclasses.replace(config, keep_best="top1_error")

    def stop_at_three(step, metrics):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    task = evaluating_to([0.5, 0.1, 0.4, 0.3, 0.3, 0.3, 0.3])
    first = run(best, tmp_path, task=task, progress=loop.Callbacks(update=stop_at_three))
    assert first.step < 6
    assert first.best["step"] == 2
    assert run(config, tmp_path, task=task).best["step"] == 2  # though it does not say so again
    assert checkpoint.steps(tmp_path / "checkpoints") == [2, 6]


def test_a_run_that_keeps_no_best_checkpoint_says_so(whole):
    with pytest.raises(UsageError, match=r"keeps no best checkpoint.* its steps: 4, 8, 12"):
        trained.from_workdir(whole[1], "best")


def test_metrics_that_are_never_numbers_leave_no_best_checkpoint(config, tmp_path):
    config = dataclasses.replace(config, steps=2, keep_best="top1_error")
    result = run(config, tmp_path, task=evaluating_to([float("nan")] * 2))
    assert result.best is None
    with pytest.raises(UsageError, match="has a top1_error to be the best by"):
        trained.from_workdir(tmp_path, "best")


def test_an_evaluation_that_fails_loses_no_training(config, tmp_path):
    config = dataclasses.replace(config, steps=4, keep_best="loss")
    with pytest.raises(loop.EvaluationFailed, match="of step 4 failed: StopIteration") as raised:
        run(config, tmp_path, task=evaluating_to([]))
    assert checkpoint.steps(tmp_path / "checkpoints") == [4]
    result = raised.value.result
    assert (result.step, result.evaluation) == (4, None)
    assert result.loss > 0


def test_an_evaluation_that_fails_on_the_way_loses_no_step(config, tmp_path):
    config = dataclasses.replace(config, steps=4, eval_every=1, checkpoint_every=4)
    with pytest.raises(loop.EvaluationFailed, match="step 2") as raised:
        run(config, tmp_path, task=evaluating_to([0.5]))
    assert checkpoint.steps(tmp_path / "checkpoints") == [2]
    assert raised.value.result.evaluation["top1_error"] == 0.5  # the last that was measured


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_all_that_an_evaluation_logs_can_choose_the_best_checkpoint(task):
    assert set(task.logged) <= set(configs.BETTER)


def test_a_metric_of_another_task_keeps_nothing(config, tmp_path):
    with pytest.raises(UsageError, match="unknown metric of classification 'mean_iou'"):
        run(dataclasses.replace(config, keep_best="mean_iou"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_version_without_an_option_goes_on(whole, config, tmp_path):
    shutil.copytree(whole[1], tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    written = json.loads(file.read_text())
    del written["sampler"], written["class_weights"]
    file.write_text(json.dumps(written))
    assert run(config, tmp_path / "old").parameters_sha256 == whole[0].parameters_sha256
    with pytest.raises(UsageError, match='sampler: "shuffle" there, "balanced" here'):
        run(dataclasses.replace(config, sampler="balanced"), tmp_path / "old")


def test_a_damaged_newest_checkpoint_is_made_again(whole, config, tmp_path):
    run(config, tmp_path)
    for data in (tmp_path / "checkpoints" / "12" / "state").rglob("d/*"):
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    said = []
    result = run(config, tmp_path, progress=loop.Callbacks(say=said.append))
    assert any("damaged" in line for line in said)
    assert "resuming from step 8" in said
    assert result.parameters_sha256 == whole[0].parameters_sha256


@pytest.mark.parametrize("options", [{"class_weights": "balanced"}, {"sampler": "balanced"}])
def test_a_balanced_run_resumed_has_the_bits_of_the_whole(config, tmp_path, options):
    config = dataclasses.replace(config, train_split="train[:50]", **options)
    unbalanced = dataclasses.replace(config, class_weights=None, sampler="shuffle")
    balanced = run(config, tmp_path / "run")
    assert balanced.parameters_sha256 != run(unbalanced, tmp_path / "other").parameters_sha256
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    assert run(config, tmp_path / "run").parameters_sha256 == balanced.parameters_sha256


def test_the_weights_of_the_classes_are_said(config, tmp_path):
    said = []
    config = dataclasses.replace(config, steps=1, class_weights="3:0.25,8:4")
    run(config, tmp_path, progress=loop.Callbacks(say=said.append))
    assert "class weights: 0.25 (3) to 4 (8)" in said


def test_a_finished_run_that_is_given_more_steps_goes_on(whole, config, tmp_path):
    config = dataclasses.replace(config, schedule="constant")
    said = []
    progress = loop.Callbacks(say=said.append)
    run(dataclasses.replace(config, steps=6), tmp_path)
    extended = run(config, tmp_path, progress=progress)
    assert "resuming from step 6" in said
    assert "the run grows from 6 to 12 steps; so far it went as 12 steps from the start" in said[1]
    from_start = run(config, tmp_path / "from_start")
    assert extended.parameters_sha256 == from_start.parameters_sha256
    said.clear()
    again = run(config, tmp_path, progress=progress)
    assert again.parameters_sha256 == extended.parameters_sha256
    assert not any("grows" in line for line in said)
    with pytest.raises(UsageError, match="does not shrink to 6"):
        run(dataclasses.replace(config, steps=6), tmp_path)


def test_more_epochs_are_more_steps_and_the_falling_schedule_is_said(config, tmp_path):
    config = dataclasses.replace(config, train_split="train[:64]", steps=None, epochs=3)
    said = []
    assert run(config, tmp_path).step == 6
    config = dataclasses.replace(config, epochs=6)
    assert run(config, tmp_path, progress=loop.Callbacks(say=said.append)).step == 12
    assert "the schedule is now that of 12 steps" in said[1]
    rates = {line["step"]: line.get("learning_rate") for line in read_log(tmp_path)}
    assert rates[8] == pytest.approx(0.05 * (1 + np.cos(np.pi * 7 / 12)) / 2, rel=1e-5)


def test_another_configuration_is_refused_and_nothing_changes(whole, config):
    before = {p: p.read_bytes() for p in whole[1].rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="learning_rate"):
        run(dataclasses.replace(config, learning_rate=0.2), whole[1])
    assert before == {p: p.read_bytes() for p in whole[1].rglob("*") if p.is_file()}


@pytest.mark.slow
def test_images_grow_and_a_resumed_run_goes_on_at_their_size(config, tmp_path):
    sizes = []

    def recorded(*args, **settings):
        for batch in CLASSIFICATION.train_batches(*args, **settings):
            sizes.append(batch["image"].shape[1:3])
            yield batch

    growing = dataclasses.replace(
        config,
        model="resnet20",
        model_options="depth=8",
        steps=4,
        image_size=12,
        start_image_size=8,
        image_size_stages=2,
        checkpoint_every=3,
    )
    task = CLASSIFICATION._replace(train_batches=recorded)
    whole = run(growing, tmp_path / "whole", task=task)
    assert sizes == [(8, 8)] * 2 + [(12, 12)] * 2
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "4")
    sizes.clear()
    resumed = run(growing, tmp_path / "resumed", task=task)
    assert resumed.parameters_sha256 == whole.parameters_sha256
    assert sizes == [(12, 12)]


@pytest.mark.parametrize("parts", [{"batch_size": 1}, {"batch_size": 4, "accumulate": 4}])
def test_batch_norms_of_one_value_a_channel_are_refused_before_anything_is_written(
    config, tmp_path, parts
):
    norms = {"model": "resnet20", "model_options": "depth=8", "mixup": 0.0, "image_size": 4}
    config = dataclasses.replace(config, **norms, **parts, steps=1)
    with pytest.raises(UsageError, match=r"^stage3_block1/conv1/bn is .* one value a channel"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_whose_weights_depend_on_the_size_takes_no_growing_images(config, tmp_path):
    with pytest.raises(UsageError, match="start_image_size"):
        run(dataclasses.replace(config, start_image_size=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_mistake_writes_nothing(config, tmp_path):
    for options in (
        {"batch_size": 31, "accumulate": 2},
        {"num_classes": 3},
        {"freeze": "none"},
        {"crop": "resized", "crop_scale": (2.0, 3.0)},
        {"erasing": 1.5},
        {"class_weights": "eleven:2"},
    ):
        with pytest.raises(UsageError):
            run(dataclasses.replace(config, **options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_divergence_names_step_metric_and_last_good_checkpoint(config, tmp_path):
    config = dataclasses.replace(config, learning_rate=1e18, warmup_steps=6, warmup_start=1e-22)
    with pytest.raises(loop.Diverged, match=r"(loss|gradient_norm) is (nan|inf) at step \d+") as e:
        run(dataclasses.replace(config, checkpoint_every=1), tmp_path)
    assert "last good checkpoint: step" in str(e.value)
    variables = trained.from_workdir(tmp_path).variables
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


def test_the_checkpoint_rebuilds_the_averaged_network(whole):
    network = trained.from_workdir(whole[1])
    assert network.source["averaged"]
    assert network.model.num_classes == 10
    assert network.preprocessing.image_size == 8
    assert (network.mean, len(network.class_names)) == (datasets.STATISTICS["digits"][0], 10)
    logits = network.model.apply(network.variables, np.zeros((1, 8, 8, 1), np.float32))
    assert logits.shape == (1, 10)


def coloured(draw_pets, folder, **options):
    """A configuration of four steps on a folder of birds, cats and dogs."""
    dataset = draw_pets(folder, bird=(1, 0, 0), cat=(0, 1, 0), dog=(0, 0, 1))
    small = {"dataset": dataset, "image_size": 8, "batch_size": 8, "steps": 4, "mixup": 0.0}
    return dataclasses.replace(CONFIG, **small, **options)


def test_a_class_renamed_between_two_halves_of_a_run_is_one_error(draw_pets, tmp_path):
    """The folders' order would give the cats, now kittens, the label that the dogs had."""
    config = coloured(draw_pets, tmp_path / "images", checkpoint_every=2)
    run(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    (tmp_path / "images" / "cat").rename(tmp_path / "images" / "kitten")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"'kitten' \(1 of 3\) unknown; 'cat' \(1 of 3\) missing"):
        run(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "images" / "kitten")
    with pytest.raises(UsageError, match=r"the run in .*: 'cat' \(1 of 3\) missing"):
        run(config, tmp_path / "run")
    assert all(p.read_bytes() == content for p, content in before.items() if p.exists())


def test_a_run_goes_on_by_the_names_of_its_classes(draw_pets, tmp_path):
    """A data set may come to list its classes in another order, as one prepared anew."""

    def listed_backwards(name, split, data_dir=None):
        dataset = datasets.load(name, split, data_dir)
        last = dataset.num_classes - 1
        turned = [x | {"label": last - x["label"]} for x in dataset.source]
        return dataset._replace(source=turned, class_names=dataset.class_names[::-1])

    config = coloured(draw_pets, tmp_path / "images", checkpoint_every=2)
    whole = run(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    task = CLASSIFICATION._replace(load=listed_backwards)
    resumed = run(config, tmp_path / "run", task=task)
    assert resumed.parameters_sha256 == whole.parameters_sha256
    assert resumed.evaluation == whole.evaluation


def test_the_splits_of_one_folder_are_matched_by_name(draw_pets, tmp_path):
    options = {"train_split": "train", "eval_split": "validation"}
    config = coloured(draw_pets, tmp_path / "train", **options)
    config = dataclasses.replace(config, dataset=f"folder:{tmp_path}")
    draw_pets(tmp_path / "val", dog=(0, 0, 1))
    result = run(config, tmp_path / "run")
    assert result.evaluation["class_names"] == ["bird", "cat", "dog"]
    assert sum(result.evaluation["confusion"][2]) == 10
    draw_pets(tmp_path / "val", fox=(1, 1, 0))
    with pytest.raises(UsageError, match="fox"):
        run(config, tmp_path / "other")

    def other_names(name, split, data_dir=None):
        dataset = datasets.load("folder:" + str(tmp_path / "train"), "test")
        return (
            dataset if split == "train" else dataset._replace(class_names=("bird", "cat", "wolf"))
        )

    with pytest.raises(
        UsageError, match=r"not those of its split train: 'wolf' \(1 of 3\) unknown"
    ):
        run(config, tmp_path / "other", task=CLASSIFICATION._replace(load=other_names))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_fine_tuning_takes_all_but_the_head_from_the_file(config, tmp_path):
    options = {"depth": 8}
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
    published = create_model("resnet20", 7, **options).init(jax.random.key(5), images)
    save_weights("resnet20", published, tmp_path / "w.safetensors", num_classes=7, **options)
    tuned = dataclasses.replace(
        config,
        model="resnet20",
        model_options="depth=8",
        init_from=str(tmp_path / "w.safetensors"),
        image_size=8,
        steps=2,
        learning_rate=0.0,
        ema_decay=None,
        freeze="stem",
    )
    run(tuned, tmp_path / "run")
    params = trained.from_workdir(tmp_path / "run").variables["params"]
    assert params["head"]["kernel"].shape == (64, 10)
    for name in set(params) - {"head"}:
        same = jax.tree.map(np.array_equal, params[name], published["params"][name])
        assert all(jax.tree.leaves(same)), name


@pytest.mark.slow
def test_the_recipe_of_seconds_learns_without_moving_its_whitening(data_dir, tmp_path):
    small = {
        "model_options": "widths=(16, 16, 16)",
        "image_size": 32,
        "batch_size": 100,
        "epochs": 4,
    }
    options = recipe("airbench94") | small | {"dataset": "digits", "data_dir": data_dir}
    result = run(TrainConfig(**options), tmp_path)
    assert result.step == round(4 * 1438 / 100)
    assert result.evaluation["top1_error"] < 0.2
    params = trained.from_workdir(tmp_path).variables["params"]
    for group in ("group1", "group2", "group3"):
        np.testing.assert_array_equal(params[group]["bn1"]["scale"], 1)
        norms = np.square(params[group]["conv2"]["kernel"]).sum() / 16
        assert norms == pytest.approx(1, rel=0.2)
    filters = params["whiten"]["kernel"]
    np.testing.assert_array_equal(filters[..., 4:], -filters[..., :4])


RUN = """
import dataclasses, json, sys
import jax
from cnn_jax.runtime import xla
xla.configure()
from cnn_jax.training import config, loop
options = config.from_dict(json.loads(sys.argv[2]))
result = loop.train(options, sys.argv[1], devices=jax.devices()[:1])
print(result.parameters_sha256)
"""


def start(config, workdir):
    arguments = [workdir, json.dumps(dataclasses.asdict(config))]
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_run_killed_again_and_again_has_the_bits_of_the_whole(data_dir, tmp_path):
    """kill -9 at moments that no step chooses, in processes of their own."""
    config = dataclasses.replace(CONFIG, data_dir=data_dir, steps=300, checkpoint_every=15)
    process = start(config, tmp_path / "whole")
    expected, _ = process.communicate(timeout=300)
    kills = 0
    for delay in (0, 0.02, 0.1, 0.5):  # a quick machine ends soon after its first checkpoint
        process = start(config, tmp_path / "killed")
        checkpoints = tmp_path / "killed" / "checkpoints"
        known = set(checkpoints.glob("[0-9]*")) if checkpoints.exists() else set()
        while process.poll() is None and not (set(checkpoints.glob("[0-9]*")) - known):
            time.sleep(0.005)
        time.sleep(delay)
        kills += process.poll() is None
        process.kill()
        process.wait()
    actual, _ = start(config, tmp_path / "killed").communicate(timeout=300)
    assert kills > 0
    assert actual == expected
    assert len(expected.strip()) == 64


@pytest.mark.parametrize(
    ("channels", "given", "mean"),
    [
        (1, None, (0.459,)),
        (4, None, (0.485, 0.456, 0.406, 0.5)),
        (1, (0.25,), (0.25,)),
    ],
)
def test_images_of_a_folder_are_trained_on_in_any_number_of_channels(
    tmp_path, channels, given, mean
):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(5):
            pixels = rng.integers(0, 256, (16, 16, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    config = TrainConfig(
        model="lenet5",
        model_options="filters=(4,), neurons=(16,)",
        dataset=f"folder:{tmp_path / 'data'}",
        image_size=16,
        channels=channels,
        mean=given,
        steps=1,
        batch_size=8,
    )
    run(config, tmp_path / "run")
    network = trained.from_workdir(tmp_path / "run")
    assert (network.config.channels, len(network.mean)) == (channels, channels)
    assert network.mean == mean
    pixels = np.zeros((2, 16, 16, channels), np.float32)
    assert trained.classifier(network)(pixels).shape == (2, 2)
