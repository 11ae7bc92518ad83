"""The tasks that look into a network."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import trained
from cnn_jax.benchmark import outcome, settings, subject
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.spec import Spec
from cnn_jax.visualize import ascent as ascents
from cnn_jax.visualize import dream as dreams
from cnn_jax.visualize import grad_cam, gradients
from cnn_jax.visualize import occlusion as occlusions


def occlusion(spec: Spec) -> Program:
    """The map of one image, from its 196 covered copies; --batch_size of them at once."""
    network, given = subject.create(spec)
    f = trained.classifier(network)
    side = max(1, given.pixels.shape[1] // settings.OCCLUSION_WINDOWS)
    options = {"window": (side, side), "stride": (side, side), "batch_size": spec.batch_size}

    def maps(images, targets):
        return occlusions.occlusion(f, images, targets, **options)

    return _program(given, maps, given.pixels[:1], given.classes[:1])


def integrated_gradients(spec: Spec) -> Program:
    """The map of one image, from the gradients at 50 copies; --batch_size of them at once."""
    network, given = subject.create(spec)
    f = trained.classifier(network)
    options = {**settings.INTEGRATED_GRADIENTS, "batch_size": spec.batch_size}

    def maps(images, targets):
        return gradients.integrated_gradients(f, images, targets, **options)

    return _program(given, maps, given.pixels[:1], given.classes[:1])


def dream(spec: Spec) -> Program:
    """The change of the images by ten steps of DeepDream."""
    network, given = subject.create(spec)
    path = grad_cam.last_spatial_layer(trained.classifier(network), given.pixels[:1])
    f, key = trained.layers(network, [path]), jax.random.key(0)

    def change(images):
        return dreams.dream(f, images, key, octaves=1, **settings.DREAM) - images

    return _program(given, change, given.pixels)


def ascent(spec: Spec) -> Program:
    """The images of the first class, less the grey that they start from."""
    network, given = subject.create(spec)
    f = trained.classifier(network)
    objective = ascents.channel(np.zeros(len(given.pixels), np.int32))

    def change(images):
        found = ascents.simonyan(f, objective, images.shape, **settings.ASCENT)
        return found.images - 0.5

    return _program(given, change, given.pixels)


def _program(given: subject.Subject, picture: Callable, *arrays: Any) -> Program:
    return Program(
        call=lambda state, batch: picture(*batch),
        state=None,
        batches=itertools.repeat(tuple(map(jnp.asarray, arrays))),
        images=len(arrays[0]),
        wait=jax.block_until_ready,
        outcome=lambda output: outcome.of_picture(np.asarray(output)),
        facts=subject.facts(given),
    )
