"""The table of tasks; those other than classification through the same step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import plugins
from cnn_jax.data.augmentation import Augmentation
from cnn_jax.data.segmentation import validate
from cnn_jax.errors import UsageError
from cnn_jax.models import create_model
from cnn_jax.runtime import parallel
from cnn_jax.tasks import segmentation
from cnn_jax.training import config as configs
from cnn_jax.training import task as tasks
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.state import create_state
from cnn_jax.training.step import create_train_step
from cnn_jax.training.task import CLASSIFICATION, DETECTION, SEGMENTATION, TASKS, check_options

KEY = jax.random.key(0, impl="rbg")  # whose draws compile in a third of the time

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONFIG = TrainConfig(
    model="unet", num_classes=3, steps=4, image_size=8, batch_size=16, dice_weight=0.5
)


def batch_of(step):
    """Images whose classes show as grey levels, each with another share of pixels ignored."""
    rng = np.random.default_rng(step)
    mask = rng.integers(0, 3, (16, 8, 8)).astype(np.uint8)
    image = np.repeat(80 * mask[..., None], 3, axis=-1)
    mask[rng.random(mask.shape) < np.linspace(0, 1, 16)[:, None, None]] = segmentation.IGNORED
    return {"image": image, "mask": mask}


def run(over, batches):
    """Return the parameters and metrics after a step for each batch."""
    model = create_model("unet", 3, features=(2, 4))
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3))))
    variables = init(KEY)
    optimizer = create_optimizer(CONFIG, variables["params"])
    step = over.compile(
        create_train_step(model, optimizer, CONFIG, MEAN, STD, over.axis_name, SEGMENTATION)
    )
    state = create_state(model, optimizer, variables, ema=False)
    state = over.put_state(jax.tree.map(np.asarray, state))
    metrics = []
    for batch in batches:
        state, values = step(state, over.put_batch(batch))
        metrics.append({name: float(value) for name, value in values.items()})
    return jax.tree.map(np.asarray, over.get_state(state).params), metrics


@pytest.fixture(scope="module")
def reference():
    """Three steps on one device."""
    return run(parallel.over_mesh(jax.devices()[:1]), [batch_of(i) for i in range(3)])


@pytest.mark.parametrize("over", [parallel.over_mesh, parallel.over_pmap])
def test_eight_devices_make_the_update_of_one_though_they_count_other_pixels(reference, over):
    params, metrics = run(over(jax.devices()), [batch_of(i) for i in range(3)])
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(reference[0]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(metrics, reference[1], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_a_batch_without_a_pixel_that_counts_changes_nothing_but_the_decay(reference):
    batch = batch_of(0)
    batch["mask"] = np.full_like(batch["mask"], segmentation.IGNORED)
    over = parallel.over_mesh(jax.devices()[:1])
    params, metrics = run(over, [batch, *(batch_of(i) for i in range(2))])
    assert metrics[0]["loss"] == metrics[0]["gradient_norm"] == metrics[0]["accuracy"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert metrics[2]["loss"] == pytest.approx(reference[1][1]["loss"], rel=0.2)


# an option of each kind, and the tasks that read it
READ_BY = {
    "mixup": (0.2, {"classification"}),
    "class_weights": ("balanced", {"classification", "segmentation"}),
    "sampler": ("balanced", {"classification", "localization"}),
    "mask_values": ("0:ground", {"segmentation"}),
    "color_jitter": ((0.1, 0, 0, 0), {"classification", "localization", "segmentation"}),
    "max_objects": (9, {"detection"}),
    "ema_decay": (0.9, {*TASKS}),
    "accumulate": (2, {*TASKS}),
    "eval_every": (5, {*TASKS}),
    "parallel": ("pmap", {*TASKS}),
    "num_threads": (1, {*TASKS}),
}


@pytest.mark.parametrize("name", READ_BY)
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_refuses_what_others_read_and_it_does_not(task, name):
    value, readers = READ_BY[name]
    config = TrainConfig(**{name: value})
    if task.name in readers:
        check_options(config, task)
    else:
        with pytest.raises(UsageError, match=f"--{name} is not for {task.name}; leave it out"):
            check_options(config, task)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_resolved_configuration_is_taken_as_its_run_was_given(task):
    check_options(TrainConfig(image_size=64, eval_image_size=64, eval_resize=64), task)
    with pytest.raises(UsageError, match="--eval_image_size is not for detection"):
        check_options(TrainConfig(image_size=64, eval_image_size=96), DETECTION)


def test_rows_name_options_that_exist():
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    assert all(known.issuperset(task.reads) for task in TASKS.values())
    assert set(TASKS) == {"classification", "localization", "segmentation", "detection"}
    assert TASKS["detection"] is DETECTION


@pytest.mark.parametrize("name", ["alternating_flip", "policy", "erasing", "mixup", "cutmix"])
def test_what_masks_cannot_be_augmented_by_is_not_read_by_segmentation(name):
    value = {"policy": "randaugment"}.get(name, 1)
    with pytest.raises(UsageError, match=f"--{name} is not for masks"):
        validate(Augmentation(**{name: value}))
    assert name in CLASSIFICATION.reads
    assert name not in SEGMENTATION.reads


@pytest.fixture
def tables(monkeypatch):
    """What is registered ends with the test."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(plugins, "REGISTERED", {})
    monkeypatch.setattr(configs, "BETTER", dict(configs.BETTER))


def test_a_task_is_registered_with_its_metrics(tables):
    own = tasks.CLASSIFICATION._replace(name="own", logged=("loss", "sharpness"))
    with pytest.raises(UsageError, match="'own' logs sharpness, and not whether more of it is"):
        tasks.register_task(own)
    assert "own" not in tasks.TASKS
    tasks.register_task(own, better={"sharpness": "max"})
    assert tasks.TASKS["own"] is own
    assert configs.BETTER["sharpness"] == "max"
    with pytest.raises(UsageError, match="there is a task 'own' already"):
        tasks.register_task(own)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            tasks.CLASSIFICATION._replace(name="x", reads=("mixups",)),
            "unknown option 'mixups'",
        ),
        (tasks.CLASSIFICATION, "there is a task 'classification' already"),
        ("classification", "is no training.task.Task"),
    ],
)
def test_a_row_that_is_none_is_refused(row, message, tables):
    with pytest.raises(UsageError, match=message):
        tasks.register_task(row)


def test_networks_of_this_package_are_trained_as_classifiers_by_train(tables):
    assert tasks.of_model("unet") is tasks.CLASSIFICATION  # which refuses it
