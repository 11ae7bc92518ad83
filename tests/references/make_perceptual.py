"""Writes perceptual.npz: what the authors' package lpips makes of given activations, in float64.

Run with torch, torchvision and lpips 0.1.4 in the environment: python
tests/references/make_perceptual.py

It is the package's own forward pass without its learnt weights (lpips=False), on a network that
hands out the activations stored here, channels last: some places of them have none.
"""

import pathlib

import lpips
import numpy as np
import torch

torch.set_default_dtype(torch.float64)
SHAPES = ((3, 6, 5, 4), (3, 3, 2, 7), (3, 1, 1, 5))


def main():
    random = np.random.default_rng(11)
    sides = [[np.maximum(random.normal(size=shape), 0) for shape in SHAPES] for _ in range(2)]
    sides[1][0][0] = sides[0][0][0]  # one image that the first layer sees no difference in
    sides[0][1][1, 0] = 0
    judge = lpips.LPIPS(pretrained=False, pnet_rand=True, lpips=False, verbose=False)
    judge.L = len(SHAPES)
    given = iter(sides)
    judge.net = Given(given)
    image = torch.zeros(3, 3, 8, 8)
    total, layers = judge(image, image, retPerLayer=True)
    arrays = {"distance": total.numpy().ravel()}
    for i, layer in enumerate(layers):
        arrays |= {f"layer{i}/distance": layer.numpy().ravel()}
        arrays |= {f"layer{i}/{side}": each[i] for side, each in zip("ab", sides, strict=True)}
    np.savez_compressed(pathlib.Path(__file__).with_name("perceptual.npz"), **arrays)


class Given(torch.nn.Module):
    """In place of a network: the activations of the first images, then of the second."""

    def __init__(self, sides):
        super().__init__()
        self.sides = sides

    def forward(self, images):
        del images
        return [torch.from_numpy(np.moveaxis(layer, -1, 1).copy()) for layer in next(self.sides)]


if __name__ == "__main__":
    main()
