"""Maps of what a score depends on, from its gradient with respect to the pixels.

Every function takes f(images) -> logits and one target class an image. The score is the logit, not
the probability, whose gradient also asks how to lower the other classes (Simonyan et al. 2014).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.runtime.partial import as_partial
from cnn_jax.visualize.batching import DEFAULT_BATCH, Progress, even_batch, no_progress
from cnn_jax.visualize.relu_rule import with_relu_rule
from cnn_jax.visualize.scores import Classifier, Images, Targets, class_scores


def gradient(f: Classifier, images: Images, targets: Targets) -> Images:
    """Return d score / d image."""
    return _gradient(as_partial(f), jnp.asarray(images), jnp.asarray(targets))


@jax.jit
def _gradient(f, images, targets):
    return jax.grad(lambda images: class_scores(f(images), targets).sum())(images)


def saliency(f: Classifier, images: Images, targets: Targets) -> Float[Array, "n h w"]:
    """Return the largest |d score / d channel| of each pixel.

    Simonyan, Vedaldi & Zisserman 2014, "Deep inside convolutional networks", section 3.1.
    """
    return jnp.abs(gradient(f, images, targets)).max(axis=-1)


def gradient_times_input(f: Classifier, images: Images, targets: Targets) -> Images:
    """Return the gradient times the image: for a linear score, each pixel's share of it."""
    return gradient(f, images, targets) * images


def guided_backprop(f: Classifier, images: Images, targets: Targets) -> Images:
    """Return the gradient, of which each ReLU passes back the positive part alone.

    Springenberg et al. 2015, "Striving for simplicity", section 3.4.

    Raises:
      UsageError: f has no ReLU.
    """
    return gradient(with_relu_rule(f, "guided"), images, targets)


def deconvnet(f: Classifier, images: Images, targets: Targets) -> Images:
    """Return the gradient with each ReLU replaced, on the way back, by a ReLU of the gradient.

    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1.

    Raises:
      UsageError: f has no ReLU.
    """
    return gradient(with_relu_rule(f, "deconvnet"), images, targets)


def integrated_gradients(
    f: Classifier,
    images: Images,
    targets: Targets,
    *,
    baseline: Float[Array, "..."] | float = 0.0,
    steps: int = 50,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
) -> Images:
    """Return (image - baseline) times the mean gradient on the way from baseline to image.

    The maps of an image add up to its score less the baseline's, up to the error of the
    Gauss-Legendre rule. Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks",
    equation 1.

    Args:
      baseline: what counts as nothing, by default black; broadcast to the images.
      steps: nodes of the rule.
      batch_size: network inputs at once.
      progress: wraps the loop over batches, of each image in turn.
    """
    images = jnp.asarray(images)
    baselines = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # of the interval from -1 to 1
    nodes, weights = _padded(steps, batch_size, (nodes + 1) / 2, weights / 2)
    ways = jnp.asarray(nodes, images.dtype)[:, None, None, None]
    maps = [
        (image - start)
        * _mean_gradient(f, start + ways * (image - start), target, weights, progress)
        for image, start, target in zip(images, baselines, targets, strict=True)
    ]
    return jnp.stack(maps)


def smooth_grad(
    f: Classifier,
    images: Images,
    targets: Targets,
    key: Array,
    *,
    samples: int = 50,
    noise: float = 0.15,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress = no_progress,
) -> Images:
    """Return the mean gradient over noisy copies of the image.

    Image i's noise is drawn with fold_in(key, i), as normal [samples, h, w, c]. Smilkov et al.
    2017, "SmoothGrad".

    Args:
      noise: standard deviation, in units of each image's range from its least to its most.
      batch_size: network inputs at once.
      progress: wraps the loop over batches, of each image in turn.
    """
    images = jnp.asarray(images)
    rows, weights = _padded(samples, batch_size, np.arange(samples), np.full(samples, 1 / samples))
    maps = []
    for i, (image, target) in enumerate(zip(images, targets, strict=True)):
        drawn = jax.random.normal(jax.random.fold_in(key, i), (samples, *image.shape), image.dtype)
        copies = image + noise * (image.max() - image.min()) * drawn[rows]
        maps.append(_mean_gradient(f, copies, target, weights, progress))
    return jnp.stack(maps)


def _padded(count, batch_size, nodes, weights):
    """Fill up the last batch with a node of weight zero; return batches of weights."""
    size = even_batch(count, batch_size)
    extra = -count % size
    return np.pad(nodes, (0, extra), mode="edge"), np.pad(weights, (0, extra)).reshape(-1, size)


def _mean_gradient(f, points, target, weights, progress):
    """Return the gradient's weighted sum over the points, a batch a row of the weights."""
    total = 0
    for i, batch in progress(list(enumerate(weights)), len(weights)):
        part = points[i * len(batch) : (i + 1) * len(batch)]
        slopes = gradient(f, part, jnp.full(len(batch), target))
        total += jnp.tensordot(jnp.asarray(batch, points.dtype), slopes, axes=1)
    return total
