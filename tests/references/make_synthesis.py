"""Writes synthesis.npz: what PyTorch and Lucent compute, in float64, for images that are optimised.

Run with torch and torch-lucent 0.1.8 in the environment: python tests/references/make_synthesis.py

Lucent is Lucid's port: its Fourier images, decorrelated colours, rotation and diversity are used as
they are. Arrays are laid out as in cnn_jax (channels last).
"""

import pathlib

import lucent.optvis.param.color as lucent_color
import lucent.optvis.param.spatial as lucent_spatial
import numpy as np
import torch
import torch.nn.functional as F
from lucent.optvis import objectives

torch.set_default_dtype(torch.float64)


def first(array):
    """Channels last to channels first, as a tensor."""
    return torch.tensor(np.moveaxis(array, -1, 1))


def last(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def fourier(random, height, width):
    """Lucent's image of a spectrum; its float32 scale and colours are given to it in float64."""
    parameters, image = lucent_spatial.fft_image((2, 3, height, width))
    inside = dict(zip(image.__code__.co_freevars, image.__closure__, strict=True))
    spectrum = random.normal(size=parameters[0].shape)
    frequencies = lucent_spatial.rfft2d_freqs(height, width)
    scale = 1.0 / np.maximum(frequencies, 1.0 / max(width, height))
    np.testing.assert_allclose(inside["scale"].cell_contents.squeeze(), scale, rtol=1e-6)
    inside["scale"].cell_contents = torch.tensor(scale)[None, None, ..., None]
    inside["spectrum_real_imag_t"].cell_contents = torch.tensor(spectrum)
    root = lucent_color.color_correlation_svd_sqrt.astype(np.float64).round(2)
    matrix = root / np.linalg.norm(root, axis=0).max()
    np.testing.assert_allclose(lucent_color.color_correlation_normalized, matrix, rtol=1e-6)
    lucent_color.color_correlation_normalized = matrix
    valid = lucent_color.to_valid_rgb(image, decorrelate=True)()
    kept = width // 2 + 1  # Lucent draws one column more than it uses where the width is odd
    return {
        "spectrum": np.moveaxis(spectrum, 1, 3)[:, :, :kept],
        "images": last(valid),
        "colors": matrix,
    }


def total_variation(images, beta):
    """Mahendran & Vedaldi's formula, term by term."""
    total = torch.zeros(len(images))
    n, c, h, w = images.shape
    for i in range(h):
        for j in range(w):
            here = images[:, :, i, j]
            right = images[:, :, i, j + 1] - here if j + 1 < w else torch.zeros(n, c)
            lower = images[:, :, i + 1, j] - here if i + 1 < h else torch.zeros(n, c)
            total = total + ((right**2 + lower**2) ** (beta / 2)).sum(1)
    return total


def penalties(random):
    images = random.normal(size=(2, 5, 6, 3))
    found = {"images": images}
    for name, penalty in {
        "l2": lambda x: x.pow(2).sum((1, 2, 3)),
        "alpha_norm": lambda x: torch.linalg.vector_norm(x, 6, dim=(1, 2, 3)) ** 6,
        "total_variation_2": lambda x: total_variation(x, 2.0),
        "total_variation_1": lambda x: total_variation(x, 1.0),
    }.items():
        x = first(images).requires_grad_()
        values = penalty(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
        found |= {name: values.detach().numpy(), f"{name}_gradient": last(gradient)}
    return found


def diversity(random):
    """Lucent's sum over pairs, of both orders, over the number of images; negative."""
    activation = random.normal(size=(3, 4, 5, 6))
    objective = objectives.diversity("layer")
    return {"activation": activation, "value": float(objective(lambda _: first(activation)))}


def rotation(random):
    """torch's bilinear sampling of a grid turned counter-clockwise and scaled, nothing outside."""
    images = random.normal(size=(2, 9, 8, 3))
    angle, scale = np.deg2rad(17.0), 1.15
    h, w = images.shape[1:3]
    # affine_grid's coordinates run over -1..1 at the pixels' outer edges
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    theta = torch.tensor([[[c, -s * h / w, 0.0], [s * w / h, c, 0.0]]]).expand(2, -1, -1)
    grid = F.affine_grid(theta, (2, 3, h, w), align_corners=False)
    turned = F.grid_sample(first(images), grid, align_corners=False, padding_mode="zeros")
    return {"images": images, "degrees": 17.0, "scale": scale, "turned": last(turned)}


def style(random):
    """Gatys et al. 2016: Gram matrices, equations 3 to 6, and the gradient by the activations."""
    features, other = random.normal(size=(2, 1, 5, 6, 4))
    x, a = first(features).requires_grad_(), first(other)
    n, m = 4, 30

    def gram(y):
        y = y.reshape(1, n, m)
        return torch.bmm(y, y.transpose(1, 2))

    style_loss = (gram(x) - gram(a)).pow(2).sum() / (4 * n**2 * m**2)
    content_loss = (x - a).pow(2).sum() / 2
    (gradient,) = torch.autograd.grad(style_loss, x)
    return {
        "features": features,
        "other": other,
        "gram": gram(x).detach().numpy(),
        "style_loss": style_loss.item(),
        "content_loss": content_loss.item(),
        "style_gradient": last(gradient),
    }


def main():
    random = np.random.default_rng(20)
    cases = {
        "fourier_even": fourier(random, 6, 8),
        "fourier_odd": fourier(random, 5, 7),
        "penalties": penalties(random),
        "diversity": diversity(random),
        "rotation": rotation(random),
        "style": style(random),
    }
    arrays = {f"{case}/{name}": a for case, own in cases.items() for name, a in own.items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("synthesis.npz"), **arrays)


if __name__ == "__main__":
    main()
