"""One update: the same on one device, jitted over eight, pmapped over eight, and by hand."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.models import create_model
from cnn_jax.runtime import parallel
from cnn_jax.tasks.classification import cross_entropy
from cnn_jax.training.config import RECOMPUTED, TrainConfig
from cnn_jax.training.objective import normalize_images
from cnn_jax.training.optimizer import create_optimizer
from cnn_jax.training.state import create_state, evaluated_variables
from cnn_jax.training.step import create_train_step

KEY = jax.random.key(0, impl="rbg")  # whose draws compile in a third of the time

MEAN, STD = (0.5,), (0.25,)
CONFIG = TrainConfig(
    model="resnet20",
    model_options="depth=8",
    num_classes=10,
    steps=10,
    image_size=8,
    batch_size=16,
    learning_rate=0.05,
)


@pytest.fixture(scope="module")
def model():
    return create_model("resnet20", 10, depth=8)


@pytest.fixture(scope="module")
def variables(model):
    return model.init(KEY, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))


def batch_of(step, size=16):
    """Of these seeds no unit comes so near to the edge of its ReLU that rounding decides."""
    rng = np.random.default_rng([step, 1])
    label = rng.integers(0, 10, size).astype(np.int32)
    image = rng.integers(0, 256, (size, 8, 8, 1)).astype(np.uint8)
    return {"image": np.minimum(image, 25 * (label[:, None, None, None] + 1)), "label": label}


def run(model, variables, config, over, steps, batch=batch_of):
    optimizer = create_optimizer(config, variables["params"])
    step = create_train_step(model, optimizer, config, MEAN, STD, axis_name=over.axis_name)
    step = over.compile(step)
    state = create_state(model, optimizer, variables, ema=config.ema_decay is not None)
    state = over.put_state(jax.tree.map(np.asarray, state))
    metrics = []
    for i in range(steps):
        state, values = step(state, over.put_batch(batch(i)))
        metrics.append({name: float(value) for name, value in values.items()})
    return jax.tree.map(np.asarray, over.get_state(state)), metrics


def one_device():
    return parallel.over_mesh(jax.devices()[:1])


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-3)) for x, y in pairs)


@pytest.fixture(scope="module")
def reference(model, variables):
    """Ten steps on one device."""
    return run(model, variables, CONFIG, one_device(), 10)


@pytest.mark.parametrize("over", [parallel.over_mesh, parallel.over_pmap])
def test_eight_devices_make_the_update_of_one(model, variables, reference, over):
    state, metrics = run(model, variables, CONFIG, over(jax.devices()), 10)
    assert state.step == 10
    assert largest_difference(reference[0].params, state.params) < 1e-5
    assert largest_difference(reference[0].batch_stats, state.batch_stats) < 1e-5
    for ours, theirs in zip(metrics, reference[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_ten_steps_change_every_parameter_and_statistic(variables, reference):
    before = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    after = {"params": reference[0].params, "batch_stats": reference[0].batch_stats}
    changed = jax.tree.map(lambda x, y: bool((np.asarray(x) != y).any()), before, after)
    assert all(jax.tree.leaves(changed))


def test_the_first_sgd_update_is_lr_times_gradient_plus_decay(model, variables):
    config = dataclasses.replace(CONFIG, schedule="constant", weight_decay=0.01)
    state, metrics = run(model, variables, config, one_device(), 1)
    batch = batch_of(0)

    def loss(params):
        images = normalize_images(jnp.asarray(batch["image"]), MEAN, STD)
        everything = variables | {"params": params}
        logits = model.apply(everything, images, train=True)
        return cross_entropy(logits, jnp.asarray(batch["label"])).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(variables["params"])
    expected = jax.tree.map(
        lambda p, g: p - 0.05 * (g + 0.01 * p * (p.ndim > 1)), variables["params"], gradients
    )
    assert largest_difference(expected, state.params) < 1e-5
    assert metrics[0]["loss"] == pytest.approx(float(value), rel=1e-5)
    assert metrics[0]["gradient_norm"] == pytest.approx(
        float(optax.global_norm(gradients)), rel=1e-4
    )


def test_accumulation_without_batch_norm_is_the_whole_batch():
    model = create_model("lenet5", 10, filters=(4,), neurons=(8,))
    variables = model.init(KEY, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    whole, _ = run(model, variables, CONFIG, one_device(), 3)
    parted = dataclasses.replace(CONFIG, accumulate=4)
    parts, _ = run(model, variables, parted, one_device(), 3)
    assert largest_difference(whole.params, parts.params) < 1e-5


GROUPS = dataclasses.replace(CONFIG, norm_batch=2, weight_decay=0.0, momentum=0.0)


@pytest.fixture(scope="module")
def grouped(model, variables):
    """The state after one step on one device, whose norms go by each two examples."""
    return run(model, variables, GROUPS, one_device(), 1)[0]


def test_norms_of_groups_are_those_of_small_batches_and_running_averages_their_mean(
    model, variables, grouped
):
    def part(i):
        return lambda step: {name: x[2 * i : 2 * i + 2] for name, x in batch_of(step).items()}

    alone = dataclasses.replace(GROUPS, norm_batch=None, batch_size=2)
    states = [run(model, variables, alone, one_device(), 1, part(i))[0] for i in range(8)]
    mean = jax.tree.map(lambda *xs: np.mean(xs, axis=0), *states)
    assert largest_difference(mean.params, grouped.params) < 1e-5
    assert largest_difference(mean.batch_stats, grouped.batch_stats) < 1e-5


@pytest.mark.parametrize(
    ("over", "accumulate"),
    [(parallel.over_mesh, 1), (parallel.over_pmap, 1), (one_device, 2), (one_device, 4)],
)
def test_groups_are_the_same_on_any_number_of_devices_and_parts(
    model, variables, grouped, over, accumulate
):
    config = dataclasses.replace(GROUPS, accumulate=accumulate)
    state, _ = run(model, variables, config, over(), 1)
    assert largest_difference(state.params, grouped.params) < 1e-5
    assert largest_difference(state.batch_stats, grouped.batch_stats) < 1e-5


def test_a_group_as_large_as_the_batch_is_the_batch(model, variables):
    whole, large = (
        run(model, variables, dataclasses.replace(CONFIG, norm_batch=size), one_device(), 1)[0]
        for size in (None, 64)
    )
    assert largest_difference(whole.params, large.params) == 0


@pytest.mark.parametrize(
    ("over", "size", "message"),
    [
        (one_device, 3, "groups of --norm_batch=3 do not divide the 16 examples; give another"),
        (parallel.over_pmap, 4, "the 2 examples on each of 8 devices; .* or --parallel=jit"),
    ],
)
def test_groups_that_do_not_divide_the_batch_are_an_error(model, variables, over, size, message):
    with pytest.raises(UsageError, match=message):
        run(model, variables, dataclasses.replace(CONFIG, norm_batch=size), over(), 1)


def test_averaged_weights_follow_their_recursion(model, variables):
    """The decay is that of TensorFlow's moving average, (1 + n) / (10 + n) up to ema_decay."""
    config = dataclasses.replace(CONFIG, ema_decay=0.2, ema_every=2)
    average = variables["params"]["head"]["kernel"]
    for steps, decay in ((1, None), (2, 2 / 11), (3, None), (4, 0.2)):
        state, _ = run(model, variables, config, one_device(), steps)
        if decay is not None:
            average = decay * average + (1 - decay) * state.params["head"]["kernel"]
        ema = evaluated_variables(state)["params"]["head"]["kernel"]
        np.testing.assert_allclose(ema, average, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [0, 100])
