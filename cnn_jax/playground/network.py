"""Trained networks of ours as the page's: a chain of layers as text, and their weights.

What the page makes of the chain is computed here too, by the package's own operations, and compared
with the network: what differs is refused, so that no other network is shown in its place.
"""

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from cnn_jax import ops, trained
from cnn_jax.data import datasets as registered
from cnn_jax.data import pipeline
from cnn_jax.errors import UsageError
from cnn_jax.playground.datasets import Embedded
from cnn_jax.programs import layer_table
from cnn_jax.trained import Trained

TOLERANCE = 1e-4  # of the logits
MOST_MACS, MOST_PARAMETERS, MOST_LAYERS = 2e7, 1e6, 40  # as in browser/src/network.js
MOST_EXAMPLES = {"train": 2000, "test": 500}
CHECKED = 8  # test images that the page compares its logits on

_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}
_EPSILON = 1e-5  # of the page's batch norms


class Layer(NamedTuple):
    """One of the page's layers: its text, and its weights by the page's names, in our layout."""

    text: str
    weights: Mapping[str, Array]


def embed(network: Trained, title: str) -> tuple[Embedded, dict[str, Any]]:
    """Return the data that a run was trained on and its network, as the page opens with them.

    Args:
      title: by which the page calls the network.

    Raises:
      UsageError: no run, or a network or data that the page cannot hold.
    """
    if network.config is None:
        raise UsageError("the page opens with a run of yours; give its --workdir")
    data = _data(network)
    return data, packed(network, data, title)


def packed(network: Trained, data: Embedded, title: str) -> dict[str, Any]:
    """Return the network as the page's JSON, with its logits of the first test images.

    Raises:
      UsageError: a network that the page cannot hold.
    """
    checked = data.images[data.train :][:CHECKED]
    layers = convert(network, checked)
    images = jnp.asarray(checked, jnp.float32) / 255
    names = [f"{i}_{layer.text.split()[0]}" for i, layer in enumerate(layers, 1)]
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for name, layer in zip(names, layers, strict=True):
        for leaf, values in layer.weights.items():
            place = stats if leaf in ("mean", "variance") else params
            if values.ndim == 4:
                values = values.transpose(3, 2, 0, 1)  # the page's kernels are [out, in, h, w]
            place.setdefault(name, {})[leaf] = _packed(values)
    return {
        "name": title,
        "data": data.name,
        "text": " | ".join(layer.text for layer in layers),
        "params": params,
        "stats": stats,
        "logits": np.asarray(trained.classifier(network)(images)).tolist(),
    }


def convert(network: Trained, images: UInt8[np.ndarray, "n h w c"]) -> list[Layer]:
    """Return the page's layers of a network, which give its logits of these images.

    Raises:
      UsageError: it is no chain of layers that the page knows, it is too large for a page, or the
        chain's logits are others.
    """
    name = network.model.name
    shapes = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    found = layer_table.analyse(network.model.apply, network.variables, shapes)
    rows = found.layers[1:]
    layers = []
    for i, row in enumerate(rows):
        before = found.layers[i].output
        layer = _layer(row, before, network.variables) if row.inputs == (i,) else None
        if layer is None:
            raise UsageError(
                f"the page cannot express {name}: its layer {row.path} ({row.operation}) is none "
                "of a chain of convolutions, poolings, batch norms, activations and dense layers"
            )
        layers.append(layer)
    if found.macs > MOST_MACS or found.parameters > MOST_PARAMETERS or len(rows) > MOST_LAYERS:
        raise UsageError(
            f"{name} has {len(rows)} layers, {found.parameters:,} parameters and {found.macs:,} "
            f"multiply-adds an image; a page trains up to {MOST_LAYERS}, {MOST_PARAMETERS:,.0f} "
            f"and {MOST_MACS:,.0f}"
        )
    pixels = jnp.asarray(images, jnp.float32) / 255
    mean, std = (jnp.asarray(each, jnp.float32) for each in (network.mean, network.std))
    logits = apply(layers, (pixels - mean) / std)
    expected = trained.classifier(network)(pixels)
    difference = float(jnp.abs(logits - expected).max()) if logits.shape == expected.shape else 1e9
    if not difference <= TOLERANCE:
        raise UsageError(
            f"the page cannot express {name}: its chain of layers gives other logits, by "
            f"{difference:.1e}"
        )
    return layers


