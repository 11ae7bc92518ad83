"""Adversarial patches: where they lie, and that they are seen wherever that is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnn_jax.attacks import patch as patches
from cnn_jax.errors import UsageError

KEY = jax.random.key(0)
lay = jax.jit(patches.lay)


def place(centre=(0.5, 0.5), diameter=0.5, degrees=0.0, contrast=1.0, brightness=0.0):
    return patches.Places(
        *(jnp.asarray([each]) for each in (centre, diameter, degrees, contrast, brightness))
    )


def disc(size):
    """Which pixels of a patch lie wholly in its disc."""
    at = np.arange(size) + 0.5 - size / 2
    return np.hypot(*np.meshgrid(at, at)) < size / 2 - 0.5


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(1, 32, 32, 3)).astype(np.float32)
    return image, rng.uniform(size=(16, 16, 3)).astype(np.float32)


def test_at_its_own_size_its_pixels_are_the_image_s_and_beside_it_nothing_changes(drawn):
    image, patch = drawn
    (found,) = lay(image, patch, place(centre=(0.25, 0.75)))
    corner = found[:16, 16:]
    np.testing.assert_allclose(corner[disc(16)], patch[disc(16)], atol=1e-6)
    changed = (np.asarray(found) != image[0]).any(-1)
    assert not changed[16:].any()
    assert not changed[:, :16].any()
    assert not changed[0, 16]  # the square's corner is no part of the disc


def test_a_quarter_turn_is_counter_clockwise(drawn):
    image, patch = drawn
    (found,) = lay(image, patch, place(degrees=90.0))
    turned = np.rot90(patch)
    np.testing.assert_allclose(found[8:24, 8:24][disc(16)], turned[disc(16)], atol=1e-5)


def test_any_size_and_turn_is_scipys_interpolation(drawn):
    image, patch = drawn
    diameter, degrees = 0.62, 31.0
    (found,) = lay(image, patch, place((0.45, 0.55), diameter, degrees))
    radius = diameter * 32 / 2
    y, x = np.mgrid[:32, :32] + 0.5
    down, right = y - 0.45 * 32, x - 0.55 * 32
    angle = np.deg2rad(degrees)
    v = np.cos(angle) * down + np.sin(angle) * right
    u = np.cos(angle) * right - np.sin(angle) * down
    points = [(each / radius + 1) / 2 * 16 - 0.5 for each in (v, u)]
    expected = np.stack(
        [ndimage.map_coordinates(patch[..., c], points, order=1, mode="nearest") for c in range(3)],
        axis=-1,
    )
    inside = np.hypot(u, v) < radius - 0.5
    assert inside.sum() > 200
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    outside = np.hypot(u, v) > radius + 0.5
    np.testing.assert_array_equal(found[outside], image[0][outside])


def test_light_changes_contrast_and_brightness(drawn):
    image, patch = drawn
    (found,) = lay(image, patch, place(contrast=0.5, brightness=0.1))
    expected = 0.5 * (patch - 0.5) + 0.6
    np.testing.assert_allclose(found[8:24, 8:24][disc(16)], expected[disc(16)], atol=1e-6)


def test_random_places_lie_wholly_in_the_image_within_what_is_asked():
    places = patches.random_places(KEY, 500, areas=(0.05, 0.25), degrees=30.0, light=0.2)
    area = np.pi / 4 * np.asarray(places.diameter) ** 2
    assert 0.05 <= area.min() < 0.06
    assert 0.24 < area.max() <= 0.2501
    rim = np.asarray(places.diameter)[:, None] / 2
    centre = np.asarray(places.centre)
    assert ((centre - rim >= -1e-6) & (centre + rim <= 1 + 1e-6)).all()
    assert 29 < np.abs(places.degrees).max() <= 30
    assert 0.8 <= places.contrast.min() < 0.81
    assert 0.19 < places.brightness.max() <= 0.2


def logits_of(images):
    """Class 1 where the image is green on the mean, class 0 else."""
    green = (images[..., 1] - images[..., [0, 2]].max(-1)).mean((1, 2))
    return 50 * jnp.stack([jnp.full(len(images), 0.05), green], -1)


def test_a_network_that_looks_for_green_is_fooled_by_a_green_patch_on_new_images():
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(24, 32, 32, 3)).astype(np.float32) * 0.3
    seen = []
    settings = {"size": 12, "areas": (0.2, 0.3), "steps": 60, "learning_rate": 0.3}
    found = patches.adversarial_patch(
        logits_of, images[:12], 1, KEY, **settings, watch=lambda made, patch: seen.append(made)
    )
    assert seen == list(range(1, 61))
    green = found[..., 1] - found[..., [0, 2]].max(-1)
    assert green[disc(12)].mean() > 0.5
    for area, expected in ((0.3, 1.0), (0.02, 0.0)):
        patched = patches.laid_at_random(images[12:], found, KEY, area=area, batch_size=5)
        assert patches.success_rate(logits_of, images[12:], patched, 1) == expected
    again = patches.adversarial_patch(logits_of, images[:12], 1, KEY, **settings)
    np.testing.assert_array_equal(found, again)


def test_images_that_show_the_target_already_do_not_count():
    images = np.zeros((4, 32, 32, 3), np.float32)
    images[:2, ..., 1] = 1
    patched = np.zeros_like(images)
    patched[:3, ..., 1] = 1
    assert patches.success_rate(logits_of, images, patched, 1) == 0.5
    assert np.isnan(patches.success_rate(logits_of, images[:2], patched[:2], 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((0, 8, 8, 3), np.float32)}, "no image to make a patch of"),
        ({"images": np.zeros((2, 8, 9, 3), np.float32)}, "are not square"),
        ({"target": 2}, "2 classes are 0 to 1"),
        ({"areas": (0.1, 0.9)}, "none that a disc has"),
        ({"areas": (0.0, 0.2)}, "none that a disc has"),
    ],
)
def test_what_no_patch_can_be_made_of_is_refused(changes, message):
    arguments = {"images": np.zeros((2, 8, 8, 3), np.float32), "target": 1, "areas": (0.1, 0.2)}
    with pytest.raises(UsageError, match=message):
        patches.adversarial_patch(logits_of, key=KEY, **(arguments | changes))
