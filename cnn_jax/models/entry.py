"""What the registry knows of a model before it is built."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Timm(NamedTuple):
    """The very same network in timm, whose weights have other names.

    module: our scope path -> its module there.  leaves: our name of a variable -> its, where it is
    not the one of cnn_jax.weights.convert.
    """

    model: str
    module: Callable[[str], str]
    leaves: Mapping[str, str] = MappingProxyType({})


class Entry(NamedTuple):
    """A row of a family's table. The fields after `task` describe its published weights."""

    function: Callable[..., Array]  # f(scope, images, num_classes, **options) -> logits
    image_size: int = 224  # the native resolution, in pixels; what evaluation crops
    channels: int = 3
    num_classes: int = 1000
    task: str = "classification"  # what the outputs are for: the kind of network
    # our scope path -> the module of that name in the published weights ("layer1.0.conv1");
    # None: the path with dots
    published_name: Callable[[str], str] | None = None
    # a tensor's name in older files -> its name today
    current_name: Callable[[str], str] | None = None
    timm: Timm | None = None
    # beginnings of the names of tensors that published files hold and this network does without
    unused: tuple[str, ...] = ()
    # evaluation: the shorter side is resized to `resize` pixels, the centre cropped to image_size,
    # and (image / 255 - mean) / std computed; mean and std of a channel, in 0..1 units
    resize: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    norm_epsilon: float = 1e-5  # of the norms that the network holds constant
