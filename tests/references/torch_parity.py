"""The reference's side of the parity tests: run a torch model filled by the rule of parity.py.

Scripts call it as `write("resnet", {"resnet18": (torchvision_model("resnet18"), 64), ...})`: our
name -> (function of num_classes that builds the reference, image size). Run from the repository's
root, where torch, torchvision and timm are installed: `python -m tests.references.make_resnet`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.references import parity

Build = Callable[[int], torch.nn.Module]


def torchvision_model(name: str, **options) -> Build:
    """Return the function of num_classes that builds torchvision's model without its weights."""
    from torchvision.models import get_model

    return lambda num_classes: get_model(name, num_classes=num_classes, **options)


def timm_model(name: str, **options) -> Build:
    """Return the function of num_classes that builds timm's model without its weights."""
    from timm import create_model

    return lambda num_classes: create_model(name, num_classes=num_classes, **options)


def fill(model: torch.nn.Module) -> torch.nn.Module:
    """Fill the model in float64 by the shared rule."""
    model = model.double()
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(parity.fill(name, tuple(tensor.shape))))
    return model


def without_randomness(model: torch.nn.Module) -> torch.nn.Module:
    """Switch every kind of dropout off, also in training mode."""
    for module in model.modules():
        for rate in ("p", "drop_prob", "drop_rate", "drop_path_rate", "dropout"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return model


@torch.no_grad()
def run(model: torch.nn.Module, size: int) -> dict[str, np.ndarray]:
    """Return the logits in evaluation, after one training-mode forward that moved the statistics.

    "stats" are the digests of the moved running statistics, "logits" [2, classes].
    """
    model = without_randomness(fill(model))
    x = torch.from_numpy(parity.images(size)).permute(0, 3, 1, 2)
    results = {}
    if any(name.endswith("running_mean") for name in model.state_dict()):
        model.train()(x)
        tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        results["stats"] = parity.digest(tensors)
    results["logits"] = model.eval()(x).numpy()
    return results


def write(family: str, rows: dict[str, tuple[Build, int]]) -> None:
    """Write FAMILY.npz beside this file: "NAME/logits", "NAME/stats" and "NAME/size"."""
    arrays = {}
    for name, (build, size) in rows.items():
        results = run(build(parity.NUM_CLASSES), size)
        arrays[f"{name}/size"] = np.array(size)
        arrays |= {f"{name}/{key}": value for key, value in results.items()}
        print(name, {key: value.shape for key, value in results.items()}, results["logits"][0, :3])
    np.savez_compressed(Path(__file__).with_name(f"{family}.npz"), **arrays)
