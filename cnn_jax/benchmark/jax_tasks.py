"""The tasks that break a network or look into it."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import trained
from cnn_jax.attacks import autoattack as ensemble
from cnn_jax.attacks import deepfool as minimal
from cnn_jax.attacks import gradient, loop
from cnn_jax.attacks import universal as universals
from cnn_jax.benchmark import workload
from cnn_jax.benchmark.program import Program, attack_outcome, picture_outcome
from cnn_jax.benchmark.spec import Spec
from cnn_jax.visualize import ascent as ascents
from cnn_jax.visualize import dream as dreams
from cnn_jax.visualize import grad_cam, gradients
from cnn_jax.visualize import occlusion as occlusions


def pgd(spec: Spec) -> Program:
    """The images after projected gradient ascent from a random start."""
    return _attack_program(spec, partial(gradient.pgd, **workload.within(spec, workload.PGD)))


def deepfool(spec: Spec) -> Program:
    """The images just across the nearest boundary."""
    attack = partial(minimal.deepfool, **workload.DEEPFOOL)
    return _attack_program(spec, attack, minimal.BATCHING)


def autoattack(spec: Spec) -> Program:
    """The images after four attacks, each on the images that resisted those before."""

    setting = workload.within(spec, workload.AUTOATTACK)

    def attack(*arguments: Any, **options: Any):
        return ensemble.evaluate(*arguments, **setting, **options).adversarial

    return _attack_program(spec, attack)


def universal(spec: Spec) -> Program:
    """The images with one perturbation, made of them all."""
    setting = workload.within(spec, workload.UNIVERSAL)

    def attack(logits_of, images, labels, key, batching):
        del labels
        options = {**setting, "batching": batching}
        return universals.add(
            images, universals.universal_deepfool(logits_of, images, key, **options)
        )

    return _attack_program(spec, attack)


def _attack_program(spec: Spec, attack: Callable, batching: loop.Batching | None = None) -> Program:
    network, given = workload.create(spec)
    logits_of = trained.classifier(network)
    options = {"batching": batching or loop.Batching(spec.batch_size)}

    def call(key, batch):
        return attack(logits_of, *batch, key, **options)

    def came_of_it(adversarial):
        found = loop.predictions(logits_of, adversarial, **options)
        return attack_outcome(given.pixels, adversarial, given.classes, found)

    return Program(
        call=call,
        state=jax.random.key(0),
        batches=itertools.repeat((given.pixels, given.classes)),
        images=len(given.pixels),
        lead=0,
        outcome=came_of_it,
        facts=workload.facts(given),
    )


def occlusion(spec: Spec) -> Program:
    """The map of one image, from its 196 covered copies; --batch_size of them at once."""
    network, given = workload.create(spec)
    f = trained.classifier(network)
    side = max(1, given.pixels.shape[1] // workload.OCCLUSION_WINDOWS)
    options = {"window": (side, side), "stride": (side, side), "batch_size": spec.batch_size}

    def maps(images, targets):
        return occlusions.occlusion(f, images, targets, **options)

    return _picture_program(given, maps, given.pixels[:1], given.classes[:1])


def integrated_gradients(spec: Spec) -> Program:
    """The map of one image, from the gradients at 50 copies; --batch_size of them at once."""
    network, given = workload.create(spec)
    f = trained.classifier(network)
    options = {**workload.INTEGRATED_GRADIENTS, "batch_size": spec.batch_size}

    def maps(images, targets):
        return gradients.integrated_gradients(f, images, targets, **options)

    return _picture_program(given, maps, given.pixels[:1], given.classes[:1])


def dream(spec: Spec) -> Program:
    """The change of the images by ten steps of DeepDream."""
    network, given = workload.create(spec)
    path = grad_cam.last_spatial_layer(trained.classifier(network), given.pixels[:1])
    f, key = trained.layers(network, [path]), jax.random.key(0)

    def change(images):
        return dreams.dream(f, images, key, octaves=1, **workload.DREAM) - images

    return _picture_program(given, change, given.pixels)


def ascent(spec: Spec) -> Program:
    """The images of the first class, less the grey that they start from."""
    network, given = workload.create(spec)
    f = trained.classifier(network)
    objective = ascents.channel(np.zeros(len(given.pixels), np.int32))

    def change(images):
        found = ascents.simonyan(f, objective, images.shape, **workload.ASCENT)
        return found.images - 0.5

    return _picture_program(given, change, given.pixels)


def _picture_program(given: workload.Workload, picture: Callable, *arrays: Any) -> Program:
    return Program(
        call=lambda state, batch: picture(*batch),
        state=None,
        batches=itertools.repeat(tuple(map(jnp.asarray, arrays))),
        images=len(arrays[0]),
        wait=jax.block_until_ready,
        outcome=lambda output: picture_outcome(np.asarray(output)),
        facts=workload.facts(given),
    )