def test_an_average_soon_forgets_what_it_started_from(start):
    """The initial weights, or the average of a run that was begun without the ramp."""
    config = dataclasses.replace(CONFIG, ema_decay=0.9999)
    model = create_model("lenet5", 10, filters=(4,), neurons=(8,))
    variables = model.init(KEY, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    optimizer = create_optimizer(config, variables["params"])
    step = jax.jit(create_train_step(model, optimizer, config, MEAN, STD))
    state = create_state(model, optimizer, variables, ema=True)
    state = state._replace(step=jnp.int32(start), ema=jax.tree.map(lambda x: x + 1e3, state.ema))
    for i in range(20 + start):
        state, _ = step(state, batch_of(i))
    share = largest_difference(state.ema["params"], state.params) / 1e3
    assert share < 1e-2


def test_bfloat16_computes_low_and_keeps_the_state_high(model, variables, reference):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    state, metrics = run(model, variables, config, one_device(), 2)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.batch_stats)} == {"float32"}
    assert metrics[0]["loss"] == pytest.approx(reference[1][0]["loss"], rel=0.05)
    assert metrics[0]["loss"] != reference[1][0]["loss"]


@pytest.mark.parametrize("option", RECOMPUTED)
def test_rematerialisation_changes_no_number(model, variables, option):
    """After one update: in float32, the next may round a unit to the other side of its ReLU."""
    config = dataclasses.replace(CONFIG, **{option: True})
    state, _ = run(model, variables, config, one_device(), 1)
    plain, _ = run(model, variables, CONFIG, one_device(), 1)
    assert largest_difference(plain.params, state.params) < 1e-5


