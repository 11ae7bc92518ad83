"""Writes attacks.npz: what published attacks, in float64, make of a small network's images.

Run with torch, torchattacks, foolbox, adv-lib and the authors' AutoAttack
(github.com/fra31/auto-attack) in the environment: python tests/references/make_attacks.py

Its weights are stored too. Arrays are laid out as in cnn_jax: channels last, HWIO kernels.
"""

import pathlib

import adv_lib.attacks as adv_lib
import autoattack.autoattack
import autoattack.autopgd_base
import autoattack.fab_projections
import autoattack.fab_pt
import autoattack.square
import foolbox
import numpy as np
import torch
import torchattacks
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # they round to float32 here and there
torch.float = torch.float64

EPS = {"linf": 0.05, "l2": 0.5, "l1": 4.0}
STEPS = 10


def network(rng):
    """Two convolutions and a linear layer, 10 classes, of 7x7 images."""
    return {
        "conv1": rng.normal(size=(3, 3, 3, 4)) / 4,
        "bias1": rng.normal(size=4) / 4,
        "conv2": rng.normal(size=(3, 3, 4, 6)) / 3,
        "bias2": rng.normal(size=6) / 4,
        "head": rng.normal(size=(54, 10)) / 3,
    }


class Model(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        for name in ("conv1", "conv2"):
            kernel = torch.tensor(weights[name].transpose(3, 2, 0, 1).copy())
            self.register_parameter(name, torch.nn.Parameter(kernel))
        for name in ("bias1", "bias2", "head"):
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(weights[name])))

    def forward(self, x):
        x = F.elu(F.conv2d(x, self.conv1, self.bias1))
        x = F.relu(F.conv2d(x, self.conv2, self.bias2))
        return x.permute(0, 2, 3, 1).reshape(len(x), -1) @ self.head


def images_and_labels(rng, model):
    """Images that touch 0 and 1, with the predicted labels but for the first, which is another."""
    images = np.clip(rng.uniform(-0.2, 1.2, (6, 7, 7, 3)), 0, 1)
    with torch.no_grad():
        logits = model(first(images))
    labels = logits.argmax(1).numpy()
    labels[0] = (labels[0] + 1) % 10
    return images, labels, logits.numpy()


def first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1).copy()


def torchattacks_cases(model, x, y, targets):
    plain = {"steps": STEPS, "random_start": False}
    cases = {
        "fgsm": torchattacks.FGSM(model, eps=EPS["linf"]),
        "pgd_linf": torchattacks.PGD(model, eps=EPS["linf"], alpha=0.01, **plain),
        "pgd_l2": torchattacks.PGDL2(
            model, eps=EPS["l2"], alpha=0.1, eps_for_division=0.0, **plain
        ),
        "momentum": torchattacks.MIFGSM(model, eps=EPS["linf"], alpha=0.01, steps=STEPS, decay=0.9),
    }
    found = {f"torchattacks/{name}": last(attack(x, y)) for name, attack in cases.items()}
    targeted = torchattacks.PGD(model, eps=EPS["linf"], alpha=0.01, **plain)
    targeted.set_mode_targeted_by_label(quiet=True)
    return found | {"torchattacks/pgd_targeted": last(targeted(x, targets))}


def foolbox_cases(model, x, y, targets):
    wrapped = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device="cpu")
    attacks = foolbox.attacks
    ascent = {"steps": STEPS, "random_start": False}
    cases = {
        "fgsm": (attacks.LinfFastGradientAttack(), "linf"),
        "pgd_linf": (
            attacks.LinfProjectedGradientDescentAttack(abs_stepsize=0.01, **ascent),
            "linf",
        ),
        "pgd_l2": (attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.1, **ascent), "l2"),
        "pgd_l1": (attacks.L1ProjectedGradientDescentAttack(abs_stepsize=1.0, **ascent), "l1"),
        "deepfool_l2": (attacks.L2DeepFoolAttack(), None),
        "deepfool_linf": (attacks.LinfDeepFoolAttack(), None),
    }
    found = {
        name: attack.run(wrapped, x, y, **({"epsilon": EPS[norm]} if norm else {}))
        for name, (attack, norm) in cases.items()
    }
    criterion = foolbox.criteria.TargetedMisclassification(targets)
    found["pgd_targeted"] = cases["pgd_linf"][0].run(wrapped, x, criterion, epsilon=EPS["linf"])
    return {f"foolbox/{name}": last(value) for name, value in found.items()}


