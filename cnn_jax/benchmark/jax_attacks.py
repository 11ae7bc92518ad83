"""The tasks that break a network."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from cnn_jax import trained
from cnn_jax.attacks import autoattack as ensemble
from cnn_jax.attacks import deepfool as minimal
from cnn_jax.attacks import gradient, loop
from cnn_jax.attacks import universal as universals
from cnn_jax.benchmark import outcome, settings, subject
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.spec import Spec


def pgd(spec: Spec) -> Program:
    """The images after projected gradient ascent from a random start."""
    return _program(spec, partial(gradient.pgd, **settings.within(spec, settings.PGD)))


def deepfool(spec: Spec) -> Program:
    """The images just across the nearest boundary."""
    attack = partial(minimal.deepfool, **settings.DEEPFOOL)
    return _program(spec, attack, minimal.BATCHING)


def autoattack(spec: Spec) -> Program:
    """The images after four attacks, each on the images that resisted those before."""

    setting = settings.within(spec, settings.AUTOATTACK)

    def attack(*arguments: Any, **options: Any):
        return ensemble.evaluate(*arguments, **setting, **options).adversarial

    return _program(spec, attack)


def universal(spec: Spec) -> Program:
    """The images with one perturbation, made of them all."""
    setting = settings.within(spec, settings.UNIVERSAL)

    def attack(logits_of, images, labels, key, batching):
        del labels
        options = {**setting, "batching": batching}
        return universals.add(
            images, universals.universal_deepfool(logits_of, images, key, **options)
        )

    return _program(spec, attack)


def _program(spec: Spec, attack: Callable, batching: loop.Batching | None = None) -> Program:
    network, given = subject.create(spec)
    logits_of = trained.classifier(network)
    options = {"batching": batching or loop.Batching(spec.batch_size)}

    def call(key, batch):
        return attack(logits_of, *batch, key, **options)

    def came_of_it(adversarial):
        found = loop.predictions(logits_of, adversarial, **options)
        return outcome.of_attack(given.pixels, adversarial, given.classes, found)

    return Program(
        call=call,
        state=jax.random.key(0),
        batches=itertools.repeat((given.pixels, given.classes)),
        images=len(given.pixels),
        lead=0,
        outcome=came_of_it,
        facts=subject.facts(given),
    )
