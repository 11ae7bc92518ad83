"""Style transfer: the content of one image in the style of another.

Gatys, Ecker & Bethge 2016, "Image style transfer using convolutional neural networks": an image is
sought whose activations are the content's at one layer and whose Gram matrices are the style's at
several. Over its spectrum in decorrelated colours this serves networks other than VGG as well,
whose gradients to the pixels are mostly fine noise (Mordvintsev et al. 2018, "Differentiable image
parameterizations", section 2). Works from coarse to fine, and keeps the content's colours if asked,
as in Gatys et al. 2017, "Controlling perceptual factors in neural style transfer", section 5
(luminance only).
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from cnn_jax.runtime.partial import as_partial
from cnn_jax.runtime.platform_loop import Progress
from cnn_jax.visualize import image_parameterization, regularizers
from cnn_jax.visualize.lbfgs import lbfgs
from cnn_jax.visualize.minimize import minimize

F = Callable[[Float[Array, "n h w c"]], Mapping[str, Float[Array, "n h w c"]]]

# luminance and the two colour differences of NTSC
_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])  # fmt: skip # noqa: E501


class Style(NamedTuple):
    """image: in 0..1.  gram_error: ||G - A||^2 / ||A||^2 of each style layer, at the start and of
    the image.  content_error: ||F - P||^2 / ||P||^2.  history: the loss by step, of each scale.
    """

    image: Float[Array, "h w c"]
    gram_error: Mapping[str, tuple[float, float]]
    content_error: Mapping[str, float]
    history: tuple[Float[Array, " steps"], ...]


def gram(features: Float[Array, "n h w c"]) -> Float[Array, "n c c"]:
    """Return the sums over all places of the products of each two channels (equation 3)."""
    flat = features.reshape(len(features), -1, features.shape[-1])
    return jnp.einsum("npc,npd->ncd", flat, flat)


def style_loss(
    features: Float[Array, "n h w c"], style: Float[Array, "m h2 w2 c"]
) -> Float[Array, " n"]:
    """Return ||G / M - A / M'||^2 / (4 N^2) for N channels and M places (equation 4).

    Images of one size have M = M', which is the paper's case.
    """
    return _gram_loss(features, _mean_gram(style))


def content_loss(
    features: Float[Array, "n h w c"], content: Float[Array, "n h w c"]
) -> Float[Array, " n"]:
    """Return half the squared distance (equation 1)."""
    return jnp.sum((features - content) ** 2, axis=(1, 2, 3)) / 2


def _mean_gram(features):
    return gram(features) / (features.shape[1] * features.shape[2])


def _gram_loss(features, target):
    difference = _mean_gram(features) - target
    return jnp.sum(difference**2, axis=(1, 2)) / (4 * features.shape[-1] ** 2)


def transfer(
    f: F,
    content: Float[Array, "h w c"],
    style: Float[Array, "h2 w2 c"],
    *,
    content_weights: Mapping[str, float],
    style_weights: Mapping[str, float],
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    variation_weight: float = 1e-3,
    scales: int = 1,
    keep_color: bool = False,
    start: Float[Array, "h w c"] | None = None,
    spectrum: bool = False,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 300,
    progress: Progress | None = None,
) -> Style:
    """Return the content in the style.

    Every term is relative: a layer's content loss by that of an empty image, its style loss by
    that of no activation. So the weights fit networks whose activations are of any size.

    Args:
      f: images in 0..1 of any size -> activations by path.
      content_weights, style_weights: of the layers.
      variation_weight: of the mean total variation.
      scales: sizes, each half of the next; the result of one is the start of the next.
      keep_color: only the luminance takes the style.
      start: by default the content.
      spectrum: seek the image by its spectrum; else by its pixels, as Gatys et al.
      optimizer: of optax, or `lbfgs()`; by default Adam for spectra, else the latter.
      steps: evaluations at each scale.
    """
    content, style = jnp.asarray(content), jnp.asarray(style)
    if keep_color and content.shape[-1] == 3:
        style = _with_luminance_of(style, content)
    image, histories = content if start is None else jnp.asarray(start), []
    f, run = as_partial(f), jax.jit(f)
    if optimizer is None:
        optimizer = optax.adam(0.05) if spectrum else lbfgs()
    weights = (dict(content_weights), dict(style_weights))
    factors = (content_weight, style_weight, variation_weight)
    for k in reversed(range(scales)):
        small = [_shrink(each, 2**k) for each in (content, style)]
        shape = (1, *small[0].shape)
        if spectrum:
            parameterization = image_parameterization.fourier(shape)
        else:
            parameterization = image_parameterization.pixels(shape, bounded=True)
        seen, styled = (run(each[None]) for each in small)
        targets = (
            {path: seen[path] for path in content_weights},
            {path: _mean_gram(styled[path]) for path in style_weights},
        )
        found = minimize(
            _loss_over(parameterization.decode),
            # black and white, the ends of a sigmoid, could hardly be left again
            parameterization.encode(
                jnp.clip(jax.image.resize(image[None], shape, "linear"), 0.1, 0.9)
            ),
            None,
            *(f, targets, weights, factors),
            steps=steps,
            optimizer=optimizer,
            progress=progress,
        )
        image = parameterization.decode(found.params)[0]
        histories.append(found.history[:, 0])
    before, after = (run(each[None]) for each in (content, image))
    target = run(style[None])
    grams = {
        path: tuple(
            float(_relative(_mean_gram(each[path]), _mean_gram(target[path])))
            for each in (before, after)
        )
        for path in style_weights
    }
    distance = {p: float(_relative(after[p], before[p])) for p in content_weights}
    if keep_color and content.shape[-1] == 3:
        image = luminance_only(image, content)
    return Style(image, grams, distance, tuple(histories))


@functools.lru_cache(maxsize=16)  # so that the next image of the size compiles nothing
def _loss_over(decode):
    return functools.partial(_loss, decode)


def _loss(decode, params, _, f, targets, weights, factors):
    images = decode(params)
    contents, grams = targets
    content_weight, style_weight, variation_weight = factors
    seen, total = f(images), 0.0
    for path, target in contents.items():
        loss = content_loss(seen[path], target) / content_loss(target, jnp.zeros_like(target))
        total = total + content_weight * weights[0][path] * loss
    for path, target in grams.items():
        none = jnp.sum(target**2) / (4 * target.shape[-1] ** 2)
        total = total + style_weight * weights[1][path] * _gram_loss(seen[path], target) / none
    size = images[0].size
    return total + variation_weight * regularizers.total_variation(images) / size


def _relative(array, target):
    return jnp.sum((array - target) ** 2) / jnp.sum(target**2)


def _shrink(image, factor):
    h, w, c = image.shape
    return jax.image.resize(image, (max(1, h // factor), max(1, w // factor), c), "linear")


def luminance_only(
    image: Float[Array, "h w 3"], colors: Float[Array, "h w 3"]
) -> Float[Array, "h w 3"]:
    """Return the luminance of the image in the colours (YIQ) of the other, clipped to 0..1."""
    matrix = jnp.asarray(_YIQ, image.dtype)
    yiq = jnp.concatenate([(image @ matrix.T)[..., :1], (colors @ matrix.T)[..., 1:]], axis=-1)
    return jnp.clip(yiq @ jnp.linalg.inv(matrix).T, 0, 1)


def _with_luminance_of(style, content):
    """Return the style in grey, its luminance given the content's mean and deviation."""
    y, target = (image @ jnp.asarray(_YIQ[0], image.dtype) for image in (style, content))
    matched = (y - y.mean()) * target.std() / jnp.maximum(y.std(), 1e-6) + target.mean()
    return jnp.repeat(jnp.clip(matched, 0, 1)[..., None], 3, axis=-1)
