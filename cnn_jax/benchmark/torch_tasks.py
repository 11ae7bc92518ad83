"""The tasks that break a network or look into it, in plain PyTorch and by others' packages.

Each of these is imported where it is used: one of them is there, the others need not be.
"""

# pyright: reportMissingImports=false

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from cnn_jax.benchmark import torch_workload
from cnn_jax.benchmark.program import Program, attack_outcome, picture_outcome
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.torch_workload import Workload
from cnn_jax.benchmark.workload import (
    ASCENT,
    AUTOATTACK,
    DEEPFOOL,
    DREAM,
    INTEGRATED_GRADIENTS,
    OCCLUSION_WINDOWS,
    PGD,
    UNIVERSAL,
    within,
)

Attack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def pgd_torchattacks(spec: Spec, device: torch.device) -> Program:
    """PGD by torchattacks."""
    import torchattacks

    given = torch_workload.load(spec, device)
    setting = within(spec, PGD)
    attack = torchattacks.PGD(given.net, setting["eps"], setting["step_size"], setting["steps"])
    return _attack_program(given, attack)


def pgd_foolbox(spec: Spec, device: torch.device) -> Program:
    """PGD by foolbox."""
    from foolbox.attacks import LinfPGD

    given = torch_workload.load(spec, device)
    attack = LinfPGD(abs_stepsize=PGD["step_size"], steps=PGD["steps"], random_start=True)
    return _attack_program(given, _of_foolbox(given, attack, within(spec, PGD)["eps"]))


def deepfool_adv_lib(spec: Spec, device: torch.device) -> Program:
    """DeepFool by adv-lib, which considers all classes."""
    from adv_lib.attacks import df

    given = torch_workload.load(spec, device)
    options = {"steps": DEEPFOOL["steps"], "overshoot": DEEPFOOL["overshoot"]}
    options["return_unsuccessful"] = True
    return _attack_program(given, lambda images, labels: df(given.net, images, labels, **options))


def deepfool_foolbox(spec: Spec, device: torch.device) -> Program:
    """DeepFool by foolbox."""
    from foolbox.attacks import L2DeepFoolAttack

    given = torch_workload.load(spec, device)
    return _attack_program(given, _of_foolbox(given, L2DeepFoolAttack(**DEEPFOOL), None))


def autoattack_authors(spec: Spec, device: torch.device) -> Program:
    """AutoAttack by its authors' package."""
    from autoattack import AutoAttack

    given = torch_workload.load(spec, device)
    ensemble = AutoAttack(
        given.net, eps=within(spec, AUTOATTACK)["eps"], device=device, verbose=False, seed=0
    )
    for each in (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab):
        each.n_iter = AUTOATTACK["steps"]
    ensemble.square.n_queries = AUTOATTACK["queries"]

    def attack(images, labels):
        return ensemble.run_standard_evaluation(images, labels, bs=spec.batch_size)

    return _attack_program(given, attack)


def autoattack_torchattacks(spec: Spec, device: torch.device) -> Program:
    """AutoAttack's four attacks by torchattacks, whose own AutoAttack stops at 10 steps."""
    import torchattacks

    given = torch_workload.load(spec, device)
    eps, steps = within(spec, AUTOATTACK)["eps"], AUTOATTACK["steps"]
    classes = given.net(given.pixels[:1]).shape[1]
    options = {"eps": eps, "steps": steps}
    attacks = [
        torchattacks.APGD(given.net, loss="ce", n_restarts=1, **options),
        torchattacks.APGDT(given.net, n_classes=classes, n_restarts=1, **options),
        torchattacks.FAB(given.net, multi_targeted=True, n_classes=classes, **options),
        torchattacks.Square(given.net, eps=eps, n_queries=AUTOATTACK["queries"]),
    ]
    return _attack_program(given, torchattacks.MultiAttack(attacks))


def universal_art(spec: Spec, device: torch.device) -> Program:
    """The images with a universal perturbation by ART."""
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    given = torch_workload.load(spec, device)
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

    return _attack_program(given, perturbed)


def _of_foolbox(given: Workload, attack: Callable, eps: float | None) -> Attack:
    from foolbox import PyTorchModel

    device = given.pixels.device
    model = PyTorchModel(given.net, bounds=(0, 1), device=device)
    return lambda images, labels: attack(model, images, labels, epsilons=eps)[1]


def _attack_program(given: Workload, attack: Attack) -> Program:
    def came_of_it(adversarial: torch.Tensor) -> dict[str, float]:
        found = given.net(adversarial).argmax(dim=1)
        arrays = (given.pixels, adversarial.detach(), given.classes, found)
        return attack_outcome(*(array.cpu().numpy() for array in arrays))

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


def occlusion_captum(spec: Spec, device: torch.device) -> Program:
    """The map of one image by captum, whose channels are all the same."""
    from captum.attr import Occlusion

    given = _one(torch_workload.load(spec, device))
    channels, side = given.pixels.shape[1], _window(given)
    window = (channels, side, side)
    method = Occlusion(given.net)
    options = {"sliding_window_shapes": window, "strides": window}
    options["perturbations_per_eval"] = spec.batch_size

    def maps(images, targets):
        return method.attribute(images, target=targets, **options)[:, 0]

    return _picture_program(given, maps)