def test_frozen_layers_keep_weights_and_statistics(model, variables):
    config = dataclasses.replace(CONFIG, freeze="stem|stage1")
    state, _ = run(model, variables, config, one_device(), 2)
    same = jax.tree.map(
        lambda x, y: bool((np.asarray(x) == y).all()), variables["params"], state.params
    )
    for name, leaves in same.items():
        stays = name.startswith(("stem", "stage1"))
        assert all(jax.tree.leaves(leaves)) == stays, name
    assert (state.batch_stats["stem"]["bn"]["mean"] == 0).all()
    assert (state.batch_stats["stage2_block1"]["conv1"]["bn"]["mean"] != 0).any()


def with_statistics(variables):
    """The variables with running statistics that are no batch's."""

    def drawn(path, leaf):
        rng = np.random.default_rng(len(str(path)))
        return jnp.asarray(rng.uniform(0.5, 2, leaf.shape), jnp.float32)

    stats = jax.tree_util.tree_map_with_path(drawn, variables["batch_stats"])
    return variables | {"batch_stats": stats}


@pytest.mark.parametrize(
    ("over", "options"),
    [
        (one_device, {}),
        (one_device, {"accumulate": 4}),
        (one_device, {"remat": True}),
        (lambda: parallel.over_mesh(jax.devices()), {}),
        (lambda: parallel.over_pmap(jax.devices()), {}),
    ],
)
def test_frozen_layers_train_as_they_are_evaluated(model, variables, over, options):
    """With all but the head frozen, the training loss is that of the network as evaluated."""
    variables = with_statistics(variables)
    config = dataclasses.replace(CONFIG, freeze="stem|stage", **options)
    state, metrics = run(model, variables, config, over(), 1)
    batch = batch_of(0)
    logits = model.apply(variables, normalize_images(jnp.asarray(batch["image"]), MEAN, STD))
    loss = cross_entropy(logits, jnp.asarray(batch["label"])).mean()
    assert metrics[0]["loss"] == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"], state.batch_stats)


@pytest.mark.parametrize("adversary", ["pgd", "fast", "trades"])
def test_adversaries_see_frozen_layers_as_they_are_evaluated(model, variables, adversary):
    """One of no strength finds the loss of the network as evaluated, and moves no statistic."""
    variables = with_statistics(variables)
    config = dataclasses.replace(CONFIG, freeze="stem|stage", adversary=adversary)
    config = dataclasses.replace(config, adversary_eps=1e-7, adversary_steps=1)
    state, metrics = run(model, variables, config, one_device(), 1)
    batch = batch_of(0)
    logits = model.apply(variables, normalize_images(jnp.asarray(batch["image"]), MEAN, STD))
    loss = cross_entropy(logits, jnp.asarray(batch["label"])).mean()
    assert metrics[0]["loss"] == pytest.approx(float(loss), rel=1e-4)
    jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"], state.batch_stats)


