"""Class activation maps from the gradient at a layer: Grad-CAM and guided Grad-CAM.

f(images, tap=tap) -> logits passes its activations through the tap, see cnn_jax.taps. A function
of one's own does so with a line: `x = tap("features", x)`.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax import taps
from cnn_jax.errors import UsageError
from cnn_jax.runtime.partial import as_partial
from cnn_jax.visualize.gradients import guided_backprop
from cnn_jax.visualize.scores import Images, Targets, class_scores

TappedClassifier = Callable[..., Float[Array, "n classes"]]


def grad_cam(
    f: TappedClassifier, images: Images, targets: Targets, layer: str
) -> Float[Array, "n rows columns"]:
    """Return relu(sum_k mean(d score / d A_k) A_k) over the channels A_k of a layer.

    Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2. `upsample` brings the map to the
    image's size.

    Raises:
      UsageError: no such layer, or one without rows and columns.
    """
    images, targets = jnp.asarray(images), jnp.asarray(targets)
    return _grad_cam(as_partial(f), images, targets, layer)


@partial(jax.jit, static_argnames="layer")
def _grad_cam(f, images, targets, layer):
    values, slopes = taps.gradients(
        lambda _, images, tap: f(images, tap=tap),
        lambda logits: class_scores(logits, targets).sum(),
        (),
        images,
        [layer],
    )
    activation, slope = values[layer], slopes[layer]
    require_extent(layer, activation.shape)
    weights = slope.mean(axis=(1, 2), keepdims=True)
    return jax.nn.relu((weights * activation).sum(axis=-1))


def require_extent(layer: str, shape: tuple[int, ...]) -> None:
    """Raise UsageError if the activation of this shape has no rows and columns."""
    if len(shape) != 4:
        raise UsageError(
            f"layer {layer!r} has no rows and columns, its activation is "
            f"{'x'.join(map(str, shape[1:]))}; take a layer before the pooling or flattening"
        )


def last_spatial_layer(f: TappedClassifier, images: Images) -> str:
    """Return the path of the last layer with rows and columns, where Grad-CAM is usually taken.

    Raises:
      UsageError: there is none with more than one position.
    """
    shapes = taps.activation_shapes(lambda _, images, tap: f(images, tap=tap), (), images)
    spatial = [path for path, a in shapes.items() if len(a.shape) == 4 and a.shape[1:3] != (1, 1)]
    if not spatial:
        raise UsageError("no layer of this network has rows and columns")
    return spatial[-1]


def upsample(maps: Float[Array, "n rows columns"], size: tuple[int, int]) -> Float[Array, "n h w"]:
    """Return the maps enlarged to (h, w) by bilinear interpolation between the cells' centres."""
    return jax.image.resize(maps, (len(maps), *size), "bilinear", antialias=False)


def guided_grad_cam(f: TappedClassifier, images: Images, targets: Targets, layer: str) -> Images:
    """Return guided backpropagation times the enlarged Grad-CAM: fine, and of the class.

    Selvaraju et al. 2017, section 3.2.
    """
    cam = upsample(grad_cam(f, images, targets, layer), images.shape[1:3])
    return guided_backprop(f, images, targets) * cam[..., None]
