"""The public face of a model: its name, its two functions, and what it says to mistakes."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnn_jax
from cnn_jax import UsageError, create_model, model_names, plugins, register_model
from cnn_jax.data.preprocessing import Preprocessing, validate
from cnn_jax.models import registry
from cnn_jax.models.entry import Entry
from cnn_jax.models.registry import MODELS
from tests.models.tracing import drawn, variables

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def small():
    """A residual network of four classes, drawn variables, and images."""
    model = create_model("resnet20", num_classes=4)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
    return model, drawn(variables("resnet20", num_classes=4)), images


def test_names_are_sorted_and_each_makes_a_model():
    names = model_names()
    assert names == sorted(names)
    assert {"lenet5", "resnet20", "resnet50", "resnet50_v1"} <= set(names)
    for name in names:
        model = create_model(name)
        assert (model.name, model.num_classes) == (name, MODELS[name].num_classes)


def test_num_classes_is_the_width_of_the_logits(small):
    model, variables, images = small
    assert jax.eval_shape(model.apply, variables, images).shape == (4, 4)
    assert variables["params"]["head"]["kernel"].shape == (64, 4)


def test_init_draws_by_the_key_and_needs_the_shape_of_the_images_alone():
    model = create_model("lenet5")
    init = jax.jit(lambda key: model.init(key, jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)))
    jax.tree.map(np.testing.assert_array_equal, init(KEY), init(jax.random.key(0)))
    kernels = [init(key)["params"]["conv1"]["kernel"] for key in (KEY, jax.random.key(1))]
    assert (kernels[0] != kernels[1]).any()
    assert jax.tree.map(jnp.shape, init(KEY)) == jax.tree.map(jnp.shape, variables("lenet5"))


def test_variables_are_plain_nested_dicts():
    made = variables("resnet20")
    assert type(made) is type(made["params"]) is type(made["params"]["head"]) is dict
    assert set(made) == {"params", "batch_stats"}


def test_apply_returns_logits_and_the_mutable_collections_when_asked(small):
    model, variables, images = small
    logits = jax.jit(model.apply)(variables, images)

    @jax.jit
    def both(variables, images):
        return (
            model.apply(variables, images, mutable="batch_stats"),
            model.apply(variables, images, train=True, mutable=["batch_stats"]),
        )

    (evaluated, kept), (_, moved) = both(variables, images)
    np.testing.assert_allclose(evaluated, logits, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, kept["batch_stats"], variables["batch_stats"])
    assert (moved["batch_stats"]["stem"]["bn"]["mean"] != 0).any()
    assert jax.tree.structure(moved) == jax.tree.structure(kept)


def test_numpy_images_are_taken_in_jax_s_default_dtype(small):
    model, variables, images = small
    logits = jax.eval_shape(
        lambda variables: model.apply(variables, np.asarray(images, "float64")), variables
    )
    assert logits.dtype == jnp.float32


def test_options_reach_the_family_s_function():
    assert variables("lenet5", filters=(2, 5))["params"]["conv2"]["kernel"].shape == (5, 5, 2, 5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5", {}, r"unknown model 'resnet5'; did you mean .*'resnet50'"),
        ("ResNet50", {}, r"unknown model 'ResNet50'; did you mean .*'resnet50'"),
        ("transformer", {}, r"unknown model 'transformer'; "),
        (
            "resnet50",
            {"zero_init": True},
            r"unknown option of resnet50 'zero_init'; did you mean 'zero_init_residual'",
        ),
        ("resnet50", {"images": 3}, r"unknown option of resnet50 'images'"),
        ("resnet50", {"num_classes": 0}, r"num_classes is 0; .* one at least"),
        ("resnet50", {"num_classes": -3}, r"num_classes is -3"),
        ("resnet50", {"num_classes": 10.5}, r"num_classes is 10.5"),
    ],
)
def test_mistakes_are_named_in_one_line(name, options, message):
    with pytest.raises(UsageError, match=message) as error:
        create_model(name, **options)
    assert "\n" not in str(error.value)


def test_an_unknown_relu_rule_is_named(small):
    model, variables, images = small
    with pytest.raises(UsageError, match="unknown ReLU rule 'guide'; did you mean 'guided'"):
        model.apply(variables, images, relu_rule="guide")


def test_num_classes_may_be_a_numpy_integer():
    assert create_model("resnet20", num_classes=np.int64(7)).num_classes == 7


def test_the_library_exports_its_public_face():
    assert {"create_model", "model_names", "Model", "UsageError"} <= set(cnn_jax.__all__)


def test_every_parameter_is_float32_under_x64_too():
    with jax.enable_x64(True):
        leaves = jax.tree.leaves(variables("resnet20") | variables("lenet5"))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", MODELS)
def test_the_preprocessing_of_published_weights_can_be_carried_out(name):
    entry = MODELS[name]
    validate(Preprocessing(entry.image_size, entry.resize, entry.interpolation))
    assert entry.resize <= 1.3 * entry.image_size
    assert len(entry.mean) == len(entry.std) == entry.channels


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # torchvision 0.29, X_Weights.IMAGENET1K_V1.transforms()
        ("resnet50", (224, 256, "bilinear")),
        ("vgg16_bn", (224, 256, "bilinear")),
        ("convnext_tiny", (224, 236, "bilinear")),
        ("convnext_small", (224, 230, "bilinear")),
        ("convnext_large", (224, 232, "bilinear")),
        ("resnext101_64x4d", (224, 232, "bilinear")),
        ("efficientnet_b0", (224, 256, "bicubic")),
        ("efficientnet_b1", (240, 256, "bicubic")),
        ("efficientnet_b3", (300, 320, "bicubic")),
        ("efficientnet_b7", (600, 600, "bicubic")),
        ("efficientnet_v2_s", (384, 384, "bilinear")),
        ("efficientnet_v2_l", (480, 480, "bicubic")),
        ("regnet_y_400mf", (224, 256, "bilinear")),
        # timm 1.0, pretrained_cfg: resize = floor(size / crop_pct)
        ("seresnet50", (224, 235, "bicubic")),
        ("senet154", (224, 256, "bicubic")),
        ("legacy_senet154", (224, 256, "bilinear")),
        ("nasnetalarge", (331, 363, "bicubic")),
        ("mobilenetv1_100", (224, 256, "bicubic")),
    ],
)
def test_the_preprocessing_is_the_one_published(name, expected):
    entry = MODELS[name]
    assert (entry.image_size, entry.resize, entry.interpolation) == expected


def test_the_channels_are_scaled_as_published():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    halves = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    scales = {name: (entry.mean, entry.std) for name, entry in MODELS.items()}
    assert scales["resnet50"] == scales["efficientnet_b0"] == imagenet
    assert scales["nasnetalarge"] == scales["efficientnet_v2_l"] == halves


# --- models from outside ------------------------------------------------------------------------


class Averages(nn.Module):
    """Logits from the images' mean colours, as a module of flax.linen."""

    num_classes: int

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.num_classes)(images.mean(axis=(1, 2)))


