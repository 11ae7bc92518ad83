"""Write airbench.npz from Jordan's networks, whitening and Muon, see torch_parity.py.

Run as `python -m tests.references.make_airbench PATH`, a clone of
github.com/KellerJordan/cifar10-airbench (seen: commit f1c599c).
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.references import parity
from tests.references.torch_parity import run


class Net(nn.Module):
    """A network of the legacy scripts, with the module names of airbench94_muon.py."""

    def __init__(self, modules: nn.Sequential):
        super().__init__()
        self.whiten, self.layers = modules[0], nn.Sequential(*modules[1:6])
        self.head, self.scale = modules[7], modules[8]

    def forward(self, x):
        return self.scale(self.head(self.layers(self.whiten(x)).flatten(1)))


def whitening(muon_script) -> dict[str, np.ndarray]:
    """The filters of init_whiten for images of the shared rule, in float64."""
    images = torch.from_numpy(parity.images(12)).permute(0, 3, 1, 2)
    net = muon_script.CifarNet().double()
    torch.Tensor.float = torch.Tensor.double
    net.init_whiten(images)
    return {"whitening/filters": net.whiten.weight.detach().numpy()}


def muon(muon_script) -> dict[str, np.ndarray]:
    """Two filters after three steps, along gradients of the shared rule, in float64."""
    shapes = {"wide.weight": (8, 3, 3, 3), "tall.weight": (16, 1, 2, 2)}
    filters = {name: nn.Parameter(torch.tensor(parity.fill(name, s))) for name, s in shapes.items()}
    optimizer = muon_script.Muon(filters.values(), lr=0.24, momentum=0.6, nesterov=True)
    for step in range(3):
        for name, parameter in filters.items():
            parameter.grad = torch.from_numpy(parity.fill(f"{step}.{name}", shapes[name]))
        optimizer.step()
    return {f"muon/{name}": parameter.detach().numpy() for name, parameter in filters.items()}


if __name__ == "__main__":
    clone = sys.argv[1]
    sys.path[:0] = [clone, str(Path(clone, "legacy"))]
    torch.compile = lambda function: function
    torch.Tensor.bfloat16 = lambda tensor: tensor  # Muon in the dtype of the gradient
    nn.Module.cuda = lambda module: module
    script = importlib.import_module("airbench94_muon")
    arrays = {}
    for name in ("airbench94", "airbench95", "airbench96"):
        if name == "airbench94":
            net = script.CifarNet()
        else:
            net = Net(importlib.import_module(name).make_net())
        print(name, sum(parameter.numel() for parameter in net.parameters()))
        arrays[f"{name}/size"] = np.array(32)
        arrays |= {f"{name}/{key}": value for key, value in run(net, 32).items()}
    arrays |= muon(script) | whitening(script)
    np.savez_compressed(Path(__file__).with_name("airbench.npz"), **arrays)
