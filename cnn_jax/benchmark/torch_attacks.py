"""The tasks that break a network, by the packages of PyTorch that are known for it.

Each is imported where it is used: one of them is there, the others need not be.
"""

# pyright: reportMissingImports=false

import itertools
from collections.abc import Callable

import numpy as np
import torch

from cnn_jax.benchmark import outcome, torch_subject
from cnn_jax.benchmark.program import Program
from cnn_jax.benchmark.settings import AUTOATTACK, DEEPFOOL, PGD, UNIVERSAL, within
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.torch_subject import Subject

Attack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def pgd_torchattacks(spec: Spec, device: torch.device) -> Program:
    """PGD by torchattacks."""
    import torchattacks

    given = torch_subject.load(spec, device)
    setting = within(spec, PGD)
    attack = torchattacks.PGD(given.net, setting["eps"], setting["step_size"], setting["steps"])
    return _program(given, attack)


def pgd_foolbox(spec: Spec, device: torch.device) -> Program:
    """PGD by foolbox."""
    from foolbox.attacks import LinfPGD

    given = torch_subject.load(spec, device)
    attack = LinfPGD(abs_stepsize=PGD["step_size"], steps=PGD["steps"], random_start=True)
    return _program(given, _of_foolbox(given, attack, within(spec, PGD)["eps"]))


def deepfool_adv_lib(spec: Spec, device: torch.device) -> Program:
    """DeepFool by adv-lib, which considers all classes."""
    from adv_lib.attacks import df

    given = torch_subject.load(spec, device)
    options = {"steps": DEEPFOOL["steps"], "overshoot": DEEPFOOL["overshoot"]}
    options["return_unsuccessful"] = True
    return _program(given, lambda images, labels: df(given.net, images, labels, **options))


def deepfool_foolbox(spec: Spec, device: torch.device) -> Program:
    """DeepFool by foolbox."""
    from foolbox.attacks import L2DeepFoolAttack

    given = torch_subject.load(spec, device)
    return _program(given, _of_foolbox(given, L2DeepFoolAttack(**DEEPFOOL), None))


def autoattack_authors(spec: Spec, device: torch.device) -> Program:
    """AutoAttack by its authors' package."""
    from autoattack import AutoAttack

    given = torch_subject.load(spec, device)
    ensemble = AutoAttack(
        given.net, eps=within(spec, AUTOATTACK)["eps"], device=device, verbose=False, seed=0
    )
    for each in (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab):
        each.n_iter = AUTOATTACK["steps"]
    ensemble.square.n_queries = AUTOATTACK["queries"]

    def attack(images, labels):
        return ensemble.run_standard_evaluation(images, labels, bs=spec.batch_size)

    return _program(given, attack)


def autoattack_torchattacks(spec: Spec, device: torch.device) -> Program:
    """AutoAttack's four attacks by torchattacks, whose own AutoAttack stops at 10 steps."""
    import torchattacks

    given = torch_subject.load(spec, device)
    eps, steps = within(spec, AUTOATTACK)["eps"], AUTOATTACK["steps"]
    classes = given.net(given.pixels[:1]).shape[1]
    options = {"eps": eps, "steps": steps}
    attacks = [
        torchattacks.APGD(given.net, loss="ce", n_restarts=1, **options),
        torchattacks.APGDT(given.net, n_classes=classes, n_restarts=1, **options),
        torchattacks.FAB(given.net, multi_targeted=True, n_classes=classes, **options),
        torchattacks.Square(given.net, eps=eps, n_queries=AUTOATTACK["queries"]),
    ]
    return _program(given, torchattacks.MultiAttack(attacks))


def universal_art(spec: Spec, device: torch.device) -> Program:
    """The images with a universal perturbation by ART."""
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    given = torch_subject.load(spec, device)
    classifier = PyTorchClassifier(
        given.net,
        torch.nn.CrossEntropyLoss(),
        input_shape=tuple(given.pixels.shape[1:]),
        nb_classes=given.net(given.pixels[:1]).shape[1],
        clip_values=(0, 1),
        device_type="gpu" if device.type == "cuda" else "cpu",
    )
    inner = {
        "max_iter": UNIVERSAL["steps"],
        "epsilon": DEEPFOOL["overshoot"],
        "nb_grads": DEEPFOOL["candidates"],
        "batch_size": 1,
        "verbose": False,
    }
    attack = UniversalPerturbation(
        classifier,
        "deepfool",
        inner,
        delta=1 - UNIVERSAL["goal"],
        max_iter=UNIVERSAL["epochs"],
        eps=within(spec, UNIVERSAL)["eps"],
        batch_size=spec.batch_size,
        verbose=False,
    )
    pixels = given.pixels.cpu().numpy()

    def perturbed(images, labels):
        attack.generate(pixels)
        return torch.from_numpy(np.clip(pixels + attack.noise, 0, 1)).to(images)

    return _program(given, perturbed)


def _of_foolbox(given: Subject, attack: Callable, eps: float | None) -> Attack:
    from foolbox import PyTorchModel

    device = given.pixels.device
    model = PyTorchModel(given.net, bounds=(0, 1), device=device)
    return lambda images, labels: attack(model, images, labels, epsilons=eps)[1]


def _program(given: Subject, attack: Attack) -> Program:
    def came_of_it(adversarial: torch.Tensor) -> dict[str, float]:
        found = given.net(adversarial).argmax(dim=1)
        arrays = (given.pixels, adversarial.detach(), given.classes, found)
        return outcome.of_attack(*(array.cpu().numpy() for array in arrays))

    return Program(
        call=lambda state, batch: attack(*batch),
        state=None,
        batches=itertools.repeat((given.pixels, given.classes)),
        images=len(given.pixels),
        wait=lambda output: output.cpu(),
        lead=0,
        outcome=came_of_it,
        facts=given.facts,
    )
