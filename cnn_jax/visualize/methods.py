"""The methods by name, each as one map an image, for tables that compare them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cnn_jax import errors, plugins
from cnn_jax.errors import UsageError
from cnn_jax.visualize import grad_cam, gradients
from cnn_jax.visualize.batching import DEFAULT_BATCH, Progress, WatchMaps, in_batches, no_progress
from cnn_jax.visualize.grad_cam import TappedClassifier
from cnn_jax.visualize.occlusion import occlusion
from cnn_jax.visualize.rise import rise
from cnn_jax.visualize.scores import Images, Targets

Maps = Float[Array, "n h w"]


class Settings(NamedTuple):
    """What the methods take beside network, images and targets.

    layer: of Grad-CAM; None: the last one with rows and columns.
    steps, samples, masks: of integrated gradients, SmoothGrad and RISE.
    settled: the reliability at which RISE's map needs no more masks; None: it takes them all.
    window: side of the occluding square; None: a quarter of the image. Its stride is half of it.
    batch_size: network inputs at once.
    progress: wraps the loops over batches of inputs.
    watch: is shown the maps so far by the methods that add them up from many inputs, occlusion and
      RISE, after each batch.
    """

    key: Array
    layer: str | None = None
    steps: int = 50
    samples: int = 50
    masks: int = 2000
    settled: float | None = None
    window: int | None = None
    batch_size: int = DEFAULT_BATCH
    progress: Progress = no_progress
    watch: WatchMaps | None = None


class Method(NamedTuple):
    """explain(f, images, targets, settings) -> maps; signed: negative pixels speak against."""

    title: str
    explain: Callable[[TappedClassifier, Images, Targets, Settings], Maps]
    signed: bool = False


def _largest(maps):
    return jnp.abs(maps).max(axis=-1)


def _sum(maps):
    return maps.sum(axis=-1)


def _batches(settings):
    return {"batch_size": settings.batch_size, "progress": settings.progress}


def _at_once(method, reduce):
    """Explain images batch by batch, and reduce the channels."""

    def explain(f, images, targets, settings):
        def maps(*batch):
            return reduce(method(f, *batch))

        return in_batches(maps, images, targets, **_batches(settings))

    return explain


def _integrated_gradients(f, images, targets, settings):
    options = {"steps": settings.steps} | _batches(settings)
    return _sum(gradients.integrated_gradients(f, images, targets, **options))


def _smooth_grad(f, images, targets, settings):
    options = {"samples": settings.samples} | _batches(settings)
    return _largest(gradients.smooth_grad(f, images, targets, settings.key, **options))


def _layer(f, images, settings):
    return settings.layer or grad_cam.last_spatial_layer(f, images[:1])


def _grad_cam(f, images, targets, settings):
    layer = _layer(f, images, settings)

    def method(f, *batch):
        return grad_cam.grad_cam(f, *batch, layer)

    enlarge = partial(grad_cam.upsample, size=images.shape[1:3])
    return _at_once(method, enlarge)(f, images, targets, settings)


def _guided_grad_cam(f, images, targets, settings):
    layer = _layer(f, images, settings)

    def method(f, *batch):
        return grad_cam.guided_grad_cam(f, *batch, layer)

    return _at_once(method, _largest)(f, images, targets, settings)


def _occlusion(f, images, targets, settings):
    window = settings.window or max(min(images.shape[1:3]) // 4, 1)
    places = {"window": (window, window), "stride": (max(window // 2, 1),) * 2}
    return occlusion(f, images, targets, **places, **_batches(settings), watch=settings.watch)


def _rise(f, images, targets, settings):
    options = {"masks": settings.masks, "settled": settings.settled} | _batches(settings)
    return rise(f, images, targets, settings.key, **options, watch=settings.watch)


def _edges(f, images, targets, settings):
    del f, targets, settings
    grey = jnp.asarray(images).mean(axis=-1)
    return jnp.hypot(*jnp.gradient(grey, axis=(1, 2)))


def _noise(f, images, targets, settings):
    del f, targets
    return jax.random.uniform(settings.key, images.shape[:3])


METHODS = {
    "saliency": Method("saliency", _at_once(gradients.gradient, _largest)),
    "smooth_grad": Method("SmoothGrad", _smooth_grad),
    "gradient_times_input": Method(
        "gradient x input", _at_once(gradients.gradient_times_input, _sum), signed=True
    ),
    "integrated_gradients": Method("integrated gradients", _integrated_gradients, signed=True),
    "deconvnet": Method("deconvnet", _at_once(gradients.deconvnet, _largest)),
    "guided_backprop": Method("guided backprop", _at_once(gradients.guided_backprop, _largest)),
    "grad_cam": Method("Grad-CAM", _grad_cam),
    "guided_grad_cam": Method("guided Grad-CAM", _guided_grad_cam),
    "occlusion": Method("occlusion", _occlusion, signed=True),
    "rise": Method("RISE", _rise),
}

# maps that know nothing of the network: what a method has to do better than
CONTROLS = {
    "edges": Method("edges (control)", _edges),
    "noise": Method("noise (control)", _noise),
}


def register_method(name: str, method: Method) -> None:
    """Let --methods know an explanation method by this name.

    Raises:
      UsageError: the name is taken, or this is no Method.
    """
    if not isinstance(method, Method):
        raise UsageError(f"the method {name!r} is no cnn_jax.visualize.methods.Method; make one")
    if name in CONTROLS:
        raise UsageError(f"there is a control {name!r} already; register yours by another name")
    plugins.register(METHODS, "method", name, method)


def named(name: str) -> Method:
    """Return the method or control of this name.

    Raises:
      UsageError: there is none; the message names the near ones.
    """
    known = METHODS | CONTROLS
    if name not in known:
        raise errors.unknown("method", name, known)
    return known[name]