def averages(scope, images, num_classes, *, scale=1.0):
    return scale * Averages(num_classes, parent=scope)(images)


def not_a_model(x):
    return x


AVERAGES = Entry(averages, image_size=8, channels=1, num_classes=2)


def test_a_function_is_a_model_by_its_address(monkeypatch):
    monkeypatch.setitem(sys.modules, "outside_nets", sys.modules[__name__])
    model = create_model("outside_nets:averages", 5, scale=2.0)
    assert (model.name, model.num_classes, model.task) == (
        "outside_nets:averages",
        5,
        "classification",
    )
    images = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3))
    variables = model.init(jax.random.key(1), images)
    dense = variables["params"]["Dense_0"]
    expected = 2 * (images.mean(axis=(1, 2)) @ dense["kernel"] + dense["bias"])
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-6)
    entry = create_model("outside_nets:AVERAGES")
    assert (entry.image_size, entry.channels, entry.num_classes) == (8, 1, 2)


def test_a_model_is_registered_by_name(monkeypatch):
    monkeypatch.setattr(registry, "MODELS", dict(MODELS))
    monkeypatch.setattr(plugins, "REGISTERED", {})
    register_model("averages", averages)
    assert "averages" in model_names()
    assert create_model("averages", 3).num_classes == 3
    for name in ("averages", "resnet50"):
        with pytest.raises(UsageError, match=f"^there is a model '{name}' already"):
            register_model(name, averages)


@pytest.mark.parametrize("attribute", ["not_a_model", "MODELS"])
def test_what_is_not_written_as_a_model_is_refused(monkeypatch, attribute):
    monkeypatch.setitem(sys.modules, "outside_nets", sys.modules[__name__])
    with pytest.raises(UsageError, match=r"is not written as f\(scope, images, num_classes"):
        create_model(f"outside_nets:{attribute}")
