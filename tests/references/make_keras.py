"""Write keras.npz from Keras's MobileNetV1 and NASNet-mobile, filled by the rule of parity.py.

Keras publishes no PyTorch names: tensors are named by our paths. Its moving variance is the
biased one, ours (and PyTorch's) the unbiased; the script corrects for that. Run from the
repository's root where keras and tensorflow are installed: python -m tests.references.make_keras
"""

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from tests.references import parity

# Keras's variable -> the published leaf, and the axes that bring it there
LEAVES = {
    "kernel": ("weight", (3, 2, 0, 1)),
    "depthwise_kernel": ("weight", (2, 3, 0, 1)),
    "pointwise_kernel": ("weight", (3, 2, 0, 1)),
    "gamma": ("weight", (0,)),
    "beta": ("bias", (0,)),
    "bias": ("bias", (0,)),
    "moving_mean": ("running_mean", (0,)),
    "moving_variance": ("running_var", (0,)),
}


def mobilenet_name(layer: str, variable: str) -> str:
    """Return our module of MobileNet's layer: conv_dw_2_bn -> stage2_block1.depthwise.bn."""
    if layer == "conv_preds":
        return "head"
    norm = ".bn" if layer.endswith("_bn") else ""
    if layer.startswith("conv1"):
        return "stem" + norm
    kind, number = re.match(r"conv_(dw|pw)_(\d+)", layer).groups()
    blocks = [(stage, i) for stage, n in enumerate((1, 2, 2, 6, 2), 1) for i in range(1, n + 1)]
    stage, block = blocks[int(number) - 1]
    return f"stage{stage}_block{block}." + {"dw": "depthwise", "pw": "project"}[kind] + norm


OUTER = {"stem_conv1": "stem", "stem_bn1": "stem.bn", "predictions": "head"}
CELLS = {"stem_1": "stem_cell1", "stem_2": "stem_cell2"}
CELLS |= {"reduce_4": "reduction1", "reduce_8": "reduction2"}
# reduction cells count, too
CELLS |= {str(5 * stack + i): f"stack{stack + 1}_cell{i + 1}" for stack in (0, 1) for i in range(4)}
CELLS |= {str(9 + i): f"stack3_cell{i + 1}" for i in range(4)}
INPUTS = {"normal_conv_1": "input.conv", "reduction_conv_1": "input.conv"}
INPUTS |= {"normal_bn_1": "input.bn", "reduction_bn_1": "input.bn"}
INPUTS |= {"adjust_conv_projection": "previous.conv"}
INPUTS |= {"adjust_conv_1": "previous_reduced.path1", "adjust_conv_2": "previous_reduced.path2"}


def nasnet_name(layer: str, variable: str) -> str:
    """Return our module of NASNetMobile's layer: normal_conv_1_5 -> stack2_cell1.input.conv."""
    if layer in OUTER:
        return OUTER[layer]
    part, number = re.fullmatch(r"(.*?)_((?:stem_|reduce_)?\d+)", layer).groups()
    cell = CELLS[number]
    if part == "adjust_bn":
        halved = cell == "stem_cell2" or cell.endswith("_cell1")
        return f"{cell}.previous_reduced.bn" if halved else f"{cell}.previous.bn"
    if part in INPUTS:
        return f"{cell}.{INPUTS[part]}"
    step, norm, kind, side, block = re.fullmatch(
        r"separable_conv_(\d)(_bn)?_(normal|reduction)_(left|right)(\d)", part
    ).groups()
    if kind == "reduction" and block == "4":  # left4 names the average pool and block 5's left
        block = "5"
    leaf = "bn" if norm else variable.removesuffix("_kernel")
    return f"{cell}.block{block}_{side}.{leaf}{step}"


def tensors(model: keras.Model, module: Callable[[str, str], str]):
    """Yield (published name, variable, axes, published shape) of every variable."""
    for layer in model.layers:
        for variable in layer.weights:
            kind = variable.name
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                kind = "depthwise_kernel"
            leaf, axes = LEAVES[kind]
            if isinstance(layer, keras.layers.Dense) and kind == "kernel":
                axes = (1, 0)
            yield f"{module(layer.name, kind)}.{leaf}", layer, variable, axes


def run(model: keras.Model, module: Callable[[str, str], str], size: int) -> dict[str, np.ndarray]:
    """Return the digests of the moved statistics and the logits, as torch_parity.run does."""
    for name, _, variable, axes in tensors(model, module):
        shape = tuple(variable.shape[axis] for axis in axes)
        filled = shape[:2] if name == "head.weight" else shape
        value = parity.fill(name, filled).reshape(shape)
        variable.assign(np.transpose(value, np.argsort(axes)))
    before = {name: variable.numpy() for name, _, variable, _ in tensors(model, module)}
    x = parity.images(size)
    model(x, training=True)
    for name, layer, variable, _ in tensors(model, module):
        if name.endswith("running_var"):
            count = parity.BATCH * np.prod(layer.output.shape[1:-1])
            kept = layer.momentum * before[name]
            variable.assign(kept + (variable.numpy() - kept) * count / (count - 1))
    moved = {name: variable.numpy() for name, _, variable, _ in tensors(model, module)}
    return {"stats": parity.digest(moved), "logits": np.asarray(model(x, training=False))}


def write(rows: dict[str, tuple[Callable, Callable, int]]) -> None:
    """Write keras.npz: our name -> (Keras's constructor, names of its layers, image size)."""
    arrays = {}
    for name, (build, module, size) in rows.items():
        model = build(
            input_shape=(size, size, 3),
            weights=None,
            classes=parity.NUM_CLASSES,
            classifier_activation=None,
        )
        results = run(model, module, size)
        arrays[f"{name}/size"] = np.array(size)
        arrays |= {f"{name}/{key}": value for key, value in results.items()}
        print(name, {key: value.shape for key, value in results.items()}, results["logits"][0, :3])
    np.savez_compressed(Path(__file__).with_name("keras.npz"), **arrays)


if __name__ == "__main__":
    keras.config.set_floatx("float64")
    write(
        {
            "mobilenet_v1": (keras.applications.MobileNet, mobilenet_name, 75),
            "nasnetamobile": (keras.applications.NASNetMobile, nasnet_name, 75),
        }
    )