def adv_lib_cases(model, x, y, targets):
    # its DeepFool clips at every step, foolbox's the sum of the steps: compare where nothing clips
    inner = 0.4 + 0.2 * x
    with torch.no_grad():
        labels = model(inner).argmax(1)
    found = {
        "deepfool_l2": adv_lib.df(model, inner, labels, steps=50, norm=2),
        "deepfool_linf": adv_lib.df(model, inner, labels, steps=50, norm=float("inf")),
    }
    search = {"max_iterations": 40, "initial_const": 0.1, "binary_search_steps": 5}
    for suffix, given in (("", y), ("_targeted", targets)):
        targeted = {"targeted": bool(suffix)}
        found["ddn" + suffix] = adv_lib.ddn(model, x, given, steps=60, levels=None, **targeted)
        found["carlini_wagner" + suffix] = adv_lib.carlini_wagner_l2(
            model, x, given, abort_early=False, **search, **targeted
        )
    return {f"adv_lib/{name}": last(value) for name, value in found.items()} | {
        "adv_lib/images": last(inner),
        "adv_lib/labels": labels.numpy(),
    }


def apgd_cases(model, x, y, targets):
    """From given starts, on the ball and within the box, with budgets that fool some images."""
    torch.manual_seed(0)
    arrays = {}
    for norm, eps in {"Linf": 0.03, "L2": 0.25}.items():
        start = torch.randn(x.shape)
        size = start.abs().amax((1, 2, 3)) if norm == "Linf" else start.flatten(1).norm(dim=1)
        start = (x + eps * start / size[:, None, None, None]).clamp(0, 1)
        arrays[f"apgd/{norm.lower()}/start"] = last(start)
        for steps in (7, 30, 100):
            options = {"norm": norm, "eps": eps, "n_iter": steps, "device": "cpu"}
            attacks = {
                loss: autoattack.autopgd_base.APGDAttack(model, loss=loss, **options)
                for loss in ("ce", "dlr")
            }
            attacks["dlr_targeted"] = autoattack.autopgd_base.APGDAttack_targeted(model, **options)
            attacks["dlr_targeted"].y_target = targets
            for loss, attack in attacks.items():
                attack.init_hyperparam(x)
                best, standing, _, adversarial = attack.attack_single_run(x, y, x_init=start)
                keep = standing.bool()[:, None, None, None]
                prefix = f"apgd/{norm.lower()}/{loss}/{steps}"
                arrays[f"{prefix}/images"] = last(torch.where(keep, best, adversarial))
                arrays[f"{prefix}/fooled"] = (standing == 0).numpy()
    return arrays


def fab_cases(model, x, y, targets):
    """Towards the likeliest wrong class; and the projections that it is made of."""
    arrays = {}
    torch.manual_seed(1)
    point, slope = torch.rand(40, 30), torch.randn(40, 30)
    slope[:, ::7] = 0
    lead = torch.randn(40) * torch.linspace(0.1, 12, 40)  # the last planes miss the box
    offset = (slope * point).sum(1) - lead
    arrays |= {"plane/point": point.numpy(), "plane/slope": slope.numpy()}
    arrays["plane/lead"] = lead.numpy()
    for norm in ("Linf", "L2"):
        name = norm.lower()
        project = getattr(autoattack.fab_projections, f"projection_{name}")
        arrays[f"plane/{name}"] = project(point, slope, offset).numpy()
        attack = autoattack.fab_pt.FABAttack_PT(model, norm=norm, n_iter=25, device="cpu")
        attack.target_class = 2
        found = attack.attack_single_run(x[1:], y[1:], is_targeted=True)  # the first is misread
        arrays[f"fab/{name}"] = last(found)
    return arrays


def autoattack_cases(model, *_):
    """The standard ensemble's robust accuracy, on images that a seed makes."""
    images = first(np.random.default_rng(7).uniform(size=(200, 7, 7, 3)))
    with torch.no_grad():
        labels = model(images).argmax(1)
    attack = autoattack.autoattack.AutoAttack(
        model, norm="Linf", eps=0.03, seed=0, device="cpu", verbose=False
    )
    found = attack.run_standard_evaluation(images, labels)
    with torch.no_grad():
        standing = (model(found).argmax(1) == labels).double().mean()
    return {"autoattack/linf": standing.numpy()}


def square_patterns():
    attack = autoattack.square.SquareAttack(None, norm="L2", device="cpu")
    return {
        f"square/bump{side}": torch.cat(
            [attack.eta_rectangles(side // 2, side), -attack.eta_rectangles(side - side // 2, side)]
        ).numpy()
        for side in (3, 5, 8)
    }


def main():
    rng = np.random.default_rng(0)
    weights = network(rng)
    model = Model(weights)
    images, labels, logits = images_and_labels(rng, model)
    targets = (labels + rng.integers(1, 10, len(labels))) % 10
    torch_inputs = first(images), torch.tensor(labels), torch.tensor(targets)
    arrays = {f"network/{name}": value for name, value in weights.items()}
    arrays |= {"images": images, "labels": labels, "targets": targets, "logits": logits}
    for cases in (
        torchattacks_cases,
        foolbox_cases,
        adv_lib_cases,
        apgd_cases,
        fab_cases,
        autoattack_cases,
    ):
        arrays |= cases(model, *torch_inputs)
    arrays |= square_patterns()
    np.savez_compressed(pathlib.Path(__file__).with_name("attacks.npz"), **arrays)


if __name__ == "__main__":
    main()
