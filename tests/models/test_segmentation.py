"""Networks that give logits to every pixel: their sizes, names and first weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import UsageError, create_model
from cnn_jax.models import fcn, segmentation, segnet, unet
from cnn_jax.models.registry import MODELS, check_task
from tests.models.tracing import drawn, parameters, shapes, variables

KEY = jax.random.key(0, impl="rbg")  # whose draws compile in a third of the time

DENSE = [name for name, entry in MODELS.items() if entry.task == "segmentation"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # torchvision, X_Weights.COCO_WITH_VOC_LABELS_V1: num_params, with the auxiliary head
        ("fcn_resnet50", 35_322_218),
        ("fcn_resnet101", 54_314_346),
        ("deeplabv3_resnet50", 42_004_074),
        ("deeplabv3_resnet101", 60_996_202),
        # github.com/milesial/Pytorch-UNet, UNet(3, 2); and its 5,888 scales and shifts less, the
        # half of them as the convolutions' biases back
        ("unet_bn", 31_037_698),
        ("unet", 31_037_698 - 5_888),
        # VGG-16's 134,260,544 without its last layer, and 21 classes' scores and bilinear kernels
        ("fcn32s_vgg16", 134_260_544 + 4097 * 21 + 64**2 * 21**2),
        ("fcn16s_vgg16", 134_260_544 + (4097 + 513) * 21 + (4**2 + 32**2) * 21**2),
        ("fcn8s_vgg16", 134_260_544 + (4097 + 513 + 257) * 21 + (2 * 4**2 + 16**2) * 21**2),
    ],
)
def test_parameters(name, expected):
    assert parameters(name) == expected


def test_segnet_s_decoder_mirrors_its_encoder():
    """Badrinarayanan et al. 2017, section 3: an encoder of 14.7 M parameters, and its mirror."""
    convolutions = 14_714_688 - 4224  # VGG-16's without biases
    mirrored = convolutions - 9 * 3 * 64  # the first becomes the head
    norms = 2 * (4224 + 4224 - 64 - 512 + 64) + 2 * 192
    found = parameters("segnet")
    assert found - convolutions - mirrored - (9 * 64 + 1) * 12 == pytest.approx(norms, abs=2000)


@pytest.mark.parametrize("name", DENSE)
def test_every_pixel_gets_logits(name):
    model = create_model(name, 5)
    size = 96
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    logits = jax.eval_shape(model.apply, variables(name, size, num_classes=5), images)
    assert logits.shape == (2, size, size, 5)
    assert model.task == "segmentation"


def test_dilation_keeps_an_eighth_of_the_size():
    outputs = shapes("fcn_resnet50", 64)
    assert [outputs[f"backbone/stage{i}_block1"][:2] for i in (1, 2, 3, 4)] == [
        (16, 16),
        (8, 8),
        (8, 8),
        (8, 8),
    ]
    assert outputs["aux1"] == outputs["head"] == (64, 64, 21)


def test_auxiliary_heads_can_be_left_out():
    assert "aux1" not in variables("fcn_resnet50", 64, aux_heads=False)["params"]


def test_enlarging_is_exact_on_a_ramp():
    ramp = jnp.arange(4.0)[None, :, None, None] * jnp.ones((1, 4, 4, 1))
    enlarged = segmentation.enlarge(ramp, 8, 8)[0, :, 3, 0]
    np.testing.assert_allclose(enlarged, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


def test_the_papers_u_net_takes_572_pixels_to_388():
    """Ronneberger et al. 2015, figure 1."""
    outputs = shapes("unet", 572, padding="valid")
    assert outputs["down1"] == (568, 568, 64)
    assert outputs["down5"] == (28, 28, 1024)
    assert outputs["up4"] == (52, 52, 512)
    assert outputs["head"] == (388, 388, 2)


def test_u_net_names_a_size_that_does_not_halve():
    with pytest.raises(UsageError, match="100x100 do not halve 4 times; take multiples of 16"):
        variables("unet", 100)


def test_bilinear_kernels_enlarge_a_ramp_exactly_but_at_the_border():
    kernel = fcn.bilinear(None, (4, 4, 3, 3), jnp.float32)
    np.testing.assert_allclose(kernel[..., 0, 0], np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16)
    assert (kernel[..., 0, 1] == 0).all()
    np.testing.assert_allclose(kernel[..., 2, 2].sum(), 4)


@pytest.mark.slow
def test_fcns_begin_with_logits_of_zero_and_bilinear_kernels():
    model = create_model("fcn8s_vgg16", 3, features=(2, 2, 2, 2, 2), neurons=4)
    made = jax.jit(lambda: model.init(KEY, jnp.zeros((1, 16, 16, 3))))()["params"]
    assert (made["score_fr"]["kernel"] == 0).all()
    np.testing.assert_array_equal(
        made["upscore8"]["kernel"], fcn.bilinear(None, (16, 16, 3, 3), jnp.float32)
    )


def test_unpooled_values_lie_where_the_maxima_were():
    model = create_model("segnet", 3, features=(2,), stage_sizes=(1,))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    store = {}

    def keep(path, x):
        store[path] = x
        return x

    model.apply(drawn(shapes), images, tap=keep)
    before, after = store["encoder1_1"], store["unpool1"]
    assert np.count_nonzero(after) <= 8
    np.testing.assert_array_equal(after[after > 0], before[after > 0])


def test_published_names():
    deeplab = MODELS["deeplabv3_resnet50"].published_name
    assert deeplab("backbone/stage3_block1/conv2/bn") == "backbone.layer3.0.bn2"
    assert deeplab("head/pyramid/dilated2/bn") == "classifier.0.convs.2.1"
    assert deeplab("aux1/logits") == "aux_classifier.4"
    assert unet.milesial_name("down1/conv2/bn") == "inc.double_conv.4"
    assert unet.milesial_name("down3/conv1") == "down2.maxpool_conv.1.double_conv.0"
    assert unet.milesial_name("up4_conv") == "up1.up"
    assert segnet.vinceecws_name("decoder1_2/bn") == "BNDe12"


def test_a_network_of_another_task_is_refused_in_one_line():
    check_task("resnet50", "classification")
    with pytest.raises(UsageError, match="unet is a segmentation network; here a classification"):
        check_task("unet", "classification")
    with pytest.raises(UsageError, match="unknown model 'unett'; did you mean 'unet'"):
        check_task("unett", "segmentation")