def apply(layers: Sequence[Layer], x: Float[Array, "n h w c"]) -> Float[Array, "n classes"]:
    """Run the page's layers by our operations."""
    for text, own in layers:
        kind, *words = text.split()
        numbers = [int(word) for word in re.findall(r"\d+", text)]
        if kind == "conv":
            stride = int(words[words.index("stride") + 1]) if "stride" in words else 1
            padding = "valid" if "valid" in words else "same"
            x = ops.conv(x, own["kernel"], stride=stride, padding=padding) + own["bias"]
        elif kind == "dense":
            x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1) @ own["kernel"] + own["bias"]
        elif kind == "batch_norm":
            moments = (own["mean"], own["variance"], own["scale"], own["bias"])
            x = ops.normalize(x, *moments, _EPSILON)
        elif kind in ("max_pool", "avg_pool"):
            pool = ops.max_pool if kind == "max_pool" else ops.avg_pool
            x = pool(x, numbers[0], numbers[-1], "valid")
        elif kind == "global_avg_pool":
            x = ops.global_avg_pool(x)
        else:
            x = _ACTIVATIONS[kind](x)
    return x


def _layer(row: layer_table.Layer, before: tuple[int, ...], variables: Any) -> Layer | None:
    """The page's layer of a row of the table, None if it has none."""
    window = re.fullmatch(r"(conv|max pool|avg pool) (\d+)x(\d+)(?:/(\d+))?", row.operation)
    if window and window[2] != window[3]:
        return None
    own = {
        leaf: value
        for kind in ("params", "batch_stats")
        for leaf, value in _at(variables.get(kind, {}), row.path).items()
    }
    if window:
        size, stride = int(window[2]), int(window[4] or 1)
        if window[1] != "conv":
            step = "" if stride == size else f" stride {stride}"
            return Layer(f"{window[1].replace(' ', '_')} {size}{step}", {})
        valid = [(n - size) // stride + 1 for n in before[:2]] == list(row.output[:2])
        step = "" if stride == 1 else f" stride {stride}"
        padding = " valid" if valid and size > 1 else ""
        text = f"conv {row.output[-1]} {size}x{size}{step}{padding}"
        return _weighted(text, own, row.output[-1])
    if row.operation == "dense":
        return _weighted(f"dense {row.output[-1]}", own, row.output[-1])
    if row.operation == "batch norm" and {"scale", "bias", "mean", "var"} <= own.keys():
        leaves = ("scale", "bias", "mean", "var")
        names = ("scale", "bias", "mean", "variance")
        return Layer(
            "batch_norm", {name: own[leaf] for name, leaf in zip(names, leaves, strict=True)}
        )
    if row.operation == "global avg pool":
        return Layer("global_avg_pool", {})
    return Layer(row.operation, {}) if row.operation in _ACTIVATIONS else None


def _weighted(text: str, own: Mapping[str, Array], features: int) -> Layer | None:
    if "kernel" not in own:
        return None
    return Layer(text, {"kernel": own["kernel"], "bias": own.get("bias", jnp.zeros(features))})


def _at(tree: Any, path: str) -> Mapping[str, Array]:
    """The arrays that lie right under a path of the tree."""
    for name in path.split("/"):
        tree = tree.get(name, {}) if isinstance(tree, Mapping) else {}
    return {leaf: value for leaf, value in tree.items() if not isinstance(value, Mapping)}


def _packed(values: Array) -> dict[str, Any]:
    array = np.ascontiguousarray(values, "<f4")
    text = base64.b64encode(zlib.compress(array.tobytes(), 9)).decode("ascii")
    return {"shape": array.shape, "values": text}


def _data(network: Trained) -> Embedded:
    """The first examples of a run's data, at the size that its network was evaluated at."""
    config = network.config
    parts = {}
    place = (config.dataset, config.data_dir)
    splits = {
        "train": config.train_split or registered.training_split(*place),
        "test": config.eval_split or registered.evaluation_split(*place),
    }
    for part, split in splits.items():
        dataset = registered.load(config.dataset, split, config.data_dir)
        if config.dataset.startswith("folder:") or config.channels:
            dataset = registered.read_as(dataset, len(network.mean))
        dataset = trained.labelled(network, dataset)
        parts[part] = _first(network, dataset, MOST_EXAMPLES[part])
    images, labels = (np.concatenate(each) for each in zip(*parts.values(), strict=True))
    size = network.preprocessing.image_size
    name = re.sub(r"[^\w-]+", "_", f"{config.dataset}-{size}")
    classes = network.class_names
    train = len(parts["train"][1])
    return Embedded(name, classes, images, labels, train, network.mean, network.std)


def _first(network: Trained, dataset: registered.Dataset, count: int) -> tuple:
    """The images, uint8 [n, h, w, c], and labels of a data set's first examples."""
    images, labels = [], []
    for batch in pipeline.evaluation_batches(
        dataset, batch_size=100, preprocessing=network.preprocessing
    ):
        there = batch["weight"] > 0
        images.append(batch["image"][there])
        labels.append(batch["label"][there])
        if sum(map(len, labels)) >= count:
            break
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]
