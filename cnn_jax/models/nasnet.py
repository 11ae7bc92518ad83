"""NASNet-A: two cells found by search, stacked.

Zoph et al. 2018, "Learning transferable architectures for scalable image recognition", figures 2
and 4. A row "N @ P" has N normal cells a stack and P channels before the classifier. References
differ in what the strided pools of the reduction cells do at the border, see `nasnet`:
`nasnetalarge` is timm's network, `nasnetamobile` Keras's, `nasnetamobile_slim` and
`nasneta_cifar` the authors' release in TF-slim, whose initialisation and dropout all have. The
auxiliary head is left out.
"""

import re
from functools import partial

import jax.numpy as jnp
from flax.core import Scope
from jax.nn.initializers import variance_scaling
from jaxtyping import Array, Float

from cnn_jax import ops
from cnn_jax.layers import (
    Layer,
    batch_norm,
    conv,
    conv_bn,
    dense,
    dropout,
    global_avg_pool,
    layer,
    relu,
    rematerialized,
    stochastic_depth,
    tensorflow_same,
)
from cnn_jax.models.entry import Entry

# by the outputs: for a depthwise kernel in TensorFlow's axis order, its size alone
pointwise_init = variance_scaling(2.0, "fan_out", "truncated_normal")
depthwise_init = variance_scaling(2.0, "fan_in", "truncated_normal")


@layer
def relu_conv_bn(
    scope: Scope, x: Float[Array, "n h w c"], features: int, **norm: float
) -> Float[Array, "n h w features"]:
    """Rectify, convolve 1x1, normalise."""
    x = scope.child(relu, "relu")(x)
    x = scope.child(conv, "conv")(x, features, size=1, bias=False, init=pointwise_init)
    return scope.child(batch_norm, "bn")(x, **norm)


@layer
def separable(
    scope: Scope,
    x: Float[Array, "n h w c"],
    features: int,
    size: int,
    stride: int = 1,
    **norm: float,
) -> Float[Array, "n h2 w2 features"]:
    """Twice: rectify, convolve depthwise and 1x1, normalise; the first time with the stride."""
    for i, step in ((1, stride), (2, 1)):
        x = scope.child(relu, f"relu{i}")(x)
        x = scope.child(conv, f"depthwise{i}")(
            x,
            x.shape[-1],
            size=size,
            stride=step,
            groups=x.shape[-1],
            padding=tensorflow_same(x, size, step),
            bias=False,
            init=depthwise_init,
        )
        x = scope.child(conv, f"pointwise{i}")(x, features, size=1, bias=False, init=pointwise_init)
        x = scope.child(batch_norm, f"bn{i}")(x, **norm)
    return x