def occlusion_torch(spec: Spec, device: torch.device) -> Program:
    """The map of one image, by covering copies of it in a loop."""
    given = _one(torch_workload.load(spec, device))
    side, size = _window(given), given.pixels.shape[2]
    starts = range(0, size, side)
    places = list(itertools.product(starts, starts))

    @torch.inference_mode()
    def maps(images, targets):
        plain = given.net(images)[0, targets]
        losses = []
        for first in range(0, len(places), spec.batch_size):
            chosen = places[first : first + spec.batch_size]
            covered = images.repeat(len(chosen), 1, 1, 1)
            for copy, (row, column) in zip(covered, chosen, strict=True):
                copy[:, row : row + side, column : column + side] = 0
            losses.append(plain - given.net(covered)[:, targets[0]])
        grid = torch.cat(losses).reshape(1, len(starts), len(starts))
        large = grid.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
        return large[:, :size, :size]

    return _picture_program(given, maps)


def integrated_gradients_captum(spec: Spec, device: torch.device) -> Program:
    """The map of one image by captum."""
    from captum.attr import IntegratedGradients

    given = _one(torch_workload.load(spec, device))
    method = IntegratedGradients(given.net)
    options = {"n_steps": INTEGRATED_GRADIENTS["steps"], "internal_batch_size": spec.batch_size}
    return _picture_program(
        given, lambda images, targets: method.attribute(images, target=targets, **options)
    )


def integrated_gradients_torch(spec: Spec, device: torch.device) -> Program:
    """The map of one image, its gradients added up in a loop."""
    given = _one(torch_workload.load(spec, device))
    nodes, weights = np.polynomial.legendre.leggauss(INTEGRATED_GRADIENTS["steps"])
    nodes, weights = (
        torch.from_numpy(x).to(given.pixels).reshape(-1, 1, 1, 1)
        for x in ((nodes + 1) / 2, weights / 2)
    )

    def maps(images, targets):
        total = torch.zeros_like(images)
        for ways, shares in zip(
            nodes.split(spec.batch_size), weights.split(spec.batch_size), strict=True
        ):
            points = (ways * images).requires_grad_()
            score = given.net(points)[:, targets[0]].sum()
            (slopes,) = torch.autograd.grad(score, points)
            total += (shares * slopes).sum(dim=0)
        return images * total

    return _picture_program(given, maps)


def dream_torch(spec: Spec, device: torch.device) -> Program:
    """The change of the images by steps of DeepDream."""
    given = torch_workload.load(spec, device)
    seen = _last_spatial(given)
    jitter = DREAM["jitter"]
    draw = torch.Generator().manual_seed(0)

    def change(images, targets):
        dreamt = images
        for _ in range(DREAM["iterations"]):
            shift = torch.randint(-jitter, jitter + 1, (2,), generator=draw).tolist()
            rolled = dreamt.roll(shift, dims=(2, 3)).requires_grad_()
            energy = seen(rolled).square().sum() / 2
            (slope,) = torch.autograd.grad(energy, rolled)
            mean = slope.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
            moved = rolled.detach() + DREAM["step_size"] * slope / mean
            dreamt = moved.roll([-each for each in shift], dims=(2, 3)).clamp(0, 1)
        return dreamt - images

    return _picture_program(given, change)


def ascent_torch(spec: Spec, device: torch.device) -> Program:
    """The images of the first class, less the grey that they start from."""
    given = torch_workload.load(spec, device)
    rate, momentum = ASCENT["learning_rate"], 0.9

    def change(images, targets):
        moved, velocity = torch.zeros_like(images), torch.zeros_like(images)
        for _ in range(ASCENT["steps"]):
            moved.requires_grad_()
            penalty = ASCENT["l2_weight"] * moved.square().sum()
            gain = given.net(moved + 0.5)[:, 0].sum() - penalty
            (slope,) = torch.autograd.grad(gain, moved)
            slope /= slope.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
            velocity = momentum * velocity + slope
            moved = (moved.detach() + rate * (1 - momentum) * velocity).clamp(-0.5, 0.5)
        return moved

    return _picture_program(given, change)


def _window(given: Workload) -> int:
    return max(1, given.pixels.shape[2] // OCCLUSION_WINDOWS)


def _one(given: Workload) -> Workload:
    return given._replace(pixels=given.pixels[:1], classes=given.classes[:1])


def _last_spatial(given: Workload) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function of images whose values the last module with rows and columns gives."""
    spatial = []

    def note(module: nn.Module, arguments: tuple, output: torch.Tensor) -> None:
        if output.ndim == 4 and output.shape[2:] != (1, 1):
            spatial.append(module)

    hooks = [module.register_forward_hook(note) for module in given.net.net.modules()]
    with torch.no_grad():
        given.net(given.pixels[:1])
    for hook in hooks:
        hook.remove()
    kept = []
    spatial[-1].register_forward_hook(lambda module, arguments, output: kept.append(output))

    def values(images: torch.Tensor) -> torch.Tensor:
        kept.clear()
        given.net(images)
        return kept[0]

    return values


def _picture_program(given: Workload, picture: Callable) -> Program:
    return Program(
        call=lambda state, batch: picture(*batch),
        state=None,
        batches=itertools.repeat((given.pixels, given.classes)),
        images=len(given.pixels),
        wait=lambda output: output.cpu(),
        outcome=lambda output: picture_outcome(output.detach().cpu().numpy()),
        facts=given.facts,
    )
