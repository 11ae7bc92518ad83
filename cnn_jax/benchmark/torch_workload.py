"""The network and the images of JAX's side, in PyTorch."""

# pyright: reportMissingImports=false

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from cnn_jax.benchmark import torch_models, workload
from cnn_jax.benchmark.spec import Spec
from cnn_jax.benchmark.torch_models import memory_format
from cnn_jax.errors import UsageError
from cnn_jax.models.registry import find
from cnn_jax.weights import convert


class Normalized(nn.Module):
    """The network as a function of pixels in 0..1."""

    def __init__(self, net: nn.Module, mean: np.ndarray, std: np.ndarray):
        super().__init__()
        self.net = net
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.from_numpy(values)[:, None, None])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.net((pixels - self.mean) / self.std)


class Workload(NamedTuple):
    """net: of pixels [n, c, h, w] in 0..1 -> logits; its parameters take no gradient.

    classes: its own of these pixels.
    """

    net: nn.Module
    pixels: torch.Tensor
    classes: torch.Tensor
    facts: dict[str, Any]


def load(spec: Spec, device: torch.device) -> Workload:
    """Return what JAX's side left.

    Raises:
      UsageError: PyTorch's network of this name has other tensors.
    """
    given = workload.read(spec.workload)
    net = torch_models.create(spec.model, given.num_classes, len(given.mean))
    _fill(net, spec.model, given.variables)
    net = Normalized(net, given.mean, given.std).eval().requires_grad_(False)
    layout = memory_format(spec)
    return Workload(
        net.to(device, memory_format=layout),
        torch.from_numpy(given.pixels).permute(0, 3, 1, 2).to(device, memory_format=layout),
        torch.from_numpy(given.classes).long().to(device),
        {"parameters": sum(parameter.numel() for parameter in net.parameters())},
    )


def _fill(net: nn.Module, name: str, variables: dict) -> None:
    """Copy the variables, under their published names or, for networks of ours, their paths."""
    wanted = {key for key in net.state_dict() if not key.endswith("num_batches_tracked")}
    for entry in (find(name), find(name)._replace(published_name=None)):
        tensors = convert.to_published(entry, variables)
        if tensors.keys() == wanted:
            filled = {key: torch.from_numpy(np.array(x)) for key, x in tensors.items()}
            net.load_state_dict(filled, strict=False)
            return
    raise UsageError(f"PyTorch's {name} has tensors of other names; compare another model")
