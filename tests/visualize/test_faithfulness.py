"""The measures by which a map is judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats

import cnn_jax
from cnn_jax.visualize import faithfulness, gradients
from cnn_jax.visualize.faithfulness import (
    Likeness,
    agreement,
    area,
    blur,
    deletion,
    insensitive,
    insertion,
    layers_from_the_top,
    randomization_check,
    randomized,
    spearman,
    structural_similarity,
)

pytestmark = pytest.mark.usefixtures("float64")


def brightness(images):
    """Two logits whose softmax gives the mean pixel as the first class's probability."""
    mean = images.mean(axis=(1, 2, 3))
    return jnp.log(jnp.stack([mean, 1 - mean], axis=1) + 1e-300)


IMAGE = np.array([[0.8, 0.4], [0.0, 0.0]]).reshape(1, 2, 2, 1)
BEST = IMAGE[..., 0]


def test_deletion_by_hand():
    """The mean of the pixels is 0.3; each one deleted takes its share."""
    good = deletion(brightness, IMAGE, [0], BEST, pixels=1)
    np.testing.assert_allclose(good, [[0.3, 0.1, 0, 0, 0]], atol=1e-12)
    bad = deletion(brightness, IMAGE, [0], -BEST, pixels=1)
    np.testing.assert_allclose(bad, [[0.3, 0.3, 0.3, 0.2, 0]], atol=1e-12)
    np.testing.assert_allclose(area(good), (0.15 + 0.1) / 4, atol=1e-12)
    np.testing.assert_allclose(area(bad), (0.15 + 0.3 + 0.3 + 0.2) / 4, atol=1e-12)


def test_insertion_starts_blurred_and_ends_with_the_image():
    images = np.random.default_rng(0).uniform(size=(2, 6, 5, 1))
    curves = insertion(brightness, images, [0, 1], images[..., 0], pixels=7, batch_size=4)
    assert curves.shape == (2, 1 + 5)
    means = np.stack([blur(images).mean(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3))], axis=1)
    np.testing.assert_allclose(curves[0, [0, -1]], means[0], atol=1e-12)
    np.testing.assert_allclose(curves[1, [0, -1]], 1 - means[1], atol=1e-12)


def test_a_row_of_pixels_is_the_default_step():
    assert deletion(brightness, np.ones((1, 6, 5, 1)), [0], np.ones((1, 6, 5))).shape == (1, 7)


def test_a_constant_image_is_its_own_blur():
    images = np.full((1, 9, 12, 3), 0.7)
    np.testing.assert_allclose(blur(images), images, rtol=1e-12)


def test_rank_correlation_is_scipys():
    ours, theirs = np.random.default_rng(0).integers(0, 5, size=(2, 3, 6, 5)).astype(float)
    expected = [stats.spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(spearman(ours, theirs), expected, rtol=1e-12)
    assert np.isnan(spearman(ours[:1], np.zeros_like(ours[:1]))).all()


def test_structural_similarity_is_scikit_images(reference):
    maps = reference["ssim/maps"]
    ours = structural_similarity(maps[:, 0], 5 * maps[:, 1] - 2)  # scaled back to 0..1
    np.testing.assert_allclose(ours, reference["ssim/result"], rtol=1e-10)
    np.testing.assert_allclose(structural_similarity(maps[0], maps[0]), 1, rtol=1e-12)


def test_agreement_is_by_rank_and_symmetric():
    maps = np.random.default_rng(0).uniform(size=(4, 8, 8))
    table = agreement({"a": maps, "b": maps**3, "c": -maps})
    np.testing.assert_allclose(table, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], rtol=1e-12)


@pytest.fixture
def lenet():
    """f, its variables and others drawn anew."""
    model = cnn_jax.create_model("lenet5", num_classes=3, filters=(2, 3), neurons=(4,))
    images = jax.ShapeDtypeStruct((1, 16, 16, 1), "float32")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)

    def drawn(seed):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape), shapes)

    return model.apply, drawn(0), drawn(1)


IMAGES = np.random.default_rng(5).uniform(size=(2, 16, 16, 1))


def test_layers_are_randomised_from_the_top(lenet):
    apply, variables, drawn = lenet
    layers = layers_from_the_top(Partial(apply, variables), variables["params"], IMAGES)
    assert layers == ["head", "fc3", "conv2", "conv1"]
    changed = randomized(variables, drawn, ["head", "conv1"])
    for name in layers:
        source = drawn if name in ("head", "conv1") else variables
        assert changed["params"][name]["kernel"] is source["params"][name]["kernel"]
    assert randomized(variables, drawn, layers)["params"].keys() == drawn["params"].keys()


def test_a_map_that_ignores_the_network_is_named(lenet):
    apply, variables, drawn = lenet
    layers = ["head", "fc3", "conv2", "conv1"]

    def gradient(variables):
        return gradients.saliency(Partial(apply, variables), IMAGES, [0, 1])

    honest = randomization_check(gradient, variables, drawn, layers)
    assert [row.layer for row in honest] == layers
    assert not insensitive(honest)
    assert honest[-1].ssim < 0.9
    # the last row of the cascade is the network drawn anew
    expected = spearman(gradient(variables), gradient(drawn)).mean()
    np.testing.assert_allclose(honest[-1].spearman, expected, rtol=1e-6)

    edges = randomization_check(lambda _: IMAGES[..., 0], variables, drawn, layers)
    np.testing.assert_allclose([row[1:] for row in edges], 1, rtol=1e-12)
    assert insensitive(edges)


def test_each_layer_may_be_randomised_alone(lenet):
    _, variables, drawn = lenet

    def weight(variables):
        return jnp.stack([variables["params"]["conv1"]["kernel"][:, :, 0, 0]] * 2)

    rows = randomization_check(weight, variables, drawn, ["head", "conv1"], cascade=False)
    assert rows[0] == Likeness("head", 1.0, rows[0].ssim)
    assert rows[1].spearman < 1
    assert faithfulness.INSENSITIVE == 0.5
