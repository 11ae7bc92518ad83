"""Prints how well ten layers' activations are met, ours beside PyTorch doing the same, as Markdown.

python -m docs.inversion_errors

Of two sample photographs and EfficientNet-Lite 0, from the first layer to the last, by spectra in
decorrelated colours. PyTorch's side is written anew here: its own Fourier transform, movements,
penalty, L-BFGS, Adam and random numbers, with the settings and the budget of ours. Both pictures
are then compared with the photograph in EfficientNet-Lite 2. Runs where torch and timm are
installed beside this project, with the packages of both networks' weights.
"""

import inspect
import sys

import jax
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

import cnn_jax
from cnn_jax import trained
from cnn_jax.data import preprocessing, sample_photographs
from cnn_jax.reports import judged
from cnn_jax.visualize import inversion
from cnn_jax.visualize.image_parameterization import COLOR_MATRIX
from tests.references import torch_lite

LAYERS = {  # ours -> the module of timm's network
    "stem": "bn1",
    "stage2_block1": "blocks.1.0",
    "stage3_block1": "blocks.2.0",
    "stage4_block2": "blocks.3.1",
    "stage5_block1": "blocks.4.0",
    "stage5_block3": "blocks.4.2",
    "stage6_block2": "blocks.5.1",
    "stage7_block1": "blocks.6.0",
    "pool": "global_pool",
    "head": "classifier",
}
SETTINGS = {
    name: parameter.default
    for name, parameter in inspect.signature(inversion.invert_by_spectra).parameters.items()
}


def layer(network: torch.nn.Module, name: str):
    """Return f(pixels) -> activation of the module of this name."""
    seen = {}
    module = network.network.get_submodule(name)

    def activation(pixels):
        handle = module.register_forward_hook(lambda module, x, y: seen.update(y=y))
        network(pixels)
        handle.remove()
        return seen["y"]

    return activation


def decode(spectrum: torch.Tensor, size: int) -> torch.Tensor:
    """Return images [n, 3, size, size] of spectra [n, 3, size, size // 2 + 1, 2]: Lucid's."""
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    frequency = torch.sqrt(rows**2 + columns**2).clamp(min=1 / size)
    scaled = torch.view_as_complex(spectrum) / frequency / 4
    images = torch.fft.irfft2(scaled, s=(size, size), norm="ortho")
    matrix = torch.tensor(COLOR_MATRIX, dtype=images.dtype)
    return torch.sigmoid(torch.einsum("nchw,dc->ndhw", images, matrix))


def moved(images: torch.Tensor) -> torch.Tensor:
    """Return each image scaled, turned and shifted at random, mirrored at its edges."""
    size = images.shape[-1]
    distance = size // 14
    wide = F.pad(images, (distance,) * 4, mode="reflect") - 0.5
    scale = torch.empty(len(images)).uniform_(0.9, 1.1)
    angle = torch.deg2rad(torch.empty(len(images)).uniform_(-10, 10))
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    none = torch.zeros_like(cos)
    matrix = torch.stack([cos, -sin, none, sin, cos, none], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(wide.shape), align_corners=False)
    wide = F.grid_sample(wide, grid, align_corners=False) + 0.5
    corners = torch.randint(0, 2 * distance + 1, (len(images), 2)).tolist()
    cut = [x[:, i : i + size, j : j + size] for x, (i, j) in zip(wide, corners, strict=True)]
    return torch.stack(cut)


def error(reached: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    axes = tuple(range(1, target.ndim))
    return ((reached - target) ** 2).sum(axes) / (target**2).sum(axes)


def penalty(images: torch.Tensor) -> torch.Tensor:
    x = 2 * images - 1
    right, lower = F.pad(x.diff(dim=3), (0, 1)), F.pad(x.diff(dim=2), (0, 0, 0, 1))
    variation = (right**2 + lower**2).mean((1, 2, 3))
    return SETTINGS["alpha_weight"] * (x.abs() ** 6).mean((1, 2, 3)) + (
        SETTINGS["variation_weight"] * variation
    )


def invert(f, pixels: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pictures and their errors, each image by itself."""
    found = [invert_one(f, image[None], steps) for image in pixels]
    images, errors = zip(*found, strict=True)
    return torch.cat(images), torch.cat(errors)


def invert_one(f, pixels: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    size, target = pixels.shape[-1], f(pixels)
    still, best = target.ndim == 4, (torch.inf, None)
    spectrum = (0.01 * torch.randn(1, 3, size, size // 2 + 1, 2)).requires_grad_()
    if still:
        options = {"history_size": 10, "line_search_fn": "strong_wolfe"}
        never = {"tolerance_grad": 0, "tolerance_change": 0}
        optimizer = torch.optim.LBFGS(
            [spectrum], max_iter=steps, max_eval=steps, **options, **never
        )
    else:
        optimizer = torch.optim.Adam([spectrum], SETTINGS["learning_rate"])
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def closure():
        nonlocal best
        optimizer.zero_grad()
        images = decode(spectrum, size)
        seen = images if still else moved(images)
        loss = (error(f(seen), target) + penalty(images)).sum()
        if loss.item() < best[0]:
            best = (loss.item(), spectrum.detach().clone())
        loss.backward()
        return loss

    if still:
        optimizer.step(closure)
    else:
        for _ in range(steps):
            optimizer.step(closure)
            cosine.step()
    with torch.no_grad():
        images = decode(best[1] if still else spectrum, size)
        return images, error(f(images), target)


def main() -> None:
    cnn_jax.configure()
    torch.manual_seed(0)
    network, torchs = trained.embedded(), torch_lite.load()
    judge = trained.from_weights("tf_efficientnet_lite2", "pretrained")
    photographs = sample_photographs.PHOTOGRAPHS[:2]
    opened = [Image.open(each.path).convert("RGB") for each in photographs]
    seen = [preprocessing.preprocess(each, network.preprocessing) for each in opened]
    pixels = np.stack(list(map(preprocessing.to_array, seen))).astype(np.float32) / 255
    f = trained.layers(network, LAYERS)
    inverted = inversion.invert_by_spectra(f, tuple(LAYERS), pixels, jax.random.key(0))
    ours = {path: np.asarray(found.images) for path, found in inverted.items()}
    theirs, errors, first = {}, {}, torch_lite.first(pixels)
    for path, name in LAYERS.items():
        images, found = invert(layer(torchs, name), first, len(inverted[path].history))
        theirs[path], errors[path] = torch_lite.last(images), found.numpy()
        print(path, found, file=sys.stderr)
    distances = [judged.differences(judge, pixels, each) for each in (ours, theirs)]
    print("| layer | steps | error, JAX | error, torch | distance, JAX | distance, torch |")
    print("|---|---|---|---|---|---|")
    for path, found in inverted.items():
        told = [found.error, errors[path], *(each["distance"][path] for each in distances)]
        numbers = " | ".join(f"{np.mean(each):.3f}" for each in told)
        print(f"| {path} | {len(found.history)} | {numbers} |")
    print(f"\nmean colour: {np.mean(distances[0]['mean_color']):.3f}")


if __name__ == "__main__":
    main()
