"""Class weights: what a user writes, and the loss they make, against torch's in float64."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from cnn_jax.errors import UsageError
from cnn_jax.runtime import parallel
from cnn_jax.training import class_weights
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import create_train_step
from cnn_jax.training.task import CLASSIFICATION, SEGMENTATION

NAMES = ("bird", "cat", "dog")
TORCH = np.load(Path(__file__).parents[1] / "references" / "class_weights.npz")


def test_a_number_for_each_class():
    np.testing.assert_array_equal(class_weights.parse("0.5,1, 2", NAMES), [0.5, 1, 2])


def test_classes_by_name_others_weigh_one():
    np.testing.assert_array_equal(class_weights.parse("dog:4, bird:0", NAMES), [0, 1, 4])
    np.testing.assert_array_equal(class_weights.parse("a:b:2", ("a:b", "c")), [2, 1])


def test_balanced_weights_are_scikit_learns():
    counts = np.array([10, 30, 60])
    expected = compute_class_weight(
        "balanced", classes=np.arange(3), y=np.repeat(np.arange(3), counts)
    )
    np.testing.assert_allclose(class_weights.balanced(counts), expected)


def test_a_class_without_examples_changes_no_other_ones_balance():
    np.testing.assert_allclose(class_weights.balanced(np.array([10, 0, 30])), [2, 1, 2 / 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2", "2 numbers for 3 classes"),
        ("cat:2,3", "is not understood"),
        ("", "is not understood"),
        ("cats:2", "did you mean 'cat'"),
        ("cat:-1", "'-1' is no weight"),
        ("cat:nan", "'nan' is no weight"),
        ("1,2,many", "'many' is no weight"),
        ("0,0,0", "are all 0"),
    ],
)
def test_what_are_no_weights_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        class_weights.parse(text, NAMES)


def test_the_rare_classes_are_not_favoured_twice():
    with pytest.raises(UsageError, match="twice"):
        TrainConfig(class_weights="balanced", sampler="balanced")


class Lookup:
    """A network whose parameters are its logits, by the number that an image's pixel holds."""

    def apply(self, variables, images, **options):
        rows = jnp.round(255 * images[:, 0, 0, 0]).astype(int)
        return variables["params"]["logits"][rows], {}


GRADIENT_ALONE = SimpleNamespace(
    update=lambda gradients, state, params: (jax.tree.map(jnp.negative, gradients), state)
)


def loss_and_gradient(task, batch, logits, config, over):
    """Return what a training step makes of these logits: the loss and their gradient."""
    step = create_train_step(
        Lookup(),
        GRADIENT_ALONE,
        config,
        mean=(0.0,),
        std=(1.0,),
        axis_name=over.axis_name,
        task=task,
        class_weights=TORCH["weights"],
    )
    numbers = np.arange(len(logits), dtype=np.uint8)
    batch = batch | {"image": numbers[:, None, None, None]}
    state = TrainState(np.zeros((), np.int32), {"logits": logits}, {}, {}, {})
    state, metrics = over.compile(step)(over.put_state(state), over.put_batch(batch))
    return float(metrics["loss"]), logits - np.asarray(over.get_state(state).params["logits"])


def cases():
    """Name -> task, batch, options, logits, and torch's loss and gradient."""
    labelled = {"label": TORCH["label"]}
    mixed = labelled | {"mixed_label": TORCH["mixed_label"], "mix": TORCH["mix"]}
    weights, mix = TORCH["weights"], TORCH["mix"]
    total = (mix * weights[TORCH["label"]] + (1 - mix) * weights[TORCH["mixed_label"]]).sum()
    smooth = {"label_smoothing": 0.1}
    return {
        "hard": (CLASSIFICATION, labelled, {}, "logits", 1),
        "smooth": (CLASSIFICATION, labelled, smooth, "logits", 1),
        "mixed_sum": (CLASSIFICATION, mixed, smooth, "logits", total),
        "mask": (SEGMENTATION, {"mask": TORCH["mask"]}, {}, "mask_logits", 1),
    }


@pytest.mark.parametrize(
    ("over", "devices", "accumulate"),
    [(parallel.over_mesh, 1, 1), (parallel.over_mesh, 2, 2), (parallel.over_pmap, 2, 2)],
)
@pytest.mark.parametrize("case", ["hard", "smooth", "mixed_sum", "mask"])
def test_the_loss_and_its_gradient_are_torchs_over_devices_and_parts(
    case, over, devices, accumulate
):
    task, batch, options, logits, divisor = cases()[case]
    config = TrainConfig(num_classes=5, steps=1, accumulate=accumulate, **options)
    with jax.enable_x64(True):
        over = over(jax.devices()[:devices])
        loss, gradient = loss_and_gradient(task, batch, TORCH[logits], config, over)
    assert loss == pytest.approx(TORCH[f"{case}/loss"] / divisor, rel=1e-6)
    np.testing.assert_allclose(gradient, TORCH[f"{case}/gradient"] / divisor, atol=1e-12)


def test_a_batch_of_classes_that_weigh_nothing_teaches_nothing():
    batch = {"label": np.full(16, 2, np.int32)}  # the weight of class 2 is 0
    config = TrainConfig(num_classes=5, steps=1)
    over = parallel.over_mesh(jax.devices()[:1])
    loss, gradient = loss_and_gradient(CLASSIFICATION, batch, TORCH["logits"], config, over)
    assert loss == 0
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
