"""Style transfer: the paper's losses to the last digit, and Gram matrices that are reached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.visualize import style
from tests.visualize.synthesis import reference

pytestmark = pytest.mark.slow

random = np.random.default_rng(4)
KERNELS = [
    jnp.asarray(random.normal(size=s) / 4, jnp.float32) for s in ((3, 3, 3, 8), (3, 3, 8, 8))
]
STRIPES = jnp.asarray(np.tile(np.arange(24)[:, None, None] // 2 % 2, (1, 20, 3)), jnp.float32)
BLOB = jnp.asarray(
    np.exp(-((np.arange(24)[:, None] - 12) ** 2 + (np.arange(28) - 14) ** 2) / 40.0)[..., None]
    * [0.9, 0.5, 0.1],
    jnp.float32,
)


def network(images):
    x = jax.nn.relu(ops.conv(images - 0.5, KERNELS[0]))
    return {"one": x, "two": jax.nn.relu(ops.conv(ops.avg_pool(x, 2), KERNELS[1]))}


def test_gram_matrix_and_losses_are_the_papers(float64):
    case = reference("style")
    features, other = (jnp.asarray(case[name]) for name in ("features", "other"))
    np.testing.assert_allclose(style.gram(features), case["gram"], rtol=1e-12)
    np.testing.assert_allclose(style.style_loss(features, other), [case["style_loss"]], rtol=1e-12)
    content = style.content_loss(features, other)
    np.testing.assert_allclose(content, [case["content_loss"]], rtol=1e-12)
    slope = jax.grad(lambda x: style.style_loss(x, other).sum())(features)
    np.testing.assert_allclose(slope, case["style_gradient"], rtol=1e-10)


NOISE = jnp.asarray(random.uniform(size=BLOB.shape), jnp.float32)


@pytest.fixture(scope="module")
def transferred():
    return style.transfer(
        network, BLOB, STRIPES, content_weights={"two": 1.0}, style_weight=100.0,
        style_weights={"one": 0.5, "two": 0.5}, start=NOISE, steps=40, scales=2,
    )  # fmt: skip


def test_the_gram_error_falls_and_the_content_stays(transferred):
    assert transferred.image.shape == BLOB.shape
    for before, after in transferred.gram_error.values():
        assert after < 0.1 * before
    seen = {p: np.asarray(a) for p, a in network(jnp.stack([transferred.image])).items()}
    for path, (_, after) in transferred.gram_error.items():
        expected = style.style_loss(seen[path], network(STRIPES[None])[path])
        none = style.style_loss(0 * seen[path], network(STRIPES[None])[path])
        np.testing.assert_allclose(after, expected[0] / none[0], rtol=1e-3, atol=1e-6)
    assert [len(history) for history in transferred.history] == [40, 40]


def test_a_spectrum_takes_the_style_too():
    found = style.transfer(
        network, BLOB, STRIPES, content_weights={"two": 1.0}, style_weight=100.0,
        style_weights={"one": 0.5, "two": 0.5}, start=NOISE, steps=60, spectrum=True,
    )  # fmt: skip
    assert 0 <= found.image.min() <= found.image.max() <= 1
    for before, after in found.gram_error.values():
        assert after < 0.5 * before


def test_a_heavy_content_keeps_more_of_it(transferred):
    faithful = style.transfer(
        network, BLOB, STRIPES, content_weights={"two": 1.0}, content_weight=1e4,
        style_weight=100.0,
        style_weights={"one": 0.5, "two": 0.5}, start=NOISE, steps=40, scales=2,
    )  # fmt: skip
    assert faithful.content_error["two"] < 0.5 * transferred.content_error["two"]


def test_colour_is_kept_by_choice():
    yiq = np.asarray(style._YIQ)
    kept = style.luminance_only(jnp.full_like(BLOB, 0.4), 0.3 + 0.4 * BLOB)
    np.testing.assert_allclose(kept @ yiq[0], 0.4, atol=1e-5)
    np.testing.assert_allclose(kept @ yiq[1:].T, (0.3 + 0.4 * BLOB) @ yiq[1:].T, atol=1e-5)
