"""The same numbers as the reference implementations, given the same weights.

Both sides are filled by the rule of tests/references/parity.py; what the reference then computes
is kept in tests/references/FAMILY.npz, with the script that wrote it. A training-mode forward
moves the running statistics, which are compared and then used in evaluation. `pytest -s` prints
the largest differences, relative to the largest logit and, of the statistics (one number each, see
parity.digest), to each in float64 and the largest in float32.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import Model, create_model, taps
from cnn_jax.models.registry import MODELS
from cnn_jax.models.segmentation import deeplabv3_head
from cnn_jax.weights import convert
from tests.references import parity

REFERENCES = Path(__file__).parents[1] / "references"


class Row(NamedTuple):
    file: str  # in tests/references, without .npz
    options: Mapping = MappingProxyType({})  # of create_model: what switches random depth off
    slow: bool = False  # compiles for more than some ten seconds: runs with -m slow alone
    taps: tuple[str, ...] = ()  # outputs that follow the logits in the stored ones
    every: int = 1  # of the pixels of dense logits, along each axis, one is stored
    large: bool = False  # CI's hour has no room for all of these: runs with -m large alone


CERTAIN_DEEPLABV3 = {"head": functools.partial(deeplabv3_head, dropout_rate=0.0)}
NARROW_FCN = {"features": (4, 8, 16, 32, 32), "neurons": 256}
dense = functools.partial(Row, "segmentation", every=8)

ROWS = {
    "airbench94": Row("airbench", slow=True),
    "airbench95": Row("airbench", large=True),
    "airbench96": Row("airbench", large=True),
    "resnet18": Row("resnet"),
    "resnet34": Row("resnet", large=True),
    "resnet50": Row("resnet", slow=True),
    "resnet101": Row("resnet", large=True),
    "resnet152": Row("resnet", large=True),
    "resnext50_32x4d": Row("resnext", slow=True),
    "resnext101_32x4d": Row("resnext", large=True),
    "resnext101_32x8d": Row("resnext", large=True),
    "resnext101_64x4d": Row("resnext", large=True),
    "resnext29_8x64d": Row("resnext", large=True),
    "resnext29_16x64d": Row("resnext", large=True),
    "wide_resnet50_2": Row("wide_resnet", large=True),
    "wide_resnet101_2": Row("wide_resnet", large=True),
    "wrn_16_8": Row("wide_resnet", slow=True),
    "wrn_28_10": Row("wide_resnet", large=True),
    "wrn_40_4": Row("wide_resnet", large=True),
    "preact_resnet164": Row("wide_resnet", large=True),
    "alexnet": Row("alexnet"),
    "alexnet_grouped": Row("alexnet", slow=True),
    "alexnet_torchvision": Row("alexnet", large=True),
    "zfnet": Row("alexnet", slow=True),
    "zfnet_512_1024_512": Row("alexnet", large=True),
    "densenet121": Row("densenet", slow=True),
    "densenet161": Row("densenet", large=True),
    "densenet169": Row("densenet", large=True),
    "densenet201": Row("densenet", large=True),
    "densenet264": Row("densenet", large=True),
    "densenet_40_12": Row("densenet", large=True),
    "densenet_bc_100_12": Row("densenet", large=True),
    "googlenet": Row("googlenet", {"aux_heads": True}, taps=("aux1", "aux2"), slow=True),
    "googlenet_torchvision": Row(
        "googlenet", {"aux_heads": True}, taps=("aux1", "aux2"), slow=True
    ),
    "seresnet18": Row("senet", slow=True),
    "seresnet34": Row("senet", large=True),
    "seresnet50": Row("senet", large=True),
    "seresnet101": Row("senet", large=True),
    "seresnet152": Row("senet", large=True),
    "seresnext50_32x4d": Row("senet", large=True),
    "seresnext101_32x4d": Row("senet", large=True),
    "senet154": Row("senet", {"stage_sizes": (1, 2, 1, 1)}, slow=True),
    "legacy_seresnet50": Row("senet", large=True),
    "legacy_seresnet101": Row("senet", large=True),
    "legacy_seresnet152": Row("senet", large=True),
    "legacy_seresnext50_32x4d": Row("senet", large=True),
    "legacy_seresnext101_32x4d": Row("senet", large=True),
    "legacy_senet154": Row("senet", {"stage_sizes": (1, 2, 1, 1)}, large=True),
    "vgg11": Row("vgg", large=True),
    "vgg13": Row("vgg", large=True),
    "vgg16": Row("vgg", large=True),
    "vgg19": Row("vgg", large=True),
    "vgg11_bn": Row("vgg", slow=True),
    "vgg13_bn": Row("vgg", large=True),
    "vgg16_bn": Row("vgg", large=True),
    "vgg19_bn": Row("vgg", large=True),
    "mobilenet_v1": Row("keras", large=True),
    "mobilenetv1_100": Row("mobilenet", slow=True),
    "mobilenet_v2": Row("mobilenet", slow=True),
    "mobilenetv2_050": Row("mobilenet", large=True),
    "mobilenetv2_140": Row("mobilenet", large=True),
    "mobilenet_v3_large": Row("mobilenet", large=True),
    "mobilenet_v3_small": Row("mobilenet", slow=True),
    "efficientnet_b0": Row("efficientnet", {"stochastic_depth_rate": 0.0}, slow=True),
    "efficientnet_b1": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_b2": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_b3": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_b4": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_b5": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_b6": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_b7": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "tf_efficientnet_b0": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "tf_efficientnet_b5": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "tf_efficientnet_lite0": Row("efficientnet", {"stochastic_depth_rate": 0.0}, slow=True),
    "tf_efficientnet_lite1": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "tf_efficientnet_lite2": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "tf_efficientnet_lite3": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "tf_efficientnet_lite4": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_lite0": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_v2_s": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_v2_m": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "efficientnet_v2_l": Row("efficientnet", {"stochastic_depth_rate": 0.0}, large=True),
    "nasnetamobile": Row("keras", slow=True),
    "nasnetamobile_slim": Row("nasnet", {"momentum": 0.9}, large=True),  # PyTorch's
    "nasnetalarge": Row("nasnet", {"drop_path_rate": 0.0}, large=True),
    "regnet_x_400mf": Row("regnet", large=True),
    "regnet_x_800mf": Row("regnet", large=True),
    "regnet_x_1_6gf": Row("regnet", large=True),
    "regnet_x_3_2gf": Row("regnet", large=True),
    "regnet_x_8gf": Row("regnet", large=True),
    "regnet_x_16gf": Row("regnet", large=True),
    "regnet_x_32gf": Row("regnet", large=True),
    "regnet_y_400mf": Row("regnet", slow=True),
    "regnet_y_800mf": Row("regnet", large=True),
    "regnet_y_1_6gf": Row("regnet", large=True),
    "regnet_y_3_2gf": Row("regnet", large=True),
    "regnet_y_8gf": Row("regnet", large=True),
    "regnet_y_16gf": Row("regnet", large=True),
    "regnet_y_32gf": Row("regnet", large=True),
    "regnet_y_128gf": Row("regnet", large=True),
    "convnext_tiny": Row("convnext", slow=True),
    "convnext_small": Row("convnext", large=True),
    "convnext_base": Row("convnext", large=True),
    "convnext_large": Row("convnext", large=True),
    "fcn_resnet50": dense(taps=("aux1",), large=True),
    "fcn_resnet101": dense(taps=("aux1",), large=True),
    "deeplabv3_resnet50": dense(CERTAIN_DEEPLABV3, taps=("aux1",), slow=True),
    "deeplabv3_resnet101": dense(CERTAIN_DEEPLABV3, taps=("aux1",), large=True),
    "unet_bn": dense({"features": (4, 8, 16, 32, 64)}, slow=True),
    "fcn32s_vgg16": dense(NARROW_FCN),
    "fcn16s_vgg16": dense(NARROW_FCN, large=True),
    "fcn8s_vgg16": dense(NARROW_FCN, slow=True),
    "segnet": dense({"features": (4, 8, 16, 32, 32)}, slow=True),
}


@functools.lru_cache
def reference(file: str) -> dict[str, np.ndarray]:
    with np.load(REFERENCES / f"{file}.npz") as arrays:
        return dict(arrays)


def filled_variables(name: str, model: Model, images: np.ndarray) -> dict:
    """Return float64 variables, filled by the rule under their published names."""
    template = jax.eval_shape(model.init, jax.random.key(0), images)
    # zeros that take no memory, for their shapes
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(0.0, leaf.shape), template)
    published = convert.to_published(MODELS[name], zeros)
    tensors = {key: parity.fill(key, tensor.shape) for key, tensor in published.items()}
    return convert.from_published(MODELS[name], tensors, template)


def train_once(model: Model, variables: dict, images: np.ndarray) -> dict:
    """Return the variables after a training-mode forward has moved their running statistics."""

    def forward(variables, images):
        rngs = {"dropout": jax.random.key(0)}
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)[1]

    if "batch_stats" not in variables:
        return variables
    return jax.tree.map(np.asarray, {**variables, **jax.jit(forward)(variables, images)})


def logits_of(model: Model, outputs: tuple[str, ...], every: int) -> Callable:
    """Return f(variables, images) -> the logits and these outputs, side by side."""

    def apply(variables, images):
        logits, seen = taps.activations(model.apply, variables, images, outputs)
        logits = jnp.concatenate([logits, *(seen[path] for path in outputs)], axis=-1)
        return logits[:, ::every, ::every] if logits.ndim > 2 else logits

    return jax.jit(apply)


def cast(tree, dtype: type):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def difference(ours, theirs: np.ndarray, scale: float | np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return np.max(np.abs(np.asarray(ours) - theirs) / scale)


def marks_of(row):
    return [pytest.mark.slow] * row.slow + [pytest.mark.large] * row.large


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=marks_of(row)) for name, row in ROWS.items()],
)
def test_equals_the_reference(name):
    row, entry = ROWS[name], MODELS[name]
    model = create_model(name, num_classes=parity.NUM_CLASSES, **row.options)
    stored = {
        key.removeprefix(f"{name}/"): array
        for key, array in reference(row.file).items()
        if key.startswith(f"{name}/")
    }
    images = parity.images(int(stored["size"]), model.channels)
    filled = filled_variables(name, model, images)
    with jax.enable_x64(True):
        moved = train_once(model, filled, images)
        logits = logits_of(model, row.taps, row.every)(moved, images)
    # from here on as users run it: with the reference's statistics, for rounding alone moves those
    # of a hundred layers on few pixels by more than the tolerance, in PyTorch too
    moved_float32 = train_once(model, cast(filled, np.float32), cast(images, np.float32))
    evaluate = logits_of(model, row.taps, row.every)
    logits_float32 = evaluate(cast(moved, np.float32), cast(images, np.float32))

    largest = np.max(np.abs(stored["logits"]))
    found = {
        "float64 logits": (difference(logits, stored["logits"], largest), 1e-9),
        "float32 logits": (difference(logits_float32, stored["logits"], largest), 1e-4),
    }
    if "stats" in stored:
        stats = stored["stats"]
        digest, digest_float32 = (
            parity.digest(convert.to_published(entry, variables))
            for variables in (moved, moved_float32)
        )
        found |= {
            "float64 stats": (difference(digest, stats, np.maximum(np.abs(stats), 1)), 1e-9),
            "float32 stats": (difference(digest_float32, stats, np.max(np.abs(stats))), 1e-4),
        }
    print(name, *(f"{key} {value:.1e}" for key, (value, _) in found.items()))
    assert (logits.dtype, logits_float32.dtype) == (np.float64, np.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {np.dtype(np.float64)}
    for key, (value, tolerance) in found.items():
        assert value < tolerance, key
