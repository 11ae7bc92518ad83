"""Attacks are tested in float64, on a small network whose weights are kept with the references."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.ops import conv


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def references():
    """What tests/references/make_attacks.py kept, by name."""
    with np.load(Path(__file__).parents[1] / "references" / "attacks.npz") as arrays:
        return dict(arrays)


def small_network(weights, images):
    """The network of make_attacks.py."""
    x = jax.nn.elu(conv(images, weights["conv1"], padding=0) + weights["bias1"])
    x = jax.nn.relu(conv(x, weights["conv2"], padding=0) + weights["bias2"])
    return x.reshape(len(x), -1) @ weights["head"]


class Case(NamedTuple):
    logits_of: jax.tree_util.Partial
    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray


@pytest.fixture(scope="session")
def case(references):
    """The small network, six images, their labels (the first a wrong one) and targets."""
    names = ("conv1", "bias1", "conv2", "bias2", "head")
    weights = {name: references[f"network/{name}"] for name in names}
    return Case(
        jax.tree_util.Partial(small_network, weights),
        *(references[name] for name in ("images", "labels", "targets")),
    )


class Linear(NamedTuple):
    """Two classes told apart by a plane; size(norm) is the distance of each image to it."""

    logits_of: jax.tree_util.Partial
    images: np.ndarray
    labels: np.ndarray
    slope: np.ndarray
    margin: np.ndarray


@pytest.fixture(scope="session")
def linear():
    """A linear model with images so far from 0 and 1 that the optimal perturbations fit between."""
    rng = np.random.default_rng(3)
    slope = rng.normal(size=(5, 5, 2))
    images = rng.uniform(0.35, 0.65, (7, 5, 5, 2))
    value = np.tensordot(images, slope, 3)
    bias = -np.median(value) + 0.5
    margin = value + bias
    return Linear(
        jax.tree_util.Partial(plane, slope, bias),
        images,
        (margin > 0).astype(np.int32),
        slope,
        np.abs(margin),
    )


def plane(slope, bias, images):
    value = jnp.tensordot(images, slope, 3) + bias
    return jnp.stack([jnp.zeros_like(value), value], axis=1)
