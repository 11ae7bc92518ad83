"""Pictures of experiments.architectures: the lecture's modules, and errors against costs."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox

from cnn_jax.models import (
    densenet,
    googlenet,
    mobilenet_v2,
    published,
    resnet,
    senet,
    wide_resnet,
)
from cnn_jax.programs import layer_table


def _dense_block(scope, x, *, growth, layers, **settings):
    """Three layers, so that the pattern shows."""
    for i in range(layers):
        new = scope.child(densenet.dense_layer, f"layer{i + 1}")(x, growth=growth, **settings)
        x = jnp.concatenate([x, new], axis=-1)
    return x


_dense = {"growth": 32, "bottleneck": False, "dropout_rate": 0, "layers": 3}

# name -> title, function of a scope and a map, shape of the map
MODULES: dict[str, tuple[str, Any, tuple[int, int, int]]] = {
    "naive_inception": (
        "Naive inception",
        partial(googlenet.naive_inception, f1x1=128, f3x3=192, f5x5=96),
        (28, 28, 256),
    ),
    "inception": (
        "Inception",
        partial(googlenet.inception, filters=googlenet.Inception(128, 64, 192, 64, 96, 64)),
        (28, 28, 256),
    ),
    "residual": ("Residual (basic)", partial(resnet.basic_block, features=64), (56, 56, 64)),
    "bottleneck": (
        "Bottleneck",
        partial(resnet.bottleneck_block, features=64),
        (56, 56, 256),
    ),
    "projection": (
        "Bottleneck with projection shortcut",
        partial(resnet.bottleneck_block, features=128, stride=2),
        (56, 56, 256),
    ),
    "se": ("Squeeze and excitation", partial(senet.se_bottleneck, features=64), (56, 56, 256)),
    "resnext": (
        "ResNeXt",
        partial(resnet.bottleneck_block, features=64, groups=32, group_width=4),
        (56, 56, 256),
    ),
    "wide_basic": (
        "Basic, pre-activated",
        partial(wide_resnet.basic_block, features=16),
        (32, 32, 16),
    ),
    "wide_bottleneck": (
        "Bottleneck, pre-activated",
        partial(wide_resnet.bottleneck_block, features=16),
        (32, 32, 64),
    ),
    "basic_wide": ("Basic-wide", partial(wide_resnet.basic_block, features=160), (32, 32, 160)),
    "wide_dropout": (
        "Wide-dropout, training",
        partial(wide_resnet.basic_block, features=160, dropout_rate=0.3),
        (32, 32, 160),
    ),
    "dense": ("Dense block of three layers", partial(_dense_block, **_dense), (56, 56, 64)),
    "inverted_residual": (
        "Inverted residual (MobileNet V2)",
        partial(mobilenet_v2.inverted_residual, features=24, expanded=144),
        (56, 56, 24),
    ),
}


def analyse_module(name: str) -> layer_table.Analysis:
    """Trace one of the lecture's modules on its map."""
    _, function, shape = MODULES[name]
    x = jax.ShapeDtypeStruct((1, *shape), np.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda: flax.core.init(function)(key, jnp.zeros(x.shape))[1])
    dropping = name == "wide_dropout"  # does nothing outside training

    def apply(variables, x):
        call = flax.core.apply(function, mutable=["batch_stats"], flags={"train": dropping})
        return call(variables, x, rngs={"dropout": key})[0]

    return layer_table.analyse(apply, flax.core.unfreeze(variables), x)


FAMILIES = {
    "AlexNet, VGG": (("alexnet", "vgg"), "#6b7280"),
    "GoogLeNet": (("googlenet",), "#b45309"),
    "ResNet, Wide ResNet, ResNeXt": (("resnet", "wide_resnet", "resnext"), "#2563b8"),
    "SENet": (("seresn", "senet", "legacy_se"), "#7c3aed"),
    "DenseNet": (("densenet",), "#0f8a5f"),
    "MobileNet": (("mobilenet",), "#d9822b"),
    "NASNet": (("nasnet",), "#c02656"),
    "EfficientNet": (("efficientnet", "tf_efficientnet"), "#0e7490"),
    "RegNet": (("regnet",), "#65a30d"),
    "ConvNeXt": (("convnext",), "#111827"),
}


def bubbles(rows: Sequence[Mapping[str, Any]], cost: str) -> Figure:
    """Published top-1 errors on ImageNet against "macs" or "params", areas by the other."""
    other = {"macs": "params", "params": "macs"}[cost]
    unit = {"macs": (1e9, "multiply-accumulates, 10⁹"), "params": (1e6, "parameters, 10⁶")}
    scale = {"params": 1 / 1.2e5, "macs": 1 / 2e7}[other]
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots()
    points: list[tuple[str, float, float]] = []
    for family, (beginnings, color) in FAMILIES.items():
        members = [
            row
            for row in rows
            if row["name"].startswith(beginnings)
            and row["published"]
            and row["published"]["top1_error"] is not None
            and row["published"]["protocol"] == published.CENTRE_CROP
        ]
        if not members:
            continue
        x = [row[cost] / unit[cost][0] for row in members]
        y = [row["published"]["top1_error"] for row in members]
        area = [row[other] * scale for row in members]
        axes.scatter(x, y, area, color=color, alpha=0.45, linewidth=0)
        axes.scatter(x, y, 6, color=color, label=family)
        points += zip([row["name"] for row in members], x, y, strict=True)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.1)
    axes.yaxis.set_major_locator(FixedLocator(range(10, 60, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel=unit[cost][1], ylabel="top-1 error, %")
    axes.set_title(f"area: {unit[other][1].partition(',')[0]}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e1e5ea", lw=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8)
    _name_points(figure, axes, points)
    return figure


def _name_points(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write the names beside the points where there is room, the smallest errors first."""
    figure.draw_without_rendering()  # lays the axes out
    taken: list[Bbox] = []
    for name, x, y in sorted(points, key=lambda point: point[2]):
        place = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": 6.5}
        text = axes.annotate(name, (x, y), **place, color="#1c2330", in_layout=False)
        extent = text.get_window_extent()
        if any(extent.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(extent)