@layer
def factorized_reduction(
    scope: Scope, x: Float[Array, "n h w c"], features: int, **norm: float
) -> Float[Array, "n h2 w2 features"]:
    """Halve the size: 1x1 convolutions of the even and of the odd pixels, side by side."""
    halve = partial(conv, size=1, stride=2, bias=False, init=pointwise_init)
    x = scope.child(relu, "relu")(x)
    odd = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
    paths = [
        scope.child(halve, "path1")(x, features // 2),
        scope.child(halve, "path2")(odd, features // 2),
    ]
    return scope.child(batch_norm, "bn")(jnp.concatenate(paths, -1), **norm)


@layer
def avg_pool(
    scope: Scope, x: Float[Array, "n h w c"], stride: int = 1, *, count_padding: bool = False
) -> Float[Array, "n h2 w2 c"]:
    """Average 3x3 windows."""
    padding = tensorflow_same(x, 3, stride)
    return ops.avg_pool(x, 3, stride, padding, count_padding=count_padding)


@layer
def max_pool(
    scope: Scope, x: Float[Array, "n h w c"], *, pad_zeros: bool
) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of 3x3 windows, stride 2; a zero of the padding wins where pad_zeros."""
    padding = tensorflow_same(x, 3, 2)
    if pad_zeros:
        x, padding = jnp.pad(x, [(0, 0), *padding, (0, 0)]), "valid"
    return ops.max_pool(x, 3, 2, padding)


def matched(
    scope: Scope, name: str, projection: Layer, x: Array, features: int, **norm: float
) -> Array:
    """Return x, projected where it has another width."""
    return x if x.shape[-1] == features else scope.child(projection, name)(x, features, **norm)


def two_inputs(
    scope: Scope, x: Array, previous: Array | None, features: int, **norm: float
) -> tuple[Array, Array]:
    """Return a cell's input and the one before it, in this cell's width and the former's size.

    Without one before it the cell sees its input twice, the second time as it is.
    """
    h = scope.child(relu_conv_bn, "input")(x, features, **norm)
    if previous is None:
        return h, x
    if previous.shape[1:3] != x.shape[1:3]:
        return h, scope.child(factorized_reduction, "previous_reduced")(previous, features, **norm)
    return h, matched(scope, "previous", relu_conv_bn, previous, features, **norm)


def branch(scope: Scope, drop_rate: float, name: str, operation: Layer, x: Array) -> Array:
    """Run one operation of a cell; in training it is dropped now and then (section 3.2)."""
    x = scope.child(operation, name)(x)
    return scope.child(stochastic_depth, f"{name}_drop")(x, drop_rate) if drop_rate else x


@layer
def normal_cell(
    scope: Scope,
    x: Float[Array, "n h w c"],
    previous: Float[Array, "n h2 w2 c2"] | None,
    *,
    features: int,
    drop_rate: float,
    **norm: float,
) -> Float[Array, "n h w 6*features"]:
    """The cell that keeps the size (figure 4, left): five sums of two operations, and previous."""
    h, p = two_inputs(scope, x, previous, features, **norm)
    run = partial(branch, scope, drop_rate)
    sep3 = partial(separable, features=features, size=3, **norm)
    sep5 = partial(separable, features=features, size=5, **norm)
    # what projects in the first cell after the CIFAR stem, whose width is another
    match = partial(matched, scope, features=features, **norm)
    project = partial(conv_bn, size=1, init=pointwise_init)
    blocks = [
        match("previous_output", project, p),
        run("block1_left", sep5, h) + run("block1_right", sep3, p),
        run("block2_left", sep5, p) + run("block2_right", sep3, p),
        run("block3_left", avg_pool, h) + match("block3_right", relu_conv_bn, p),
        match("block4_left_output", project, run("block4_left", avg_pool, p))
        + match("block4_right_output", project, run("block4_right", avg_pool, p)),
        run("block5_left", sep3, h) + h,
    ]
    return jnp.concatenate(blocks, -1)


@layer
def reduction_cell(
    scope: Scope,
    x: Float[Array, "n h w c"],
    previous: Float[Array, "n h2 w2 c2"] | None,
    *,
    features: int,
    drop_rate: float,
    count_padding: bool,
    pad_zeros: bool,
    **norm: float,
) -> Float[Array, "n h/2 w/2 4*features"]:
    """The cell that halves the size (figure 4, right): four of five sums of two operations."""
    h, p = two_inputs(scope, x, previous, features, **norm)
    run = partial(branch, scope, drop_rate)
    sep3 = partial(separable, features=features, size=3, **norm)
    sep5 = partial(separable, features=features, size=5, stride=2, **norm)
    sep7 = partial(separable, features=features, size=7, stride=2, **norm)
    maximum = partial(max_pool, pad_zeros=pad_zeros)
    average = partial(avg_pool, stride=2, count_padding=count_padding)
    block1 = run("block1_left", sep5, h) + run("block1_right", sep7, p)
    block2 = run("block2_left", maximum, h) + run("block2_right", sep7, p)
    block3 = run("block3_left", average, h) + run("block3_right", sep5, p)
    block4 = run("block4_right", avg_pool, block1) + block2
    block5 = run("block5_left", sep3, block1) + run("block5_right", maximum, h)
    return jnp.concatenate([block2, block3, block4, block5], -1)


def nasnet(
    scope: Scope,
    images: Float[Array, "n h w c"],
    num_classes: int,
    *,
    repeats: int,
    penultimate: int,
    stem: int,
    imagenet: bool = True,
    skip_reduction_input: bool = False,
    count_padding: bool = False,
    pad_zeros: bool = False,
    dropout_rate: float = 0.5,
    drop_path_rate: float = 0.0,
    epsilon: float = 1e-3,
    momentum: float = 0.9,
) -> Float[Array, "n classes"]:
    """Return the logits.

    Args:
      repeats, penultimate: N and P of the row's name; cells start with penultimate / 24 channels.
      stem: channels of the first convolution.
      imagenet: the first convolution and two reduction cells divide the size by 8 (figure 2).
      skip_reduction_input: the normal cell after a reduction has as its previous cell the one
        before the reduction's input, as in the large network; else the reduction's input.
      count_padding: strided average pools count the zeros of the padding, as timm's and Keras's.
      pad_zeros: strided maximum pools may return a zero of the padding, as Keras's.
      drop_path_rate: of the last cell's branches; it grows linearly with depth. The authors let it
        grow from 0 during training, too.
      epsilon, momentum: of the batch normalisation.
    """
    norm = {"epsilon": epsilon, "momentum": momentum}
    kinds = {
        "normal": normal_cell,
        "reduction": partial(reduction_cell, count_padding=count_padding, pad_zeros=pad_zeros),
    }
    total = 3 * repeats + (4 if imagenet else 2)
    filters, done = penultimate // 24, 0

    def cell(kind, name, x, previous, features):
        nonlocal done
        done += 1
        rate = drop_path_rate * done / total
        body = partial(kinds[kind], features=features, drop_rate=rate, **norm)
        return scope.child(rematerialized(scope, body), name)(x, previous)

    strides = {"stride": 2, "padding": "valid"} if imagenet else {}
    x = scope.child(conv_bn, "stem")(images, stem, size=3, init=pointwise_init, **strides, **norm)
    previous = None
    if imagenet:
        x, previous = cell("reduction", "stem_cell1", x, previous, filters // 4), x
        x, previous = cell("reduction", "stem_cell2", x, previous, filters // 2), x
    for stack in range(1, 4):
        features = filters * 2 ** (stack - 1)
        if stack > 1:
            reduced = cell("reduction", f"reduction{stack - 1}", x, previous, features)
            x, previous = reduced, previous if skip_reduction_input else x
        for i in range(repeats):
            x, previous = cell("normal", f"stack{stack}_cell{i + 1}", x, previous, features), x
    x = scope.child(relu, "relu")(x)
    x = scope.child(global_avg_pool, "pool")(x)
    x = scope.child(dropout, "dropout")(x, dropout_rate)
    return scope.child(dense, "head")(x, num_classes, init=pointwise_init)


_CELL_MODULES = {
    "input": "conv_1x1",
    "previous": "conv_prev_1x1",
    "previous_reduced/path1": "path_1.conv",
    "previous_reduced/path2": "path_2.conv",
    "previous_reduced/bn": "final_path_bn",
}


def timm_name(path: str) -> str:
    """Return timm's module: stack2_cell1/block1_left/bn1 -> cell_6.comb_iter_0_left.bn_sep_1.

    timm took the names from Cadene's pretrained-models.pytorch, whose mobile network has the same
    and counts six cells a stack, too, though it has four.
    """
    if path == "head":
        return "last_linear"
    cell, *inner = path.split("/")
    if cell == "stem":
        return "conv0.bn" if inner else "conv0.conv"
    kind, number = re.fullmatch(r"(.*?)(\d+)", cell).groups()
    if kind == "stem_cell":
        cell = f"cell_stem_{int(number) - 1}"
    elif kind == "reduction":
        cell = f"reduction_cell_{int(number) - 1}"
    else:
        stack = int(re.match(r"stack(\d+)", kind).group(1))
        cell = f"cell_{6 * (stack - 1) + int(number) - 1}"
    if inner[0].startswith("block"):
        block, side = re.fullmatch(r"block(\d+)_(.*)", inner[0]).groups()
        layer, step = re.fullmatch(r"(\w+)(\d)", inner[1]).groups()
        separable = f"separable_{step}.{layer}_conv2d"
        module = f"bn_sep_{step}" if layer == "bn" else separable
        return f"{cell}.comb_iter_{int(block) - 1}_{side}.{module}"
    whole = "/".join(inner)
    if whole in _CELL_MODULES:
        return f"{cell}.{_CELL_MODULES[whole]}"
    return f"{cell}.{_CELL_MODULES[inner[0]]}.{inner[1]}"


_centred = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_mobile = partial(nasnet, repeats=4, penultimate=1056, stem=32)
_large = partial(
    nasnet,
    repeats=6,
    penultimate=4032,
    stem=96,
    skip_reduction_input=True,
    count_padding=True,
    drop_path_rate=0.3,
)
_cifar = partial(
    nasnet,
    repeats=6,
    penultimate=768,
    stem=96,
    imagenet=False,
    dropout_rate=0.0,
    drop_path_rate=0.4,
    epsilon=1e-5,
)

MODELS = {
    "nasnetamobile": Entry(
        partial(_mobile, count_padding=True, pad_zeros=True, momentum=0.9997), **_centred
    ),
    "nasnetamobile_slim": Entry(
        partial(_mobile, momentum=0.9997), published_name=timm_name, **_centred
    ),
    "nasnetalarge": Entry(
        _large, 331, published_name=timm_name, resize=363, interpolation="bicubic", **_centred
    ),
    "nasneta_cifar": Entry(_cifar, 32, num_classes=10, resize=32),
}