@pytest.mark.parametrize("options", [{}, {"thaw_at": 2}, {"accumulate": 2}])
def test_no_backward_pass_is_made_for_what_is_frozen(model, variables, options):
    config = dataclasses.replace(CONFIG, freeze="stem|stage", **options)
    optimizer = create_optimizer(config, variables["params"])
    step = create_train_step(model, optimizer, config, MEAN, STD)
    state = create_state(model, optimizer, variables, ema=False)
    batch = batch_of(0)

    def convolutions(f, *arguments):
        return str(jax.make_jaxpr(f)(*arguments)).count(" = conv_general_dilated[")

    images = jnp.asarray(batch["image"], jnp.float32)
    forward = convolutions(partial(model.apply, variables), images)
    assert convolutions(step, state, batch) == forward > 0  # once in the loop over parts


def test_the_gradient_norm_is_that_of_what_is_trained(model, variables):
    """So that clipping does not depend on what is frozen."""
    config = dataclasses.replace(CONFIG, freeze="stem|stage", schedule="constant")
    config = dataclasses.replace(config, momentum=0.0, weight_decay=0.0)
    state, metrics = run(model, variables, config, one_device(), 1)
    moved = jax.tree.map(lambda x, y: y - x, variables["params"], state.params)
    norm = float(optax.global_norm(moved)) / config.learning_rate
    assert metrics[0]["gradient_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(
    ("freeze", "moves"),
    [
        ("stem/conv|.*/scale", True),  # its bias is trained, so it is
        ("stem/bn/bias", True),
        ("stem/bn/(scale|bias)", False),
        (".*bn", False),
    ],
)
def test_a_norm_is_frozen_where_its_scale_and_its_bias_are(model, variables, freeze, moves):
    config = dataclasses.replace(CONFIG, freeze=freeze)
    state, _ = run(model, variables, config, one_device(), 1)
    stem = state.batch_stats["stem"]["bn"]
    assert {bool((stem["mean"] != 0).any()), bool((stem["var"] != 1).any())} == {moves}


def test_freezing_nothing_is_an_error(model, variables):
    with pytest.raises(UsageError, match="matches no parameter"):
        create_optimizer(dataclasses.replace(CONFIG, freeze="stag1"), variables["params"])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars", "lamb"])
def test_every_optimizer_lowers_the_loss_of_one_batch(optimizer):
    model = create_model("lenet5", 10, filters=(4,), neurons=(16,))
    variables = model.init(KEY, jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    rate = {"sgd": 0.1, "adamw": 0.01, "lars": 5.0, "lamb": 0.05}[optimizer]
    config = dataclasses.replace(
        CONFIG, optimizer=optimizer, learning_rate=rate, steps=30, clip_norm=5.0
    )
    _, metrics = run(model, variables, config, one_device(), 30, batch=lambda i: batch_of(0))
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]


def test_clipping_bounds_the_update(model, variables):
    config = dataclasses.replace(
        CONFIG, clip_norm=1e-3, weight_decay=0.0, schedule="constant", momentum=0.0
    )
    state, metrics = run(model, variables, config, one_device(), 1)
    moved = jax.tree.map(lambda x, y: y - x, variables["params"], state.params)
    assert float(optax.global_norm(moved)) == pytest.approx(0.05 * 1e-3, rel=1e-2)
    assert metrics[0]["gradient_norm"] > 1e-3


def test_normalisation_is_in_pixels_of_255():
    image = np.full((1, 2, 2, 3), 255, np.uint8)
    values = normalize_images(image, (0.5, 0.0, 1.0), (0.5, 0.5, 0.5))
    np.testing.assert_allclose(values[0, 0, 0], [1.0, 2.0, 0.0], atol=1e-6)


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(UsageError, match="--batch_size=96 does"):
        parallel.check_batch_size(100, devices=8, accumulate=2)
